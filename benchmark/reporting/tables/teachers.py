"""Table: score, gap and verdict by teacher and arm."""

from __future__ import annotations

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.table import Column, Table, value_of

PLACE = 30


def of_board(board: Leaderboard) -> Table:
    """Score without transfer, gap and verdict with it; arms with variants have a row each."""
    if board.long:
        columns = [Column("teacher", "teacher", left=True), Column("arm", "arm", left=True), Column("n", "n")]
        columns += [Column("score", board.measure.word), Column("gap", "gap")]
        rows = [
            {"teacher": row.label, "arm": entry.arm.name, "n": entry.n, "score": entry.score, "gap": value_of(entry, True)}
            for row in board.rows
            for entry in row.entries
            if entry.n  # an arm with variants is not every teacher's
        ]
    else:
        columns = [Column("teacher", "teacher", left=True), *(Column(arm, arm.replace("-", " ", 1)) for arm in board.arms)]
        rows = [
            {"teacher": row.label} | {arm: value_of(entry) for arm, entry in zip(board.arms, row.entries, strict=True)}
            for row in board.rows
        ]
    return Table("teachers", "By teacher and arm", tuple(columns), tuple(rows), (board.footnote,), printed=True)
