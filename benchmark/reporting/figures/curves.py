"""Figure: learning curves."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import matplotlib.style
import pandas as pd

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.figures.data import run_rows
from benchmark.reporting.figures.panels import draw_lines, even_scale, in_thousands
from benchmark.reporting.figures.style import styled


@styled
def draw_curves(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A panel a teacher, a line an arm: mean top-1 on val by step, and its range over seeds."""
    steps, unit = in_thousands(data["step"])
    data = data.assign(step=steps)
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. Lines: mean over the runs of an arm; shades: from the lowest run to the highest."
    )
    across, up = even_scale(0, data["step"].max()), even_scale(data["low"].min(), data["high"].max())
    return draw_lines(
        data, "step", (f"{unit} of the student", "top-1 on val (%)"), caption, (across[0], up[0]), (across[1], up[1])
    )


def curve_data(board: Leaderboard) -> list[dict[str, Any]]:
    rows = []
    for row, arm, results in run_rows(board):
        points: dict[int, list[float]] = {}
        for point in (point for result in results for point in result.curve):
            points.setdefault(point.step, []).append(point.val_top1)
        for step, values in sorted(points.items()):
            place = {"protocol": board.protocol, "teacher": row.label, "arm": arm, "step": step, "n": len(values)}
            rows.append(place | {"val": fmean(values), "low": min(values), "high": max(values)})
    return rows
