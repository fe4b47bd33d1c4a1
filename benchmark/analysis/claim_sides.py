"""The two sides of a claim: the runs that a protocol defines, and its results as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from benchmark.analysis.claims import Teacher
from benchmark.analysis.inert import inert
from benchmark.analysis.leaderboard import Leaderboard
from benchmark.analysis.statistics import GAP, Pool
from benchmark.spec.arm import Arm
from benchmark.spec.definitions import Definitions
from benchmark.spec.run import Cell
from benchmark.spec.study import signed_terms
from benchmark.spec.teachers import filled
from benchmark.storage.result_file import Result
from families.spec import UserError

Compared = frozenset[tuple[str | None, float]]  # keys of runs with their weights


class Runs:
    """The keys of a protocol's runs at seed 0, whether or not they have results."""

    def __init__(self, name: str, defined: Definitions) -> None:
        self.name, self.protocol, self._defined = name, defined.protocol, defined
        self._keys, self._filled = dict[tuple[Teacher, str], str | None](), dict[tuple[Teacher, str], list[str]]()

    def key(self, teacher: Teacher, arm: str) -> str | None:
        """The key of an arm's run; None where this teacher cannot have the arm."""
        if (teacher, arm) not in self._keys:
            try:
                self._keys[teacher, arm] = self._defined.key_of(Cell(self.name, *teacher, arm, 0))
            except UserError:
                self._keys[teacher, arm] = None
        return self._keys[teacher, arm]

    def weighted(self, teacher: Teacher, terms: Mapping[str, float]) -> Compared:
        """The runs of a difference with their weights; empty where they cancel."""
        weights = dict[str | None, float]()
        for arm, weight in terms.items():
            key = self.key(teacher, arm)
            weights[key] = weights.get(key, 0.0) + weight
        return frozenset((key, weight) for key, weight in weights.items() if weight)

    def filled(self, text: str, teacher: Teacher) -> list[str]:
        """A difference with each value that this teacher has for its `*`; without those between
        equal runs, and without the effect on Copy of components that are inert."""
        if (teacher, text) not in self._filled:
            every = filled(self.protocol, text, *teacher)
            self._filled[teacher, text] = [each for each in every if self._compares(each, teacher)]
        return self._filled[teacher, text]

    def _compares(self, text: str, teacher: Teacher) -> bool:
        if len(set(text.split()[::2])) < len(text.split()[::2]):  # this value makes two of its arms one
            return False
        terms = signed_terms(text)
        keys = {arm: self.key(teacher, arm) for arm in terms}
        if None in keys.values():
            return False
        for arm in map(Arm.parse, terms):
            other = arm.standard.name
            if arm.name != other and (
                keys[arm.name] == self.key(teacher, other) or (other in terms and self._inert(arm, teacher))
            ):
                return False
        return bool(self.weighted(teacher, terms))

    def _inert(self, arm: Arm, teacher: Teacher) -> bool:
        return inert(arm, *teacher, self._defined.run_of(Cell(self.name, *teacher, arm.name, 0)))


class Tables:
    """One protocol's results as one table a test set (statistics.frame), its scores in the column
    score; and the gaps that leaderboards judge."""

    def __init__(self, results: Sequence[Result], boards: Sequence[Leaderboard], table: pd.DataFrame) -> None:
        self.table = table
        kl = [fmean(result.metrics.attention_kl) if result.metrics.attention_kl else None for result in results]
        self.shifted = [column for column in self.table.columns if column.startswith("shift:")]
        by_set = {"score": self.table, "kl": self._of(pd.Series(kl, dtype=float))}
        by_set |= {column.removeprefix("shift:"): self._of(self.table[column]) for column in self.shifted}
        self.pools = {on: Pool(table) for on, table in by_set.items() if len(table)}
        self.cells = {on: self._cells(self.pools.get(on)) for on in by_set}
        self.keys: dict[Teacher, dict[str, dict[int, str]]] = {}  # of each teacher's arms by seed
        for result in results:
            cell = result.cell
            self.keys.setdefault((cell.family, cell.size), {}).setdefault(cell.arm, {})[cell.seed] = result.key
        self.made = {result.key: result.provenance.code for result in results}
        self.judged = bool(boards)
        self.gaps = {
            (family, size, arm): (gap, board.comparisons)
            for board in boards
            for (_, family, size, arm, kind), gap in board.comparisons_of.found.items()
            if kind == GAP and gap.simultaneous is not None  # without one, another leaderboard judges it
        }

    def _of(self, values: pd.Series) -> pd.DataFrame:
        table = self.table.assign(score=values.to_numpy())
        return table[table["score"].notna()]

    @staticmethod
    def _cells(pool: Pool | None) -> dict[tuple[str, ...], dict[str, Any]]:
        if pool is None:
            return {}
        return {place[1:]: cell for place, cell in zip(pool.places, pool.cells.to_dict("records"), strict=True)}

    def sets(self, metric: str) -> list[str]:
        """The test sets of a metric."""
        shifted = [column.removeprefix("shift:") for column in self.shifted]
        return {"score": ["score"], "shifted": shifted, "kl": ["kl"]}[metric]
