"""Figure: gap of each transfer by teacher."""

from __future__ import annotations

from typing import Any

import matplotlib.style
import pandas as pd

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.figures.data import interval_of
from benchmark.reporting.figures.forest import GAP_LABEL, draw_by_teacher, draw_forest, text_column, told
from benchmark.reporting.figures.style import FEW, VERDICTS, styled


@styled
def draw_gaps(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """Gaps and their simultaneous intervals, the mark by verdict: a panel an arm and a row a teacher, or where there are more
    arms than fit beside each other, a panel a teacher and a row an arm."""
    same = " = standard: the student has no native components." if (text_column(data, "note") == "= standard").any() else ""
    if data["arm"].nunique() > FEW and data["arm"].str.contains("+", regex=False).any():
        found = data.assign(label=data["arm"].str.replace("-", " ", n=1), value=data["gap"], mark=text_column(data, "verdict"))
        return draw_by_teacher(found, VERDICTS, GAP_LABEL, told(data) + same)
    return draw_forest(data, "gap", data["teacher"], VERDICTS, GAP_LABEL, told(data) + same)


def gap_data(board: Leaderboard) -> list[dict[str, Any]]:
    rows = []
    for row in board.rows:
        for entry in row.entries:
            if not entry.arm.transfers or (board.long and not entry.n):
                continue
            note = entry.note or ("" if entry.gap else "no result" if entry.top1 is None else "no baseline")
            place = {"protocol": board.protocol, "teacher": row.label, "arm": entry.arm.name, "n": entry.n}
            rows.append(place | interval_of(entry.gap) | {"note": note, "comparisons": board.comparisons})
    return rows if any(row["gap"] is not None for row in rows) else []
