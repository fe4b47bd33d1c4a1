"""Notes on a leaderboard, one line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import families
from benchmark.storage.result_file import Result

FETCHED = ("hub:", "https:")  # how the source of fetched weights begins


def teacher_notes(results: Sequence[Result], name: str) -> list[str]:
    """Teachers whose students learnt from different weights, as after a second training; and the
    origin of pre-trained weights that were put there by hand."""
    weights: dict[tuple[str, str, str], set[str | None]] = {}
    origins: dict[str, None] = {}
    for result in results:
        if result.cell.protocol == name and result.teacher is not None:
            family, size, source = result.cell.family, result.cell.size, result.teacher.source
            if result.run.teacher is not None and result.run.teacher.pinned:
                if not source.startswith(FETCHED):
                    origins[f"weights of {family} {size}: {source}"] = None
                source = "pre-trained"
            weights.setdefault((family, size, source), set()).add(result.teacher.sha256)
    mixed = [
        f"{family} {size}: its students learnt from {len(found)} different weights of one teacher ({source})"
        for (family, size, source), found in weights.items()
        if len(found) > 1
    ]
    return [*mixed, *origins]


def code_notes(made: Mapping[str, str]) -> tuple[str, ...]:
    """A note where several versions of the code made the runs; `made`: digest by run key."""
    counts = Counter(made.values())
    if len(counts) < 2:
        return ()
    told = ", ".join(f"{code[:8]} ({count} runs)" for code, count in counts.most_common())
    return (f"made by {len(counts)} versions of the code, which alone can change a number: {told}; commits: provenance.csv",)


def family_notes(names: Iterable[str]) -> list[str]:
    """The remarks of families."""
    return [f"{name}: {families.spec(name).remark}" for name in names if families.spec(name).remark]


def component_notes(inert: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """The inert components, given by family; sizes of one family repeat them."""
    return list(dict.fromkeys(f"{family}: {name} is inert under Copy" for family, names in inert for name in names))
