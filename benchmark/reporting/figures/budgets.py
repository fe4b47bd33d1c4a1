"""Figure: top-1 by training budget."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.figures.data import in_table
from benchmark.reporting.figures.panels import apart, draw_lines, even_scale, in_thousands
from benchmark.reporting.figures.style import styled


@styled
def draw_budgets(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A panel a teacher, a line an arm: mean top-1 on val by budget, and its range over seeds."""
    steps, unit = in_thousands(data["steps"])
    data = data.assign(steps=steps)
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. Lines: mean over the runs of an arm; bars: from the lowest run to the highest."
    )
    low, high = math.log(steps.min() / 1.15), math.log(steps.max() * 1.15)
    up = even_scale(data["low"].min(), data["high"].max())
    ticks = apart(sorted(set(steps)), (high - low) / (5 if data["teacher"].nunique() > 2 else 10))
    labels = (f"{unit} of the student (logarithmic)", "top-1 on val (%)")
    return draw_lines(
        data, "steps", labels, caption, (lambda values: (np.log(values) - low) / (high - low), up[0]), (ticks, up[1]), True
    )


MANY_BUDGETS = 3  # from here on a study is drawn as curves over the budget


def budget_data(board: Leaderboard) -> list[dict[str, Any]]:
    rows = []
    for row in board.rows:
        for entry in row.entries:
            if entry.top1 is None or entry.note:
                continue
            found = in_table(board, row, entry.arm.name)
            line = entry.arm.model_copy(update={"budget": 1.0}).name
            place = {"protocol": board.protocol, "teacher": row.label, "arm": line, "steps": int(found["steps"]), "n": entry.n}
            rows.append(place | {"val": found["val"], "low": found["val_min"], "high": found["val_max"]})
    return rows
