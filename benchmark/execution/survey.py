"""Which runs and evaluations of a plan are finished, and which are left."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import cached_property
from typing import Any

from benchmark.data import Checked
from benchmark.execution.delivery import below_floor, holds, payload_of, put
from benchmark.execution.launcher import Launch, Outcome
from benchmark.spec.plan import Item
from benchmark.spec.run import Run
from benchmark.storage.result_file import Result


class Survey:
    """A look at results and work folder, which writes nothing but the launch's outcome.

    Attributes:
        todo: the runs to train and the evaluations to make, teachers first.
        unmeasured: evaluations that are not made, by the reason.
        absent: why sets cannot be used, by name.

    Args:
        launch: its plan is looked at.
        trains: whether missing runs are trained, and finished ones get the protocol's other
            evaluations.
        retrains: whether finished runs are trained again whose weights an evaluation needs.
    """

    def __init__(self, launch: Launch, trains: bool = True, retrains: bool = False) -> None:
        self.launch, self.plan, self.workspace = launch, launch.plan, launch.workspace
        recorded = {key: self._recorded(item) for key, item in self.plan.items.items()}
        self.recorded: dict[str, Result] = {key: result for key, result in recorded.items() if result is not None}
        outcome = launch.outcome = Outcome()
        for key, item in self.plan.items.items():
            payload = self.payload(key)
            if payload is None:
                continue
            (outcome.found if key in self.recorded else outcome.restored).append(key)
            reason = below_floor(item, payload, launch.protocol)
            if reason is not None:
                outcome.failed[key] = reason
        self.trains, self.unmeasured, self.absent = trains, dict[str, list[Item]](), dict[str, str]()
        self.missing = self.plan.items.keys() - {*outcome.found, *outcome.restored}
        if not trains:
            self.missing -= self._unfinished(self.missing)
        if not retrains:
            self.missing -= self._weightless(self.missing)
        self._settle()

    def _settle(self) -> None:
        """Complete what is missing by finished runs whose weights it needs and that are gone."""
        needed = self._needed_by(self.missing)
        retrained = [key for key in needed if key not in self.missing and not self._has_weights(key)]
        self.launch.outcome.retrained = retrained
        self.todo = [item for key, item in self.plan.items.items() if key in self.missing or key in retrained]

    @property
    def results(self) -> list[Result]:
        """The results of the plan that were found."""
        return list(self.recorded.values())

    def add(self, items: Iterable[Item], checked: Callable[[Run], Checked]) -> None:
        """Make these evaluations too. Of all, those on sets that are not there are left out."""
        for item in items:
            if item.key not in self.plan.items and not self._is_absent(item, checked) and not self._without_weights(item):
                self.plan.items[item.key] = item
                self.missing |= {item.key}
        self.missing -= {key for key in self.missing if self._is_absent(self.plan.items[key], checked)}
        self._settle()

    def _is_absent(self, item: Item, checked: Callable[[Run], Checked]) -> bool:
        name, absent = item.evaluation.name if item.evaluation else "", checked(item.run).absent
        if name not in absent:
            return False
        self.absent[name] = absent[name]
        self._omit(item, f"no {name} here")
        return True

    def _unfinished(self, missing: Collection[str]) -> set[str]:
        """Runs that are not finished, and their evaluations."""
        runs = {key for key in missing if self.plan.items[key].evaluation is None}
        evaluations = [item for item in self.plan.items.values() if item.evaluation is not None and {*item.requires} & runs]
        for item in evaluations:
            self._omit(item, "their runs are not finished: bench run trains them")
        return runs | {item.key for item in evaluations}

    def _weightless(self, missing: Collection[str]) -> set[str]:
        """Evaluations of finished runs whose weights are gone."""
        items = [self.plan.items[key] for key in missing]
        finished = [item for item in items if item.evaluation is not None and not {*item.requires} & {*missing}]
        return {item.key for item in finished if self._without_weights(item)}

    def _without_weights(self, item: Item) -> bool:
        assert item.evaluation is not None
        gone = [key for key in item.evaluation.files.values() if not self._has_weights(key)]
        if gone:
            self._omit(item, f"their weights are not in {self.workspace.folder}: bench evaluate --retrain trains them again")
        return bool(gone)

    def _omit(self, item: Item, reason: str) -> None:
        self.unmeasured.setdefault(reason, []).append(item)

    def _recorded(self, item: Item) -> Result | None:
        """The result that holds a run or its evaluation. A run without a teacher may stand in cells
        that this plan lacks: those of other families, and of the size that a student takes."""
        result = self.launch.results.of_run(item.cells, item.run)
        if result is None and item.run.teacher is None:
            result = self._without_transfer.get(item.run.key)
        return result if holds(result, item) else None

    @cached_property
    def _without_transfer(self) -> dict[str, Result]:
        (protocol,) = {cell.protocol for item in self.plan.items.values() for cell in item.cells}
        return self.launch.results.without_transfer(protocol)

    def payload(self, key: str) -> dict[str, Any] | None:
        """The record of a finished run or evaluation, without labels."""
        if key not in self.recorded:
            return payload_of(self.workspace, self.plan.items[key])
        evaluation = self.plan.items[key].evaluation
        if evaluation is None:
            parts = {"metrics", "evaluations", "val", "curve", "teacher", "cost", "provenance"}
            found = self.recorded[key].model_dump(mode="json", include=parts)
            if len(self.plan.items[key].cells) > 1:  # an evaluation beside a teacher is not every cell's
                found["evaluations"] = {name: each for name, each in found["evaluations"].items() if each["beside"] is None}
            return found
        if evaluation.name == "test":  # its scores are the result's metrics already
            return {"evaluations": {}}
        records = self.recorded[key].evaluations
        return {"evaluations": {name: records[name].model_dump(mode="json") for name in evaluation.scores}}

    def _has_weights(self, key: str) -> bool:
        return self.workspace.run(key).weights.exists()

    def _needed_by(self, missing: Collection[str]) -> list[str]:
        """The runs whose weights `missing` needs, and those that these need if their own weights
        are gone."""
        needed: dict[str, None] = {}
        queue = list(missing)
        while queue:
            for key in self.plan.items[queue.pop()].loads:
                if key not in needed:
                    needed[key] = None
                    if not self._has_weights(key):
                        queue.append(key)
        return list(needed)

    def fill(self) -> None:
        """Write every cell that a finished run serves."""
        outcome, results = self.launch.outcome, self.launch.results
        for key in (*outcome.found, *outcome.restored):
            item, payload = self.plan.items[key], self.payload(key)
            assert payload is not None
            for cell in item.cells:
                if item.evaluation is None or payload["evaluations"]:
                    put(self.workspace, results, item, cell, payload)
                if item.evaluation is None and len(item.cells) > 1 and payload["evaluations"]:
                    results.add(cell, item.run, {"evaluations": payload["evaluations"]})
