"""Table: families sorted in two ways, as by their architecture and by their pre-training."""

from __future__ import annotations

from typing import Any

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.analysis.statistics import family_verdict
from benchmark.reporting.table import Column, Table, Verdict, transfer_arms

PLACE = 15


def of_board(board: Leaderboard) -> Table:
    """A row for each group of the first way and each standard student's transfer, a column for each
    group of the second: the verdict of all teachers that are in both. A group's teachers count once
    each, of families that share every run too. Without rows where the study does not sort families
    in two ways."""
    if len(board.ways) != 2:
        return Table("two-way", "", (), ())
    (first, down), (second, across) = board.ways.items()
    rows = []
    for group, members in down.items():
        for arm in (each for each in transfer_arms(board) if each.startswith("standard")):
            row: dict[str, Any] = {"group": group, "arm": arm}
            for other, others in across.items():
                both = set(members) & set(others)
                entries = [each.entries[board.arms.index(arm)] for each in board.rows for name in each.families if name in both]
                word = family_verdict([entry.gap.verdict if entry.gap else None for entry in entries])
                gaps = tuple(entry.gap.value for entry in entries if entry.gap is not None)
                row[f"of {other}"] = Verdict(word, gaps) if gaps else None
            if any(row[f"of {other}"] for other in across):
                rows.append(row)
    columns = [Column("group", first, left=True), Column("arm", "arm", left=True)]
    columns += [Column(f"of {other}", f"{second}: {other}") for other in across]
    named = "; ".join(f"{group}: {', '.join(members)}" for groups in board.ways.values() for group, members in groups.items())
    note = (
        "Verdict of the teachers in both groups, with the range of their gaps in percentage points: success or failure if all"
        f" have it, mixed if both occur, else inconclusive. {named}."
    )
    return Table("two-way", f"Families by {first} and {second}", tuple(columns), tuple(rows), (note,), printed=True)
