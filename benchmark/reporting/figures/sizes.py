"""Figure: gaps across the sizes of a family."""

from __future__ import annotations

from typing import Any

import matplotlib.figure
import pandas as pd

from benchmark.analysis.leaderboard import Leaderboard, by_family
from benchmark.reporting.drawing.data import interval_of
from benchmark.reporting.drawing.forest import GAP_LABEL, draw_forest, gap_caption
from benchmark.reporting.drawing.style import VERDICTS

PLACE = 40
TITLE = "Gap by the teacher's size"
BOARDS = ("plain",)


def of_board(board: Leaderboard) -> list[dict[str, Any]]:
    """Families with several sizes; those that share all runs of all their sizes are one."""
    rows = []
    for names, own in by_family(board.rows):
        for row in own if len(own) > 1 else ():
            for entry in row.entries:
                if entry.gap is not None:
                    place = {"protocol": board.protocol, "family": ", ".join(names), "size": row.size, "arm": entry.arm.name}
                    rows.append(place | {"n": entry.n} | interval_of(entry.gap) | {"comparisons": board.comparisons})
    counts = pd.Series([(row["family"], row["arm"]) for row in rows], dtype=object).value_counts()
    return [row for row in rows if counts[(row["family"], row["arm"])] > 1]


def draw(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A panel an arm, a row a family and size; the sizes of a family are joined."""
    rows, caption = data["family"] + " " + data["size"], gap_caption(data)
    return draw_forest(data, "gap", rows, VERDICTS, GAP_LABEL, f"{caption} Lines join the sizes of a family.", joined="family")
