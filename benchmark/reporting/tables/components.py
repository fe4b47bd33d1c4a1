"""Table: one native component at a time."""

from __future__ import annotations

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.analysis.statistics import CONTROL, REVERSAL, TOTAL
from benchmark.reporting.table import Column, Table
from benchmark.spec.arm import Arm

PLACE = 70


def of_board(board: Leaderboard) -> Table:
    """Effect of each choice of native components, where a study has several."""
    rows = []
    varied = any(Arm.parse(arm).changes_components for arm in board.arms)
    for row in board.rows if varied else ():
        for entry in (each for each in row.entries if each.arm.student == "matched" and each.n and not each.note):
            found = {kind: board.estimate(row, entry.arm.name, kind) for kind in (CONTROL, REVERSAL, TOTAL)}
            if any(found.values()):
                rows.append({"teacher": row.label, "arm": entry.arm.name, "n": entry.n, **found})
    columns = [Column("teacher", "teacher", left=True), Column("arm", "arm", left=True), Column("n", "n")]
    columns += [Column(kind, kind) for kind in (CONTROL, REVERSAL, TOTAL)]
    note = (
        "In percentage points with plain 95 % intervals. control: without transfer, - standard-none; reversal: gap - the standard"
        " student's gap by the same method; total: - standard-none. Where Copy bypasses all components there is no reversal."
    )
    return Table("components", "Effect of each choice of native components", tuple(columns), tuple(rows), (note,), printed=True)
