"""Table: arms with variants over their teachers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmark.analysis.leaderboard import MARKS, Leaderboard
from benchmark.analysis.statistics import FAILURE, INCONCLUSIVE, SUCCESS
from benchmark.reporting.table import Column, Table, rounded, signed

PLACE = 20


def of_board(board: Leaderboard) -> Table:
    """Arms with variants over teachers: counts of verdicts, ranges of scores and gaps."""
    rows = []
    for place, arm in enumerate(board.arms if board.long else ()):
        own = [row.entries[place] for row in board.rows if row.entries[place].n and not row.entries[place].note]
        gaps = [entry.gap for entry in own if entry.gap is not None]
        if own:
            counts = {word: sum(gap.verdict == word for gap in gaps) or None for word in (SUCCESS, INCONCLUSIVE, FAILURE)}
            row = {"arm": arm, "teachers": len(own), "score": _ends([f"{rounded(e.score):.1f}" for e in _by_score(own)])}
            rows.append(row | counts | {"gaps": _ends([signed(v) for v in sorted(gap.value for gap in gaps)])})
    columns = [Column("arm", "arm", left=True), Column("teachers", "teachers"), Column("score", board.measure.word)]
    columns += [Column(word, f"{MARKS[word]} {word}") for word in (SUCCESS, INCONCLUSIVE, FAILURE)] + [Column("gaps", "gaps")]
    note = (
        "Over teachers that do not share all runs: counts of verdicts, and the ranges of the score in % and of gaps in percentage"
        " points. The reports have each teacher's numbers with their intervals."
    )
    return Table("arms", "By arm, over teachers", tuple(columns), tuple(rows), (note,))


def _by_score(entries: Sequence[Any]) -> list[Any]:
    return sorted(entries, key=lambda entry: float(entry.score))


def _ends(texts: Sequence[str]) -> str | None:
    return " to ".join(dict.fromkeys((texts[0], texts[-1]))) if texts else None
