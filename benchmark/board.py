"""The leaderboard as data: which results count, and what each teacher's arms give by the rules of comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

import families
from benchmark.plan import TEACHER, run_of
from benchmark.protocol import Arm, Protocol, Study
from benchmark.stats import Comparisons, Estimate, cells, family_verdict, frame
from benchmark.store import Rejected, Result
from families.spec import UserError

MARKS = {"success": "✓", "failure": "✗", "inconclusive": "~", "mixed": "±"}
GAP_FIELDS = {"gap": "value", "se": "se", "df": "df", "verdict": "verdict"}


@dataclass
class Sorted:
    """Results by whether they count: `current` do, `stale` were made under another definition of their cell, `unknown`
    counts those of protocols whose file was not given."""

    current: list[Result] = field(default_factory=list)
    stale: list[Result] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)


def sort_results(results: Iterable[Result], rejected: Iterable[Rejected], protocols: dict[str, Protocol]) -> Sorted:
    """Tell current results from stale ones: those whose key is not that of their cell's run as defined now."""
    found = Sorted(rejected=list(rejected))
    for result in results:
        name = result.cell.protocol
        if name not in protocols:
            found.unknown[name] = found.unknown.get(name, 0) + 1
            continue
        try:
            current = run_of(protocols[name], result.cell).key == result.key
        except UserError:
            current = False
        (found.current if current else found.stale).append(result)
    return found


@dataclass(frozen=True)
class Entry:
    """One cell of the leaderboard: an arm's mean top-1 and runs, its gap where it transfers, or why there is none."""

    arm: Arm
    top1: float | None
    n: int
    gap: Estimate | None
    note: str = ""

    @property
    def text(self) -> str:
        """As readers see it: top-1 of a baseline, gap and verdict of a transfer, both with what is missing named."""
        if self.note:
            return self.note
        if self.top1 is None:
            return "–"
        few = f" (n={self.n})" if self.n == 1 else ""
        if not self.arm.transfers:
            return f"{self.top1:.1f}{few}"
        if self.gap is None:
            return f"top-1 {self.top1:.1f}, no baseline"
        if self.gap.simultaneous is None:
            return f"{self.gap.value:+.1f}{few}"
        verdict = self.gap.verdict or ""
        return f"{self.gap.value:+.1f} ± {self.gap.simultaneous:.1f} {MARKS[verdict]} {verdict}"


@dataclass(frozen=True)
class Row:
    """Teachers of one size that share every run of the study, and what was measured for them."""

    families: tuple[str, ...]
    size: str
    entries: tuple[Entry, ...]

    @property
    def label(self) -> str:
        """The families and the size."""
        return f"{', '.join(self.families)} {self.size}"


@dataclass(frozen=True)
class Leaderboard:
    """One study of one protocol: a row a teacher (or group of teachers that share all runs), a column an arm.

    `says` is what the protocol's file says of its numbers; `results` are the ones counted, of shown teachers and their arms.
    """

    protocol: str
    study: str
    title: str
    says: str
    arms: tuple[str, ...]
    rows: tuple[Row, ...]
    verdicts: tuple[tuple[str, int, dict[str, str | None]], ...]
    native: tuple[tuple[str, tuple[Estimate | None, ...]], ...]
    notes: tuple[str, ...]
    comparisons: int
    runs: int
    seeds: str
    table: pd.DataFrame
    results: tuple[Result, ...]

    @property
    def stem(self) -> str:
        """What its files' names begin with."""
        return f"{self.protocol}-{self.study}"

    @property
    def long(self) -> bool:
        """Whether its arms are too many and too long for columns, so that each gets a row."""
        return any("+" in arm for arm in self.arms)

    @property
    def footnote(self) -> str:
        """What every number and sign on the board means."""
        return (
            "none: mean top-1 in % on the test set. Others: gap in percentage points to the same student without transfer,"
            f" ± half the simultaneous 95 % interval over {self.comparisons} comparisons (Bonferroni; Student's t with"
            " pooled variances, Satterthwaite's degrees of freedom). ✓ success: the interval lies above 0; ✗ failure:"
            f" below; ~ inconclusive. Runs per arm: {self.seeds}. Copy runs its teacher at test time too."
        )


def leaderboard(
    protocol: tuple[str, str],
    study: tuple[str, Study],
    results: Sequence[Result],
    comparisons: int,
    teachers: Sequence[tuple[str, str]] | None = None,
) -> Leaderboard:
    """The board of a study, (name, content), of one protocol's results, (name, what its file says). `teachers` limits and
    orders the rows (default: those with results of the study's transfers)."""
    (name, says), (study_name, listed) = protocol, study
    found = frame(result for result in results if result.cell.protocol == name and result.cell.arm != TEACHER)
    needed = dict.fromkeys(arm for text in listed.arms for arm in (Arm.parse(text).baseline.name, text))
    found = found[found["arm"].isin(list(needed))]
    stats = Comparisons(found, comparisons)
    transfers = {arm for arm in listed.arms if Arm.parse(arm).transfers}
    own = found[found["arm"].isin(transfers)] if transfers else found
    present = list(dict.fromkeys(zip(own["family"], own["size"], strict=True)))
    shown = present if teachers is None else list(teachers)
    groups: dict[tuple[Any, ...], list[str]] = {}
    for family, size in shown:
        ids = [stats.cell(name, family, size, arm) for arm in listed.arms]
        known = tuple((cell["group"], int(cell["n"])) if cell is not None else None for cell in ids)
        alone = (family,) if not any(known) else ()
        groups.setdefault((size, known, alone), []).append(family)
    rows = tuple(
        Row(tuple(members), size, tuple(_entry(stats, name, members[0], size, arm) for arm in listed.arms))
        for (size, _, _), members in groups.items()
    )
    counts = sorted({entry.n for row in rows for entry in row.entries if entry.n})
    return Leaderboard(
        protocol=name,
        study=study_name,
        title=listed.title,
        says=" ".join(says.split()),
        arms=listed.arms,
        rows=rows,
        verdicts=_family_verdicts(rows, listed),
        native=_native(stats, name, rows, listed),
        notes=(
            *component_notes(dict.fromkeys(family for row in rows for family in row.families)),
            *_teacher_notes(results, name),
        ),
        comparisons=comparisons,
        runs=found["key"].nunique(),
        seeds="–".join(map(str, dict.fromkeys([counts[0], counts[-1]]))) if counts else "none",
        table=long_table(stats, found[pd.Index(zip(found["family"], found["size"], strict=True)).isin(shown)], name),
        results=tuple(
            each
            for each in results
            if each.cell.protocol == name and each.cell.arm in needed and (each.cell.family, each.cell.size) in set(shown)
        ),
    )


def _entry(stats: Comparisons, name: str, family: str, size: str, text: str) -> Entry:
    arm = Arm.parse(text)
    cell = stats.cell(name, family, size, text)
    if cell is None:
        return Entry(arm, None, 0, None)
    standard = stats.cell(name, family, size, arm.model_copy(update={"student": "standard"}).name)
    if arm.student == "matched" and standard is not None and standard["group"] == cell["group"]:
        return Entry(arm, float(cell["mean"]), int(cell["n"]), None, "= standard")
    gap = None if not arm.transfers else stats.gap(name, family, size, text)
    return Entry(arm, float(cell["mean"]), int(cell["n"]), gap)


NATIVE = ("control", "reversal copy", "reversal distill", "total copy", "total distill")
NATIVE_MEANS = (
    "What native components do, in percentage points with plain 95 % intervals. control: matched-none - standard-none;"
    " reversal: gap(matched) - gap(standard); total: matched arm - standard-none."
)


def _native(
    stats: Comparisons, name: str, rows: Sequence[Row], study: Study
) -> tuple[tuple[str, tuple[Estimate | None, ...]], ...]:
    if not {"matched-copy", "matched-distill"} & set(study.arms):
        return ()
    table = []
    for row in rows:
        family = row.families[0]
        if not families.spec(family).native:
            continue
        estimates = [stats.control(name, family, row.size)]
        estimates += [stats.reversal(name, family, row.size, method) for method in ("copy", "distill")]
        estimates += [stats.total(name, family, row.size, f"matched-{method}") for method in ("copy", "distill")]
        if any(estimates):
            table.append((row.label, tuple(estimates)))
    return tuple(table)


def _teacher_notes(results: Sequence[Result], name: str) -> list[str]:
    """Teachers whose students did not all learn from the same weights: trained again elsewhere, or on other hardware."""
    weights: dict[tuple[str, str, str], set[str | None]] = {}
    for result in results:
        if result.cell.protocol == name and result.teacher is not None:
            place = (result.cell.family, result.cell.size, result.teacher.source)
            weights.setdefault(place, set()).add(result.teacher.sha256)
    return [
        f"{family} {size}: its students learnt from {len(found)} different weights of one teacher ({source})"
        for (family, size, source), found in weights.items()
        if len(found) > 1
    ]


def _family_verdicts(rows: Sequence[Row], study: Study) -> tuple[tuple[str, int, dict[str, str | None]], ...]:
    transfers = [text for text in study.arms if Arm.parse(text).transfers]
    by_family: dict[str, list[Row]] = {}
    for row in rows:
        for family in row.families:
            by_family.setdefault(family, []).append(row)
    verdicts = []
    for family, own in by_family.items():
        found: dict[str, str | None] = {}
        for text in transfers:
            entries = [row.entries[study.arms.index(text)] for row in own]
            same = all(entry.note for entry in entries)
            found[text] = "= standard" if same else family_verdict([e.gap.verdict if e.gap else None for e in entries])
        verdicts.append((family, len(own), found))
    return tuple(verdicts)


def long_table(stats: Comparisons, found: pd.DataFrame, name: str) -> pd.DataFrame:
    """One row a cell, for the CSV: steps, n, mean, sd and range of top-1, shifted sets, gap with both intervals, verdict;
    total (matched against the standard baseline), reversal and control with their plain intervals' half-widths."""
    if not len(found):
        return pd.DataFrame()
    shifted = [column for column in found.columns if column.startswith("shift:")]
    means = found.groupby(["family", "size", "arm"], sort=False)[shifted].mean()
    rows = []
    for cell in cells(found).to_dict("records"):
        place = (str(cell["family"]), str(cell["size"]), str(cell["arm"]))
        arm = Arm.parse(place[2])
        gap = None if not arm.transfers else stats.gap(name, *place)
        row: dict[str, Any] = {"protocol": name, "family": place[0], "size": place[1], "arm": place[2], "steps": cell["steps"]}
        row |= {"n": cell["n"], "top1": cell["mean"], "sd": cell["sd"], "min": cell["low"], "max": cell["high"]}
        row |= dict(means.loc[place]) | {column: cell[column] for column in ("val", "val_sd", "val_min", "val_max")}
        row |= _gap_columns(gap) | _native_columns(stats, name, place, arm, gap)
        rows.append(row | {"comparisons": stats.comparisons, "group": cell["group"]})
    return pd.DataFrame(rows)


def _gap_columns(gap: Estimate | None) -> dict[str, Any]:
    columns: dict[str, Any] = {name: getattr(gap, field, None) for name, field in GAP_FIELDS.items()}
    for label in ("plain", "simultaneous"):
        half = getattr(gap, label, None)
        for sign, end in ((-1, "low"), (1, "high")):
            columns[f"{label}95_{end}"] = None if gap is None or half is None else gap.value + sign * half
    return columns


def _native_columns(stats: Comparisons, name: str, place: tuple[str, str, str], arm: Arm, gap: Estimate | None) -> dict[str, Any]:
    plain = arm.student == "matched" and arm.baseline.name == "matched-none"
    estimates = {
        "total": stats.total(name, *place) if gap and arm.student == "matched" else None,
        "reversal": stats.reversal(name, *place[:2], arm.method)
        if gap and plain and place[2] == f"matched-{arm.method}"
        else None,
        "control": stats.control(name, *place[:2]) if place[2] == "matched-none" else None,
    }
    columns: dict[str, Any] = {}
    for label, estimate in estimates.items():
        columns |= {label: getattr(estimate, "value", None), f"{label}_plain95": getattr(estimate, "plain", None)}
    return columns


def component_notes(names: Iterable[str]) -> list[str]:
    """Which native components of these families Copy bypasses."""
    return [
        f"{name}: {component.name} is inert under Copy"
        for name in names
        for component in families.spec(name).native
        if component.inert_under_copy
    ]
