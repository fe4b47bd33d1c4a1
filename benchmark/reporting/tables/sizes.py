"""Table: verdicts across the sizes of a family."""

from __future__ import annotations

from typing import Any

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.table import Column, Table, transfer_arms

PLACE = 80


def of_board(board: Leaderboard) -> Table:
    """Families across sizes: agreement of verdicts, change of gap from first to last size."""
    columns = [Column("family", "family", left=True), Column("sizes", "sizes", left=True)]
    rows = []
    for arm in () if board.long else transfer_arms(board):
        columns += [Column(arm, arm.replace("-", " ", 1), left=True), Column(f"{arm}_change", "change")]
    for names, sizes, found in () if board.long else board.sizes:
        row: dict[str, Any] = {"family": ", ".join(names), "sizes": ", ".join(sizes)}
        for arm, (word, change) in found.items():
            row |= {arm: word, f"{arm}_change": change}
        rows.append(row)
    note = (
        "consistent: all sizes succeed, or all fail; contradicting: both occur; undecided: one is inconclusive."
        " change: gap at the last size - gap at the first, in percentage points with its plain 95 % interval."
    )
    return Table("sizes", "Families across their sizes", tuple(columns), tuple(rows), (note,))
