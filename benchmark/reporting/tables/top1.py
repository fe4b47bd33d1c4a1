"""Table: top-1 on the test set, where gaps are differences of another measure."""

from __future__ import annotations

from typing import Any

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.analysis.measures import MEASURES
from benchmark.reporting.table import Column, Table

PLACE = 35


def of_board(board: Leaderboard) -> Table:
    """Mean top-1 by teacher and arm; empty where it is the measure."""
    shown = board.rows if board.measure is MEASURES["area"] else ()
    columns = [Column("teacher", "teacher", left=True)]
    rows: list[dict[str, Any]]
    if board.long:
        columns += [Column("arm", "arm", left=True), Column("n", "n"), Column("top1", "top-1")]
        rows = [
            {"teacher": row.label, "arm": entry.arm.name, "n": entry.n, "top1": entry.top1}
            for row in shown
            for entry in row.entries
            if entry.n and not entry.note
        ]
    else:
        columns += [Column(arm, arm.replace("-", " ", 1)) for arm in board.arms]
        rows = [{"teacher": row.label} | {e.arm.name: e.note or e.top1 for e in row.entries} for row in shown]
    note = "Mean top-1 in % on the test set at the end of training. No verdict is drawn from it."
    return Table("top1", "Top-1 at the end of training", tuple(columns), tuple(rows), (note,), printed=not board.long)
