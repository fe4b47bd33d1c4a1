"""Figure: gap by the teacher's seed."""

from __future__ import annotations

from typing import Any

import matplotlib.figure
import pandas as pd

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.drawing.forest import GAP_LABEL, draw_forest, gap_caption
from benchmark.reporting.drawing.style import VERDICTS
from benchmark.reporting.figures import gaps
from benchmark.spec.arm import Arm

PLACE = 20
TITLE = "Gap by the teacher's seed"
BOARDS = ("teachers",)


def of_board(board: Leaderboard) -> list[dict[str, Any]]:
    """The rows of the gaps with a column `seed`; none of teachers and seeds without results."""
    rows = []
    for row in gaps.of_board(board):
        arm = Arm.parse(row["arm"])
        rows.append(row | {"arm": arm.model_copy(update={"teacher": 0}).name, "seed": arm.teacher})
    measured = {(row["teacher"], row["seed"]) for row in rows if row["note"] != "no result"}
    rows = [row for row in rows if (row["teacher"], row["seed"]) in measured]
    places = {label: number for number, label in enumerate(dict.fromkeys(row["teacher"] for row in rows))}
    return sorted(rows, key=lambda row: (places[row["teacher"]], row["seed"]))


def draw(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A panel an arm, a row a teacher and seed."""
    rows, caption = data["teacher"] + ", seed " + data["seed"].astype(str), gap_caption(data)
    return draw_forest(data, "gap", rows, VERDICTS, GAP_LABEL, f"{caption} Rows: teachers trained from different seeds.")
