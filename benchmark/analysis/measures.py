"""What gaps are differences of: the measures that a protocol can name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmark.spec.arm import Arm
from benchmark.spec.study import Study
from benchmark.storage.result_file import Result
from benchmark.storage.scores import BoxMetrics, EvaluationRecord


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
    """The mean height of the learning curve over the budget by the trapezoidal rule; it starts at
    chance."""
    if isinstance(result.metrics, EvaluationRecord | BoxMetrics) or not result.curve:
        return result.metrics.value
    chance = 100 / result.run.protocol.data.num_classes
    steps = [0, *(point.step for point in result.curve)]
    heights = [chance, *(point.value for point in result.curve)]
    return float(np.diff(steps) @ np.add(heights[1:], heights[:-1])) / 2 / steps[-1]


MEASURES = {
    "top1": Measure("top-1", "mean top-1 in % on the test set", lambda result: result.metrics.value),
    "area": Measure(
        "area",
        "mean area under the learning curve, i.e. mean top-1 in % on val over the training, from chance at its start"
        " (of an ensemble, which has no curve: top-1 on the test set)",
        _area,
    ),
    "box_ap": Measure("box AP", "mean box AP in % on the task's test set", lambda result: result.metrics.value),
}


def measure_of(study: Study, usual: str) -> Measure:
    """The measure of a study: the protocol's, or that of detectors where all of its arms are some."""
    return MEASURES["box_ap" if all(Arm.parse(arm).task for arm in study.arms) else usual]
