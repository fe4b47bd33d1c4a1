"""Scores in result files: of classification (top-1), and of detection (average precision)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import Discriminator, Field, Tag

from benchmark.spec.bounds import LARGEST
from benchmark.spec.records import Percent, Record
from benchmark.spec.run import Transfer

Finite = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST)]
On = dict[str, str | int | float | bool]
CLASSES, BOXES = TAGS = ("of classes", "of boxes")
WORDS = {"top1": "top-1", "box_ap": "box AP"}  # the number that stands for a score, by its field


class Score(Record):
    """top1 and top5 in percent, mean cross-entropy (None where there are no probabilities)."""

    top1: Percent
    top5: Percent
    loss: Finite | None

    @property
    def value(self) -> float:
        """The number that stands for it, in percent."""
        return self.top1


class SetScore(Score):
    """Scores on a set; `on`: that set by its settings."""

    on: On


class Metrics(SetScore):
    """Scores on a set; the match and the dropped mass of attention, by transferred block."""

    attention_kl: list[Finite] | None = None
    dropped_mass: list[Finite] | None = None


class Made(Record):
    """How an evaluation of a finished run (spec.evaluations) was made.

    Attributes:
        beside, transfer: what it was measured with (Evaluation's).
        date, code: when, and the digest of the code.
        data: digest of the set's images; None for embedded data.
    """

    beside: str | None = None
    transfer: Transfer | None = None
    date: str
    code: str
    data: str | None = None


class EvaluationRecord(Metrics, Made):
    """An evaluation of a finished run; `shift`: of an ensemble, scores on the shifted sets."""

    shift: dict[str, SetScore] = {}


class BoxScore(Record):
    """COCO's average precision of boxes and masks in percent: over IoU .5 to .95, at .5, at .75, and
    of small, medium and large objects (None where a set has none)."""

    box_ap: Percent
    box_ap50: Percent
    box_ap75: Percent
    box_ap_small: Percent | None
    box_ap_medium: Percent | None
    box_ap_large: Percent | None
    mask_ap: Percent
    mask_ap50: Percent
    mask_ap75: Percent
    mask_ap_small: Percent | None
    mask_ap_medium: Percent | None
    mask_ap_large: Percent | None

    @property
    def value(self) -> float:
        """The number that stands for it, in percent."""
        return self.box_ap


class BoxMetrics(BoxScore):
    """Scores on a set; `on`: that set by its settings. Attention is not compared."""

    on: On

    @property
    def attention_kl(self) -> None:
        """None."""

    @property
    def dropped_mass(self) -> None:
        """None."""


class BoxEvaluationRecord(BoxMetrics, Made):
    """An evaluation of a finished detector."""

    @property
    def shift(self) -> dict[str, SetScore]:
        """No scores on shifted sets."""
        return {}


class Point(Record):
    """A point of a learning curve: mean training loss since the last point, and top-1 on val in
    percent."""

    step: Annotated[int, Field(ge=0)]
    loss: Finite
    val_top1: Percent

    @property
    def value(self) -> float:
        """The score on val, in percent."""
        return self.val_top1


class BoxPoint(Record):
    """The same of a detector, with its box AP on val in percent."""

    step: Annotated[int, Field(ge=0)]
    loss: Finite
    val_box_ap: Percent

    @property
    def value(self) -> float:
        """The score on val, in percent."""
        return self.val_box_ap


def _kind(content: Any) -> str:
    names = content if isinstance(content, Mapping) else getattr(type(content), "model_fields", {})
    return BOXES if "box_ap" in names or "val_box_ap" in names else CLASSES


_EITHER = Discriminator(_kind)
AnySetScore: TypeAlias = Annotated[Annotated[SetScore, Tag(CLASSES)] | Annotated[BoxMetrics, Tag(BOXES)], _EITHER]
AnyMetrics: TypeAlias = Annotated[Annotated[Metrics, Tag(CLASSES)] | Annotated[BoxMetrics, Tag(BOXES)], _EITHER]
AnyEvaluation: TypeAlias = Annotated[
    Annotated[EvaluationRecord, Tag(CLASSES)] | Annotated[BoxEvaluationRecord, Tag(BOXES)], _EITHER
]
AnyPoint: TypeAlias = Annotated[Annotated[Point, Tag(CLASSES)] | Annotated[BoxPoint, Tag(BOXES)], _EITHER]


def field_of(score: Mapping[str, Any]) -> str:
    """The field of a score, as a record's content, that stands for it."""
    return next(name for name in WORDS if name in score)


def told(score: Mapping[str, Any], digits: int = 2) -> str:
    """A score in words, as in `top-1 81.20`."""
    name = field_of(score)
    return f"{WORDS[name]} {score[name]:.{digits}f}"
