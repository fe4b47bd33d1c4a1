"""Sort results into current and stale ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmark.spec.arm import with_evaluation
from benchmark.spec.data_sets import FEATURE_SCORES, TEACHER_SCORES
from benchmark.spec.definitions import Definitions, is_teacher
from benchmark.spec.evaluations import of_features, of_teacher_features, on_set
from benchmark.spec.protocol import Protocol, load_protocol, shipped_protocols, split_values
from benchmark.spec.run import Run
from benchmark.storage.result_file import Rejected, Result
from benchmark.storage.results import read_results
from benchmark.storage.scores import AnyEvaluation
from families.spec import UserError


@dataclass
class SortedResults:
    """Results by whether they count.

    Attributes:
        current: the results that count.
        stale: made under another definition of their cell.
        rejected: files that do not validate.
        unknown: counts by protocol whose file was not given.
        unlisted: counts of current results by (protocol, arm) that no study lists.
        differing: pairs of paths of current results of one run with two outcomes.
    """

    current: list[Result] = field(default_factory=list)
    stale: list[Result] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    unlisted: dict[tuple[str, str], int] = field(default_factory=dict)
    differing: list[tuple[str, str]] = field(default_factory=list)


def read_sorted(folder: Path, protocol: tuple[str, Protocol] | None = None) -> tuple[dict[str, Definitions], SortedResults]:
    """The results of a folder by whether they count, and the runs of each protocol by its name: of
    the shipped protocols, these with other values, and the one given."""
    results, rejected = read_results(folder)
    protocols = {**shipped_protocols()} | dict([protocol] if protocol else [])
    protocols |= _with_values({result.cell.protocol for result in results} - {*protocols})
    definitions = {name: Definitions(content) for name, content in protocols.items()}
    return definitions, sort_results(results, rejected, definitions)


def _with_values(names: Iterable[str]) -> dict[str, Protocol]:
    """Those of the names that are a shipped protocol with other values, as by `--set`."""
    found = dict[str, Protocol]()
    for name in sorted(names):
        if split_values(name)[0] in shipped_protocols():
            with suppress(UserError):  # its results are of an unknown protocol then
                found |= [load_protocol(name)]
    return found


def sort_results(results: Iterable[Result], rejected: Iterable[Rejected], defined: Mapping[str, Definitions]) -> SortedResults:
    """Sort results. Current: their run is the one that `defined`, by protocol, gives their cell, and
    was measured on the protocol's test set. A current result has those of its evaluations that are
    of the protocol's sets; one that an arm names is a result of that arm."""
    found = SortedResults(rejected=list(rejected))
    for result in results:
        name = result.cell.protocol
        if name not in defined:
            found.unknown[name] = found.unknown.get(name, 0) + 1
            continue
        try:
            counted = _counted(result, defined[name])
        except UserError:
            counted = []
        found.current += counted
        found.stale += [] if counted else [result]
    found.current.sort(key=lambda result: result.cell.name)
    first: dict[str, Result] = {}
    for result in found.current:
        if first.setdefault(result.key, result).metrics != result.metrics:
            found.differing.append((result.cell.path, first[result.key].cell.path))
    return found


def _counted(result: Result, defined: Definitions) -> list[Result]:
    """A result and those of arms that its evaluations name; empty if it is stale. Raises UserError."""
    run = defined.run_of(result.cell)
    if not result.is_of(run) or not result.has(on_set(run, "test")):
        return []
    kept, named = dict[str, AnyEvaluation](), list[Result]()
    for name, record in result.evaluations.items():
        arm = None if is_teacher(result.cell.arm) else with_evaluation(result.cell.arm, name)
        if arm is not None:
            evaluation = defined.evaluation_of(replace(result.cell, arm=arm))
            if evaluation is not None and result.has(evaluation):
                named.append(result.of_arm(arm, evaluation))
        elif _is_current(result, run, name):
            kept[name] = record
    return [result.model_copy(update={"evaluations": kept}), *named]


def _is_current(result: Result, run: Run, name: str) -> bool:
    """Whether a score is of what the protocol says now; of a set that a command named, always."""
    if name in FEATURE_SCORES:
        return result.has(of_features(run))
    if name in TEACHER_SCORES:
        wanted = of_teacher_features(run)
        return wanted is not None and result.has(wanted)
    return name not in run.settings.data.shifted_sets or result.has(on_set(run, name))
