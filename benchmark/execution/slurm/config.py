"""A site's settings of jobs, read from YAML."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from benchmark.spec import bounds
from benchmark.spec.records import NUMBER, Record, RunCount, validated
from benchmark.spec.yaml_files import read_yaml
from families.spec import UserError, quoted

RESERVED = (
    "job_name", "array", "output", "error", "dependency", "signal", "requeue", "no_requeue", "nodes", "ntasks_per_node", "time",
    "parsable", "wait", "test_only", "wrap", "open_mode",
)  # fmt: skip
Processes = Annotated[int, NUMBER, Field(ge=bounds.PROCESSES.least, le=bounds.PROCESSES.most)]
Minutes = Annotated[int, NUMBER, Field(ge=bounds.MINUTES.least, le=bounds.MINUTES.most)]
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$", max_length=1000)]  # of a script
Variable = Annotated[str, Field(pattern=r"^[^\x00]*$", max_length=10_000)]


class ClusterConfig(Record):
    """Settings of a site and of its jobs.

    Attributes:
        partition, account, qos, constraint: sbatch's options; None: the site's default.
        nodes: for each run.
        gpus: on each node, one a process; 0: none.
        processes: on each node; None: one a GPU, or one.
        cpus: cores of each process: its own and those of its image loaders.
        memory_gb: on each node; None: the site's default.
        minutes: of a job, before it queues again.
        notice_seconds: how long before this, or a preemption, a job begins to leave.
        parallel: jobs of a stage that run at a time.
        runs_per_job: the fewest runs of a job, group after group; runs that train together always
            share a job.
        environment: variables of each job.
        setup: shell lines before each job, as in `module load cuda`.
        sbatch: other options of sbatch, as in `reservation: vision`; true for one without a value.
    """

    partition: Line | None = None
    account: Line | None = None
    qos: Line | None = None
    constraint: Line | None = None
    nodes: Annotated[int, NUMBER, Field(ge=bounds.NODES.least, le=bounds.NODES.most)] = 1
    gpus: Annotated[int, NUMBER, Field(ge=0, le=bounds.PROCESSES.most)] = 0
    processes: Processes | None = None
    cpus: Processes = 1
    memory_gb: Annotated[float, NUMBER, Field(gt=0, le=10**6)] | None = None
    minutes: Minutes = 24 * 60
    notice_seconds: Minutes = 120
    parallel: Annotated[int, NUMBER, Field(ge=bounds.JOBS.least, le=bounds.JOBS.most)] = 16
    runs_per_job: RunCount = 1
    environment: dict[str, Variable] = {}
    setup: tuple[Line, ...] = ()
    sbatch: dict[str, Line | int | bool] = {}

    @field_validator("environment", mode="before")
    @classmethod
    def _numbers_are_text(cls, value: Any) -> Any:
        return {name: _as_text(each) for name, each in value.items()} if isinstance(value, dict) else value

    @field_validator("environment")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"{quoted(name)} is no name of a variable")
        return value

    @field_validator("sbatch")
    @classmethod
    def _free(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
                raise ValueError(f"{quoted(name)} is no option of sbatch as it has them, in small letters")
            taken = next((each for each in RESERVED if each.startswith(name.replace("-", "_"))), None)  # sbatch takes prefixes
            if taken is not None:
                raise ValueError(f"{quoted(name)[1:-1]} is set by the launcher")
        return value

    @model_validator(mode="after")
    def _one_gpu_a_process(self) -> ClusterConfig:
        if self.gpus and self.processes not in (None, self.gpus):
            raise ValueError(f"gpus: {self.gpus} and processes: {self.processes}: each process has one GPU")
        return self

    @model_validator(mode="after")
    def _time_to_train(self) -> ClusterConfig:
        if self.notice_seconds > 30 * self.minutes:  # Slurm may give notice a minute early
            raise ValueError(f"notice_seconds: {self.notice_seconds} is more than half of minutes: {self.minutes}")
        return self

    @property
    def tasks(self) -> int:
        """Processes on a node."""
        return self.processes or self.gpus or 1

    @property
    def ranks(self) -> int:
        """Processes that share a run's batches."""
        return self.nodes * self.tasks

    @property
    def variables(self) -> str:
        """Shell lines that set the job's environment, which may have secrets."""
        return "".join(f"export {key}={shlex.quote(value)}\n" for key, value in self.environment.items())

    def parameters(self, name: str, code: Path, after: Collection[str], variables: Path) -> dict[str, Any]:
        """The parameters of submitit's executor for jobs called `name` that run a copy of the code,
        once the jobs `after` have ended, however. The file `variables` has this record's
        `variables`."""
        exports = [f". {shlex.quote(str(variables))}"] if self.environment else []
        exports.append(f"export SRUN_CPUS_PER_TASK={self.cpus}")  # since Slurm 22.05 srun does not take it from sbatch
        exports += [f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}", "export PYTHONSAFEPATH=1"]
        asked = {
            "name": name,
            "timeout_min": self.minutes,
            "nodes": self.nodes,
            "tasks_per_node": self.tasks,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus or None,
            "mem_gb": self.memory_gb,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_qos": self.qos,
            "slurm_constraint": self.constraint,
            "slurm_array_parallelism": self.parallel,
            "slurm_signal_delay_s": self.notice_seconds,
            "slurm_dependency": f"afterany:{':'.join(after)}" if after else None,
            "slurm_setup": [*self.setup, *exports],
            "slurm_srun_args": ["--kill-on-bad-exit=1"],  # or a job would wait for ever for a process that died
            "slurm_additional_parameters": {"requeue": True}
            | {name: each for name, each in self.sbatch.items() if each is not False},
        }
        return {key: value for key, value in asked.items() if value is not None}


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def user_file() -> Path:
    """The user's own settings."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "bench" / "cluster.yaml"


def load_config(path: Path | None) -> ClusterConfig:
    """The settings in `path`, else in the user's file, else the defaults. Raises UserError, one
    line, naming the file."""
    if path is None:
        path = user_file()
        if not path.is_file():
            return ClusterConfig()
    elif not path.is_file():
        raise UserError(f"--cluster-config {path}: no such file")
    content = read_yaml(path)
    return validated(ClusterConfig, {} if content is None else content, str(path))
