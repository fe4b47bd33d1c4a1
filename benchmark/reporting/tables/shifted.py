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
    counts = _counts(board)
    levels = board.table.set_index(["family", "size", "arm"]) if len(board.table) else board.table
    rows, partly = [], set[str]()
    for row in board.rows if names and not board.long else ():
        for entry in row.entries:
            place = (row.families[0], row.size, entry.arm.name)
            if entry.score is None or entry.note:
                continue
            values: dict[str, Any] = {"teacher": row.label, "arm": entry.arm.name, "test": entry.top1}
            for name in (each for each in names if counts.get((*place, each))):
                gap = board.shifted.get((*place, name))
                level, n = float(levels.loc[place, f"shift:{name}"]), counts[*place, name]
                values |= {name: level, f"{name}_gap": gap, f"{name}_n": n}
                partly |= {name} if n < entry.n else set()
            rows.append(values)
    for name in partly:  # some runs were not measured on it
        at = next(number for number, column in enumerate(columns) if column.key == name)
        columns.insert(at + 1, Column(f"{name}_n", "n"))
    note = "Top-1 in % on each set; gap to the same student without transfer on that set, with its plain 95 % interval."
    return Table("shifted", "Shifted test sets", tuple(columns), tuple(rows), (note,))


def _counts(board: Leaderboard) -> dict[tuple[str, str, str, str], int]:
    """Distinct runs by (family, size, arm, set)."""
    keys: dict[tuple[str, str, str, str], set[str]] = {}
    for result in board.results:
        cell = result.cell
        for name in result.shifted:
            keys.setdefault((cell.family, cell.size, cell.arm, name), set()).add(result.key)
    return {place: len(found) for place, found in keys.items()}
