"""The rules of comparison, as pure functions of a table of results (one row a run and cell).

gap(arm) = mean top-1 of the arm - mean top-1 of the same student at the same budget without transfer, in percentage points.
Several teachers share one baseline, so arms are not paired by seed: a difference of means has

    se^2 = sum over arms of s^2 x sum over its cells of weight^2 / n,

s^2 pooled over the arm's cells, n runs in a cell (a matched student that is the standard one is a cell of the standard arm).
The degrees of freedom of that sum are Satterthwaite's (Biometrics Bulletin 2, 1946; for two arms Welch, Biometrika 34, 1947):
se^4 / sum(term^2 / df of its s^2). Intervals are two-sided Student's t: plain
ones at 95 %, and simultaneous ones at 95 % over m comparisons (Bonferroni, in Dunn, JASA 56, 1961). The simultaneous one is
shown and decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from benchmark.protocol import Arm
from benchmark.store import Result

LEVEL = 0.95
SUCCESS, FAILURE, INCONCLUSIVE, MIXED = "success", "failure", "inconclusive", "mixed"
KEYS = ["protocol", "family", "size", "arm"]
GAP, TOTAL, CONTROL, REVERSAL, TUNED, REINIT = "gap", "total", "control", "reversal", "tuned", "reinit"


@dataclass(frozen=True)
class Estimate:
    """A difference of means in percentage points, with its standard error, degrees of freedom and half-widths (plain,
    simultaneous); these are None where an arm has one run only or no variance can be pooled. `unpooled` is the simultaneous
    one from each cell's own variance."""

    value: float
    se: float | None = None
    df: float | None = None
    plain: float | None = None
    simultaneous: float | None = None
    unpooled: float | None = None

    @property
    def verdict(self) -> str | None:
        """Success above 0, failure below, else inconclusive, by the simultaneous interval; None without one."""
        if self.simultaneous is None:
            return None
        if self.value - self.simultaneous > 0:
            return SUCCESS
        return FAILURE if self.value + self.simultaneous < 0 else INCONCLUSIVE

    @property
    def own_verdict(self) -> str | None:
        """The verdict by each cell's own variance; None without one."""
        return Estimate(self.value, simultaneous=self.unpooled).verdict

    @property
    def weak(self) -> str:
        """° where each cell's own variance gives another verdict."""
        return "°" if self.own_verdict not in (None, self.verdict) else ""


def frame(results: Iterable[Result]) -> pd.DataFrame:
    """One row a result: labels, key, `group` (the key but for its seed), steps, top-1 on test, val and shifted sets.

    The results are current ones: those of one cell differ in their seed alone, and an ensemble's in its student's.
    """
    rows, groups = [], dict[tuple[str, ...], str]()
    for result in results:
        cell = result.cell
        place = (cell.protocol, cell.family, cell.size, cell.arm)
        if place not in groups:
            run = result.run.run
            teacher = run.teacher and {name: key for name, key in run.teacher.items() if name != "student"}
            groups[place] = run.model_copy(update={"seed": 0, "teacher": teacher}).key
        shifted = {f"shift:{name}": score.top1 for name, score in result.metrics.shift.items()}
        rows.append({**dict(zip(KEYS, place, strict=True)), "seed": cell.seed, "key": result.key, "group": groups[place]})
        rows[-1] |= {"steps": result.run.protocol.recipe.steps, "top1": result.metrics.top1, "val": result.val.top1, **shifted}
    return pd.DataFrame(rows, columns=None if rows else [*KEYS, "seed", "key", "group", "steps", "top1", "val"])


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """One row a cell (protocol, family, size, arm): group, steps, number of distinct runs n; mean, sd, lowest and highest
    top-1 on test, and the same on val."""
    distinct = table.drop_duplicates([*KEYS, "key"])
    found = distinct.groupby(KEYS, sort=False, observed=True).agg(
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
    """By (protocol, group): the arm whose runs they are (`home`), and variance `s2` pooled over that arm's cells with its
    degrees of freedom `df`.

    Cells that share their runs count once, as the arm's with the fewest variants; a matched student's that are the standard
    one's belong to the standard arm.
    """
    distinct = table.drop_duplicates(["protocol", "arm", "key"])
    groups = distinct.groupby(["protocol", "arm", "group"], sort=False, observed=True)["top1"].agg(["var", "count"]).reset_index()
    groups["matched"] = groups["arm"].isin([arm for arm in groups["arm"].unique() if Arm.parse(arm).student == "matched"])
    groups["variants"] = groups["arm"].astype(str).str.count(r"\+")
    groups = (
        groups.sort_values(["matched", "variants"], kind="stable")
        .drop_duplicates(["protocol", "group"])
        .rename(columns={"arm": "home"})
    )
    groups["df"] = groups["count"] - 1
    groups["ss"] = (groups["var"] * groups["df"]).fillna(0.0)
    total = groups.groupby(["protocol", "home"], sort=False, observed=True)[["ss", "df"]].sum()
    total["s2"] = total["ss"] / total["df"].where(total["df"] > 0)
    return groups[["protocol", "group", "home"]].merge(total[["s2", "df"]].reset_index(), on=["protocol", "home"])


def contrasts(table: pd.DataFrame, parts: pd.DataFrame, comparisons: int | pd.Series) -> pd.DataFrame:
    """Weighted sums of cells' means, with their intervals.

    Args:
        table: one row a run and cell.
        parts: columns `contrast` (any id), protocol, family, size, arm, weight.
        comparisons: m of the simultaneous intervals; or that of each contrast, by its id.

    Returns a row a contrast whose cells all have results, in the order of their ids' first parts: value, se, df, plain,
    simultaneous, unpooled (half-widths) and verdict, missing where Estimate's are None. Cells that are the same runs (matched =
    standard) count as one, with the sum of their weights: what cancels is no estimate of anything and gets no interval.
    """
    found = parts.merge(cells(table)[[*KEYS, "group", "n", "mean", "sd"]], how="left", on=KEYS)
    found = found.merge(pooled(table), how="left", on=["protocol", "group"])
    found = found[~found["contrast"].isin(found.loc[found["n"].isna(), "contrast"])]
    firsts = {name: (name, "first") for name in ("home", "mean", "n", "sd", "s2", "df")}
    merged = found.groupby(["contrast", "group"], sort=False).agg(weight=("weight", "sum"), **firsts).reset_index()
    complete = merged["contrast"].unique()
    merged = merged[merged["weight"] != 0]
    merged = merged.assign(
        value=merged["weight"] * merged["mean"],
        share=merged["weight"] ** 2 / merged["n"],
        own=merged["weight"] ** 2 * merged["sd"] ** 2 / merged["n"],
        own_df=merged["n"] - 1,
    )
    arms = merged.groupby(["contrast", "home"], sort=False).agg(
        share=("share", "sum"), s2=("s2", "first"), df=("df", "first"), n=("n", "min")
    )
    arms["term"] = (arms["share"] * arms["s2"]).where((arms["n"] > 1) & (arms["df"] > 0))
    table = pd.DataFrame({"value": merged.groupby("contrast", sort=False)["value"].sum()})
    table["se"], table["df"] = _combined(arms["term"], arms["df"], "contrast")
    own_se, own_df = _combined(merged.set_index("contrast")["own"], merged.set_index("contrast")["own_df"], "contrast")
    for name, se, df, m in (
        ("plain", table["se"], table["df"], 1),
        ("simultaneous", table["se"], table["df"], comparisons),
        ("unpooled", own_se, own_df, comparisons),
    ):
        table[name] = _half_width(se, df, m)
    table = table.reindex(complete).fillna({"value": 0.0})
    table["verdict"] = _verdicts(table["value"], table["simultaneous"])
    return table


def _combined(term: pd.Series, df: pd.Series, by: str) -> tuple[pd.Series, pd.Series]:
    """Standard error of a sum of independent terms with these variances, and Satterthwaite's degrees of freedom."""
    known = ~term.isna().groupby(by, sort=False).any()
    variance = term.groupby(by, sort=False).sum().where(known)
    spread = (term**2 / df).groupby(by, sort=False).sum()
    return np.sqrt(variance), (variance**2 / spread).where(variance > 0)


def _half_width(se: pd.Series, df: pd.Series, comparisons: int | pd.Series) -> pd.Series:
    m = comparisons.reindex(se.index) if isinstance(comparisons, pd.Series) else comparisons
    quantile = stats.t.ppf(1 - (1 - LEVEL) / np.maximum(1, m) / 2, df)
    return pd.Series(np.where(se == 0, 0.0, quantile * se), se.index)


def _verdicts(value: pd.Series, half: pd.Series) -> pd.Series:
    """Success above 0, failure below, else inconclusive; missing without an interval."""
    found = np.select([value - half > 0, value + half < 0, half.notna()], [SUCCESS, FAILURE, INCONCLUSIVE], "")
    return pd.Series(found, value.index, dtype=object).replace("", None)


def signed_arms(arm: Arm) -> dict[str, dict[str, float]]:
    """What is computed of an arm, by name, each as arms with weights.

    gap: against the same student and budget without transfer. total: a matched arm against the standard student without
    transfer. control: what native components do alone. reversal: gap(matched) - gap(standard), what they do to the transfer.
    tuned: the fine-tuned teacher against the standard student from scratch. reinit: a part of it re-initialised before against
    the whole.
    """
    base, plain, plain_base = arm.baseline.name, arm.standard.name, arm.baseline.standard.name
    if arm.match != "none":  # what a finished student has is no result of this arm's own
        return {}
    if arm.method == "finetune":
        whole = {REINIT: {arm.name: 1.0, arm.default("reinit").name: -1.0}} if arm.reinit != "none" else {}
        return {TUNED: {arm.name: 1.0, base: -1.0}} | whole
    found: dict[str, dict[str, float]] = {}
    if arm.transfers:
        found[GAP] = {arm.name: 1.0, base: -1.0}
    if arm.student == "matched" and arm.transfers:
        found[TOTAL] = {arm.name: 1.0, plain_base: -1.0}
        found[REVERSAL] = {arm.name: 1.0, base: -1.0, plain: -1.0, plain_base: 1.0}
    if arm.student == "matched" and arm.method == "none":
        found[CONTROL] = {arm.name: 1.0, plain: -1.0}
    return found


def estimates(table: pd.DataFrame, comparisons: int) -> pd.DataFrame:
    """Every estimate of signed_arms that the table has results for, by protocol, family, size, arm and kind (see contrasts)."""
    signed = [
        (arm, kind, part, weight)
        for arm in table["arm"].unique()
        for kind, parts in signed_arms(Arm.parse(arm)).items()
        for part, weight in parts.items()
    ]
    places = table[KEYS].drop_duplicates().astype(object)
    asked = places.merge(pd.DataFrame(signed, columns=["arm", "kind", "part", "weight"]), on="arm")
    ids = [*KEYS, "kind"]
    asked["contrast"] = asked.groupby(ids, sort=False).ngroup()
    names = asked.drop_duplicates("contrast").set_index("contrast")[ids]
    found = contrasts(table, asked.drop(columns="arm").rename(columns={"part": "arm"}), comparisons)
    return names.join(found, how="inner").set_index(ids)


def across_sizes(
    table: pd.DataFrame, arms: Sequence[str], places: Sequence[tuple[str, str, str, str]], comparisons: int
) -> dict[tuple[str, str], Estimate]:
    """By (arm, family): the arm's gap at the last size minus that at the first, of each place (protocol, family, first size,
    last size) that has results of both."""
    asked = [(arm, place) for arm in arms for place in places]
    rows = [
        (number, *place[:2], size, part, sign * weight)
        for number, (arm, place) in enumerate(asked)
        for size, sign in zip(place[2:], (-1.0, 1.0), strict=True)
        for part, weight in signed_arms(Arm.parse(arm))[GAP].items()
    ]
    found = contrasts(table, pd.DataFrame(rows, columns=["contrast", *KEYS, "weight"]), comparisons)
    return {(asked[number][0], asked[number][1][1]): estimate(row) for number, row in found.iterrows()}


def estimate(row: pd.Series) -> Estimate:
    """A row of contrasts as an Estimate."""
    found = {name: None if pd.isna(row[name]) else float(row[name]) for name in Estimate.__annotations__}
    return Estimate(float(row["value"]), **{name: value for name, value in found.items() if name != "value"})


class Comparisons:
    """Gaps and verdicts of a table of results; `comparisons` is the number m that simultaneous intervals allow for."""

    def __init__(self, table: pd.DataFrame, comparisons: int) -> None:
        self.table, self.comparisons = table, comparisons
        self.cells: dict[tuple[str, ...], dict[str, Any]] = {}
        self.found: dict[tuple[str, ...], Estimate] = {}
        if len(table):
            self.cells = {tuple(row[key] for key in KEYS): row for row in cells(table).to_dict("records")}
            found = estimates(table, comparisons)
            values = found[list(Estimate.__annotations__)].astype(object).where(found.notna(), None)
            self.found = {place: Estimate(*row) for place, row in zip(found.index, values.to_numpy().tolist(), strict=True)}

    def cell(self, protocol: str, family: str, size: str, arm: str) -> dict[str, Any] | None:
        """group, n, mean, sd of a cell; None when it has no result."""
        return self.cells.get((protocol, family, size, arm))

    def gap(self, protocol: str, family: str, size: str, arm: str) -> Estimate | None:
        """The arm against the same student at the same budget without transfer; None when one of them has no result."""
        return self.found.get((protocol, family, size, arm, GAP))

    def total(self, protocol: str, family: str, size: str, arm: str) -> Estimate | None:
        """A matched arm against the standard student without transfer."""
        return self.found.get((protocol, family, size, arm, TOTAL))

    def control(self, protocol: str, family: str, size: str, arm: str = "matched-none") -> Estimate | None:
        """matched-none - standard-none: what native components do alone."""
        return self.found.get((protocol, family, size, arm, CONTROL))

    def reversal(self, protocol: str, family: str, size: str, arm: str) -> Estimate | None:
        """gap(matched) - gap(standard) of a matched arm: what native components do to the transfer."""
        return self.found.get((protocol, family, size, arm, REVERSAL))

    def tuned(self, protocol: str, family: str, size: str) -> Estimate | None:
        """The fine-tuned teacher against standard-none: what pre-training itself gives."""
        return self.found.get((protocol, family, size, "finetune", TUNED))


def unequal_spread(table: pd.DataFrame) -> dict[str, float]:
    """By arm: p of Brown and Forsythe's test (JASA 69, 1974) that its cells' runs spread equally, which pooling takes them to;
    of cells with three runs or more, where there are at least two."""
    distinct = table.drop_duplicates(["arm", "key"]).merge(pooled(table)[["protocol", "group", "home"]], on=["protocol", "group"])
    found = {}
    for arm, own in distinct[distinct["arm"] == distinct["home"]].groupby("arm", sort=False):
        samples = [top1 for _, top1 in own.groupby("group", sort=False)["top1"] if len(top1) > 2]
        if len(samples) > 1 and any(sample.nunique() > 1 for sample in samples):
            found[str(arm)] = float(stats.levene(*samples, center="median").pvalue)
    return found


def family_verdict(verdicts: Sequence[str | None]) -> str | None:
    """Of a family's teachers by one method: the verdict that all have, mixed when both success and failure occur, else
    inconclusive; None when a teacher has none."""
    if not verdicts or any(verdict is None for verdict in verdicts):
        return None
    found = set(verdicts)
    if found in ({SUCCESS}, {FAILURE}):
        return verdicts[0]
    return MIXED if {SUCCESS, FAILURE} <= found else INCONCLUSIVE


def consistency(verdicts: Sequence[str | None]) -> str | None:
    """Of a family's sizes by one method: consistent when all have the same success or failure, contradicting when both
    occur, else undecided; None for fewer than two sizes, or when one has no verdict."""
    if len(verdicts) < 2:
        return None
    words = {SUCCESS: "consistent", FAILURE: "consistent", MIXED: "contradicting", INCONCLUSIVE: "undecided"}
    return words.get(family_verdict(verdicts) or "")


def share_closed(gap: Estimate | None, tuned: Estimate | None) -> float | None:
    """Percent of the gap from scratch to fine-tuning that a transfer closes (Li et al. 2024, arXiv 2411.09702, Table 1); None
    where fine-tuning gains nothing."""
    return None if gap is None or tuned is None or tuned.value <= 0 else 100 * gap.value / tuned.value
