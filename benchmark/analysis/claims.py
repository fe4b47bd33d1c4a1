"""What is claimed, beside what was measured of it: a study's claims, judged by the results of one protocol.

A claim speaks of differences of arms' means (benchmark.protocol.Test). Each is estimated for each teacher that has results, by
the rules of benchmark.stats: variances pooled over an arm's cells, intervals simultaneous over all comparisons of the plan,
finished or not. A gap that a leaderboard judges has that board's interval, so that no comparison has two; of the others, one that
several studies' claims speak of belongs to the first of them. The interval that is shown is the one that decides whether the
claim holds here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean
from typing import Any

import pandas as pd

from benchmark.analysis.leaderboard import Leaderboard, inert, students_table
from benchmark.analysis.statistics import GAP, Estimate, Pool, as_estimates, contrasts, signed_arms
from benchmark.spec.arm import Arm
from benchmark.spec.data_sets import CuedDigits
from benchmark.spec.definitions import Definitions, is_teacher
from benchmark.spec.plan import make_plan
from benchmark.spec.protocol import DEFAULT_PROTOCOL, Protocol, load_protocol
from benchmark.spec.run import Cell
from benchmark.spec.study import Claim, Expected, Study, Test, load_study, signed_terms
from benchmark.spec.teachers import filled, teachers_of
from benchmark.spec.yaml_files import shipped
from benchmark.storage.result_file import Result
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
    "same-size": "all on one side",
}


OURS = "a question of our own"  # whose claim it is where nobody is named


Teacher = tuple[str, str]  # family, size


Compared = frozenset[tuple[str | None, float]]  # runs with their weights


Place = tuple[str, str | None, Compared]  # on which set, after what was chosen, what


PENDING = Estimate(math.nan)


@dataclass(frozen=True)
class Measured:
    """One difference for one teacher, or for several that share all its runs.

    Attributes:
        difference: as the claim writes it, `*` filled in.
        teachers: (family, size) of each.
        on: the test set, or `kl`.
        arms: with their weights, after what a study sweeps was chosen on val.
        n: runs of the arm that has fewest.
        expect: what the claim says; None where nothing is claimed.
        comparisons: m of its simultaneous interval.
        premise: what is below 0 where a transfer fails, if the claim is about those that do.
        estimate: in percentage points, of `kl` in nats.
        outcome: whether it is as claimed; None where nothing is claimed, without an interval, or without another one to be on
            one side with.
    """

    difference: str
    teachers: tuple[Teacher, ...]
    on: str
    arms: tuple[tuple[str, float], ...]
    n: int
    expect: Expected | None
    comparisons: int
    premise: Measured | None = None
    estimate: Estimate = PENDING
    outcome: str | None = None

    @property
    def terms(self) -> dict[str, float]:
        """The arms as the claim names them, with their weights."""
        return signed_terms(self.difference)

    @property
    def kind(self) -> str | None:
        """What benchmark.stats calls this difference: gap, reversal, control, ...; None for another one."""
        return _kind(self.terms)

    @property
    def short(self) -> str:
        """The difference in few words: the arm alone for its gap, with what else benchmark.stats computes of one arm; two arms
        for the difference of their gaps."""
        arms, kind = list(self.terms), self.kind
        if kind is not None:
            name = arms[0] if kind == GAP else f"{arms[0]} ({kind})"
        else:
            two = [(arm, Arm.parse(arm).baseline.name) for arm in arms[::2]]
            are_gaps = self.terms == {two[0][0]: 1.0, two[0][1]: -1.0, two[-1][0]: -1.0, two[-1][1]: 1.0}
            name = f"{arms[0]} - {arms[2]} (gaps)" if are_gaps else self.difference
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
    """A claim, what was measured of it, and what that says of the claim; `on_imagenet` is the command that tests it there, for
    the families that it names, else for all: None where that is this protocol itself, or cannot have the study's arms."""

    claim: Claim
    measured: tuple[Measured, ...]
    on_imagenet: str | None = None

    @property
    def who(self) -> str:
        """Who says so."""
        return self.claim.by or OURS

    @property
    def counts(self) -> dict[str, int]:
        """How many differences have each outcome; those that decide nothing before those that are as claimed."""
        found = [each.outcome for each in self.measured if each.outcome is not None]
        return {word: found.count(word) for word in (CONTRADICTED, OPEN, NOT_CONTRADICTED, HOLDS, NO_CASE) if word in found}

    @property
    def outcome(self) -> str | None:
        """The outcome that comes first to a reader: contradicted or open, as soon as one difference is."""
        return next(iter(self.counts), None)

    @property
    def word(self) -> str:
        """What the differences say of the claim, with how many say so."""
        if not self.measured:
            return "not measured" if self.claim.tests else "nothing to measure"
        if all(each.expect is None for each in self.measured):
            return "numbers alone"
        claimed = [each for each in self.measured if each.expect is not None]
        parts = self.counts | {"without outcome": sum(each.outcome is None for each in claimed)}
        told = [f"{word} {count}" for word, count in parts.items() if count]
        first = f"{SIGNS[self.outcome]} " if self.outcome else ""
        return f"{first}{', '.join(told)}" if len(told) > 1 else f"{first}{told[0]} of {len(claimed)}"


@dataclass(frozen=True)
class Finding:
    """A study's claims beside what one protocol's results say of them.

    Attributes:
        protocol, study: their names; title, asks, limits: what the study's file says.
        judged: its claims.
        made: by key the code's digest of the distinct runs that stand behind its differences.
        commands: what trains what the study adds to main, of what was measured; none for a file of the user's.
    """

    protocol: str
    study: str
    title: str
    asks: str
    limits: str
    judged: tuple[Judged, ...]
    made: Mapping[str, str]
    commands: tuple[str, ...]

    @property
    def runs(self) -> int:
        """How many distinct runs those are."""
        return len(self.made)

    @property
    def on_imagenet(self) -> tuple[str, ...]:
        """The commands that test its claims there."""
        return tuple(dict.fromkeys(judged.on_imagenet for judged in self.judged if judged.on_imagenet))

    @property
    def stem(self) -> str:
        """What its files' names begin with."""
        return f"{self.protocol}-{self.study}"

    @property
    def measured(self) -> list[Measured]:
        """The differences of all claims."""
        return [one for judged in self.judged for one in judged.measured]

    @property
    def comparisons(self) -> tuple[int, ...]:
        """Each m that its simultaneous intervals have."""
        return tuple(sorted({one.comparisons for one in self.measured if one.estimate.simultaneous is not None}))

    @property
    def footnote(self) -> str:
        """What the numbers mean."""
        return (
            "Differences of mean top-1 in percentage points, of kl in nats, ± half the simultaneous 95 % interval over m"
            " comparisons (Bonferroni; Student's t with pooled variances): those of the leaderboard that judges a gap, else those"
            f" that this study's claims add to the others' ({' or '.join(map(str, self.comparisons)) or 'none'}). {HOLDS}: the"
            f" whole interval lies on the claimed side of 0; {CONTRADICTED}: on the other; {OPEN}: it contains 0. A claim that"
            f" something is not so can be {CONTRADICTED} or {NOT_CONTRADICTED}. {EXPECTED['same']}: all lines of a teacher (a"
            f" family, a size) together, each with the outcome of all: {OPEN} as soon as one contains 0. {NO_CASE}: the claim"
            " is about transfers that fail, and this one is not shown to. ° another side of 0, or none, by each cell's own"
            " variance. n: runs of the arm with fewest."
        )


def findings(
    name: str,
    protocol: Protocol,
    results: Sequence[Result],
    studies: Mapping[str, Study],
    boards: Sequence[Leaderboard] = (),
    defined: Definitions | None = None,
    table: pd.DataFrame | None = None,
) -> tuple[Finding, ...]:
    """Of each of these studies that has claims, what this protocol's current results say; in the order of the claims' rows, ours
    last. A difference that several of them speak of belongs to the first; gaps that `boards` judge are theirs.
    `defined` are the protocol's runs and `table` is benchmark.board.students_table, where others have them already."""
    own = [result for result in results if result.cell.protocol == name and not is_teacher(result.cell.arm)]
    if not own:
        return ()
    tables = Tables(own, boards, students_table(own, name) if table is None else table)
    runs, usual = Runs(name, defined or Definitions(protocol)), load_study("main")[1].arms
    asked = [_Asked(study, tables, runs, usual) for study in studies.items() if study[1].claims]
    counts = dict[Place, int]()
    for each in asked:
        added = each.places() - counts.keys()
        counts |= dict.fromkeys(added, len(added))
    measured = [each.measured(counts) for each in asked]
    estimates = _estimates(name, [one for claims in measured for claim in claims for test in claim for one in test], tables)
    imagenet = load_protocol("imagenet")
    found = [each.finding(claims, estimates, imagenet) for each, claims in zip(asked, measured, strict=True)]
    return tuple(sorted(found, key=lambda each: (_first_row(each), each.study)))


def _first_row(finding: Finding) -> float:
    rows = [row for judged in finding.judged for row in judged.claim.rows]
    return min(rows, default=float("inf"))


class Runs:
    """The keys of a protocol's runs at seed 0, whether or not they have results."""

    def __init__(self, name: str, defined: Definitions) -> None:
        self.name, self.protocol, self._defined = name, defined.protocol, defined
        self._keys, self._filled = dict[tuple[Teacher, str], str | None](), dict[tuple[Teacher, str], list[str]]()

    def key(self, teacher: Teacher, arm: str) -> str | None:
        """None where this teacher cannot have the arm."""
        if (teacher, arm) not in self._keys:
            try:
                self._keys[teacher, arm] = self._defined.run_of(Cell(self.name, *teacher, arm, 0)).key
            except UserError:
                self._keys[teacher, arm] = None
        return self._keys[teacher, arm]

    def weighted(self, teacher: Teacher, terms: Mapping[str, float]) -> Compared:
        """What a difference of arms compares: equal for teachers that share its runs; empty where they cancel."""
        weights = dict[str | None, float]()
        for arm, weight in terms.items():
            key = self.key(teacher, arm)
            weights[key] = weights.get(key, 0.0) + weight
        return frozenset((key, weight) for key, weight in weights.items() if weight)

    def filled(self, text: str, teacher: Teacher) -> list[str]:
        """A difference with each value that this teacher has for its `*`, where it is a test. It is none between equal runs, nor
        where it is what components do to Copy that Copy bypasses."""
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
            if arm.name != other and (keys[arm.name] == self.key(teacher, other) or (other in terms and inert(arm, *teacher))):
                return False
        return bool(self.weighted(teacher, terms))


class Tables:
    """One protocol's results as tables of what is compared (benchmark.stats.frame), its column top1 being that; and the gaps
    that leaderboards judge."""

    def __init__(self, results: Sequence[Result], boards: Sequence[Leaderboard], table: pd.DataFrame) -> None:
        self.top1 = table
        kl = [fmean(result.metrics.attention_kl) if result.metrics.attention_kl else None for result in results]
        self.shifted = [column for column in self.top1.columns if column.startswith("shift:")]
        by_set = {"test": self.top1, "kl": self._of(pd.Series(kl, dtype=float))}
        by_set |= {column.removeprefix("shift:"): self._of(self.top1[column]) for column in self.shifted}
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
            if kind == GAP and gap.simultaneous is not None  # another board's have none
        }

    def _of(self, values: pd.Series) -> pd.DataFrame:
        table = self.top1.assign(top1=values.to_numpy())
        return table[table["top1"].notna()]

    @staticmethod
    def _cells(pool: Pool | None) -> dict[tuple[str, ...], dict[str, Any]]:
        if pool is None:
            return {}
        return {place[1:]: cell for place, cell in zip(pool.places, pool.cells.to_dict("records"), strict=True)}

    def sets(self, metric: str) -> list[str]:
        """The test sets that a metric is told of."""
        shifted = [column.removeprefix("shift:") for column in self.shifted]
        return {"top1": ["test"], "shifted": shifted, "kl": ["kl"]}[metric]


class _Asked:
    """A study's claims: what they compare by the plan, and what of that has results."""

    def __init__(self, study: tuple[str, Study], tables: Tables, runs: Runs, usual: Sequence[str]) -> None:
        (self.name, self.study), self.tables, self.runs = study, tables, runs
        self.teachers = _with_results(runs.protocol, self.study, tables, usual)
        scale = runs.protocol.scale
        known = [pair for pair in teachers_of("all", None, self.study.teachers) if scale is None or pair[1] in scale.sizes]
        self.planned = list(dict.fromkeys([*known, *self.teachers]))

    def places(self) -> set[Place]:
        """The distinct comparisons of the plan that no leaderboard judges."""
        found = set[Place]()
        for test in (test for claim in self.study.claims for test in claim.tests):
            for on, teacher, text, premise in self._differences(test, self.planned):
                every = [(on, text)] if premise is None else [(on, text), ("test", premise)]
                found |= {self._place(on, teacher, each) for on, each in every if not self._on_board(on, each)}
        return found

    def measured(self, counts: Mapping[Place, int]) -> list[list[list[Measured]]]:
        """By claim and test the differences that have results, teachers that share all runs once; `counts` is m by place. Those
        that no leaderboard judges are without their estimates."""
        return [[self._measured(test, counts) for test in claim.tests] for claim in self.study.claims]

    def finding(
        self, measured: list[list[list[Measured]]], estimates: Mapping[Measured, Estimate], imagenet: tuple[str, Protocol]
    ) -> Finding:
        """The claims judged."""

        def whole(one: Measured) -> Measured:
            return replace(one, estimate=estimates.get(one, one.estimate), premise=one.premise and whole(one.premise))

        judged = [
            Judged(
                claim,
                tuple(one for found in tests for one in _judged([whole(each) for each in found])),
                None if self.runs.name == imagenet[0] else _on_imagenet((self.name, self.study), claim, imagenet),
            )
            for claim, tests in zip(self.study.claims, measured, strict=True)
        ]
        every = [one for each in judged for found in each.measured for one in (found, found.premise) if one is not None]
        teachers = {teacher: self.teachers[teacher] for each in every for teacher in each.teachers}
        used = {(each.teachers[0], arm) for each in every for arm, _ in each.arms}
        return Finding(
            protocol=self.runs.name,
            study=self.name,
            title=self.study.title,
            asks=" ".join(self.study.asks.split()),
            limits=" ".join(self.study.limits.get(self.runs.name, "").split()),
            judged=tuple(judged),
            made={key: self.tables.made[key] for teacher, arm in sorted(used) for key in self.tables.keys[teacher][arm].values()},
            commands=_commands(self.name, self.runs, teachers),
        )

    def _differences(self, test: Test, teachers: Iterable[Teacher]) -> Iterator[tuple[str, Teacher, str, str | None]]:
        """Set, teacher, difference and premise."""
        wanted = [teacher for teacher in teachers if test.families is None or teacher[0] in test.families]
        for on, teacher in product(self.tables.sets(test.metric), wanted):
            premises = [None] if test.failing is None else self.runs.filled(test.failing, teacher)
            for premise, of in product(premises, test.of):
                yield from ((on, teacher, text, premise) for text in self.runs.filled(of, teacher))

    def _on_board(self, on: str, text: str) -> bool:
        return self.tables.judged and on == "test" and self.study.choose is None and _kind(signed_terms(text)) == GAP

    def _place(self, on: str, teacher: Teacher, text: str) -> Place:
        return on, self.study.choose, self.runs.weighted(teacher, signed_terms(text))

    def _measured(self, test: Test, counts: Mapping[Place, int]) -> list[Measured]:
        found: dict[Any, Measured] = {}
        for on, teacher, text, premise in self._differences(test, self.teachers):
            below = None if premise is None else self._one("test", teacher, premise, None, counts)
            one = self._one(on, teacher, text, test.expect, counts)
            if one is None or (premise is not None and below is None):
                continue
            compared = [self.runs.weighted(teacher, dict(each.arms)) for each in (one, below) if each is not None]
            before = found.get((text, on, *compared))
            teachers = (teacher,) if before is None else (*before.teachers, teacher)
            found[text, on, *compared] = replace(one, teachers=teachers, premise=below)
        return list(found.values())

    def _one(self, on: str, teacher: Teacher, text: str, expect: Expected | None, counts: Mapping[Place, int]) -> Measured | None:
        """A difference for one teacher, its estimate pending where no leaderboard judges it; None without results."""
        arms = self._chosen(signed_terms(text), teacher)
        known = [self.tables.cells[on].get((*teacher, arm)) for arm in arms]
        if not arms or None in known:
            return None
        judged = self.tables.gaps.get((*teacher, next(iter(arms)))) if on == "test" and _kind(arms) == GAP else None
        found, m = judged or (PENDING, counts.get(self._place(on, teacher, text), 0))
        n = min(int(cell["n"]) for cell in known if cell is not None)
        return Measured(text, (teacher,), on, tuple(arms.items()), n, expect, m, None, found)

    def _chosen(self, terms: dict[str, float], teacher: Teacher) -> dict[str, float]:
        """The arms as they are or, where the study sweeps something, each at the value of it that is best on val; none where a
        value has no results, since the best of a part is not the best, or where two arms become one."""
        if self.study.choose is None:
            return terms
        listed = [arm for text in self.study.arms for arm in filled(self.runs.protocol, text, *teacher)]
        found = dict[str, float]()
        for text, weight in terms.items():
            wanted = Arm.parse(text).default(self.study.choose)
            tried = [arm for arm in listed if Arm.parse(arm).default(self.study.choose) == wanted]
            known = [self.tables.cells["test"].get((*teacher, arm)) for arm in tried]
            if not known or None in known:
                return {}
            _, best = max((cell["val"], arm) for cell, arm in zip(known, tried, strict=True) if cell is not None)
            found[best] = weight
        return found if len(found) == len(terms) else {}


def _with_results(protocol: Protocol, study: Study, tables: Tables, usual: Sequence[str]) -> dict[Teacher, list[int]]:
    """The teachers that have results of what the study adds to the `usual` arms, main's, and to baselines, where it adds
    something; with the seeds that all of these have."""
    known, found = teachers_of("all", None, study.teachers), dict[Teacher, list[int]]()
    for teacher, runs in tables.keys.items():
        arms = {text for arm in study.arms for text in filled(protocol, arm, *teacher)}
        added = {arm for arm in arms - set(usual) if Arm.parse(arm) != Arm.parse(arm).baseline}
        own = [set(runs[arm]) for arm in (added or arms) if arm in runs]
        if own and (added or teacher in known):
            found[teacher] = sorted(set.intersection(*own) or set.union(*own))
    return found


def _kind(parts: Mapping[str, float]) -> str | None:
    """What benchmark.stats calls a difference of arms, the first of which it is of."""
    return next((kind for kind, each in signed_arms(Arm.parse(next(iter(parts)))).items() if each == parts), None)


def _estimates(protocol: str, measured: Iterable[Measured], tables: Tables) -> dict[Measured, Estimate]:
    """Those that are pending, and of premises; all on one set at once, since variances are pooled over the whole table each
    time."""
    every = dict.fromkeys(one for found in measured for one in (found, found.premise) if one is not None)
    pending, found = [one for one in every if one.estimate is PENDING], dict[Measured, Estimate]()
    counts = pd.Series([one.comparisons for one in pending])
    for on in dict.fromkeys(one.on for one in pending):
        parts = [
            (number, (protocol, *one.teachers[0], arm), weight)
            for number, one in enumerate(pending)
            if one.on == on
            for arm, weight in one.arms
        ]
        values = as_estimates(contrasts(tables.pools[on], parts, counts))
        found |= {pending[number]: value for number, value in values.items()}
    return found


def _judged(measured: Sequence[Measured]) -> list[Measured]:
    """With an outcome each, where something is claimed and there is an interval."""
    return [replace(each, outcome=_outcome(each, [other for other in measured if _akin(each, other)])) for each in measured]


def _akin(one: Measured, other: Measured) -> bool:
    """Whether both are claimed to be on one side: of a teacher that they share, of a family, or of a size."""
    of = {"same-family": lambda teacher: teacher[0], "same-size": lambda teacher: teacher[1]}.get(str(one.expect), tuple)
    return bool({*map(of, one.teachers)} & {*map(of, other.teachers)})


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
        return None if len(sides) < 2 else CONTRADICTED if {1, -1} <= set(sides) else OPEN if 0 in sides else HOLDS
    claimed = 1 if measured.expect.endswith("above") else -1
    if measured.expect.startswith("not-"):
        return CONTRADICTED if at == claimed else HOLDS if at == -claimed else NOT_CONTRADICTED
    return HOLDS if at == claimed else CONTRADICTED if at == -claimed else OPEN


def _commands(study: str, runs: Runs, teachers: Mapping[Teacher, Sequence[int]]) -> tuple[str, ...]:
    """What trains these teachers' students with these seeds; of all teachers with the protocol's own where there are none."""
    if study not in shipped("studies") or runs.name not in shipped("protocols"):
        return ()  # a file of the user's, wherever it lies
    words, ways = _command(study, runs.name, runs.protocol), dict[tuple[tuple[str, ...], tuple[int, ...]], list[str]]()
    for family in dict.fromkeys(family for family, _ in teachers):
        own = {size: set(seeds) for (each, size), seeds in teachers.items() if each == family}
        seeds = set.intersection(*own.values()) or set.union(*own.values())
        ways.setdefault((tuple(own), tuple(sorted(seeds))), []).append(family)
    return tuple(
        f"{words} --family {','.join(sorted(names))} --sizes {','.join(sizes)}"
        + ("" if seeds == runs.protocol.seeds else f" --seeds {','.join(map(str, seeds))}")
        for (sizes, seeds), names in ways.items()
    ) or (words,)


def _command(study: str, name: str, protocol: Protocol) -> str:
    words = f"bench run --study {study}" + ("" if name == DEFAULT_PROTOCOL else f" --protocol {name}")
    return words if isinstance(protocol.data, CuedDigits) else f"{words} --data /data/{name}"


def _on_imagenet(study: tuple[str, Study], claim: Claim, imagenet: tuple[str, Protocol]) -> str | None:
    if study[0] not in shipped("studies"):
        return None
    named = sorted({family for test in claim.tests for family in test.families or ()})
    chosen = ",".join(named) if all(test.families for test in claim.tests) else ""
    try:
        teachers = teachers_of(chosen or "all", None, study[1].teachers)
        plan = make_plan(*imagenet, *study, teachers[:1], imagenet[1].seeds[:1])
    except UserError:
        return None
    return _command(study[0], *imagenet) + (f" --family {chosen}" if chosen else "") if plan.items else None
