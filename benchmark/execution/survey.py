"""Which runs of a plan are finished, and which are left to train."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from benchmark.execution.delivery import below_floor
from benchmark.execution.launcher import Launch, Outcome
from benchmark.execution.setup import data_of
from benchmark.spec.plan import Item
from benchmark.spec.run import Run
from benchmark.storage.result_file import Labelled, Result, read_result


class Survey:
    """A look at results and work folder, which writes nothing but the launch's outcome.

    Attributes:
        todo: the runs to train, teachers first.
        results: the results of the plan that were found.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch, self.plan, self.workspace = launch, launch.plan, launch.workspace
        recorded = {key: self._recorded(item) for key, item in self.plan.items.items()}
        self.recorded: dict[str, Result] = {key: result for key, result in recorded.items() if result is not None}
        outcome = launch.outcome = Outcome()
        for key, item in self.plan.items.items():
            payload = self._payload(key)
            if payload is None:
                continue
            (outcome.found if key in self.recorded else outcome.restored).append(key)
            reason = below_floor(item, payload, launch.protocol)
            if reason is not None:
                outcome.failed[key] = reason
        missing = self.plan.items.keys() - {*outcome.found, *outcome.restored}
        needed = self._needed_by(missing)
        outcome.retrained = [key for key in needed if key not in missing and not self._has_weights(key)]
        self.todo = [item for key, item in self.plan.items.items() if key in missing or key in outcome.retrained]

    @property
    def results(self) -> list[Result]:
        """The results of the plan that were found."""
        return list(self.recorded.values())

    def _recorded(self, item: Item) -> Result | None:
        for cell in item.cells:
            result = self.launch.results.get(cell)
            if isinstance(result, Result) and result.key == item.key:
                return result
        return None

    def _payload(self, key: str) -> dict[str, Any] | None:
        """The record of a finished run, without labels."""
        if key not in self.recorded:
            return self.workspace.payload(key)
        parts = {"metrics", "val", "curve", "teacher", "cost", "provenance"}
        return self.recorded[key].model_dump(mode="json", include=parts)

    def _has_weights(self, key: str) -> bool:
        return self.workspace.run(key).weights.exists()

    def _needed_by(self, missing: Collection[str]) -> list[str]:
        """The runs whose weights `missing` needs, and those that these need if their own weights
        are gone."""
        needed: dict[str, None] = {}
        queue = list(missing)
        while queue:
            for key in self.plan.items[queue.pop()].requires:
                if key not in needed:
                    needed[key] = None
                    if not self._has_weights(key):
                        queue.append(key)
        return list(needed)

    def fill(self) -> None:
        """Write every cell that a finished run serves."""
        for key in (*self.launch.outcome.found, *self.launch.outcome.restored):
            item, payload = self.plan.items[key], self._payload(key)
            assert payload is not None
            for cell in item.cells:
                self.launch.results.put(cell, item.run, payload, self.workspace.superseded)

    def other_weights(self, item: Item, sha256: str) -> Path | None:
        """A result of the same protocol and pre-trained teacher that another file than this one made."""
        for folder in {self.launch.results.path(cell).parent for cell in item.cells}:
            for path in sorted(folder.glob("*.json")):
                found = read_result(path)
                if isinstance(found, Result) and found.teacher and _pretrained(found.run) == _pretrained(item.run):
                    first_hand = found.run.teacher is not None and "run" not in found.run.teacher.runs
                    if first_hand and found.teacher.sha256 != sha256:
                        return path
        return None

    def other_images(self, digests: Mapping[str, str]) -> Path | None:
        """A finished result of this plan that other images than these made; `digests` as in
        Setup.data."""
        for key, found in self.recorded.items():
            if found.provenance.data not in (None, digests.get(data_of(self.plan.items[key].run))):
                return self.launch.results.path(found.cell)
        return None


def _pretrained(run: Run | Labelled) -> dict[str, str]:
    """The identity of a run's pre-trained teacher; empty without one."""
    return {} if run.teacher is None else run.teacher.pinned
