"""Table: teachers fine-tuned with a part re-initialised."""

from __future__ import annotations

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.analysis.statistics import REINIT, TUNED
from benchmark.reporting.table import Column, Table

PLACE = 100


def of_board(board: Leaderboard) -> Table:
    """Cost of re-initialising a part of the teacher before fine-tuning."""
    rows = []
    for row in board.rows:
        for entry in (each for each in row.entries if each.arm.reinit != "none" and each.n):
            found = {kind: board.estimate(row, entry.arm.name, kind) for kind in (TUNED, REINIT)}
            rows.append({"teacher": row.label, "part": entry.arm.reinit, "n": entry.n, "score": entry.score, **found})
    columns = [Column("teacher", "teacher", left=True), Column("part", "re-initialised", left=True), Column("n", "n")]
    columns += [
        Column("score", board.measure.word),
        Column(TUNED, "- from scratch"),
        Column(REINIT, "- whole teacher fine-tuned"),
    ]
    note = "Teachers fine-tuned after this part was re-initialised; differences in percentage points with plain 95 % intervals."
    return Table(
        "reinit", "Fine-tuning with a part of the teacher re-initialised", tuple(columns), tuple(rows), (note,), printed=True
    )
