"""Figure: attention mass that alignment drops."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.figures.data import run_rows
from benchmark.reporting.figures.style import BELOW, COLOURS, WIDTH, Page, height_of, styled, wrapped


@styled
def draw_dropped(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """One panel, a line a teacher; its key stands at the right."""
    lines = list(data.groupby(["teacher", "arms"], sort=False))
    several = data.groupby("teacher", sort=False)["arms"].nunique().max() > 1
    names = [wrapped(f"{teacher} ({arms})" if several else str(teacher), 7.5, 1.9) for (teacher, arms), _ in lines]
    tall = max(2.0, sum(height_of([name], 7.5) + 0.08 for name in names))
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. Attention that the teacher pays to tokens which the student has not (registers, a"
        " distillation token), mean over heads, queries, images and runs; the rest is divided by what is left."
    )
    page = Page(0.1 + tall + BELOW, caption, [])
    axes = page.axes(0.62, 0.1, WIDTH - 0.62 - 2.6, tall)
    handles = []
    for number, ((_, own), name) in enumerate(zip(lines, names, strict=True)):
        colour, marker = COLOURS[number % len(COLOURS)], "osD^vPX"[number % 7]
        dashes = ("-", (0, (4, 1.5)), (0, (1, 1)))[number // len(COLOURS) % 3]
        style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": dashes, "markersize": 4, "linewidth": 1.2}
        axes.plot(own["block"], own["dropped"], **style)
        handles.append(Line2D([], [], label=name, **style))
    axes.set_ylim(0, max(data["dropped"].max() * 1.1, 0.1))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.grid(color="0.9", linewidth=0.6)
    axes.set(xlabel="block", ylabel="attention mass dropped (%)")
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, borderaxespad=0)
    return page.figure


def dropped_data(board: Leaderboard) -> list[dict[str, Any]]:
    """Percent by block, the mean over runs. It is the teacher's alone: arms that have the same are one line."""
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
