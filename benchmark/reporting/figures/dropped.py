"""Figure: attention mass that alignment drops."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import matplotlib.figure
import pandas as pd
from matplotlib.ticker import MaxNLocator

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.drawing.data import run_rows
from benchmark.reporting.drawing.layout import height_of, panels, wrapped
from benchmark.reporting.drawing.style import COLOURS

PLACE = 90
TITLE = "Attention on tokens that the student lacks"
BOARDS = ("plain",)


def of_board(board: Leaderboard) -> list[dict[str, Any]]:
    """Percent by block, mean over runs; arms of a teacher with equal values are one line."""
    lines: dict[tuple[str, tuple[tuple[int, float], ...]], list[str]] = {}
    for row, arm, results in run_rows(board):
        points: dict[int, list[float]] = {}
        for result in results:
            for block, mass in zip(result.run.transfer.blocks, result.metrics.dropped_mass or (), strict=False):
                points.setdefault(block, []).append(mass)
        means = tuple((block, round(100 * fmean(values), 4)) for block, values in sorted(points.items()))
        if means:
            lines.setdefault((row.label, means), []).append(arm)
    return [
        {"protocol": board.protocol, "teacher": label, "arms": ", ".join(arms), "block": block, "dropped": value}
        for (label, means), arms in lines.items()
        for block, value in means
    ]


def draw(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """One panel, a line a teacher; the legend stands at the right."""
    lines = list(data.groupby(["teacher", "arms"], sort=False))
    several = data.groupby("teacher", sort=False)["arms"].nunique().max() > 1
    names = [wrapped(f"{teacher} ({arms})" if several else str(teacher), 2.0) for (teacher, arms), _ in lines]
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. The teacher's attention to tokens that the student lacks (registers, a"
        " distillation token), mean over heads, queries, images and runs; the remaining attention is renormalised."
    )
    tall = max(2.0, sum(height_of([name]) + 0.08 for name in names))
    figure, (axes,) = panels(1, 1, [tall], caption, across="block", up="attention mass dropped (%)")
    for number, ((_, own), name) in enumerate(zip(lines, names, strict=True)):
        colour, marker = COLOURS[number % len(COLOURS)], "osD^vPX"[number % 7]
        dashes = ("-", (0, (4, 1.5)), (0, (1, 1)))[number // len(COLOURS) % 3]
        axes.plot(
            own["block"], own["dropped"], color=colour, marker=marker, linestyle=dashes, markersize=4, linewidth=1.2, label=name
        )
    axes.set_ylim(0, max(data["dropped"].max() * 1.1, 0.1))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.grid(color="0.9", linewidth=0.6)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False, handlelength=3)
    return figure
