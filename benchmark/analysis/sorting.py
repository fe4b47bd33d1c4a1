"""Sort results into current and stale ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from benchmark.spec.definitions import Definitions
from benchmark.storage.result_file import Rejected, Result
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


def sort_results(results: Iterable[Result], rejected: Iterable[Rejected], defined: Mapping[str, Definitions]) -> SortedResults:
    """Sort results; current: their run is the one that `defined`, by protocol, gives their cell."""
    found = SortedResults(rejected=list(rejected))
    for result in results:
        name = result.cell.protocol
        if name not in defined:
            found.unknown[name] = found.unknown.get(name, 0) + 1
            continue
        try:
            current = defined[name].run_of(result.cell) == result.run.run
        except UserError:
            current = False
        (found.current if current else found.stale).append(result)
    first: dict[str, Result] = {}
    for result in found.current:
        if first.setdefault(result.key, result).metrics != result.metrics:
            found.differing.append((result.cell.path, first[result.key].cell.path))
    return found
