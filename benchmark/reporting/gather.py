"""Collect leaderboards, claims and figures from a results folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from benchmark.analysis.claims import Finding
from benchmark.analysis.findings import findings
from benchmark.analysis.leaderboard import Leaderboard, leaderboard, students_table
from benchmark.analysis.sorting import SortedResults, read_sorted
from benchmark.reporting.figure import Figure
from benchmark.reporting.figures import claims_figures, figures
from benchmark.reporting.published import PublishedFigures
from benchmark.spec.arm import Arm, is_owned
from benchmark.spec.definitions import Definitions, is_teacher
from benchmark.spec.plan import Plan, make_plan
from benchmark.spec.protocol import Protocol
from benchmark.spec.records import validated
from benchmark.spec.study import Study, load_study
from benchmark.spec.teachers import PAPERS, spelt_out, teachers_of
from benchmark.spec.yaml_files import read_yaml, shipped
from benchmark.storage.merging import PUBLISHED
from benchmark.storage.result_file import Result
from families.spec import UserError

FIRST = ("main", "nulls")  # nulls, which show that a failure can be seen, stand right under the main claims


@dataclass(frozen=True)
class Report:
    """The content of a report: a leaderboard for each study of each protocol, the judged claims of
    studies, the results by whether they count, and the published figures."""

    folder: Path
    boards: tuple[Leaderboard, ...]
    findings: tuple[Finding, ...]
    found: SortedResults
    published: PublishedFigures

    @cached_property
    def figures(self) -> list[tuple[Leaderboard, list[Figure]]]:
        """The figures of each leaderboard."""
        return [(board, figures(board)) for board in self.boards]

    @cached_property
    def measured(self) -> dict[tuple[str, str], tuple[Finding, list[Figure]]]:
        """Claims with measurements, and their figures, by protocol and study."""
        return {(each.protocol, each.study): (each, claims_figures(each)) for each in self.findings if each.measured}


def gather(folder: Path, protocol: tuple[str, Protocol] | None = None, given: Mapping[str, Study] | None = None) -> Report:
    """The report of a results folder, by the shipped protocols and studies and those given; m
    counts the whole study.

    A transfer arm in several studies belongs to the first of them: main, those given, then by name.
    """
    definitions, found = read_sorted(folder, protocol)
    protocols = {name: defined.protocol for name, defined in definitions.items()}
    studies = {name: load_study(name)[1] for name in shipped("studies")} | dict(given or {})
    boards, judged = list[Leaderboard](), list[Finding]()
    ranked = list(dict.fromkeys(["main", *(given or {}), *sorted(studies)]))
    for name, content in protocols.items():
        own = [result for result in found.current if result.cell.protocol == name]
        if not own:
            continue
        measured, assigned, listed = {result.cell.arm for result in own}, set[str](), set[str]()
        teachers = sorted({(result.cell.family, result.cell.size) for result in own})
        this = _Measured(name, definitions[name], own, students_table(own, name, content.measure))
        known = {each: spelt_out(content, listing, teachers) for each, listing in studies.items()}
        for study_name in ranked:
            spelt = known[study_name]
            listed |= {each for arm in spelt.arms for each in _with_baseline(arm)}
            arms = {arm for arm in spelt.arms if is_owned(Arm.parse(arm))}
            ours = arms - assigned
            assigned |= arms
            if measured & ours:
                boards.append(_board(this, (study_name, studies[study_name], spelt), ours))
        shown = {arm for board in boards if board.protocol == name for each in board.arms for arm in _with_baseline(each)}
        left = {arm for arm in measured & listed - shown if Arm.parse(arm).student != "standard"}
        while left:  # arms without transfer: shown by the study with the fewest missing arms
            fitting = [each for each, spelt in known.items() if left & set(spelt.arms)]
            if not fitting:
                break
            best = min(fitting, key=lambda each: (len(set(known[each].arms) - measured), each))
            boards.append(_board(this, (best, studies[best], known[best]), set()))
            left -= set(known[best].arms)
        shown_here = [board for board in boards if board.protocol == name]
        asked = {each: studies[each] for each in ranked}
        judged += findings(name, content, own, asked, shown_here, this.defined, this.table)
        for arm in (result.cell.arm for result in own):
            if arm not in listed and not is_teacher(arm):
                found.unlisted[name, arm] = found.unlisted.get((name, arm), 0) + 1
    order = sorted(protocols, key=lambda name: -protocols[name].rung)
    boards.sort(key=lambda board: (order.index(board.protocol), [board.study != first for first in FIRST], board.study))
    return Report(folder, tuple(boards), tuple(judged), found, _published(folder))


def _with_baseline(arm: str) -> tuple[str, str]:
    return arm, Arm.parse(arm).baseline.name


@dataclass(frozen=True)
class _Measured:
    """One protocol's current results, definitions of its runs, and students_table."""

    name: str
    defined: Definitions
    results: Sequence[Result]
    table: pd.DataFrame


def _board(measured: _Measured, study: tuple[str, Study, Study], ours: set[str]) -> Leaderboard:
    """The leaderboard of a study; `study`: its name, its file, and its file spelt out for the
    teachers with results.

    m counts the comparisons of the study's own arms, `ours`, for all teachers of the study and for
    others with results of them.
    """
    (study_name, listed, spelt), protocol = study, measured.defined.protocol
    known = teachers_of(PAPERS, None, listed.teachers)
    teachers = [pair for pair in known if protocol.scale is None or pair[1] in protocol.scale.sizes]
    cells = (result.cell for result in measured.results)
    others = sorted({(cell.family, cell.size) for cell in cells if cell.arm in ours} - set(teachers))
    elsewhere = {arm for arm in spelt.arms if Arm.parse(arm).transfers} - ours
    whole = _planned(measured, study_name, listed, [*teachers, *others])
    counted = {(one.keys, one.baseline_keys) for one in whole.comparisons if one.arm not in elsewhere}
    counted -= {(one.keys, one.baseline_keys) for one in whole.comparisons if one.arm in elsewhere}
    described, own = (measured.name, protocol.description), (study_name, spelt)
    given = {"elsewhere": elsewhere, "table": measured.table, "measure": protocol.measure}
    return leaderboard(described, own, measured.results, len(counted), **given)


def _planned(measured: _Measured, study_name: str, study: Study, teachers: list[tuple[str, str]]) -> Plan:
    """The plan of a study for these teachers, without those that the protocol cannot run; one seed
    is enough to count comparisons."""
    name, defined = measured.name, measured.defined
    protocol = defined.protocol

    def planned(some: list[tuple[str, str]]) -> Plan:
        return make_plan(name, protocol, study_name, study, some, protocol.seeds[:1], defined)

    def possible(teacher: tuple[str, str]) -> bool:
        try:
            planned([teacher])
        except UserError:
            return False
        return True

    try:
        return planned(teachers)
    except UserError:
        return planned([teacher for teacher in teachers if possible(teacher)])


def _published(folder: Path) -> PublishedFigures:
    """The published figures of a results folder, or those of the package where it has none."""
    path = folder / PUBLISHED
    if not path.is_file():
        path = Path(__file__).parent / PUBLISHED
    return validated(PublishedFigures, read_yaml(path), str(path))
