"""Table: verdicts by family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from benchmark.analysis.leaderboard import SAME, Leaderboard, Row, by_family
from benchmark.reporting.table import Column, Table, Verdict, transfer_arms

PLACE = 10


def of_board(board: Leaderboard) -> Table:
    """Verdicts by family, largest gains of standard students first; none for variants."""
    transfers = transfer_arms(board)
    rows = [] if board.long else [_family_row(board, *each, transfers) for each in by_family(board.rows)]
    ranked = sorted(rows, key=lambda row: (-_lead(row, transfers), row["family"]))
    columns = [Column("family", "family", left=True), Column("teachers", "teachers")]
    return Table(
        "leaderboard",
        "Failures and successes by family",
        (*columns, *(Column(arm, arm.replace("-", " ", 1)) for arm in transfers)),
        tuple(ranked),
        (
            "Verdict of a family's teachers by method, with the range of their gaps in percentage points: success or failure if"
            " all teachers have it, mixed if both occur, else inconclusive. Families in one row share every run; teachers: count"
            " per family.",
        ),
        printed=True,
    )


def _family_row(board: Leaderboard, names: Sequence[str], own: Sequence[Row], transfers: Sequence[str]) -> dict[str, Any]:
    verdicts = next(verdicts for family, _, verdicts in board.verdicts if family == names[0])
    row: dict[str, Any] = {"family": ", ".join(names), "teachers": len(own)}
    for arm in transfers:
        entries = [each.entries[board.arms.index(arm)] for each in own]
        gaps = tuple(entry.gap.value for entry in entries if entry.gap is not None)
        row[arm] = SAME if verdicts[arm] == SAME else Verdict(verdicts[arm], gaps)
    return row


def _lead(row: Mapping[str, Any], transfers: Sequence[str]) -> float:
    gaps = [gap for arm in transfers if isinstance(row[arm], Verdict) and arm.startswith("standard") for gap in row[arm].gaps]
    return mean(gaps) if gaps else float("-inf")
