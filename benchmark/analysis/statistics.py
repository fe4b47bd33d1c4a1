"""The rules of comparison, as pure functions of a table of results (one row a run and cell).

gap(arm) = mean score of the arm - mean score of the same student at the same budget without
transfer, in percentage points; the score is the protocol's measure (analysis/measures.py). Several
teachers share one baseline, so arms are not paired by seed: a difference of means has

    se^2 = sum over cells of weight^2 x max(s^2, S^2) / n,

s^2 the variance of a cell's n runs, S^2 the mean variance of its arm's cells (a matched student
that is the standard one is a cell of the standard arm): each cell gets the larger of its own
variance and its arm's. Intervals are two-sided Student's t with 2 (n - 1) degrees of freedom, n the
fewest runs of a cell; n - 1 where an arm has a single cell, as is safe whatever the variances are
(Hsu, Statistical Research Memoirs 2, 1938; Mickey and Brown, Annals of Mathematical Statistics 37,
1966). Plain ones are at 95 %, simultaneous ones at 95 % over m comparisons of a table (Bonferroni,
in Dunn, JASA 56, 1961). The simultaneous one is shown and decides.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from benchmark.analysis.measures import MEASURES
from benchmark.spec.arm import Arm
from benchmark.storage.result_file import Result

LEVEL = 0.95
SUCCESS, FAILURE, INCONCLUSIVE, MIXED = "success", "failure", "inconclusive", "mixed"
KEYS = ["protocol", "family", "size", "arm"]
KINDS = GAP, TOTAL, CONTROL, REVERSAL, TUNED, REINIT, START = "gap", "total", "control", "reversal", "tuned", "reinit", "start"
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A difference of means in percentage points, with its standard error, degrees of freedom and
    half-widths (plain, simultaneous); these are None where a cell has one run only."""

    value: float
    se: float | None = None
    df: float | None = None
    plain: float | None = None
    simultaneous: float | None = None

    @property
    def verdict(self) -> str | None:
        """Success above 0, failure below, else inconclusive; None without simultaneous interval."""
        if self.simultaneous is None:
            return None
        if self.value - self.simultaneous > 0:
            return SUCCESS
        return FAILURE if self.value + self.simultaneous < 0 else INCONCLUSIVE


def frame(results: Iterable[Result], measure: str = "top1") -> pd.DataFrame:
    """One row a result: labels, key, `group` (one for cells that share a run, hence all), steps,
    `score` by the measure, top-1 on test (NaN of a detector), score on val and shifted sets.

    The results are current ones: those of one cell differ in their seed alone.
    """
    rows, groups, known = [], dict[tuple[str, ...], str](), dict[str, str]()
    for result in results:
        cell = result.cell
        place = (cell.protocol, cell.family, cell.size, cell.arm)
        group = groups.setdefault(place, known.get(result.key, result.key))
        known.setdefault(result.key, group)
        shifted = {f"shift:{name}": score.value for name, score in result.shifted.items()}
        rows.append({**dict(zip(KEYS, place, strict=True)), "seed": cell.seed, "key": result.key, "group": group})
        rows[-1] |= {"steps": result.run.protocol.recipe.steps, "score": MEASURES[measure].of(result)}
        rows[-1] |= {"top1": getattr(result.metrics, "top1", math.nan), "val": result.val_value, **shifted}
    found = pd.DataFrame(rows, columns=None if rows else [*KEYS, "seed", "key", "group", "steps", "score", "top1", "val"])
    return found.astype(dict.fromkeys((*KEYS, "key", "group"), object))  # compared row by row, faster than Arrow's strings


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """One row a cell (protocol, family, size, arm): group, steps, number of distinct runs n; mean,
    sd, lowest and highest score, mean top-1 on test, and mean, sd, lowest and highest on val."""
    cell = _codes(*(table[key] for key in KEYS))
    distinct = _first(cell, table["key"])
    table, cell = table[distinct], cell[distinct]
    found = table.loc[_first(cell), [*KEYS, "group", "steps"]].reset_index(drop=True)
    measured: dict[str, Any] = {"n": np.bincount(cell)}
    for column, names in (("score", ("mean", "sd", "low", "high")), ("val", ("val", "val_sd", "val_min", "val_max"))):
        values = table[column].to_numpy(dtype=float)
        mean, variance = _moments(cell, values)
        measured |= zip(names, (mean, np.sqrt(variance), *_range(cell, values)), strict=True)
    measured["top1"] = _moments(cell, table["top1"].to_numpy(dtype=float))[0]
    return pd.concat([found, pd.DataFrame(measured)], axis=1)


def arms_variances(table: pd.DataFrame) -> pd.DataFrame:
    """By (protocol, group): the arm whose runs they are (`home`), the mean variance `s2` of that
    arm's cells, and their number.

    Cells that share their runs count once, as the arm's with the fewest variants; a matched
    student's that are the standard one's belong to the standard arm. Cells of one run have no
    variance and do not count.
    """
    protocol, arm, key, group, score = (table[name].to_numpy() for name in ("protocol", "arm", "key", "group", "score"))
    distinct = np.flatnonzero(_first(protocol, arm, key))
    cell = _codes(protocol[distinct], arm[distinct], group[distinct])
    own = _moments(cell, score[distinct].astype(float))[1]
    first = distinct[_first(cell)]
    rank = {text: (Arm.parse(text).student == "matched", text.count("+")) for text in dict.fromkeys(arm[first])}
    order = np.array(sorted(range(len(first)), key=lambda number: rank[arm[first[number]]]), dtype=np.int64)
    order = order[_first(protocol[first[order]], group[first[order]])]
    first, own = first[order], own[order]
    home = _codes(protocol[first], arm[first])
    counts = np.bincount(home, ~np.isnan(own)).astype(np.int64)
    columns = {"protocol": protocol[first], "group": group[first], "home": arm[first]}
    return pd.DataFrame(columns | {"s2": _moments(home, own)[0][home], "cells": counts[home]})


def _moments(group: Ints, values: Floats) -> tuple[Floats, Floats]:
    """Mean and variance (over n - 1) of each group, [groups], from group numbers and values, [rows].

    Missing values are left out. A group without values has no mean, one with fewer than two no
    variance. Both take two passes, which limits rounding errors.
    """
    known = ~np.isnan(values)
    n = np.bincount(group, known)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(group, np.where(known, values, 0)) / n
        mean += np.bincount(group, np.where(known, values - mean[group], 0)) / n
        squares = np.bincount(group, np.where(known, (values - mean[group]) ** 2, 0))
        return mean, np.where(n > 1, squares / (n - 1), np.nan)


def _range(group: Ints, values: Floats) -> tuple[Floats, Floats]:
    """The lowest and highest value of each group, [groups], without missing values."""
    low, high = np.full((2, group.max(initial=-1) + 1), np.nan)
    np.fmin.at(low, group, values)
    np.fmax.at(high, group, values)
    return low, high


def _codes(*columns: Any) -> Ints:
    """A number for each row in order of appearance: one where all of these columns are equal."""
    found = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        own, values = pd.factorize(np.asarray(column))
        found = pd.factorize(found * len(values) + own)[0]
    return found


def _first(*columns: Any) -> NDArray[np.bool_]:
    """Whether a row is the first of those where all of these columns are equal."""
    first = np.zeros(len(columns[0]), dtype=bool)
    first[np.unique(_codes(*columns), return_index=True)[1]] = True
    return first


Part = tuple[Any, tuple[Any, ...], float]  # of a contrast (any id) a cell (protocol, family, size, arm) and its weight


class Pool:
    """The cells of a table and their variances, computed once for every sum of means."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.cells = cells(table)
        arms = arms_variances(table)
        s2, arm_cells = (np.append(arms[name].to_numpy(dtype=float), np.nan) for name in ("s2", "cells"))  # last: of no arm
        row = {place: number for number, place in enumerate(zip(arms["protocol"], arms["group"], strict=True))}
        of = [row.get(place, len(arms)) for place in zip(self.cells["protocol"], self.cells["group"], strict=True)]
        self.places = list(zip(*(self.cells[key] for key in KEYS), strict=True))
        self.at = {place: number for number, place in enumerate(self.places)}
        self.group = _codes(self.cells["group"])
        self.mean, self.n = self.cells["mean"].to_numpy(), self.cells["n"].to_numpy()
        self.variance = np.maximum(self.cells["sd"].to_numpy() ** 2, s2[of])  # missing for one run
        self.alone = arm_cells[of] < 2


def contrasts(pool: Pool, parts: Sequence[Part], comparisons: int | pd.Series) -> pd.DataFrame:
    """Weighted sums of cells' means, with their intervals.

    Args:
        pool: of the table with one row a run and cell.
        parts: what is summed, by contrast.
        comparisons: m of the simultaneous intervals; or that of each contrast, by its id.

    Returns a row a contrast whose cells all have results, in the order of their ids' first parts:
    value, se, df, plain, simultaneous (half-widths) and verdict, missing where Estimate's are None.
    Cells that are the same runs (matched = standard) count as one, with the sum of their weights:
    what cancels is no estimate of anything and gets no interval.
    """
    lacking = {name for name, place, _ in parts if place not in pool.at}
    known = [part for part in parts if part[0] not in lacking]
    number = {name: place for place, name in enumerate(dict.fromkeys(name for name, _, _ in known))}
    ids, count = pd.Index(list(number), tupleize_cols=False), len(number)
    of = np.array([number[name] for name, _, _ in known], dtype=np.int64)
    at = np.array([pool.at[place] for _, place, _ in known], dtype=np.int64)
    of, at, weight = _merged(of, at, np.array([weight for _, _, weight in known], dtype=float), pool)
    n = pool.n[at]
    value = np.bincount(of, weight * pool.mean[at], count).astype(float)
    fewest = np.full(count, np.nan)
    np.fmin.at(fewest, of, n)  # missing where all cancels
    se = np.sqrt(np.bincount(of, weight**2 * pool.variance[at] / n, count))  # missing where a variance is
    se[np.isnan(fewest)] = np.nan
    alone = np.bincount(of, pool.alone[at], count) > 0
    df = np.where(se > 0, (fewest - 1) * np.where(alone, 1, 2), np.nan)
    m = comparisons.reindex(ids).to_numpy() if isinstance(comparisons, pd.Series) else comparisons
    plain, simultaneous = (_half_width(se, df, each) for each in (1, m))
    found = {"value": value, "se": se, "df": df, "plain": plain, "simultaneous": simultaneous}
    return pd.DataFrame(found | {"verdict": pd.Series(_verdicts(value, simultaneous), ids, dtype=object)}, index=ids)


def _merged(of: Ints, at: Ints, weight: Floats, pool: Pool) -> tuple[Ints, Ints, Floats]:
    """Parts of one contrast that are the same runs as one, without those that cancel."""
    same = _codes(of, pool.group[at])
    first, total = _first(same), np.bincount(same, weight)
    return of[first][total != 0], at[first][total != 0], total[total != 0]


def _half_width(se: Floats, df: Floats, m: Any) -> Floats:
    quantile = special.stdtrit(df, 1 - (1 - LEVEL) / np.maximum(1, m) / 2)
    return np.where(se == 0, 0.0, quantile * se)


def _verdicts(value: Floats, half: Floats) -> NDArray[np.object_]:
    """Success above 0, failure below, else inconclusive; None without an interval."""
    found = np.full(len(value), None, dtype=object)
    for word, where in ((INCONCLUSIVE, ~np.isnan(half)), (SUCCESS, value - half > 0), (FAILURE, value + half < 0)):
        found[where] = word
    return found


def signed_arms(arm: Arm) -> dict[str, dict[str, float]]:
    """What is computed of an arm, by name, each as arms with weights.

    gap: against the same student and budget without transfer. total: a matched arm against the
    standard student without transfer. control: what native components do alone. reversal:
    gap(matched) - gap(standard), what they do to the transfer. tuned: the fine-tuned teacher
    against the standard student from scratch. reinit: a part of it re-initialised before against
    the whole. start: attention weights with another start against the usual one.
    """
    base, plain, plain_base = arm.baseline.name, arm.standard.name, arm.baseline.standard.name
    if arm.compares_maps:  # what a finished student has is no result of this arm's own
        return {}
    if arm.method == "finetune":
        whole = {REINIT: {arm.name: 1.0, arm.default("reinit").name: -1.0}} if arm.reinit != "none" else {}
        return {TUNED: {arm.name: 1.0, base: -1.0}} | whole
    found: dict[str, dict[str, float]] = {}
    if arm.start != "usual":
        found[START] = {arm.name: 1.0, base: -1.0}
    if arm.transfers:
        found[GAP] = {arm.name: 1.0, base: -1.0}
    if arm.student == "matched" and arm.transfers:
        found[TOTAL] = {arm.name: 1.0, plain_base: -1.0}
        found[REVERSAL] = {arm.name: 1.0, base: -1.0, plain: -1.0, plain_base: 1.0}
    if arm.student == "matched" and arm.method == "none":
        found[CONTROL] = {arm.name: 1.0, plain: -1.0}
    return found


def estimates(pool: Pool, comparisons: int, kinds: Collection[str] = KINDS) -> pd.DataFrame:
    """The estimates of signed_arms that have results, of some kinds or all; by protocol, family,
    size, arm and kind."""
    signed = {arm: signed_arms(Arm.parse(arm)) for arm in dict.fromkeys(place[3] for place in pool.places)}
    parts = [
        ((*place, kind), (*place[:3], part), weight)
        for place in pool.places
        for kind, terms in signed[place[3]].items()
        if kind in kinds
        for part, weight in terms.items()
    ]
    found = contrasts(pool, parts, comparisons)
    return found.set_index(pd.MultiIndex.from_tuples(found.index, names=[*KEYS, "kind"]))


def across_sizes(
    pool: Pool, arms: Sequence[str], places: Sequence[tuple[str, str, str, str]], comparisons: int
) -> dict[tuple[str, str], Estimate]:
    """By (arm, family): the arm's gap at the last size minus that at the first, of each place
    (protocol, family, first size, last size) that has results of both."""
    parts = [
        ((arm, place[1]), (*place[:2], size, part), sign * weight)
        for arm in arms
        for place in places
        for size, sign in zip(place[2:], (-1.0, 1.0), strict=True)
        for part, weight in signed_arms(Arm.parse(arm))[GAP].items()
    ]
    return as_estimates(contrasts(pool, parts, comparisons))


def as_estimates(found: pd.DataFrame) -> dict[Any, Estimate]:
    """The rows of contrasts as Estimates, by id."""
    values = found[list(Estimate.__annotations__)].astype(object).where(found.notna(), None)
    return {name: Estimate(*row) for name, row in zip(found.index, values.to_numpy().tolist(), strict=True)}


class Comparisons:
    """Gaps and verdicts of a table of results; `comparisons`: m of simultaneous intervals."""

    def __init__(self, table: pd.DataFrame, comparisons: int) -> None:
        self.table, self.comparisons = table, comparisons
        self.pool = Pool(table) if len(table) else None
        self.cells = {} if self.pool is None else dict(zip(self.pool.places, self.pool.cells.to_dict("records"), strict=True))
        self.found = {} if self.pool is None else as_estimates(estimates(self.pool, comparisons))

    def cell(self, protocol: str, family: str, size: str, arm: str) -> dict[str, Any] | None:
        """group, n, mean, sd of a cell; None when it has no result."""
        return self.cells.get((protocol, family, size, arm))

    def estimate(self, protocol: str, family: str, size: str, arm: str, kind: str) -> Estimate | None:
        """An estimate of `signed_arms`; None when one of its arms has no result."""
        return self.found.get((protocol, family, size, arm, kind))

    def gap(self, protocol: str, family: str, size: str, arm: str) -> Estimate | None:
        """The arm against the same student and budget without transfer; None without results."""
        return self.estimate(protocol, family, size, arm, GAP)


def family_verdict(verdicts: Sequence[str | None]) -> str | None:
    """Of a family's teachers by one method: the verdict that all have, mixed when both success and
    failure occur, else inconclusive; None when a teacher has none."""
    if not verdicts or any(verdict is None for verdict in verdicts):
        return None
    found = set(verdicts)
    if found in ({SUCCESS}, {FAILURE}):
        return verdicts[0]
    return MIXED if {SUCCESS, FAILURE} <= found else INCONCLUSIVE


def consistency(verdicts: Sequence[str | None]) -> str | None:
    """Of a family's sizes by one method: consistent when all have the same success or failure,
    contradicting when both occur, else undecided; None for fewer than two sizes, or when one has no
    verdict."""
    if len(verdicts) < 2:
        return None
    words = {SUCCESS: "consistent", FAILURE: "consistent", MIXED: "contradicting", INCONCLUSIVE: "undecided"}
    return words.get(family_verdict(verdicts) or "")


def share_closed(gap: Estimate | None, tuned: Estimate | None) -> float | None:
    """Percent of the gap from scratch to fine-tuning that a transfer closes (Li et al. 2024, arXiv
    2411.09702, Table 1); None where fine-tuning gains nothing."""
    return None if gap is None or tuned is None or tuned.value <= 0 else 100 * gap.value / tuned.value
