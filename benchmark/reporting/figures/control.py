"""Figure: the control."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.style
import pandas as pd

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.figures.data import in_table
from benchmark.reporting.figures.forest import draw_forest
from benchmark.reporting.figures.style import ESTIMATES, styled


@styled
def draw_control(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A row a teacher: matched-none - standard-none with its plain interval."""
    caption = f"Protocol {data['protocol'].iloc[0]}. Bars: plain 95 % intervals, each by itself; no verdict follows from them."
    label = "matched-none - standard-none, top-1 (percentage points)"
    return draw_forest(data, "control", data["teacher"], ESTIMATES, label, caption)


def control_data(board: Leaderboard) -> list[dict[str, Any]]:
    rows = []
    for row in board.rows:
        entry = next((entry for entry in row.entries if entry.arm.name == "matched-none"), None)
        if entry is None or entry.note or entry.top1 is None:
            continue
        found = in_table(board, row, "matched-none")
        if not pd.isna(found["control"]):
            value, half = found["control"], math.nan if pd.isna(found["control_plain95"]) else found["control_plain95"]
            place = {"protocol": board.protocol, "teacher": row.label, "arm": "matched-none", "n": entry.n}
            rows.append(place | {"control": value, "low": value - half, "high": value + half})
    return rows
