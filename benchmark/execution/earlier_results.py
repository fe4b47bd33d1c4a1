"""Whether results of a folder were made from the files that are here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmark.data import Checked
from benchmark.execution.survey import Survey
from benchmark.spec.plan import Item
from benchmark.spec.run import Run
from benchmark.spec.teacher_source import TeacherSource
from benchmark.storage.result_file import Result, read_result
from benchmark.storage.results import Results


def other_weights(results: Results, item: Item, sha256: str) -> Path | None:
    """A result of the same protocol and pre-trained teacher that another file than this one made."""
    for folder in {results.path(cell).parent for cell in item.cells}:
        for path in sorted(folder.glob("*.json")):
            found = read_result(path)
            if isinstance(found, Result) and found.teacher and pinned(found.run.teacher) == pinned(item.teacher):
                first_hand = found.run.teacher is not None and found.run.teacher.run_key is None
                if first_hand and found.teacher.sha256 != sha256:
                    return path
    return None


def other_images(survey: Survey, checked: Callable[[Run], Checked]) -> Path | None:
    """A finished result of a plan that other images than the `checked` ones made."""
    for key, found in survey.recorded.items():
        if found.provenance.data not in (None, checked(survey.plan.items[key].run).digest):
            return survey.launch.results.path(found.cell)
    return None


def pinned(teacher: TeacherSource | None) -> dict[str, str]:
    """The identity of a pre-trained teacher; empty without one."""
    return {} if teacher is None else teacher.pinned
