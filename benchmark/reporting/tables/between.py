"""Table: do teachers of one size differ by more than their seeds do?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import stats

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.table import Column, Table, transfer_arms

PLACE = 55


def of_board(board: Leaderboard) -> Table:
    """One-way analysis of variance of each transfer's scores by size: F, its degrees of freedom and p."""
    rows: list[dict[str, Any]] = []
    for arm in () if board.long else transfer_arms(board):
        for size in dict.fromkeys(row.size for row in board.rows):
            groups = list(_scores(board, size, arm))
            if len(groups) < 2 or np.ptp(np.concatenate(groups)) == 0:
                continue
            found = stats.f_oneway(*groups)
            within = sum(map(len, groups)) - len(groups)
            row = {"arm": arm, "size": size, "teachers": len(groups), "df": f"{len(groups) - 1}, {within}"}
            rows.append(row | {"F": float(found.statistic), "p": f"{found.pvalue:.2g}"})
    columns = [Column("arm", "arm", left=True), Column("size", "size", left=True), Column("teachers", "teachers")]
    columns += [Column("F", "F"), Column("df", "degrees of freedom"), Column("p", "p")]
    note = (
        "F of a one-way analysis of variance of scores: the variance between teachers that do not share their runs against"
        " that between seeds of one teacher. Where the protocol trains its teachers, each seed has a teacher of its own. p"
        " is for this row alone."
    )
    return Table("between", "Between teachers and between seeds", tuple(columns), tuple(rows), (note,))


def _scores(board: Leaderboard, size: str, arm: str) -> Iterator[np.ndarray[Any, Any]]:
    """The runs' scores of each row with two runs or more."""
    table = board.comparisons_of.table
    for row in board.rows:
        own = table[(table["family"] == row.families[0]) & (table["size"] == row.size)]
        entry = row.entries[board.arms.index(arm)]
        if row.size == size and entry.n > 1 and not entry.note:
            yield own.loc[own["arm"] == arm, "score"].to_numpy()
