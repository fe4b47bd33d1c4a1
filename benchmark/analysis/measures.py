"""What gaps are differences of: the measures that a protocol can name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from benchmark.storage.result_file import EvaluationRecord, Result


@dataclass(frozen=True)
class Measure:
    """One number of a finished run, in percent.

    Attributes:
        word: its name in headings.
        meaning: what its mean over an arm's runs is, for notes.
        of: the number of a result.
    """

    word: str
    meaning: str
    of: Callable[[Result], float]


def _area(result: Result) -> float:
    """The mean of the learning curve's points, which are evenly spaced over the budget."""
    if isinstance(result.metrics, EvaluationRecord) or not result.curve:
        return result.metrics.top1
    return fmean(point.val_top1 for point in result.curve)


MEASURES = {
    "top1": Measure("top-1", "mean top-1 in % on the test set", lambda result: result.metrics.top1),
    "area": Measure(
        "area",
        "mean area under the learning curve: top-1 in % on val, averaged over the points of the budget"
        " (of an ensemble, which has no curve: top-1 on the test set)",
        _area,
    ),
}
