"""Figure: gap of each transfer by teacher."""

from __future__ import annotations

from typing import Any

import matplotlib.figure
import pandas as pd

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.drawing.data import interval_of
from benchmark.reporting.drawing.forest import FEW, GAP_LABEL, draw_by_teacher, draw_forest, gap_caption, text_column
from benchmark.reporting.drawing.style import VERDICTS

PLACE = 30
TITLE = "Gap of each transfer by teacher"
PNG = True
BOARDS = ("plain", "variants")


def of_board(board: Leaderboard) -> list[dict[str, Any]]:
    """A row a teacher and transfer arm; none where no arm has a gap."""
    rows = []
    for row in board.rows:
        for entry in row.entries:
            if not entry.arm.transfers or (board.long and not entry.n):
                continue
            note = entry.note or ("" if entry.gap else "no result" if entry.score is None else "no baseline")
            place = {"protocol": board.protocol, "teacher": row.label, "arm": entry.arm.name, "n": entry.n}
            rows.append(place | interval_of(entry.gap) | {"note": note, "comparisons": board.comparisons})
    return rows if any(row["gap"] is not None for row in rows) else []


def draw(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """Gaps with their simultaneous intervals, the mark by verdict: a panel an arm and a row a
    teacher, or, of more arms than fit beside each other, a panel a teacher and a row an arm."""
    same = " = standard: the student has no native components." if (text_column(data, "note") == "= standard").any() else ""
    if data["arm"].nunique() > FEW and data["arm"].str.contains("+", regex=False).any():
        found = data.assign(label=data["arm"].str.replace("-", " ", n=1), value=data["gap"], mark=text_column(data, "verdict"))
        return draw_by_teacher(found, VERDICTS, GAP_LABEL, gap_caption(data) + same)
    return draw_forest(data, "gap", data["teacher"], VERDICTS, GAP_LABEL, gap_caption(data) + same)
