"""The figures of a board."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import matplotlib.figure
import pandas as pd

from benchmark.analysis.claims import Finding
from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.figures.budgets import MANY_BUDGETS, budget_data, draw_budgets
from benchmark.reporting.figures.claims import draw_claims
from benchmark.reporting.figures.control import control_data, draw_control
from benchmark.reporting.figures.curves import curve_data, draw_curves
from benchmark.reporting.figures.dropped import draw_dropped, dropped_data
from benchmark.reporting.figures.figure import Figure, rounded_data
from benchmark.reporting.figures.gaps import draw_gaps, gap_data
from benchmark.reporting.figures.match import draw_match, match_data
from benchmark.reporting.figures.native import draw_native, native_data
from benchmark.reporting.figures.sizes import draw_sizes, size_data
from benchmark.reporting.figures.teachers import draw_teachers, teacher_data
from benchmark.spec.arm import Arm


def figures(board: Leaderboard) -> list[Figure]:
    """The figures that this board has data for.

    Over many budgets it is top-1 by budget, over several teachers' seeds the gap by seed; other studies with variants in their
    arms have gaps, and studies without variants all the others.
    """
    arms = [Arm.parse(name) for name in board.arms]
    if len({arm.budget for arm in arms}) >= MANY_BUDGETS:
        found = [_figure("budgets", "Top-1 by training budget", board, budget_data, draw_budgets)]
    elif any(arm.teacher for arm in arms):
        found = [_figure("teachers", "Gap by the teacher's seed", board, teacher_data, draw_teachers)]
    else:
        found = [_figure("gaps", "Gap of each transfer by teacher", board, gap_data, draw_gaps, png=True)]
        if not board.long:
            found += [_figure(*what[:2], board, *what[2:]) for what in _DETAILS]
    return [figure for figure in found if len(figure.data)]


def claims_figures(finding: Finding) -> list[Figure]:
    """What was measured of a study's claims: differences of top-1, and of maps' KL apart."""
    rows = [
        {"protocol": finding.protocol, "claim": number, "label": one.short, "difference": one.difference, "teacher": one.label}
        | {"on": one.on, "n": one.n, "value": one.estimate.value}
        | {"low": one.estimate.value - half, "high": one.estimate.value + half}
        | {"expect": one.expect or "", "outcome": one.outcome or "", "comparisons": one.comparisons}
        for number, judged in enumerate(finding.judged, 1)
        for one in judged.measured
        for half in [math.nan if one.estimate.simultaneous is None else one.estimate.simultaneous]
    ]
    found = []
    for name, own in (("claims", [row for row in rows if row["on"] != "kl"]), ("kl", [row for row in rows if row["on"] == "kl"])):
        told = f"What was measured of the claims, protocol {finding.protocol}: {finding.title}"
        found += [Figure(name, told, rounded_data(pd.DataFrame(own)), draw_claims)] if own else []
    return found


def _figure(
    name: str,
    description: str,
    board: Leaderboard,
    data_of: Callable[[Leaderboard], list[dict[str, Any]]],
    draw: Callable[[pd.DataFrame], matplotlib.figure.Figure],
    png: bool = False,
) -> Figure:
    data = rounded_data(pd.DataFrame(data_of(board)))
    return Figure(name, f"{description}, protocol {board.protocol}: {board.title}", data, draw, png)


_DETAILS = (
    ("sizes", "Gap by the teacher's size", size_data, draw_sizes),
    ("native", "Gap without and with native components", native_data, draw_native),
    ("control", "What native components do without transfer", control_data, draw_control),
    ("curves", "Learning curves", curve_data, draw_curves),
    ("match", "Attention's match and gap", match_data, draw_match),
    ("dropped", "Attention on tokens that the student has not", dropped_data, draw_dropped),
)
