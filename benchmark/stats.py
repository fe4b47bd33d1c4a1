"""The rules of comparison, as pure functions of a table of results (one row a run and cell).

gap(arm) = mean top-1 of the arm - mean top-1 of the same student at the same budget without transfer, in percentage points.
Several teachers share one baseline, so arms are not paired by seed; variances are pooled over the cells of an arm, and the
degrees of freedom of their combination are Satterthwaite's (Biometrics Bulletin 2, 1946; Welch, Biometrika 34, 1947).
Intervals are two-sided Student's t: plain ones at 95 %, and simultaneous ones at 95 % over m comparisons (Bonferroni). The
simultaneous one is shown and decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from benchmark.protocol import Arm
from benchmark.store import Result

LEVEL = 0.95
SUCCESS, FAILURE, INCONCLUSIVE, MIXED = "success", "failure", "inconclusive", "mixed"
KEYS = ["protocol", "family", "size", "arm"]


@dataclass(frozen=True)
class Estimate:
    """A difference of means in percentage points, with its standard error, degrees of freedom and two half-widths
    (plain, simultaneous); these are None where an arm has one run only or no variance can be pooled."""

    value: float
    se: float | None = None
    df: float | None = None
    plain: float | None = None
    simultaneous: float | None = None

    @property
    def verdict(self) -> str | None:
        """Success above 0, failure below, else inconclusive, by the simultaneous interval; None without one."""
        if self.simultaneous is None:
            return None
        if self.value - self.simultaneous > 0:
            return SUCCESS
        return FAILURE if self.value + self.simultaneous < 0 else INCONCLUSIVE


def frame(results: Iterable[Result]) -> pd.DataFrame:
    """One row a result: labels, key, `group` (the key but for its seed), steps, top-1 on test, val and shifted sets."""
    rows = []
    for result in results:
        cell = result.cell
        labels = {"protocol": cell.protocol, "family": cell.family, "size": cell.size, "arm": cell.arm, "seed": cell.seed}
        group = result.run.run.model_copy(update={"seed": 0}).key
        steps = result.run.protocol.recipe.steps
        shifted = {f"shift:{name}": score.top1 for name, score in result.metrics.shift.items()}
        rows.append({**labels, "key": result.key, "group": group, "steps": steps})
        rows[-1] |= {"top1": result.metrics.top1, "val": result.val.top1, **shifted}
    return pd.DataFrame(rows, columns=None if rows else [*KEYS, "seed", "key", "group", "steps", "top1", "val"])


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """One row a cell (protocol, family, size, arm): group, steps, number of distinct runs n; mean, sd, lowest and highest
    top-1 on test, and the same on val."""
    distinct = table.drop_duplicates([*KEYS, "key"])
    found = distinct.groupby(KEYS, sort=False).agg(
        group=("group", "first"),
        steps=("steps", "first"),
        n=("key", "nunique"),
        mean=("top1", "mean"),
        sd=("top1", "std"),
        low=("top1", "min"),
        high=("top1", "max"),
        val=("val", "mean"),
        val_sd=("val", "std"),
        val_min=("val", "min"),
        val_max=("val", "max"),
    )
    return found.reset_index()


def pooled(table: pd.DataFrame) -> pd.DataFrame:
    """By (protocol, arm): variance `s2` pooled over the cells, and its degrees of freedom `df`.

    Cells that share their runs (one group) count once.
    """
    distinct = table.drop_duplicates(["protocol", "arm", "key"])
    groups = distinct.groupby(["protocol", "arm", "group"], sort=False)["top1"].agg(["var", "count"]).reset_index()
    groups["df"] = groups["count"] - 1
    groups["ss"] = (groups["var"] * groups["df"]).fillna(0.0)
    total = groups.groupby(["protocol", "arm"], sort=False)[["ss", "df"]].sum()
    total["s2"] = total["ss"] / total["df"].where(total["df"] > 0)
    return total[["s2", "df"]]


def contrast(parts: Sequence[tuple[float, float, int, float, int]], comparisons: int) -> Estimate:
    """sum(weight x mean) over `parts` of (weight, mean, n, s2, df of s2), with its intervals.

    se^2 = sum(weight^2 s2 / n); df = se^4 / sum((weight^2 s2 / n)^2 / df). `comparisons` is m of the simultaneous interval.
    """
    value = sum(weight * mean for weight, mean, *_ in parts)
    if any(n < 2 or df < 1 for _, _, n, _, df in parts):
        return Estimate(value)
    terms = [weight**2 * s2 / n for weight, _, n, s2, _ in parts]
    se = math.sqrt(sum(terms))
    if se == 0:
        return Estimate(value, 0.0, None, 0.0, 0.0)
    df = se**4 / sum(term**2 / part[4] for term, part in zip(terms, parts, strict=True))
    plain, simultaneous = (float(stats.t.ppf(1 - (1 - LEVEL) / m / 2, df)) * se for m in (1, max(1, comparisons)))
    return Estimate(value, se, df, plain, simultaneous)


class Comparisons:
    """Gaps and verdicts of a table of results; `comparisons` is the number m that simultaneous intervals allow for."""

    def __init__(self, table: pd.DataFrame, comparisons: int) -> None:
        self.comparisons = comparisons
        self.cells = cells(table).set_index(KEYS) if len(table) else pd.DataFrame()
        self.pooled = pooled(table) if len(table) else pd.DataFrame()

    def cell(self, protocol: str, family: str, size: str, arm: str) -> pd.Series | None:
        """group, n, mean, sd of a cell; None when it has no result."""
        place = (protocol, family, size, arm)
        return self.cells.loc[place] if len(self.cells) and place in self.cells.index else None

    def difference(self, protocol: str, family: str, size: str, signed: dict[str, float]) -> Estimate | None:
        """The contrast of arms with these weights within one teacher; None when one of them has no result.

        Arms that are the same runs (matched = standard) count as one, with the sum of their weights: what cancels is no
        estimate of anything and gets no interval.
        """
        parts: dict[str, tuple[float, float, int, float, int]] = {}
        for arm, weight in signed.items():
            cell = self.cell(protocol, family, size, arm)
            if cell is None:
                return None
            spread = self.pooled.loc[(protocol, arm)]
            summed = weight + (parts[cell["group"]][0] if cell["group"] in parts else 0.0)
            parts[cell["group"]] = (summed, float(cell["mean"]), int(cell["n"]), float(spread["s2"]), int(spread["df"]))
        left = [part for part in parts.values() if part[0] != 0]
        return contrast(left, self.comparisons) if left else Estimate(0.0)

    def gap(self, protocol: str, family: str, size: str, arm: str) -> Estimate | None:
        """The arm against the same student at the same budget without transfer."""
        return self.difference(protocol, family, size, {arm: 1.0, Arm.parse(arm).baseline.name: -1.0})

    def total(self, protocol: str, family: str, size: str, arm: str) -> Estimate | None:
        """A matched arm against the standard student without transfer."""
        base = Arm.parse(arm).baseline.model_copy(update={"student": "standard"}).name
        return self.difference(protocol, family, size, {arm: 1.0, base: -1.0})

    def control(self, protocol: str, family: str, size: str) -> Estimate | None:
        """matched-none - standard-none: what native components do alone."""
        return self.difference(protocol, family, size, {"matched-none": 1.0, "standard-none": -1.0})

    def reversal(self, protocol: str, family: str, size: str, method: str) -> Estimate | None:
        """gap(matched) - gap(standard) of a method: what native components do to the transfer."""
        signed = {f"matched-{method}": 1.0, "matched-none": -1.0, f"standard-{method}": -1.0, "standard-none": 1.0}
        return self.difference(protocol, family, size, signed)


def family_verdict(verdicts: Sequence[str | None]) -> str | None:
    """Of a family's teachers by one method: the verdict that all have, mixed when both success and failure occur, else
    inconclusive; None when a teacher has none."""
    if not verdicts or any(verdict is None for verdict in verdicts):
        return None
    found = set(verdicts)
    if found in ({SUCCESS}, {FAILURE}):
        return verdicts[0]
    return MIXED if {SUCCESS, FAILURE} <= found else INCONCLUSIVE
