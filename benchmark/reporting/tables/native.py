"""Table: effect of native components."""

from __future__ import annotations

from typing import Any

import families
from benchmark.analysis.leaderboard import SAME, Leaderboard
from benchmark.reporting.table import Column, Table

PLACE = 60
NATIVE = ("control", "reversal_copy", "reversal_distill", "total_copy", "total_distill")
NATIVE_MEANS = (
    "In percentage points with plain 95 % intervals. control: matched-none - standard-none;"
    " reversal: gap(matched) - gap(standard); total: matched arm - standard-none. † inert under Copy: Copy bypasses it in"
    " copied blocks, so Copy shows nothing of it. A family without native components has no matched student of its own."
)


def of_board(board: Leaderboard) -> Table:
    """Control, reversal and total by teacher, where a study compares matched students."""
    rows: list[dict[str, Any]] = []
    matched = {"matched-none", "matched-copy", "matched-distill"} & set(board.arms)
    for row in board.rows if matched and not board.long else ():
        spec = families.spec(row.families[0])
        names = ", ".join(component.name + "†" * (component.name in row.inert) for component in spec.native)
        found = board.native(row)
        inert = bool(spec.native) and all(component.name in row.inert for component in spec.native)
        if not spec.native:
            rows.append({"teacher": row.label, "components": "none"} | dict.fromkeys(NATIVE, SAME))
        elif found:
            known = found | ({"reversal_copy": "inert under Copy"} if inert else {})
            rows.append({"teacher": row.label, "components": names} | known)
    columns = [Column("teacher", "teacher", left=True), Column("components", "native components", left=True)]
    columns += [Column(key, key.replace("_", " ")) for key in NATIVE]
    return Table("native", "Effect of native components", tuple(columns), tuple(rows), (NATIVE_MEANS,), printed=True)
