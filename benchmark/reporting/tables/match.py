"""Table: divergence of students' attention from the teacher's."""

from __future__ import annotations

from statistics import mean

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.table import Column, Table
from benchmark.spec.arm import Arm

PLACE = 50


def of_board(board: Leaderboard) -> Table:
    """KL of students' maps from their teacher's by block, beside references."""
    arms = [arm for arm in board.arms if any(Arm.parse(each).match != "none" for each in board.arms)]
    found: dict[tuple[str, str, str, int | None], list[float]] = {}
    for result in board.results if arms else ():
        cell, divergence = result.cell, result.metrics.attention_kl
        for block, value in zip(result.run.transfer.blocks, divergence or (), strict=False):
            found.setdefault((cell.family, cell.size, cell.arm, block), []).append(value)
        if divergence:
            found.setdefault((cell.family, cell.size, cell.arm, None), []).append(mean(divergence))
    shown_arms = [arm for arm in arms if any(place[2] == arm for place in found)]
    blocks = sorted({place[3] for place in found if place[3] is not None})
    rows = []
    for row in board.rows if found else ():
        same = {entry.arm.name for entry in row.entries if entry.note}
        for at in (*blocks, None):
            values = {arm: found.get((row.families[0], row.size, arm, at)) for arm in shown_arms if arm not in same}
            means = {arm: mean(own) for arm, own in values.items() if own}
            if means:
                rows.append({"teacher": row.label, "block": "mean" if at is None else str(at), **means})
    columns = [Column("teacher", "teacher", left=True), Column("block", "block", left=True)]
    columns += [Column(arm, arm.replace("-", " ", 1), 3) for arm in shown_arms]
    note = (
        "KL of the student's map from the teacher's in nats on the test set, mean over images, heads, queries and runs."
        " match=end: finished students that never saw the teacher; match=start: students before training."
    )
    return Table("match", "Divergence of attention maps from the teacher's", tuple(columns), tuple(rows), (note,), printed=True)
