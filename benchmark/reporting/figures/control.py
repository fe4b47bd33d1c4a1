"""Figure: the control."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.figure
import pandas as pd

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.drawing.forest import draw_forest
from benchmark.reporting.drawing.style import ESTIMATES

PLACE = 60
TITLE = "Effect of native components without transfer"
BOARDS = ("plain",)


def of_board(board: Leaderboard) -> list[dict[str, Any]]:
    """A row a teacher: its control with the plain interval."""
    rows = []
    for row in board.rows:
        entry = next((entry for entry in row.entries if entry.arm.name == "matched-none"), None)
        control = board.native(row).get("control")
        if entry is not None and not entry.note and control is not None:
            half = math.nan if control.plain is None else control.plain
            place = {"protocol": board.protocol, "teacher": row.label, "arm": "matched-none", "n": entry.n}
            rows.append(place | {"control": control.value, "low": control.value - half, "high": control.value + half})
    return rows


def draw(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A row a teacher: matched-none - standard-none with its plain interval."""
    caption = f"Protocol {data['protocol'].iloc[0]}. Bars: plain 95 % intervals, each by itself; no verdict follows from them."
    label = "matched-none - standard-none (percentage points)"
    return draw_forest(data, "control", data["teacher"], ESTIMATES, label, caption)
