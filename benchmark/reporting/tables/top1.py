"""Table: top-1 on the test set, where gaps are differences of another measure."""

from __future__ import annotations

from typing import Any

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.analysis.measures import MEASURES
from benchmark.reporting.table import Column, Table

PLACE = 35


def of_board(board: Leaderboard) -> Table:
    """Mean top-1 by teacher and arm; empty where it is the measure."""
    other = board.measure is not MEASURES["top1"]
    rows: list[dict[str, Any]] = [
        {"teacher": row.label, "arm": entry.arm.name, "n": entry.n, "top1": entry.top1}
        for row in (board.rows if other else ())
        for entry in row.entries
        if entry.n and not entry.note
    ]
    columns = [
        Column("teacher", "teacher", left=True),
        Column("arm", "arm", left=True),
        Column("n", "n"),
        Column("top1", "top-1"),
    ]
    if not board.long:
        rows = [
            {"teacher": row.label} | {entry.arm.name: entry.note or entry.top1 for entry in row.entries}
            for row in (board.rows if other else ())
        ]
        columns = [Column("teacher", "teacher", left=True), *(Column(arm, arm.replace("-", " ", 1)) for arm in board.arms)]
    note = "Mean top-1 in % on the test set at the end of training. No verdict is drawn from it."
    return Table("top1", "Top-1 at the end of training", tuple(columns), tuple(rows), (note,), printed=not board.long)
