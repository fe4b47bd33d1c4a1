"""Table: students without transfer whose attention weights have another start."""

from __future__ import annotations

from typing import Any

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.analysis.statistics import START
from benchmark.reporting.table import Column, Table

PLACE = 105


def of_board(board: Leaderboard) -> Table:
    """What a start that needs no teacher is worth."""
    rows: dict[object, dict[str, Any]] = {}
    for row in board.rows:
        for entry in (each for each in row.entries if each.arm.start != "usual" and each.n):
            cell = board.comparisons_of.cell(board.protocol, row.families[0], row.size, entry.arm.name)
            assert cell is not None
            given: dict[str, Any] = {"start": entry.arm.start, "n": entry.n, "score": entry.score}
            given |= {"difference": board.estimate(row, entry.arm.name, START)}
            known = rows.setdefault(cell["group"], {"teachers": []} | given)  # teachers of one geometry share it
            known["teachers"].append(row.label)
    columns = [
        Column("teachers", "students of", left=True),
        Column("start", "start of attention weights", left=True),
        Column("n", "n"),
    ]
    columns += [Column("score", board.measure.word), Column("difference", "- usual start")]
    note = "Students without transfer; differences in percentage points with plain 95 % intervals."
    return Table(
        "starts",
        "Starts that need no teacher",
        tuple(columns),
        tuple(each | {"teachers": ", ".join(each["teachers"])} for each in rows.values()),
        (note,),
        printed=True,
    )
