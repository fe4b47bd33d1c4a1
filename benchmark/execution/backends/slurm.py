"""Slurm: each job is submitted by submitit, in arrays, and queues again after its time limit or a
preemption."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from benchmark.execution.backends.backend import Backend, SchedulerError
from benchmark.execution.preemption import python_that_waits
from benchmark.execution.slurm import commands
from benchmark.execution.slurm.config import ClusterConfig, load_config
from benchmark.spec.records import validated
from benchmark.storage.work_folder import SubmissionFolder

NO_LIMIT = 10**6  # of how often a job may queue again
TAIL_BYTES = 4096


class Slurm(Backend):
    """Jobs of a Slurm cluster."""

    title = "Slurm"
    executor = "slurm"
    detached = True
    takes_config = True

    def __init__(self, config: Path | None = None, jobs: int | None = None, processes: int | None = None) -> None:
        """Settings come from the file `config`, else from the user's own; the other options
        override them."""
        options = {"parallel": jobs, "processes": processes}
        given = load_config(config).model_dump(exclude_unset=True)
        given |= {name: value for name, value in options.items() if value is not None}
        self.config = validated(ClusterConfig, given, "--jobs and --processes with the cluster's settings")
        super().__init__(config, self.config.parallel, self.config.ranks)
        chosen, self.runs_per_job = self.config, self.config.runs_per_job
        self.loaders = chosen.cpus - 1 if chosen.gpus else 0
        self.description = (
            f"at most {chosen.parallel} at a time, each on {chosen.nodes} x {chosen.tasks} processes"
            f" for up to {chosen.minutes} minutes before it queues again"
        )

    def device(self, asked: str) -> str:
        """GPUs where jobs have some."""
        return "cuda" if self.config.gpus and asked == "auto" else asked

    def longest_array(self) -> int:
        """Slurm's limit."""
        commands.ensure_here()
        return commands.longest_array()

    def submit(
        self, worker: Callable[[Any], None], tasks: Sequence[Any], name: str, folder: Path, code: Path, after: Iterable[str] = ()
    ) -> list[Any]:  # fmt: skip
        """Submit an array. The file of environment variables, which may be secret, is readable by
        its owner alone."""
        import submitit

        environment = SubmissionFolder(folder).environment
        with os.fdopen(os.open(environment, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(self.config.variables)
        starting = {"slurm_max_num_timeout": NO_LIMIT, "slurm_python": python_that_waits()}
        executor = submitit.AutoExecutor(folder=folder, cluster=self.executor, **starting)
        executor.update_parameters(**self.config.parameters(name, code, sorted(after), environment))
        with commands.outside_of_jobs():
            try:
                return list(executor.map_array(worker, tasks))
            except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
                raise SchedulerError(f"Slurm refuses: {commands.refusal(str(error))}") from None

    live, endings = staticmethod(commands.live), staticmethod(commands.endings)
    cancel, cancel_named = staticmethod(commands.cancel), staticmethod(commands.cancel_named)

    @staticmethod
    def said_last(folder: Path, job: str) -> str | None:
        """The last line that is not of Slurm or submitit; else Slurm's own error."""
        lines: list[str] = []
        for path in takewhile(Path.exists, (folder / f"{job}_{rank}_log.err" for rank in itertools.count())):
            with suppress(OSError), path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - TAIL_BYTES))
                lines += [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        own = [line for line in lines if not line.startswith(("srun:", "slurmstepd", "submitit "))]
        why = [line for line in lines if line.startswith("srun: error:")]  # followed by lines on the end of the other processes
        return (own or why or lines)[-1] if lines else None


BACKEND = Slurm
