"""Rows that several figures draw."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from benchmark.analysis.leaderboard import Leaderboard, Row
from benchmark.analysis.statistics import Estimate
from benchmark.spec.arm import Arm
from benchmark.storage.result_file import Result

MANY_BUDGETS = 3  # from here on a study is drawn as curves over the budget


def kind_of(board: Leaderboard) -> Literal["budgets", "variants", "plain"]:
    """What a leaderboard varies: budgets, other variants of arms, or nothing (as where all are
    detectors)."""
    arms = [Arm.parse(name) for name in board.arms]
    if len({arm.budget for arm in arms}) >= MANY_BUDGETS:
        return "budgets"
    return "variants" if board.long and not all(arm.task for arm in arms) else "plain"


def interval_of(gap: Estimate | None) -> dict[str, Any]:
    """gap, the ends of its simultaneous interval and its verdict, as far as there are."""
    if gap is None:
        return {"gap": None, "low": None, "high": None, "verdict": ""}
    half = math.nan if gap.simultaneous is None else gap.simultaneous
    return {"gap": gap.value, "low": gap.value - half, "high": gap.value + half, "verdict": gap.verdict or ""}


def in_table(board: Leaderboard, row: Row, arm: str) -> Mapping[str, Any]:
    """A cell of the leaderboard's long table."""
    table = board.table
    chosen = (table["family"] == row.families[0]) & (table["size"] == row.size) & (table["arm"] == arm)
    found: Mapping[str, Any] = table[chosen].iloc[0]
    return found


def run_rows(board: Leaderboard) -> Iterator[tuple[Row, str, list[Result]]]:
    """Row, arm and results by seed, without matched students that are the standard one."""
    own: dict[tuple[str, str, str], list[Result]] = {}
    for result in sorted(board.results, key=lambda each: each.cell.seed):
        own.setdefault((result.cell.family, result.cell.size, result.cell.arm), []).append(result)
    for row in board.rows:
        for entry in row.entries:
            results = own.get((row.families[0], row.size, entry.arm.name), [])
            if results and not entry.note:
                yield row, entry.arm.name, results
