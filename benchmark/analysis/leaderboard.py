"""The leaderboard as data: each teacher's arms by the rules of comparison."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

import families
from benchmark.analysis.inert import inert, inert_components
from benchmark.analysis.measures import Measure, measure_of
from benchmark.analysis.notes import code_notes, component_notes, family_notes, teacher_notes
from benchmark.analysis.statistics import (
    CONTROL,
    FAILURE,
    GAP,
    INCONCLUSIVE,
    REVERSAL,
    TOTAL,
    Comparisons,
    Estimate,
    Pool,
    across_sizes,
    as_estimates,
    consistency,
    contrasts,
    estimates,
    family_verdict,
    frame,
)
from benchmark.spec.arm import Arm, is_owned
from benchmark.spec.definitions import is_teacher
from benchmark.spec.run import Run
from benchmark.spec.study import Study
from benchmark.storage.result_file import Result

MARKS = {"success": "✓", "failure": "✗", "inconclusive": "~", "mixed": "±"}
SAME = "= standard"
REVERSED = (
    " reversal: gap(matched) - gap(standard), ± half its plain 95 % interval, beside an inconclusive gap where the simultaneous"
    " interval (whose comparisons do not count it) lies below 0 too."
)
GAP_FIELDS = {"gap": "value", "se": "se", "df": "df", "verdict": "verdict"}
Runs = Mapping[tuple[str, str, str], Run]  # by family, size and arm


@dataclass(frozen=True)
class Entry:
    """One cell of the leaderboard: an arm's mean score by the leaderboard's measure, mean top-1 on
    test and number of runs, its gap where it transfers, or why it has none; `reversal`: beside an
    inconclusive gap, where it is below 0."""

    arm: Arm
    score: float | None
    top1: float | None
    n: int
    gap: Estimate | None
    note: str = ""
    reversal: Estimate | None = None


@dataclass(frozen=True)
class Row:
    """Teachers of one size that share every run of the study, with their cells; `inert`: native
    components that are inert in its Copy arms."""

    families: tuple[str, ...]
    size: str
    entries: tuple[Entry, ...]
    inert: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The families and the size."""
        return f"{', '.join(self.families)} {self.size}"


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """One study of one protocol: a row a teacher (or group of teachers that share all runs), a
    column an arm. Compared by identity, so that tables of it can be cached.

    Attributes:
        description: of the numbers, from the protocol's file.
        measure: what gaps are differences of.
        sizes: families with several sizes: by transfer arm the agreement of their verdicts, and the
            change of the gap from the first size to the last.
        shifted: gaps on shifted test sets by (family, size, arm, set).
        choose: the variant that the study sweeps.
        printed: tables that the study asks for.
        ways: the two ways in which the study sorts families, if it does.
        table: one row a cell, see long_table.
        results: those that are counted, of shown teachers and their arms.
    """

    protocol: str
    study: str
    title: str
    description: str
    measure: Measure
    arms: tuple[str, ...]
    rows: tuple[Row, ...]
    verdicts: tuple[tuple[str, int, dict[str, str | None]], ...]
    sizes: tuple[tuple[tuple[str, ...], tuple[str, ...], dict[str, tuple[str | None, Estimate | None]]], ...]
    shifted: dict[tuple[str, str, str, str], Estimate]
    comparisons_of: Comparisons
    notes: tuple[str, ...]
    choose: str | None
    printed: tuple[str, ...]
    ways: Mapping[str, Mapping[str, tuple[str, ...]]]
    comparisons: int
    runs: int
    seeds: str
    table: pd.DataFrame
    results: tuple[Result, ...]

    def difference(self, row: Row, arm: str, other: str) -> Estimate | None:
        """Mean score of an arm minus that of another, plain interval only; None without results."""
        place, pool = (self.protocol, row.families[0], row.size), self.comparisons_of.pool
        parts = [((), (*place, arm), 1.0), ((), (*place, other), -1.0)]
        found = as_estimates(contrasts(pool, parts, 1)) if pool is not None else {}
        return replace(found[()], simultaneous=None) if found else None

    def estimate(self, row: Row, arm: str, kind: str) -> Estimate | None:
        """An estimate of `signed_arms` for a row's teachers; None where it has no results."""
        return self.comparisons_of.estimate(self.protocol, row.families[0], row.size, arm, kind)

    def native(self, row: Row) -> dict[str, Estimate]:
        """Effects of native components for a row's teachers, where there are results: `control`,
        `reversal_copy`, `total_copy`, and the same two of distill."""
        kinds = {CONTROL: (CONTROL, "none")}
        kinds |= {f"{kind}_{method}": (kind, method) for kind in (REVERSAL, TOTAL) for method in ("copy", "distill")}
        found = {name: self.estimate(row, f"matched-{method}", kind) for name, (kind, method) in kinds.items()}
        return {name: estimate for name, estimate in found.items() if estimate is not None}

    @property
    def stem(self) -> str:
        """How the names of its files begin."""
        return f"{self.protocol}-{self.study}"

    @property
    def long(self) -> bool:
        """Whether arms have variants, and so get a row each instead of a column."""
        return any("+" in arm for arm in self.arms)

    @property
    def footnote(self) -> str:
        """The meaning of every number and sign."""
        beside = any(entry.reversal for row in self.rows for entry in row.entries)
        return (
            f"none: {self.measure.meaning}. Others: gap in percentage points to the same student without transfer,"
            f" ± half the simultaneous 95 % interval, which holds for all {self.comparisons or 'no'} comparisons of this table"
            " at once (Bonferroni; Student's t; each cell has the larger of its own variance and its arm's mean variance)."
            " ✓ success: the interval lies above 0; ✗ failure: below; ~ inconclusive."
            f" Runs per arm: {self.seeds}. Copy runs its teacher at test time too."
            f"{REVERSED if beside else ''}"
        )


def leaderboard(
    protocol: tuple[str, str],
    study: tuple[str, Study],
    results: Sequence[Result],
    comparisons: int,
    teachers: Sequence[tuple[str, str]] | None = None,
    elsewhere: Collection[str] = (),
    table: pd.DataFrame | None = None,
    measure: str = "top1",
) -> Leaderboard:
    """The leaderboard of a study from one protocol's results.

    Args:
        protocol: (name, description).
        study: (name, content).
        results: current ones.
        comparisons: m of the simultaneous intervals.
        teachers: limit and order the rows; default: those with results of arms that it alone shows.
        elsewhere: arms that another leaderboard judges: they get no verdict here, and no teacher
            gets a row by them.
        table: students_table of the results, where the caller has it already.
        measure: the protocol's.
    """
    (name, description), (study_name, listed) = protocol, study
    found = students_table(results, name, measure) if table is None else table
    needed = dict.fromkeys(arm for text in listed.arms for arm in (Arm.parse(text).baseline.name, text))
    found = found[found["arm"].isin(list(needed))]
    runs = {(r.cell.family, r.cell.size, r.cell.arm): r.run.run for r in results if r.cell.protocol == name}
    stats = _comparisons(found, comparisons, elsewhere, runs)
    ours = {arm for arm in listed.arms if is_owned(Arm.parse(arm))} - set(elsewhere)
    own = found[found["arm"].isin(ours)] if ours else found
    present = list(dict.fromkeys(zip(own["family"], own["size"], strict=True)))
    shown = present if teachers is None else list(teachers)
    rows = _rows(stats, name, listed.arms, shown, runs)
    counts = sorted({entry.n for row in rows for entry in row.entries if entry.n})
    counted = _counted(results, name, set(needed), set(shown))
    own = found[pd.Index(zip(found["family"], found["size"], strict=True)).isin(shown)]
    return Leaderboard(
        protocol=name,
        study=study_name,
        title=listed.title,
        description=" ".join(description.split()),
        measure=measure_of(listed, measure),
        arms=listed.arms,
        rows=rows,
        verdicts=_family_verdicts(rows, listed),
        sizes=_sizes(stats, name, rows, listed),
        shifted=_shifted(found, name),
        comparisons_of=stats,
        notes=(
            *component_notes((family, row.inert) for row in rows for family in row.families),
            *family_notes(dict.fromkeys(family for row in rows for family in row.families)),
            *teacher_notes(counted, name),
            *code_notes({result.key: result.provenance.code for result in counted}),
            *([f"{', '.join(sorted(elsewhere))}: their verdicts stand in another study's table"] if elsewhere else []),
        ),
        choose=listed.choose,
        printed=listed.tables,
        ways=listed.ways,
        comparisons=comparisons,
        runs=len({result.key for result in counted}),
        seeds="–".join(map(str, dict.fromkeys([counts[0], counts[-1]]))) if counts else "none",
        table=long_table(stats, own, name),
        results=counted,
    )


def students_table(results: Iterable[Result], name: str, measure: str = "top1") -> pd.DataFrame:
    """One protocol's results without its teachers' (statistics.frame)."""
    own = (result for result in results if result.cell.protocol == name and not is_teacher(result.cell.arm))
    return frame(own, measure)


def _comparisons(found: pd.DataFrame, comparisons: int, elsewhere: Collection[str], runs: Runs) -> Comparisons:
    """The estimates, without verdicts of arms that another leaderboard judges, and without
    reversals by components that are inert."""
    stats = Comparisons(found, comparisons)
    for place, value in list(stats.found.items()):
        _, family, size, arm, kind = place
        if kind == GAP and arm in elsewhere:
            stats.found[place] = replace(value, simultaneous=None)
        if kind == REVERSAL and inert(Arm.parse(arm), family, size, runs[family, size, arm]):
            del stats.found[place]
    return stats


def _rows(stats: Comparisons, name: str, arms: Sequence[str], shown: Sequence[tuple[str, str]], runs: Runs) -> tuple[Row, ...]:
    """A row a teacher; teachers of one size that share every run, of transfers too, are one."""
    transfers = [arm for arm in arms if Arm.parse(arm).transfers]
    own = stats.table[stats.table["protocol"] == name].groupby(["family", "size", "arm"], sort=False)["key"].agg(frozenset)
    keys = own.to_dict() if len(own) else {}
    groups: dict[tuple[Any, ...], list[str]] = {}
    for family, size in shown:
        known = tuple(keys.get((family, size, arm)) for arm in arms)
        alone = () if any((family, size, arm) in keys for arm in transfers or arms) else (family,)
        groups.setdefault((size, known, alone), []).append(family)
    rows = []
    for (size, _, _), members in groups.items():
        first = (members[0], size)
        copies = [
            (arm, runs[*first, arm.name]) for arm in map(Arm.parse, arms) if arm.method == "copy" and (*first, arm.name) in runs
        ]
        entries = tuple(_entry(stats, name, *first, arm) for arm in arms)
        rows.append(Row(tuple(members), size, entries, inert_components(*first, copies)))
    return tuple(rows)


def _counted(results: Iterable[Result], name: str, arms: set[str], shown: set[tuple[str, str]]) -> tuple[Result, ...]:
    cells = ((result, result.cell) for result in results)
    return tuple(r for r, cell in cells if cell.protocol == name and cell.arm in arms and (cell.family, cell.size) in shown)


def _entry(stats: Comparisons, name: str, family: str, size: str, text: str) -> Entry:
    arm = Arm.parse(text)
    cell = stats.cell(name, family, size, text)
    if cell is None:
        return Entry(arm, None, None, 0, None)
    score, top1 = float(cell["mean"]), None if math.isnan(cell["top1"]) else float(cell["top1"])
    if _is_standard(stats, name, family, size, arm):
        return Entry(arm, score, top1, int(cell["n"]), None, SAME)
    gap = None if not arm.transfers else stats.gap(name, family, size, text)
    reversal = stats.estimate(name, family, size, text, REVERSAL) if gap and gap.verdict == INCONCLUSIVE else None
    beside = reversal if reversal and reversal.verdict == FAILURE else None
    return Entry(arm, score, top1, int(cell["n"]), gap, reversal=beside)


def _is_standard(stats: Comparisons, name: str, family: str, size: str, arm: Arm) -> bool:
    """Whether a matched arm has the standard arm's runs, as in a family without components."""
    one, other = (stats.cell(name, family, size, each.name) for each in (arm, arm.standard))
    return arm.student == "matched" and one is not None and other is not None and bool(one["group"] == other["group"])


def by_family(rows: Sequence[Row]) -> list[tuple[tuple[str, ...], tuple[Row, ...]]]:
    """Families with the rows of their sizes in the family's order; families that share all rows are
    together.

    Alternatives are other checkpoints of a size, and no sizes.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        for family in row.families:
            if row.size in families.spec(family).sizes:
                found.setdefault(family, []).append(row)
    groups: dict[tuple[int, ...], list[str]] = {}
    for family, own in found.items():
        by_size = {row.size: row for row in own}
        found[family] = [by_size[size] for size in families.spec(family).sizes if size in by_size]
        groups.setdefault(tuple(map(id, found[family])), []).append(family)
    return [(tuple(names), tuple(found[names[0]])) for names in groups.values()]


def _sizes(
    stats: Comparisons, name: str, rows: Sequence[Row], study: Study
) -> tuple[tuple[tuple[str, ...], tuple[str, ...], dict[str, tuple[str | None, Estimate | None]]], ...]:
    """Families of several sizes by transfer arm; arms with variants are left out."""
    several = [(names, own) for names, own in by_family(rows) if len(own) > 1]
    arms = [text for text in study.arms if Arm.parse(text).transfers and "+" not in text]
    ends = [(name, names[0], own[0].size, own[-1].size) for names, own in several]
    changes = across_sizes(stats.pool, arms, ends, stats.comparisons) if ends and arms and stats.pool is not None else {}
    found = []
    for names, own in several:
        said: dict[str, tuple[str | None, Estimate | None]] = {}
        for arm in arms:
            entries = [row.entries[study.arms.index(arm)] for row in own]
            word = consistency([entry.gap.verdict if entry.gap else None for entry in entries])
            said[arm] = (SAME, None) if all(each.note for each in entries) else (word, changes.get((arm, names[0])))
        found.append((names, tuple(row.size for row in own), said))
    return tuple(found)


def _shifted(found: pd.DataFrame, name: str) -> dict[tuple[str, str, str, str], Estimate]:
    """Gaps on shifted test sets by (family, size, arm, set), from the results that have them."""
    gaps = {}
    for column in (each for each in found.columns if each.startswith("shift:")):
        own = found[found[column].notna()]
        measured = as_estimates(estimates(Pool(own.assign(score=own[column])), 1, (GAP,))) if len(own) else {}
        for (_, *place, _), one in measured.items():  # no verdict is drawn from it
            gaps[*place, column.removeprefix("shift:")] = replace(one, simultaneous=None)
    return gaps


def _family_verdicts(rows: Sequence[Row], study: Study) -> tuple[tuple[str, int, dict[str, str | None]], ...]:
    transfers = [text for text in study.arms if Arm.parse(text).transfers]
    verdicts = []
    for names, own in by_family(rows):
        found: dict[str, str | None] = {}
        for text in transfers:
            entries = [row.entries[study.arms.index(text)] for row in own]
            same = all(entry.note for entry in entries)
            found[text] = SAME if same else family_verdict([e.gap.verdict if e.gap else None for e in entries])
        verdicts += [(family, len(own), found) for family in names]
    return tuple(verdicts)


def long_table(stats: Comparisons, found: pd.DataFrame, name: str) -> pd.DataFrame:
    """One row a cell, for the CSV: steps, n, mean, sd and range of the score, top-1, shifted sets,
    gap with both intervals, verdict; total (matched against the standard baseline), reversal and
    control with their plain intervals' half-widths.

    A matched arm that is the standard one says so as its note, and has no gap: it is no test.
    """
    if not len(found):
        return pd.DataFrame()
    shifted = [column for column in found.columns if column.startswith("shift:")]
    means = found.groupby(["family", "size", "arm"], sort=False)[shifted].mean()
    rows = []
    for place, own in means.to_dict("index").items():  # "records" of a frame without columns is empty in pandas 2
        arm, cell = Arm.parse(place[2]), stats.cells[name, *place]
        same = _is_standard(stats, name, place[0], place[1], arm)
        gap = None if same or not arm.transfers else stats.gap(name, *place)
        row: dict[str, Any] = {"protocol": name, "family": place[0], "size": place[1], "arm": place[2], "steps": cell["steps"]}
        row |= {"n": cell["n"], "score": cell["mean"], "sd": cell["sd"], "min": cell["low"], "max": cell["high"]}
        row["top1"] = cell["top1"]
        row |= own | {column: cell[column] for column in ("val", "val_sd", "val_min", "val_max")}
        row |= _gap_columns(gap) | _native_columns(stats, name, None if same else place)
        rows.append(row | {"comparisons": stats.comparisons, "group": cell["group"], "note": SAME if same else None})
    return pd.DataFrame(rows)


def _gap_columns(gap: Estimate | None) -> dict[str, Any]:
    columns: dict[str, Any] = {name: getattr(gap, field, None) for name, field in GAP_FIELDS.items()}
    for label in ("plain", "simultaneous"):
        half = getattr(gap, label, None)
        for sign, end in ((-1, "low"), (1, "high")):
            columns[f"{label}95_{end}"] = None if gap is None or half is None else gap.value + sign * half
    return columns


def _native_columns(stats: Comparisons, name: str, place: tuple[str, str, str] | None) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for kind in (TOTAL, REVERSAL, CONTROL):
        estimate = None if place is None else stats.estimate(name, *place, kind)
        columns |= {kind: getattr(estimate, "value", None), f"{kind}_plain95": getattr(estimate, "plain", None)}
    return columns
