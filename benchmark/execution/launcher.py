"""A launch: one command's plan on a backend, and its outcome."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmark.execution.backends.backend import Backend, SchedulerError
from benchmark.execution.code_copy import frozen
from benchmark.execution.delivery import deliver
from benchmark.execution.setup import Setup, WorkerTask
from benchmark.execution.submissions import Submission, Submissions
from benchmark.execution.worker import DIED, Worker
from benchmark.spec.plan import Item, Plan
from benchmark.spec.protocol import Protocol
from benchmark.storage.results import Results
from benchmark.storage.work_folder import Workspace
from families.spec import UserError

ALONE_AFTER = 2  # deaths of workers over a run


@dataclass
class Outcome:
    """The outcome of a plan: run keys by state.

    Attributes:
        finished, found, restored: trained here; found in results; found in the work folder.
        retrained: to be trained again, since others need weights that are gone.
        elsewhere: queued or running by another command.
        waiting: not to be trained here, since they need runs that are elsewhere.
        submitted: given to a scheduler.
        failed: key -> reason.
    """

    finished: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    retrained: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Launch:
    """A plan on a backend.

    Args:
        plan, protocol: what is asked for.
        workspace, results: where runs and cells lie.
        backend: where workers run.
        setup: how runs are trained.
        request: the command's options, for the record of the submission.
    """

    def __init__(
        self, plan: Plan, protocol: Protocol, workspace: Workspace, results: Results, backend: Backend, setup: Setup,
        request: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.protocol, self.workspace, self.results = plan, protocol, workspace, results
        self.backend, self.setup, self.outcome = backend, setup, Outcome()
        self.submissions = Submissions(workspace)
        self.name = f"{os.getpid()}-{time.time_ns()}"
        self.submission = Submission(self.name, backend.name, dict(request or {}))

    def deliver(self, item: Item) -> None:
        """Write a finished run's results. Where that is impossible the run fails, and its payload
        waits in the work folder."""
        try:
            deliver(self.workspace, self.results, item)
            self.outcome.finished.append(item.key)
        except (OSError, UserError) as error:
            self.outcome.failed[item.key] = f"trained, but its result could not be written: {error}"

    def alone(self, items: Iterable[Item]) -> set[str]:
        """Runs to train alone: a worker died over them twice, or their failure may have ended its
        processes.

        After one death runs go on together, since most deaths are nobody's fault.
        """
        items = list(items)
        shared = self.setup.processes > 1 or self.backend.in_process  # a failure may end the others too
        died = {item.key for item in items if self.workspace.progress(item.key).deaths >= ALONE_AFTER}
        errors = {item.key: self.workspace.error(item.key) for item in items if shared}
        return died | {key for key, error in errors.items() if error and not error.startswith(DIED)}

    def submit(self, shares: Sequence[list[list[Item]]], name: str, after: Iterable[str] = ()) -> list[Any]:
        """Submit a worker for each share of units; submitit's jobs. Raises SchedulerError where the
        scheduler refuses, UserError where the work folder is full."""
        backend, folder = self.backend, self.workspace.submission(self.name).path
        tasks = [self._task(units, number) for number, units in enumerate(shares)]
        try:
            return backend.submit(Worker(), tasks, name, folder, frozen(self.workspace.code), after)
        except SchedulerError as error:
            raise SchedulerError(f"{error}{self._submitted_before()}") from None
        except OSError as error:
            raise UserError(f"--work {self.workspace.folder}: nothing can be submitted ({error.strerror})") from None

    def _task(self, units: list[list[Item]], number: int) -> WorkerTask:
        backend = self.backend
        return WorkerTask(
            units, self.protocol, self.workspace, Results(self.results.folder.absolute()), self.setup,
            launcher=self.name,
            process=None if backend.detached or backend.in_process else os.getpid(),
            number=0 if backend.detached else number,
            announce=backend.in_process,
            environment=backend.worker_environment(),
        )  # fmt: skip

    def _submitted_before(self) -> str:
        jobs = sum(len(array.jobs) for array in self.submission.arrays if array.submitted)
        return f"; {jobs} jobs were submitted before it: see bench status, bench cancel" if jobs else ""


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C, also in processes started within: the command answers it, and its workers end
    with it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
