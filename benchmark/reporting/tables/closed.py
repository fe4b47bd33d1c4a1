"""Table: the share of the gap to the fine-tuned teacher that a transfer closes."""

from __future__ import annotations

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.analysis.statistics import GAP, TUNED, share_closed
from benchmark.reporting.table import Column, Table, transfer_arms
from benchmark.spec.arm import Arm

PLACE = 90


def of_board(board: Leaderboard) -> Table:
    """Share of the gap between training from scratch and fine-tuning that a transfer closes."""
    rows = []
    for row in board.rows if any(Arm.parse(arm).method == "finetune" for arm in board.arms) else ():
        for arm in (each for each in transfer_arms(board) if Arm.parse(each).ensemble == "none"):
            kept = {name: getattr(Arm.parse(arm), name) for name in ("budget", "lr", "data", "recipe")}
            tuned = board.estimate(row, Arm(student="teacher", method="finetune", **kept).name, TUNED)
            gap = board.estimate(row, arm, GAP)
            if gap is not None and tuned is not None:
                rows.append({"teacher": row.label, "arm": arm, "gap": gap, "tuned": tuned, "closed": share_closed(gap, tuned)})
    columns = [Column("teacher", "teacher", left=True), Column("arm", "arm", left=True), Column("gap", "gap")]
    columns += [Column("tuned", "fine-tuned - scratch"), Column("closed", "share closed, %")]
    note = "In percentage points with plain 95 % intervals; share closed: gap / (fine-tuned - scratch)."
    return Table("closed", "Share of the gap to fine-tuning closed", tuple(columns), tuple(rows), (note,))
