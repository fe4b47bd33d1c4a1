"""Figure: gap by the teacher's seed."""

from __future__ import annotations

from typing import Any

import matplotlib.style
import pandas as pd

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.figures.forest import GAP_LABEL, draw_forest, told
from benchmark.reporting.figures.gaps import gap_data
from benchmark.reporting.figures.style import VERDICTS, styled
from benchmark.spec.arm import Arm


@styled
def draw_teachers(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """The same with a row a teacher and seed."""
    rows = data["teacher"] + ", seed " + data["seed"].astype(str)
    return draw_forest(data, "gap", rows, VERDICTS, GAP_LABEL, told(data) + " Rows: teachers trained from different seeds.")


def teacher_data(board: Leaderboard) -> list[dict[str, Any]]:
    rows = []
    for row in gap_data(board):
        arm = Arm.parse(row["arm"])
        rows.append(row | {"arm": arm.model_copy(update={"teacher": 0}).name, "seed": arm.teacher})
    measured = {(row["teacher"], row["seed"]) for row in rows if row["note"] != "no result"}
    rows = [row for row in rows if (row["teacher"], row["seed"]) in measured]
    places = {label: number for number, label in enumerate(dict.fromkeys(row["teacher"] for row in rows))}
    return sorted(rows, key=lambda row: (places[row["teacher"]], row["seed"]))
