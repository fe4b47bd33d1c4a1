"""What is claimed, beside what was measured of it: a study's claims, judged by the results of one protocol.

A claim speaks of differences of arms' means (benchmark.protocol.Test). Each is estimated for each teacher that has results, by
the rules of benchmark.stats: variances pooled over an arm's cells, intervals simultaneous over all differences of the study's
claims. The interval that is shown is the one that decides whether the claim holds here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean
from typing import Any

import pandas as pd

from benchmark.board import inert, same_runs
from benchmark.plan import filled, is_teacher, make_plan, teachers_of
from benchmark.protocol import Arm, Claim, Expected, Protocol, Study, Test, load_protocol, load_study, shipped, signed_terms
from benchmark.stats import GAP, REVERSAL, Estimate, cells, contrasts, estimate, frame, signed_arms
from benchmark.store import Result
from families.spec import UserError

HOLDS, CONTRADICTED, OPEN, NOT_CONTRADICTED = "as claimed", "contradicted", "open", "not contradicted"
NO_CASE = "no failure"  # what is claimed of failing transfers, of one that is not shown to fail
SIGNS = {HOLDS: "✓", CONTRADICTED: "✗", NOT_CONTRADICTED: "○", OPEN: "~", NO_CASE: "○"}
EXPECTED = {
    "above": "above 0",
    "below": "below 0",
    "not-above": "not above 0",
    "not-below": "not below 0",
    "same": "all on one side",
    "same-family": "all on one side",
}


@dataclass(frozen=True)
class Measured:
    """One difference for one teacher, or for several that share all its runs.

    Attributes:
        difference: as the claim writes it, `*` filled in.
        teachers: (family, size) of each.
        on: the test set, or `kl`.
        arms: with their weights, after what a study sweeps was chosen on val.
        estimate: in percentage points, of `kl` in nats.
        n: runs of the arm that has fewest.
        expect, outcome: what the claim says, and whether that is so; None where nothing is claimed, or without an interval.
        premise: what is below 0 where a transfer fails, if the claim is about those that do.
    """

    difference: str
    teachers: tuple[tuple[str, str], ...]
    on: str
    arms: tuple[tuple[str, float], ...]
    estimate: Estimate
    n: int
    expect: Expected | None
    outcome: str | None = None
    premise: Measured | None = None

    @property
    def terms(self) -> dict[str, float]:
        """The arms as the claim names them, with their weights."""
        return signed_terms(self.difference)

    @property
    def kind(self) -> str | None:
        """What benchmark.stats calls this difference: gap, reversal, control, ...; None for another one."""
        parts = dict(self.arms)
        return next((kind for kind, each in signed_arms(Arm.parse(self.arms[0][0])).items() if each == parts), None)

    @property
    def short(self) -> str:
        """The difference in few words: the arm alone for its gap, with what else benchmark.stats computes of one arm."""
        first = Arm.parse(next(iter(self.terms)))
        kind = self.kind
        name = first.name if kind == GAP else self.difference if kind is None else f"{first.name} ({kind})"
        return name if self.on in ("test", "kl") else f"{name} on {self.on}"

    @property
    def label(self) -> str:
        """The teachers as readers see them: families, then the size."""
        sizes: dict[str, list[str]] = {}
        for family, size in self.teachers:
            sizes.setdefault(size, []).append(family)
        return "; ".join(f"{', '.join(names)} {size}" for size, names in sizes.items())


@dataclass(frozen=True)
class Judged:
    """A claim, what was measured of it, and what that says of the claim."""

    claim: Claim
    measured: tuple[Measured, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many differences have each outcome."""
        found = [each.outcome for each in self.measured if each.outcome is not None]
        return {word: found.count(word) for word in (CONTRADICTED, OPEN, HOLDS, NOT_CONTRADICTED, NO_CASE) if word in found}

    @property
    def outcome(self) -> str | None:
        """The outcome that comes first to a reader: contradicted or open, as soon as one difference is."""
        return next(iter(self.counts), None)

    @property
    def word(self) -> str:
        """What the differences say of the claim, with how many say so."""
        if not self.measured:
            return "not measured" if self.claim.tests else "nothing to measure"
        counts, of = self.counts, sum(self.counts.values())
        if not counts:
            return "numbers alone" if any(each.expect is None for each in self.measured) else "no interval"
        told = [f"{word} {count}" if len(counts) > 1 else f"{word} ({count} of {of})" for word, count in counts.items()]
        return f"{SIGNS[next(iter(counts))]} {', '.join(told)}"


@dataclass(frozen=True)
class Finding:
    """A study's claims beside what one protocol's results say of them.

    Attributes:
        protocol, study: their names; title, asks, limits: what the study's file says.
        judged: its claims.
        comparisons: m of the simultaneous intervals.
        runs: how many distinct runs stand behind its differences.
        commands: what trains what was measured.
        on_imagenet: the same on ImageNet's protocol; None where that cannot be.
    """

    protocol: str
    study: str
    title: str
    asks: str
    limits: str
    judged: tuple[Judged, ...]
    comparisons: int
    runs: int
    commands: tuple[str, ...]
    on_imagenet: str | None

    @property
    def stem(self) -> str:
        """What its files' names begin with."""
        return f"{self.protocol}-{self.study}"

    @property
    def footnote(self) -> str:
        """What the numbers mean."""
        return (
            "Differences of mean top-1 in percentage points, of kl in nats, ± half the simultaneous 95 % interval over the"
            f" {self.comparisons} differences that were measured (Bonferroni; Student's t with pooled variances). {HOLDS}: the"
            f" whole interval lies on the claimed side of 0; {CONTRADICTED}: on the other; {OPEN}: it holds 0. A claim that"
            f" something is not so can be {CONTRADICTED} or {NOT_CONTRADICTED}; {NO_CASE}: it is about transfers that fail,"
            " which this one is not shown to. n: runs of the arm with fewest."
        )


def findings(name: str, protocol: Protocol, results: Sequence[Result], studies: Mapping[str, Study]) -> tuple[Finding, ...]:
    """Of each of these studies that has claims, what this protocol's current results say; in the order of the
    claims' rows, ours last."""
    own = [result for result in results if result.cell.protocol == name and not is_teacher(result.cell.arm)]
    if not own:
        return ()
    table = Tables(own)
    asked = [_Asked((name, protocol), study, table) for study in studies.items() if study[1].claims]
    estimates = _estimates(name, [(one, each.comparisons) for each in asked for one in each.every], table)
    found = [each.finding(estimates) for each in asked]
    return tuple(sorted(found, key=lambda each: (_first_row(each), each.study)))


def _first_row(finding: Finding) -> float:
    rows = [row for judged in finding.judged for row in judged.claim.rows]
    return min(rows, default=float("inf"))


class Tables:
    """One protocol's results as tables of what is compared (benchmark.stats.frame), its column top1 being that."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.top1 = frame(results)
        kl = [fmean(result.metrics.attention_kl) if result.metrics.attention_kl else None for result in results]
        self.shifted = [column for column in self.top1.columns if column.startswith("shift:")]
        self.by_set = {"test": self.top1, "kl": self._of(pd.Series(kl, dtype=float))}
        self.by_set |= {column.removeprefix("shift:"): self._of(self.top1[column]) for column in self.shifted}
        self.cells = {on: self._cells(table) for on, table in self.by_set.items()}
        self.runs: dict[tuple[str, str], dict[str, dict[int, str]]] = {}  # teacher, arm, seed: key
        for result in results:
            cell = result.cell
            self.runs.setdefault((cell.family, cell.size), {}).setdefault(cell.arm, {})[cell.seed] = result.key

    def _of(self, values: pd.Series) -> pd.DataFrame:
        table = self.top1.assign(top1=values.to_numpy())
        return table[table["top1"].notna()]

    @staticmethod
    def _cells(table: pd.DataFrame) -> dict[tuple[str, str, str], dict[str, Any]]:
        found = cells(table).to_dict("records") if len(table) else []
        return {(str(cell["family"]), str(cell["size"]), str(cell["arm"])): cell for cell in found}

    def sets(self, metric: str) -> list[str]:
        """The test sets that a metric is told of."""
        shifted = [column.removeprefix("shift:") for column in self.shifted]
        return {"top1": ["test"], "shifted": shifted, "kl": ["kl"]}[metric]


class _Asked:
    """A study's claims, with the differences that results stand behind."""

    def __init__(self, protocol: tuple[str, Protocol], study: tuple[str, Study], tables: Tables) -> None:
        self.protocol, self.study = protocol, study
        teachers = _measured_for(protocol[1], study[1], tables)
        self.tests = [
            [_asked(protocol[1], study[1], test, tables, teachers) for test in claim.tests] for claim in study[1].claims
        ]
        claimed = [each for tests in self.tests for found in tests for each in found]
        self.every = [*claimed, *(each.premise for each in claimed if each.premise is not None)]
        self.teachers = {teacher: teachers[teacher] for each in self.every for teacher in each.teachers}
        self.comparisons = len({(each.on, _groups(each, tables)) for each in self.every})
        used = {(each.teachers[0], arm) for each in claimed for arm, _ in each.arms}
        self.runs = len({key for teacher, arm in used for key in tables.runs[teacher][arm].values()})

    def finding(self, estimates: Mapping[tuple[Measured, int], Estimate]) -> Finding:
        """The claims judged by these estimates, each found by the difference and m of its interval."""

        def estimated(one: Measured) -> Measured:
            premise = one.premise and estimated(one.premise)
            return replace(one, estimate=estimates[one, self.comparisons], premise=premise)

        (name, _), (study_name, listed) = self.protocol, self.study
        judged = [
            Judged(claim, tuple(one for found in tests for one in _judged([estimated(each) for each in found])))
            for claim, tests in zip(listed.claims, self.tests, strict=True)
        ]
        return Finding(
            protocol=name,
            study=study_name,
            title=listed.title,
            asks=" ".join(listed.asks.split()),
            limits=" ".join(listed.limits.get(name, "").split()),
            judged=tuple(judged),
            comparisons=self.comparisons,
            runs=self.runs,
            commands=_commands(self.protocol, self.study, self.teachers),
            on_imagenet=_on_imagenet(self.study, sorted({family for family, _ in self.teachers})),
        )


def _measured_for(protocol: Protocol, study: Study, tables: Tables) -> dict[tuple[str, str], list[int]]:
    """The teachers that have results of what the study adds to main and to baselines, where it adds something; with the seeds
    that all of these have."""
    usual, found = set(load_study("main")[1].arms), {}
    known = teachers_of("all", None, study.teachers)
    for teacher, runs in tables.runs.items():
        arms = {text for arm in study.arms for text in filled(protocol, arm, *teacher)}
        added = {arm for arm in arms - usual if Arm.parse(arm) != Arm.parse(arm).baseline}
        own = [set(runs[arm]) for arm in (added or arms) if arm in runs]
        if own and (added or teacher in known):
            found[teacher] = sorted(set.intersection(*own) or set.union(*own))
    return found


def _asked(protocol: Protocol, study: Study, test: Test, tables: Tables, teachers: Iterable[tuple[str, str]]) -> list[Measured]:
    """The differences of a test that results stand behind, without their estimates; of teachers that share all runs once."""
    found: dict[Any, Measured] = {}
    wanted = [teacher for teacher in teachers if test.families is None or teacher[0] in test.families]
    for on, teacher in product(tables.sets(test.metric), wanted):
        for text in (each for difference in test.of for each in filled(protocol, difference, *teacher)):
            one = _measured(study, text, teacher, on, tables, test.expect)
            premise = _measured(study, test.failing, teacher, "test", tables) if test.failing and one else None
            if one is None or (test.failing and premise is None):
                continue
            place = (text, on, _groups(one, tables), premise and _groups(premise, tables))
            before = found.get(place)
            teachers_of_it = (teacher,) if before is None else (*before.teachers, teacher)
            found[place] = replace(one, teachers=teachers_of_it, premise=premise)
    return list(found.values())


def _measured(
    study: Study, text: str, teacher: tuple[str, str], on: str, tables: Tables, expect: Expected | None = None
) -> Measured | None:
    """A difference for one teacher, without its estimate; None without results of it, or where it is no test: its matched
    student is the standard one, or it is what components do to Copy that Copy bypasses."""
    words = text.split()[::2]
    arms = _chosen(study, signed_terms(text), teacher, tables) if len(set(words)) == len(words) else ()
    known = [tables.cells[on].get((*teacher, arm)) for arm, _ in arms]
    if not arms or any(cell is None for cell in known):
        return None
    one = Measured(text, (teacher,), on, arms, Estimate(0.0), min(int(cell["n"]) for cell in known if cell is not None), expect)
    for (arm, _), cell in zip(arms, known, strict=True):
        parsed = Arm.parse(arm)
        if same_runs(parsed, cell, tables.cells[on].get((*teacher, parsed.standard.name))):
            return None
    first = Arm.parse(arms[0][0])
    return None if one.kind == REVERSAL and inert(first, *teacher) else one


def _chosen(study: Study, terms: Mapping[str, float], teacher: tuple[str, str], tables: Tables) -> tuple[tuple[str, float], ...]:
    """The arms as they are or, where the study sweeps something, each at the value of it that is best on val."""
    if study.choose is None:
        return tuple(terms.items())
    found = []
    for text, weight in terms.items():
        wanted = Arm.parse(text).default(study.choose)
        tried = [arm for arm in study.arms if Arm.parse(arm).default(study.choose) == wanted]
        known = [(tables.cells["test"][(*teacher, arm)]["val"], arm) for arm in tried if (*teacher, arm) in tables.cells["test"]]
        if not known or len(known) < len(tried):  # the best of a part is not the best
            return ()
        found.append((max(known)[1], weight))
    return tuple(found)


def _groups(measured: Measured, tables: Tables) -> frozenset[tuple[str, float]]:
    """What is compared, by the runs behind it: equal for teachers that share them."""
    weights: dict[str, float] = {}
    for arm, weight in measured.arms:
        group = str(tables.cells[measured.on][(*measured.teachers[0], arm)]["group"])
        weights[group] = weights.get(group, 0.0) + weight
    return frozenset((group, weight) for group, weight in weights.items() if weight)


def _estimates(protocol: str, asked: Iterable[tuple[Measured, int]], tables: Tables) -> dict[tuple[Measured, int], Estimate]:
    """An estimate of every difference with m of its interval; all on one set at once, since variances are pooled over the whole
    table each time."""
    distinct, found = list(dict.fromkeys(asked)), dict[tuple[Measured, int], Estimate]()
    counts = pd.Series([m for _, m in distinct])
    for on in dict.fromkeys(one.on for one, _ in distinct):
        parts = [
            {"contrast": number, "protocol": protocol, "family": one.teachers[0][0], "size": one.teachers[0][1]}
            | {"arm": arm, "weight": weight}
            for number, (one, _) in enumerate(distinct)
            if one.on == on
            for arm, weight in one.arms
        ]
        for number, row in contrasts(tables.by_set[on], pd.DataFrame(parts), counts).iterrows():
            found[distinct[int(str(number))]] = estimate(row)
    return found


def _judged(measured: Sequence[Measured]) -> list[Measured]:
    """With an outcome each, where something is claimed and there is an interval."""
    return [replace(each, outcome=_outcome(each, [other for other in measured if _akin(each, other)])) for each in measured]


def _akin(one: Measured, other: Measured) -> bool:
    """Whether both are claimed to be on one side: of a teacher that they share, or of a family."""
    if one.expect == "same-family":
        return bool({family for family, _ in one.teachers} & {family for family, _ in other.teachers})
    return bool(set(one.teachers) & set(other.teachers))


def side(found: Estimate) -> int | None:
    """1 above 0, -1 below, 0 where the simultaneous interval holds it; None without one."""
    if found.simultaneous is None:
        return None
    return int(found.value - found.simultaneous > 0) - int(found.value + found.simultaneous < 0)


def _outcome(measured: Measured, akin: Sequence[Measured]) -> str | None:
    """Whether it is as claimed; `akin`: those that are claimed to be on the same side, itself among them."""
    at = side(measured.estimate)
    if measured.expect is None or at is None:
        return None
    if measured.premise is not None and side(measured.premise.estimate) != -1:
        return None if side(measured.premise.estimate) is None else NO_CASE
    if measured.expect.startswith("same"):
        sides = [known for each in akin if (known := side(each.estimate)) is not None]
        return CONTRADICTED if {1, -1} <= set(sides) else OPEN if 0 in sides or len(sides) < 2 else HOLDS
    claimed = 1 if measured.expect.endswith("above") else -1
    if measured.expect.startswith("not-"):
        return CONTRADICTED if at == claimed else HOLDS if at == -claimed else NOT_CONTRADICTED
    return HOLDS if at == claimed else CONTRADICTED if at == -claimed else OPEN


# ---- the commands behind it


def _commands(
    protocol: tuple[str, Protocol], study: tuple[str, Study], teachers: Mapping[tuple[str, str], Sequence[int]]
) -> tuple[str, ...]:
    """What trains what was measured."""
    (name, content), (study_name, listed) = protocol, study
    if study_name not in shipped("studies") or name not in shipped("protocols"):
        return ()  # a file of the user's, wherever it lies
    words = f"bench run --study {study_name}" + ("" if name == "mini" else f" --protocol {name} --data /data/{name}")
    ways: dict[tuple[tuple[str, ...], tuple[int, ...]], list[str]] = {}
    for family in dict.fromkeys(family for family, _ in teachers):
        own = {size: seeds for (each, size), seeds in teachers.items() if each == family}
        seeds = set.intersection(*map(set, own.values())) or set.union(*map(set, own.values()))
        ways.setdefault((tuple(own), tuple(sorted(seeds))), []).append(family)
    whole = {
        pair for pair in teachers_of("all", None, listed.teachers) if content.scale is None or pair[1] in content.scale.sizes
    }
    counts = {seeds for _, seeds in ways}
    if set(teachers) == whole and len(counts) == 1:
        return (f"{words}{_seeds(next(iter(counts)), content)}",)
    return tuple(
        f"{words} --family {','.join(sorted(names))} --sizes {','.join(sizes)}{_seeds(seeds, content)}"
        for (sizes, seeds), names in ways.items()
    )


def _seeds(seeds: Sequence[int], protocol: Protocol) -> str:
    return "" if tuple(seeds) == protocol.seeds else f" --seeds {','.join(map(str, seeds))}"


def _on_imagenet(study: tuple[str, Study], names: Sequence[str]) -> str | None:
    """The command that tests the same families on ImageNet; None where that protocol cannot have the study's arms."""
    name, protocol = load_protocol("imagenet")
    whole = teachers_of("all", None, study[1].teachers)
    chosen = "" if set(names) == {family for family, _ in whole} else f" --family {','.join(names)}"
    try:
        plan = make_plan(name, protocol, *study, [next(each for each in whole if each[0] in names)], protocol.seeds[:1])
    except (UserError, StopIteration):
        return None
    return f"bench run --study {study[0]} --protocol imagenet --data /data/imagenet{chosen}" if plan.items else None
