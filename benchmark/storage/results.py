"""The results folder."""

from __future__ import annotations

import gc
import glob
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark.spec.arm import trained_arm
from benchmark.spec.run import Cell, Run
from benchmark.storage.files import replacing, sweep, write_json
from benchmark.storage.locks import locked
from benchmark.storage.result_file import (
    EvaluationPayload,
    Rejected,
    Result,
    labelled,
    read_result,
    written,
)
from benchmark.storage.scores import AnyEvaluation


def read_results(folder: Path) -> tuple[list[Result], list[Rejected]]:
    """Every result below `folder`, by path, and the files left out."""
    with uncollected():
        found = [read_result(path) for path in sorted(folder.glob("*/*/*/*.json"))]
    return [r for r in found if isinstance(r, Result)], [r for r in found if isinstance(r, Rejected)]


def merged_evaluations(results: Iterable[Result]) -> dict[str, AnyEvaluation]:
    """The evaluations of several results of one run, the newest of each name."""
    found: dict[str, AnyEvaluation] = {}
    for name, record in (pair for each in results for pair in each.evaluations.items()):
        if name not in found or record.date > found[name].date:
            found[name] = record
    return found


@contextmanager
def uncollected() -> Iterator[None]:
    """Within, the garbage collector is off: for 10,000 results it would take as long as reading them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class Results:
    """A results folder: one file a cell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, cell: Cell) -> Path:
        """The file of a cell."""
        return self.folder / cell.path

    def get(self, cell: Cell) -> Result | Rejected | None:
        """The content of a cell; None without a file."""
        path = self.path(cell)
        return read_result(path) if os.path.lexists(path) else None

    def of_run(self, cells: Iterable[Cell], run: Run) -> Result | None:
        """The result of a run in some of these cells, with the evaluations of all of them; None
        without one."""
        found = [each for cell in cells if isinstance(each := self.get(cell), Result) and each.is_of(run)]
        if len(found) < 2:
            return found[0] if found else None
        return found[0].model_copy(update={"evaluations": merged_evaluations(found)})

    def without_transfer(self, protocol: str) -> dict[str, Result]:
        """Students without transfer by the key of their run, whichever cells hold them."""
        paths = sorted(self.folder.glob(f"{glob.escape(protocol)}/*/*/*-none*.json"))
        with uncollected():
            found = [result for path in paths if isinstance(result := read_result(path), Result)]
        return {result.key: result for result in found}

    def put(self, cell: Cell, run: Run, payload: dict[str, Any], superseded: Path) -> None:
        """Write a finished run's payload for one cell. Another run's file in its place is kept
        below `superseded`."""
        with self._alone():
            old = self.get(cell)
            if isinstance(old, Result) and old.key == run.key and old.val.on == payload["val"]["on"]:
                return
            path, cell = self.path(cell), replace(cell, arm=trained_arm(cell.arm))
            if old is not None:
                keep = superseded / f"{cell.path}.{getattr(old, 'key', 'invalid')}"
                keep.parent.mkdir(parents=True, exist_ok=True)
                _keep(path, keep)
            write_json(path, labelled(cell, run, payload), durable=True)
            sweep(path.parent, path.name)

    def add(self, cell: Cell, run: Run, payload: dict[str, Any]) -> bool:
        """Add a finished evaluation's scores to the result of a cell; False where there is no result
        of this run. Those on test take the place of its metrics."""
        with self._alone():
            old = self.get(cell)
            if not isinstance(old, Result) or old.key != run.key:
                return False
            found = EvaluationPayload.model_validate(payload).evaluations
            update: dict[str, Any] = {"evaluations": old.evaluations | {name: found[name] for name in found if name != "test"}}
            if "test" in found:
                kind = type(old.metrics)
                update["metrics"] = kind(**{name: getattr(found["test"], name) for name in kind.model_fields})
            new = old.model_copy(update=update)
            if new != old:
                write_json(self.path(cell), written(new), durable=True)
            return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Within: no other process reads a file of this folder to replace it."""
        with locked(self.folder / ".lock", wait=True):
            yield


def _keep(path: Path, aside: Path) -> None:
    """Copy a file that is about to be replaced; anything but a regular file is moved."""
    if stat.S_ISREG(os.lstat(path).st_mode):
        with replacing(aside) as file, path.open("rb") as old:
            shutil.copyfileobj(old, file)
    else:
        shutil.move(path, aside)
