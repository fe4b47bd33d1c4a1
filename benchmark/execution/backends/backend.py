"""The interface of a backend. Its defaults suit workers that run on this machine and end with the
command."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from families.spec import UserError

WEEK_MINUTES = 7 * 24 * 60


@dataclass(frozen=True)
class Live:
    """A job that has not ended: its state in Slurm's words, and why it waits (None once it does not)."""

    state: str
    reason: str | None = None

    @property
    def begun(self) -> bool:
        """Whether its processes exist."""
        return self.state in ("RUNNING", "COMPLETING", "SUSPENDED")


class SchedulerError(UserError):
    """A scheduler does not answer, or refuses."""


class Backend:
    """Submits workers, and looks after their jobs.

    An instance has the options of one command. Submitted jobs are looked up by the class alone.

    Attributes:
        name: the file's, as in `--cluster local`.
        title: in messages.
        executor: submitit's.
        detached: jobs outlive the command, have a number, and wait for others by themselves.
        in_process: the worker is the command's own process.
        takes_config: `--cluster-config` applies.
        jobs: how many run at a time; None: as many as this machine has room for.
        processes: how many share each run's batches.
        runs_per_job: the fewest runs of a detached job.
        loaders: image loaders of each process; None: chosen by this machine's cores.
        description: the number, size and time limit of detached jobs.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = "this machine"
    executor: ClassVar[str]
    detached: ClassVar[bool] = False
    in_process: ClassVar[bool] = False
    takes_config: ClassVar[bool] = False
    runs_per_job = 1
    loaders: int | None = None
    description = ""

    def __init_subclass__(cls) -> None:
        cls.name = cls.__module__.rpartition(".")[2]

    def __init__(self, config: Path | None = None, jobs: int | None = None, processes: int | None = None) -> None:
        """Take the command's options; None: not given. Raises UserError for options that do not go
        with the backend."""
        self.jobs, self.processes = jobs, processes or 1

    def at_a_time(self, places: int) -> int:
        """How many jobs run at a time, where this machine has room for `places` workers."""
        return self.jobs or max(1, places)

    def device(self, asked: str) -> str:
        """The device of runs, for the option --device."""
        return asked

    def longest_array(self) -> int:
        """The most jobs of one submission. Raises SchedulerError where none can be made from this
        machine."""
        return 1000

    def parameters(self, name: str, folder: Path, code: Path, after: Iterable[str]) -> dict[str, Any]:
        """The parameters of submitit's executor for `submit`."""
        return {"timeout_min": WEEK_MINUTES}

    def worker_environment(self) -> dict[str, str | None]:
        """Variables that a worker sets, or removes where None."""
        return {}

    def submit(
        self, worker: Callable[[Any], None], tasks: Sequence[Any], name: str, folder: Path, code: Path, after: Iterable[str] = ()
    ) -> list[Any]:  # fmt: skip
        """Submit one job a task, which calls `worker` with it; submitit's jobs.

        Jobs are called `name`, import the copy of the code in `code`, keep their files in `folder`,
        and begin once the jobs `after` have ended. Raises SchedulerError where the scheduler
        refuses.
        """
        import submitit

        executor = submitit.AutoExecutor(folder=folder, cluster=self.executor)
        executor.update_parameters(**self.parameters(name, folder, code, after))
        with importing(code):
            return list(executor.map_array(worker, tasks))

    @staticmethod
    def live(ids: Iterable[str]) -> dict[str, Live]:
        """Those of these jobs that have not ended. Raises SchedulerError where the scheduler does
        not answer."""
        return {}

    @staticmethod
    def endings(ids: Iterable[str]) -> dict[str, str]:
        """How these jobs ended, in Slurm's words, without those that the scheduler has forgotten.
        Raises SchedulerError."""
        return {}

    @staticmethod
    def cancel(ids: Sequence[str]) -> None:
        """End jobs. Raises SchedulerError where the scheduler refuses."""

    @staticmethod
    def cancel_named(name: str) -> None:
        """End the jobs of that name. Raises SchedulerError where the scheduler refuses."""

    @staticmethod
    def said_last(folder: Path, job: str) -> str | None:
        """The last line of a job's own on its error streams; None without one."""
        return None


@contextmanager
def importing(code: Path) -> Iterator[None]:
    """Processes that are started within import that copy of the code."""
    paths = [str(code), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}  # or the current folder came first
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        set_environment(before)


def set_environment(environment: Mapping[str, str | None]) -> None:
    """Set variables, or remove them where None."""
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
