"""Table: the best value of a swept variant, chosen on val."""

from __future__ import annotations

from typing import Any

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.table import Column, Table
from benchmark.spec.arm import Arm

PLACE = 40


def of_board(board: Leaderboard) -> Table:
    """For arms that differ only in the variant that a study sweeps: the best on val, against the
    baseline that is best on val."""
    swept = board.choose
    val = {(r.family, r.size, r.arm): float(r.val) for r in board.table.itertuples()} if swept else {}
    rows = []
    for row in board.rows if swept else ():
        measured = [entry for entry in row.entries if entry.n and not entry.note]
        groups: dict[Arm, list[Any]] = {}
        for entry in measured:
            groups.setdefault(entry.arm.default(str(swept)), []).append(entry)
        best = {arm: max(own, key=lambda entry: val[row.families[0], row.size, entry.arm.name]) for arm, own in groups.items()}
        for arm, entry in best.items():
            base = best.get(arm.baseline)
            gap = board.difference(row, entry.arm.name, base.arm.name) if base is not None and arm.transfers else None
            values = {"teacher": row.label, "arm": arm.name, "of": len(groups[arm])}
            values["value"] = f"x{getattr(entry.arm, str(swept)):g}"
            values |= {"val": val[row.families[0], row.size, entry.arm.name], "top1": entry.top1, "gap": gap}
            rows.append(values)
    columns = [Column("teacher", "teacher", left=True), Column("arm", "arm", left=True), Column("of", "tried")]
    columns += [
        Column("value", f"best {swept}"),
        Column("val", "val top-1"),
        Column("top1", "test top-1"),
        Column("gap", "gap"),
    ]
    note = (
        f"For each arm the {swept} that is best on val, as a factor on the usual one, with its top-1 on the test set. gap (of"
        f" {board.measure.word}): to the same student without transfer, at its own best {swept} where that was swept too, in"
        " percentage points with its plain 95 % interval."
    )
    return Table("chosen", f"The best {swept} of each arm, chosen on val", tuple(columns), tuple(rows), (note,), printed=True)
