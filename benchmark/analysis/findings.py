"""Judge the claims of studies by the results of one protocol.

A claim speaks of differences of arms' means (benchmark.spec.study.Test). Each is estimated for each
teacher that has results, by the rules of benchmark.analysis.statistics: intervals simultaneous over
all comparisons of the plan, finished or not. No comparison has two verdicts: a gap that a
leaderboard judges has that leaderboard's interval, and any other difference belongs to the first
study whose claims speak of it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pandas as pd

from benchmark.analysis.claim_sides import Compared, Runs, Tables
from benchmark.analysis.claims import PENDING, Finding, Judged, Measured, Teacher, judge, kind_of
from benchmark.analysis.leaderboard import Leaderboard, students_table
from benchmark.analysis.statistics import GAP, Estimate, as_estimates, contrasts
from benchmark.spec.arm import Arm
from benchmark.spec.definitions import Definitions, is_teacher
from benchmark.spec.plan import make_plan
from benchmark.spec.protocol import DEFAULT_PROTOCOL, Protocol, shipped_protocols
from benchmark.spec.study import Claim, Study, Test, load_study, signed_terms
from benchmark.spec.teachers import PAPERS, filled, teachers_of
from benchmark.spec.yaml_files import shipped
from benchmark.storage.result_file import Result
from families.spec import UserError

IMAGENET = "imagenet"
Place = tuple[str, str | None, Compared]  # of a comparison: test set, variant chosen on val, runs


def findings(
    name: str,
    protocol: Protocol,
    results: Sequence[Result],
    studies: Mapping[str, Study],
    boards: Sequence[Leaderboard] = (),
    defined: Definitions | None = None,
    table: pd.DataFrame | None = None,
) -> tuple[Finding, ...]:
    """Judge the claims of each study that has any; in the order of the claims' rows, ours last.

    Args:
        name: the protocol's name.
        protocol: its content.
        results: current ones.
        studies: by name; a difference in several of them belongs to the first.
        boards: leaderboards; the gaps that they judge keep their intervals.
        defined: the protocol's runs, where the caller has them already.
        table: students_table of the results, where the caller has it already.
    """
    own = [result for result in results if result.cell.protocol == name and not is_teacher(result.cell.arm)]
    if not own:
        return ()
    tables = Tables(own, boards, students_table(own, name, protocol.measure) if table is None else table)
    runs, usual = Runs(name, defined or Definitions(protocol)), load_study("main")[1].arms
    asked = [_Asked(study, tables, runs, usual) for study in studies.items() if study[1].claims]
    counts = _Counts(asked)
    measured = [each.measured(counts) for each in asked]
    estimates = _estimates(name, [one for claims in measured for claim in claims for test in claim for one in test], tables)
    found = [each.finding(claims, estimates) for each, claims in zip(asked, measured, strict=True)]
    return tuple(sorted(found, key=lambda each: (_first_row(each), each.study)))


def _first_row(finding: Finding) -> float:
    rows = [row for judged in finding.judged for row in judged.claim.rows]
    return min(rows, default=float("inf"))


class _Counts:
    """The number of comparisons m by place. A place belongs to the first study whose claims speak
    of it. The places of a study are listed when one of them, or of a later study, is asked for."""

    def __init__(self, asked: Iterable[_Asked]) -> None:
        self._left, self._known = iter(asked), dict[Place, int]()

    def __getitem__(self, place: Place) -> int:
        while place not in self._known:
            added = next(self._left).places() - self._known.keys()
            self._known |= dict.fromkeys(added, len(added))
        return self._known[place]


class _Asked:
    """A study's claims: their comparisons by the plan, and those that have results."""

    def __init__(self, study: tuple[str, Study], tables: Tables, runs: Runs, usual: Sequence[str]) -> None:
        (self.name, self.study), self.tables, self.runs = study, tables, runs
        self.teachers = _with_results(runs.protocol, self.study, tables, usual)
        scale = runs.protocol.scale
        known = [pair for pair in teachers_of(PAPERS, None, self.study.teachers) if scale is None or pair[1] in scale.sizes]
        self.planned = list(dict.fromkeys([*known, *self.teachers]))

    def places(self) -> set[Place]:
        """The distinct comparisons of the plan that no leaderboard judges."""
        found = set[Place]()
        for test in (test for claim in self.study.claims for test in claim.tests):
            for on, teacher, text, premise in self._differences(test, self.planned):
                every = [(on, text)] if premise is None else [(on, text), ("score", premise)]
                found |= {self._place(on, teacher, each) for on, each in every if not self._on_board(on, each)}
        return found

    def measured(self, counts: _Counts) -> list[list[list[Measured]]]:
        """By claim and test the differences that have results; teachers that share all runs are
        one. `counts` is m by place. Estimates are pending where no leaderboard judges the
        difference."""
        return [[self._measured(test, counts) for test in claim.tests] for claim in self.study.claims]

    def finding(self, measured: list[list[list[Measured]]], estimates: Mapping[Measured, Estimate]) -> Finding:
        """The claims judged."""

        def whole(one: Measured) -> Measured:
            return replace(one, estimate=estimates.get(one, one.estimate), premise=one.premise and whole(one.premise))

        judged = [
            Judged(
                claim,
                tuple(one for found in tests for one in judge([whole(each) for each in found], testable=not lacks)),
                None if self.runs.name in dict(_of_imagenet()) else _on_imagenet(self.name, claim),
                lacks,
            )
            for claim, tests in zip(self.study.claims, measured, strict=True)
            for lacks in [self.runs.protocol.lacks(claim.needs)]
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
            commands=_commands((self.name, self.study), self.runs, teachers),
        )

    def _differences(self, test: Test, teachers: Iterable[Teacher]) -> Iterator[tuple[str, Teacher, str, str | None]]:
        """Set, teacher, difference and premise."""
        wanted = [teacher for teacher in teachers if test.families is None or teacher[0] in test.families]
        for on, teacher in product(self.tables.sets(test.metric), wanted):
            premises = [None] if test.failing is None else self.runs.filled(test.failing, teacher)
            for premise, of in product(premises, test.of):
                yield from ((on, teacher, text, premise) for text in self.runs.filled(of, teacher))

    def _on_board(self, on: str, text: str) -> bool:
        return self.tables.judged and on == "score" and self.study.choose is None and kind_of(signed_terms(text)) == GAP

    def _place(self, on: str, teacher: Teacher, text: str) -> Place:
        return on, self.study.choose, self.runs.weighted(teacher, signed_terms(text))

    def _measured(self, test: Test, counts: _Counts) -> list[Measured]:
        found: dict[Any, Measured] = {}
        for on, teacher, text, premise in self._differences(test, self.teachers):
            below = None if premise is None else self._one("score", teacher, premise, None, counts)
            one = self._one(on, teacher, text, test, counts)
            if one is None or (premise is not None and below is None):
                continue
            compared = [self.runs.weighted(teacher, dict(each.arms)) for each in (one, below) if each is not None]
            one, before = replace(one, premise=below), found.get((text, on, *compared))
            if before is not None:  # runs that teachers share: told of the one with more seeds of them
                first, second = (one, before) if one.n > before.n else (before, one)
                one = replace(first, teachers=(*first.teachers, *second.teachers))
            found[text, on, *compared] = one
        return list(found.values())

    def _one(self, on: str, teacher: Teacher, text: str, test: Test | None, counts: _Counts) -> Measured | None:
        """A teacher's difference, pending unless a leaderboard judges it; None without results."""
        arms = self._chosen(signed_terms(text), teacher)
        known = [self.tables.cells[on].get((*teacher, arm)) for arm in arms]
        if not arms or None in known:
            return None
        judged = self.tables.gaps.get((*teacher, next(iter(arms)))) if on == "score" and kind_of(arms) == GAP else None
        found, m = judged or (PENDING, 0 if self._on_board(on, text) else counts[self._place(on, teacher, text)])
        n = min(int(cell["n"]) for cell in known if cell is not None)
        expect, per = (test.expect, test.per) if test else (None, "teacher")
        return Measured(text, (teacher,), on, tuple(arms.items()), n, expect, per, m, None, found)

    def _chosen(self, terms: dict[str, float], teacher: Teacher) -> dict[str, float]:
        """The arms as they are or, where the study sweeps a variant, each at its best value on val;
        none where a value has no results, since the best of a part is not the best, or where two
        arms become one."""
        if self.study.choose is None:
            return terms
        listed = [arm for text in self.study.arms for arm in filled(self.runs.protocol, text, *teacher)]
        found = dict[str, float]()
        for text, weight in terms.items():
            wanted = Arm.parse(text).default(self.study.choose)
            tried = [arm for arm in listed if Arm.parse(arm).default(self.study.choose) == wanted]
            known = [self.tables.cells["score"].get((*teacher, arm)) for arm in tried]
            if not known or None in known:
                return {}
            _, best = max((cell["val"], arm) for cell, arm in zip(known, tried, strict=True) if cell is not None)
            found[best] = weight
        return found if len(found) == len(terms) else {}


def _with_results(protocol: Protocol, study: Study, tables: Tables, usual: Sequence[str]) -> dict[Teacher, list[int]]:
    """The teachers with results of the arms that the study adds to the `usual` ones and to
    baselines (where it adds none: of its arms), with the seeds that all of these arms have."""
    known, found = teachers_of(PAPERS, None, study.teachers), dict[Teacher, list[int]]()
    for teacher, runs in tables.keys.items():
        arms = {text for arm in study.arms for text in filled(protocol, arm, *teacher)}
        added = {arm for arm in arms - set(usual) if Arm.parse(arm) != Arm.parse(arm).baseline}
        own = [set(runs[arm]) for arm in (added or arms) if arm in runs]
        if own and (added or teacher in known):
            found[teacher] = sorted(set.intersection(*own) or set.union(*own))
    return found


def _estimates(protocol: str, measured: Iterable[Measured], tables: Tables) -> dict[Measured, Estimate]:
    """The pending estimates; those of one test set in one call, which pools their variances."""
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


def _commands(study: tuple[str, Study], runs: Runs, teachers: Mapping[Teacher, Sequence[int]]) -> tuple[str, ...]:
    """Commands that train these teachers' students with these seeds; without teachers, all that the
    protocol can have."""
    if study[0] not in shipped("studies") or runs.name not in shipped_protocols():
        return ()  # a file of the user's
    if not teachers and not _has_arms(study, (runs.name, runs.protocol), PAPERS):
        return ()
    words, ways = _command(study[0], runs.name, runs.protocol), dict[tuple[tuple[str, ...], tuple[int, ...]], list[str]]()
    for family in dict.fromkeys(family for family, _ in teachers):
        own = {size: set(seeds) for (each, size), seeds in teachers.items() if each == family}
        seeds = set.intersection(*own.values()) or set.union(*own.values())
        ways.setdefault((tuple(own), tuple(sorted(seeds))), []).append(family)
    return tuple(
        f"{words} --family {','.join(sorted(names))} --sizes {','.join(sizes)}"
        + ("" if seeds == runs.protocol.seeds else f" --seeds {','.join(map(str, seeds))}")
        for (sizes, seeds), names in ways.items()
    ) or (words,)


def _command(study: str, name: str, protocol: Protocol, folder: str | None = None) -> str:
    words = f"bench run --study {study}" + ("" if name == DEFAULT_PROTOCOL else f" --protocol {name}")
    return words if protocol.data.is_embedded else f"{words} --data /data/{folder or name}"


def _on_imagenet(study: str, claim: Claim) -> str | None:
    """The command that tests a claim of a shipped study on ImageNet, if a protocol there can."""
    if study not in shipped("studies"):
        return None
    named = sorted({family for test in claim.tests for family in test.families or ()})
    return _imagenet_command(study, ",".join(named) if all(test.families for test in claim.tests) else "")


@functools.cache
def _imagenet_command(study: str, chosen: str) -> str | None:
    protocol = next((each for each in _of_imagenet() if _has_arms(load_study(study), each, chosen or PAPERS)), None)
    if protocol is None:
        return None
    return _command(study, *protocol, folder=IMAGENET) + (f" --family {chosen}" if chosen else "")


def _has_arms(study: tuple[str, Study], protocol: tuple[str, Protocol], chosen: str) -> bool:
    """Whether a protocol can train arms of a study for the first of the chosen families."""
    try:
        teachers = teachers_of(chosen, None, study[1].teachers)
        return bool(make_plan(*protocol, *study, teachers[:1], protocol[1].seeds[:1]).items)
    except UserError:
        return False


@functools.cache
def _of_imagenet() -> tuple[tuple[str, Protocol], ...]:
    """Protocol imagenet, then those that add tasks to it."""
    every = list(shipped_protocols().items())
    imagenet = next(each for each in every if each[0] == IMAGENET)
    return imagenet, *(each for each in every if each[1].tasks and each[1].data == imagenet[1].data)
