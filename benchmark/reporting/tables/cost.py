"""Table: cost of inference."""

from __future__ import annotations

from typing import Any

import families
from benchmark.analysis.costs import forward_flops
from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.table import Column, Table
from benchmark.storage.result_file import Result

PLACE = 130


def of_board(board: Leaderboard) -> Table:
    """Cost of inference beside accuracy; Copy also runs its teacher at test time."""
    known: dict[tuple[str, str, str], Result] = {}
    for result in board.results:
        known.setdefault((result.cell.family, result.cell.size, result.cell.arm), result)
    rows = []
    for row in () if board.long else board.rows:
        values: dict[str, Any] = {"teacher": row.label}
        for arm in board.arms:
            if arm not in ("standard-none", "standard-copy", "standard-distill"):
                continue
            first = known.get((row.families[0], row.size, arm))
            if first is not None:
                values |= {f"{arm}_top1": row.entries[board.arms.index(arm)].top1, f"{arm}_mmacs": _inference(first) / 1e6}
        if {"standard-none_mmacs", "standard-copy_mmacs"} <= set(values):
            rows.append(values | {"ratio": values["standard-copy_mmacs"] / values["standard-none_mmacs"]})
    columns = [Column("teacher", "teacher", left=True)]
    for arm in ("none", "copy", "distill"):
        columns += [Column(f"standard-{arm}_top1", f"{arm}: top-1"), Column(f"standard-{arm}_mmacs", "MMACs", 1)]
    note = (
        "Million multiply-accumulate operations per image, computed for a plain ViT, not measured. Copy also runs its teacher,"
        " with registers, up to the last block that is read; the student's own queries and keys are counted though unused."
    )
    columns.append(Column("ratio", "copy / none", 2))
    return Table("cost", "Cost at inference", tuple(columns), tuple(rows), (note,))


def _inference(result: Result) -> float:
    """Multiply-accumulate operations of one image."""
    run = result.run.run
    alone = forward_flops(run.student.geometry)
    if not run.transfer.copies:
        return alone / 2
    native = families.spec(result.cell.family).components(result.cell.size).values()
    registers = sum(int(each.args.get("reg_tokens", each.args.get("num_reg_tokens", 0))) for each in native)
    return (alone + forward_flops(run.teachers_geometry, max(run.transfer.blocks) + 1, registers)) / 2
