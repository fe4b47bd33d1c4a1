"""Table: students without transfer whose attention weights have another start."""

from __future__ import annotations

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.analysis.statistics import START
from benchmark.reporting.table import Column, Table

PLACE = 105


def of_board(board: Leaderboard) -> Table:
    """What a start that needs no teacher is worth."""
    rows = [
        {"teacher": row.label, "start": entry.arm.start, "n": entry.n, "score": entry.score}
        | {"difference": board.estimate(row, entry.arm.name, START)}
        for row in board.rows
        for entry in row.entries
        if entry.arm.start != "usual" and entry.n
    ]
    columns = [
        Column("teacher", "students of", left=True),
        Column("start", "start of attention weights", left=True),
        Column("n", "n"),
    ]
    columns += [Column("score", board.measure.word), Column("difference", "- usual start")]
    note = "Students without transfer; differences in percentage points with plain 95 % intervals."
    return Table("starts", "Starts that need no teacher", tuple(columns), tuple(rows), (note,), printed=True)
