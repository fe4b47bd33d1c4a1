"""Where learning curves go beside the log: one file a tracker, which assigns TRACKER; its name is a
value of --tracker. Each reads its own environment variables, such as WANDB_MODE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from families.spec import UnknownName, UserError

PROJECT = "attention-transfer-bench"


@dataclass(frozen=True)
class Tracked:
    """A run as trackers see it.

    Attributes:
        name, group: of its first cell, as deit3/base/standard-copy-s0, and of its protocol.
        key: the run's, equal after a resumption.
        settings: all that can change its weights, by dotted name.
        folder: the run's in the work folder.
    """

    name: str
    group: str
    key: str
    settings: Mapping[str, Any]
    folder: Path


class Tracker(Protocol):
    """One run at a tracker, made with a Tracked. Several are open in one process, since runs train
    together."""

    PACKAGE: str  # what has to be installed

    def __init__(self, run: Tracked) -> None: ...

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send numbers of a step."""

    def close(self, summary: Mapping[str, float]) -> None:
        """End it, with scores on test; empty if the run is given back or has failed."""


def names() -> list[str]:
    """The trackers."""
    files = [path for folder in __path__ for path in Path(folder).glob("*.py")]
    return sorted(path.stem for path in files if "\nTRACKER = " in path.read_text("utf-8"))


def load(name: str) -> type[Tracker]:
    """The tracker of that name. Raises UnknownName; UserError if it is not installed."""
    if name not in names():
        raise UnknownName("tracker", name, names())
    tracker: type[Tracker] = import_module(f"{__name__}.{name}").TRACKER
    if find_spec(tracker.PACKAGE) is None:
        raise UserError(f"--tracker {name}: it is not installed; pip install {tracker.PACKAGE}")
    return tracker
