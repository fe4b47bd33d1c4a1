"""Table: gaps on shifted test sets."""

from __future__ import annotations

from typing import Any

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.table import Column, Table

PLACE = 120


def of_board(board: Leaderboard) -> Table:
    """Top-1 on the shifted test sets, each with the gap to the student without transfer."""
    names = [column.removeprefix("shift:") for column in board.table.columns if column.startswith("shift:")]
    columns = [Column("teacher", "teacher", left=True), Column("arm", "arm", left=True), Column("test", "test")]
    columns += [each for name in names for each in (Column(name, name.replace("_", " ")), Column(f"{name}_gap", "gap"))]
    levels = board.table.set_index(["family", "size", "arm"]) if len(board.table) else board.table
    rows = []
    for row in board.rows if names and not board.long else ():
        for entry in row.entries:
            place = (row.families[0], row.size, entry.arm.name)
            if entry.top1 is None or entry.note:
                continue
            values: dict[str, Any] = {"teacher": row.label, "arm": entry.arm.name, "test": entry.top1}
            for name in names:
                gap = board.shifted.get((*place, name))
                values |= {name: float(levels.loc[place, f"shift:{name}"]), f"{name}_gap": gap}
            rows.append(values)
    note = "Top-1 in % on each set; gap to the same student without transfer on that set, with its plain 95 % interval."
    return Table("shifted", "Shifted test sets", tuple(columns), tuple(rows), (note,))
