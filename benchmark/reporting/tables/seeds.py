"""Table: gaps by the teacher's seed."""

from __future__ import annotations

from statistics import stdev

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.analysis.statistics import GAP
from benchmark.reporting.table import Column, Table, transfer_arms
from benchmark.spec.arm import Arm

PLACE = 110


def of_board(board: Leaderboard) -> Table:
    """Gap by the seed of the teacher, and its spread over teachers."""
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
        "Gap in percentage points with its plain 95 % interval, by the seed that trained the teacher. Verdicts elsewhere are"
        " conditional on the teacher of seed 0: their intervals cover the variation between student seeds, not between teachers."
        " Intervals of one row differ, since cells have variances of their own."
    )
    return Table("teacher-seeds", "Teachers of one family from other seeds", tuple(columns), tuple(rows), (note,), printed=True)
