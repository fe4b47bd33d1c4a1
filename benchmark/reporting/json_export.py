"""A leaderboard for programs."""

from __future__ import annotations

from typing import Any

from benchmark.analysis.leaderboard import Leaderboard


def as_json(board: Leaderboard) -> dict[str, Any]:
    """A leaderboard for programs."""
    rows = [
        {
            "families": list(row.families),
            "size": row.size,
            "arms": {
                name: {
                    "score": entry.score,
                    "top1": entry.top1,
                    "n": entry.n,
                    "gap": entry.gap.value if entry.gap else None,
                    "half_width": entry.gap.simultaneous if entry.gap else None,
                    "verdict": entry.gap.verdict if entry.gap else None,
                    "note": entry.note or None,
                }
                for name, entry in zip(board.arms, row.entries, strict=True)
            },
        }
        for row in board.rows
    ]
    verdicts = {family: {"teachers": count, **found} for family, count, found in board.verdicts}
    return {
        "protocol": board.protocol,
        "study": board.study,
        "title": board.title,
        "measure": board.measure.word,
        "comparisons": board.comparisons,
        "runs": board.runs,
        "rows": rows,
        "families": verdicts,
    }
