"""Train a launch on this machine: workers share the units of a stage until none is left, stage by
stage."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.execution.delivery import finished
from benchmark.execution.launcher import Launch, Outcome, interrupts_ignored
from benchmark.execution.progress_writer import mark_failed
from benchmark.execution.submitter import Submitter
from benchmark.execution.worker import DIED
from benchmark.spec.plan import Item, units
from benchmark.storage.files import ensure_writable, last_line, read_text
from benchmark.storage.locks import locked
from benchmark.storage.work_folder import NO_REASON
from families.spec import UserError


class StageTrainer:
    """Trains a launch's runs, teachers first."""

    def __init__(self, launch: Launch) -> None:
        self.launch, self.outcome, self.workspace = launch, launch.outcome, launch.workspace
        self.errors: list[str] = []

    def train(self, todo: Sequence[Item]) -> Outcome:
        """Train `todo`. A run fails with a run that it needs; all others still train."""
        with self.launch.submissions.present(self.launch.submission):
            keys = {item.key for item in Submitter(self.launch).begin(todo)}
            for stage in self.launch.plan.stages:
                self._stage([item for item in stage if item.key in keys and not self._lost(item)])
        return self.outcome

    def _lost(self, item: Item) -> bool:
        lost = next((key for key in item.requires if key in self.outcome.failed), None)
        if lost is not None:
            what = "student" if self.launch.plan.items[lost].run.is_student else "teacher"
            self.outcome.failed[item.key] = f"its {what} failed: {self.outcome.failed[lost]}"
        return lost is not None

    def _stage(self, pending: list[Item]) -> None:
        while pending:
            self._work_off(pending)
            left = [item for item in pending if not self._settled(item)]
            if len(left) == len(pending):
                said = f" ({self.errors[-1]})" if self.errors else ""
                folder = self.workspace.submission(self.launch.name).path
                self.outcome.failed |= {item.key: f"no worker could start; see {folder}{said}" for item in left}
                return
            pending = left

    def _work_off(self, items: list[Item]) -> None:
        """Submit workers, which train `items` until none is left, and wait for them."""
        workers = self.launch.setup.jobs
        shared = units(items, workers, self.launch.protocol.together, self.launch.alone(items))
        with interrupts_ignored():
            jobs = self.launch.submit([shared] * min(workers, len(shared)), self.launch.name)
        self.errors = [last_line(str(error), "without a word") for job in jobs if (error := job.exception()) is not None]

    def _settled(self, item: Item) -> bool:
        """Whether a run is finished or failed, which the outcome then has."""
        if finished(self.workspace, item):
            self.launch.deliver(item)
        elif self._failed(item):
            self.outcome.failed[item.key] = self._reason(item)
        elif (unwritable := self._unwritable(item)) is not None:
            self.outcome.failed[item.key] = unwritable
        else:
            return False
        return True

    def _failed(self, item: Item) -> bool:
        """Whether a worker of this launch failed a run, or died over it. Another launch judges its
        own."""
        progress, folder = self.workspace.progress(item.key), self.workspace.run(item.key)
        if progress.launcher != self.launch.name:
            return False
        with locked(folder.path, wait=True):
            if progress.state == "running":
                told = read_text(folder.error)  # of one process, although another wrote its progress later
                mark_failed(self.workspace, item, self.launch.name, told or DIED, died=not told)
        return True

    def _reason(self, item: Item) -> str:
        """Why a run failed, or why its folder could not hold the reason."""
        told = self.workspace.error(item.key)
        return told if told not in (None, NO_REASON) else self._unwritable(item) or NO_REASON

    def _unwritable(self, item: Item) -> str | None:
        """Why a run's folder cannot be written or locked; None where it can."""
        folder = self.workspace.run(item.key).path
        try:
            ensure_writable("--work", folder)
            with locked(folder, wait=False):
                return None
        except UserError as error:
            return str(error)
