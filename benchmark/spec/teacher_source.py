"""The source of a run's teacher: a union of small records.

Null fields are not stored. The fields that are there tell which record it is.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from benchmark.spec.records import Record

LAYER_SCALE = "layer_scale"  # the component that can be folded into a teacher's weights


class Source(Record):
    """What the records have in common."""

    @model_serializer(mode="wrap")
    def _without_nulls(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}

    @property
    def run_key(self) -> str | None:
        """The key of the run whose weights are needed; None for another source."""
        return getattr(self, "run", None)

    @property
    def digest(self) -> str:
        """The first 16 hex digits of the sha256 of the record."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @property
    def pinned(self) -> dict[str, str]:
        """The name of the pre-trained file and what pins it: `weights`, `revision`, `sha256`; empty
        without one."""
        return {}

    @property
    def is_folded(self) -> bool:
        """Whether LayerScale is folded into the teacher's weights."""
        return getattr(self, "folded", None) is not None


class Trained(Source):
    """A teacher that run `run` pre-trained or fine-tuned."""

    run: str
    folded: Literal["layer_scale"] | None = None


class Pretrained(Source):
    """A teacher that was pre-trained elsewhere, fine-tuned by run `run` if there is one.

    Attributes:
        weights: timm's name, or the URL of the authors' file.
        revision, sha256: of that file, where it is pinned.
        positions: the rule that resamples its position tables; None at its own input size.
    """

    weights: str
    revision: str | None = None
    sha256: str | None = None
    positions: str | None = None
    run: str | None = None
    folded: Literal["layer_scale"] | None = None

    @property
    def pinned(self) -> dict[str, str]:
        """The name of the pre-trained file and what pins it: `weights`, `revision`, `sha256`."""
        kept = {name: getattr(self, name) for name in ("weights", "revision", "sha256")}
        return {name: value for name, value in kept.items() if value is not None}


class Untrained(Source):
    """The teacher's architecture with random weights.

    Attributes:
        untrained: digest of the architecture.
        seed: of the weights.
    """

    untrained: str
    seed: str


TeacherSource = Trained | Pretrained | Untrained
