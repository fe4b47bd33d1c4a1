"""Table: do teachers of one size differ by more than their seeds do?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import special

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.analysis.statistics import Floats
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
            f, between, within = f_of(groups)
            row = {"arm": arm, "size": size, "teachers": len(groups), "df": f"{between}, {within}"}
            rows.append(row | {"F": f, "p": f"{special.fdtrc(between, within, f):.2g}"})
    columns = [Column("arm", "arm", left=True), Column("size", "size", left=True), Column("teachers", "teachers")]
    columns += [Column("F", "F"), Column("df", "degrees of freedom"), Column("p", "p")]
    note = (
        "F of a one-way analysis of variance of scores: the variance between teachers that do not share their runs against"
        " that between seeds of one teacher. Where the protocol trains its teachers, each seed has a teacher of its own. p"
        " is for this row alone."
    )
    return Table("between", "Between teachers and between seeds", tuple(columns), tuple(rows), (note,))


def f_of(groups: Sequence[Floats]) -> tuple[float, int, int]:
    """F of a one-way analysis of variance, and its degrees of freedom between and within groups of
    scores, [runs] each; infinite if no group has any spread (Fisher, Statistical Methods for
    Research Workers, 1925, section 40)."""
    means, sizes = np.array([group.mean() for group in groups]), np.array([len(group) for group in groups])
    between, within = len(groups) - 1, int(sizes.sum()) - len(groups)
    spread = float(sizes @ (means - np.concatenate(groups).mean()) ** 2) / between
    noise = sum(((group - group.mean()) ** 2).sum() for group in groups if np.ptp(group)) / within
    return spread / float(noise) if noise else math.inf, between, within


def _scores(board: Leaderboard, size: str, arm: str) -> Iterator[Floats]:
    """The runs' scores of each row with two runs or more."""
    table = board.comparisons_of.table
    own = table[(table["size"] == size) & (table["arm"] == arm)]
    scores = {family: each.to_numpy() for family, each in own.groupby("family", sort=False)["score"]}
    for row in board.rows:
        entry = row.entries[board.arms.index(arm)]
        if row.size == size and entry.n > 1 and not entry.note:
            yield scores[row.families[0]]
