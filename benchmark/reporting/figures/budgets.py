"""Figure: top-1 by training budget."""

from __future__ import annotations

from typing import Any

import matplotlib.figure
import pandas as pd

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.drawing.data import in_table
from benchmark.reporting.drawing.lines import draw_lines, in_thousands

PLACE = 10
TITLE = "Top-1 by training budget"
BOARDS = ("budgets",)


def of_board(board: Leaderboard) -> list[dict[str, Any]]:
    """A row a teacher, arm and budget: top-1 on val, mean and range over the runs."""
    rows = []
    for row in board.rows:
        for entry in row.entries:
            if entry.score is None or entry.note:
                continue
            found = in_table(board, row, entry.arm.name)
            line = entry.arm.model_copy(update={"budget": 1.0}).name
            place = {"protocol": board.protocol, "teacher": row.label, "arm": line, "steps": int(found["steps"]), "n": entry.n}
            rows.append(place | {"val": found["val"], "low": found["val_min"], "high": found["val_max"]})
    return rows


def draw(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A panel a teacher, a line an arm: mean top-1 on val by budget, and its range over seeds."""
    steps, unit = in_thousands(data["steps"])
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. Lines: mean over the runs of an arm; bars: from the lowest run to the highest."
    )
    return draw_lines(data.assign(steps=steps), "steps", f"{unit} of the student (logarithmic)", caption, budgets=True)
