"""Table: gaps by the teacher's seed."""

from __future__ import annotations

from statistics import stdev

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.analysis.statistics import GAP
from benchmark.reporting.table import Column, Table, transfer_arms
from benchmark.spec.arm import Arm

PLACE = 110


def of_board(board: Leaderboard) -> Table:
    """Teachers of other seeds: the gap by teacher, and how far teachers lie apart."""
    parsed = [Arm.parse(arm) for arm in transfer_arms(board)]
    seeds = sorted({arm.teacher for arm in parsed})
    rows = []
    for row in board.rows if len(seeds) > 1 else ():
        for arm in (each for each in parsed if each.teacher == 0):
            gaps = {s: board.estimate(row, arm.model_copy(update={"teacher": s}).name, GAP) for s in seeds}
            values = [gap.value for gap in gaps.values() if gap is not None]
            if len(values) < 2:
                continue
            spread = {"sd": stdev(values), "range": max(values) - min(values)}
            rows.append({"teacher": row.label, "arm": arm.name, **{f"s{s}": gap for s, gap in gaps.items()}, **spread})
    columns = [Column("teacher", "teacher", left=True), Column("arm", "arm", left=True)]
    columns += [Column(f"s{seed}", f"teacher seed {seed}") for seed in seeds]
    columns += [Column("sd", "SD over teachers"), Column("range", "range")]
    note = (
        "Gap in percentage points with its plain 95 % interval, by the seed that trained the teacher. A verdict elsewhere is"
        " conditional on the one teacher of seed 0: its intervals hold what students' seeds vary, and not this. Each arm's"
        " variance is its own, so that intervals of one row differ by that too."
    )
    return Table("teacher-seeds", "Other teachers of one family", tuple(columns), tuple(rows), (note,), printed=True)
