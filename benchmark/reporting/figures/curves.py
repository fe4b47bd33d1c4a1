"""Figure: learning curves."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import matplotlib.figure
import pandas as pd

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.drawing.data import run_rows
from benchmark.reporting.drawing.lines import draw_lines, in_thousands

PLACE = 70
TITLE = "Learning curves"
BOARDS = ("plain",)


def of_board(board: Leaderboard) -> list[dict[str, Any]]:
    """A row a teacher, arm and step: score on val, mean and range over the runs."""
    rows = []
    for row, arm, results in run_rows(board):
        points: dict[int, list[float]] = {}
        for point in (point for result in results for point in result.curve):
            points.setdefault(point.step, []).append(point.value)
        for step, values in sorted(points.items()):
            place = {"protocol": board.protocol, "teacher": row.label, "arm": arm, "step": step, "n": len(values)}
            rows.append(place | {"val": fmean(values), "low": min(values), "high": max(values)})
    return rows


def draw(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A panel a teacher, a line an arm: mean score on val by step, and its range over seeds."""
    steps, unit = in_thousands(data["step"])
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. Lines: mean over the runs of an arm; shades: from the lowest run to the highest."
    )
    return draw_lines(data.assign(step=steps), "step", f"{unit} of the student", caption)
