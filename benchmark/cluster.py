"""Slurm as this suite uses it: what a site wants in a job, read from YAML, and what the scheduler says of jobs.

Jobs are made and submitted by submitit; their states come from `squeue`, which knows those that are still to end, and by
submitit from `sacct`, which knows how the others ended. Nothing of any site is in the code.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from benchmark import bounds
from benchmark.protocol import NUMBER, Record, RunCount, read_yaml, validated
from families.spec import UserError, quoted

PROGRAMS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol")
ASK_SECONDS = 60
IDS_A_CALL = 500
FOREVER = 10**6
REJECTED = re.compile(r"sbatch: (?:error: )?(.*)")
RESERVED = (
    "job_name", "array", "output", "error", "dependency", "signal", "requeue", "no_requeue", "nodes", "ntasks_per_node", "time",
    "parsable", "wait", "test_only", "wrap", "open_mode",
)  # fmt: skip
ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")


Processes = Annotated[int, NUMBER, Field(ge=bounds.PROCESSES.least, le=bounds.PROCESSES.most)]
Minutes = Annotated[int, NUMBER, Field(ge=bounds.MINUTES.least, le=bounds.MINUTES.most)]
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$", max_length=1000)]  # what becomes one line of a script
Variable = Annotated[str, Field(pattern=r"^[^\x00]*$", max_length=10_000)]


class ClusterConfig(Record):
    """What a site wants, and what a run gets there.

    Attributes:
        partition, account, qos, constraint: as sbatch has them; None: the site's own.
        nodes: a run's.
        gpus: a node's, each with a process of its own; 0: none.
        processes: a node's; None: one for each GPU, or one.
        cpus: cores a process: its own and those of its image loaders.
        memory_gb: a node's; None: the site's own.
        minutes: of a job, until it has to queue again.
        notice_seconds: before that, or before it is preempted, when a job begins to leave.
        parallel: jobs of a stage that run at a time.
        runs_per_job: how many runs a job has at least, one group after the other; those that train together always share one.
        environment: variables of each job.
        setup: shell lines before each job, as in `module load cuda`.
        sbatch: any other option of sbatch, as in `reservation: vision`; true for one without a value.
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
            taken = next((each for each in RESERVED if each.startswith(name.replace("-", "_"))), None)  # sbatch takes beginnings
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
        if self.notice_seconds > 30 * self.minutes:  # and Slurm may give it a minute early
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
        """Shell lines that set the job's environment, which may hold secrets."""
        return "".join(f"export {key}={shlex.quote(value)}\n" for key, value in self.environment.items())

    def parameters(self, name: str, code: Path, after: Collection[str], variables: Path) -> dict[str, Any]:
        """What submitit's executor is told for jobs called `name` that run a copy of the code, and begin once the jobs `after`
        have ended, however. The file `variables` holds those of this record."""
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
            "slurm_srun_args": ["--kill-on-bad-exit=1"],  # without it a job whose one process died waits for ever
            "slurm_additional_parameters": {"requeue": True}
            | {name: each for name, each in self.sbatch.items() if each is not False},
        }
        return {key: value for key, value in asked.items() if value is not None}


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def user_file() -> Path:
    """Where a user's own settings lie."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "bench" / "cluster.yaml"


def load_config(path: Path | None) -> ClusterConfig:
    """The settings in `path`, else in the user's file, else the defaults. Raises UserError, one line, naming the file."""
    if path is None:
        path = user_file()
        if not path.is_file():
            return ClusterConfig()
    elif not path.is_file():
        raise UserError(f"--cluster-config {path}: no such file")
    content = read_yaml(path)
    return validated(ClusterConfig, {} if content is None else content, str(path))


# ---- what the scheduler says


@dataclass(frozen=True)
class Live:
    """A job that is still to end: its state as Slurm calls it, and why it waits (None once it does not)."""

    state: str
    reason: str | None = None


class SchedulerError(UserError):
    """Slurm does not answer, or refuses."""


def live(ids: Iterable[str]) -> dict[str, Live]:
    """Of these jobs (as in 12 or 12_3) those that are waiting, running or about to end.

    Raises SchedulerError where Slurm does not answer: nobody knows then.
    """
    wanted = set(ids)
    found: dict[str, Live] = {}
    for some in _batched(sorted({each.split("_")[0] for each in wanted})):
        for line in _squeue(some):
            job, state, reason = line.split("|", 2)
            if job in wanted:
                found[job] = Live(state, None if state != "PENDING" or reason in ("None", "") else reason)
    return found


def _squeue(ids: Sequence[str]) -> list[str]:
    words = ["squeue", "--noheader", "--array", "--format=%i|%T|%r", f"--jobs={','.join(ids)}"]
    done = _ask(words)
    if done.returncode and "Invalid job id" not in done.stderr:  # of one id alone, when it is forgotten
        raise SchedulerError(f"squeue does not answer: {_one_line(done.stderr)}")
    return done.stdout.splitlines()


def _batched(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[at : at + IDS_A_CALL] for at in range(0, len(ids), IDS_A_CALL))


def endings(ids: Iterable[str]) -> dict[str, str]:
    """How these jobs ended, in Slurm's words, as in OUT_OF_MEMORY or CANCELLED by 1000; not those that it has forgotten.

    Raises SchedulerError where sacct fails.
    """
    from submitit.slurm.slurm import SlurmInfoWatcher

    wanted, found = set(ids), dict[str, str]()
    for some in _batched(sorted({each.split("_")[0] for each in wanted})):
        told = _checked(["sacct", "--parsable2", "--format=JobID,State", f"--jobs={','.join(some)}"])
        found |= {job: line["State"] for job, line in SlurmInfoWatcher().read_info(told).items()}
    return {job: state for job, state in found.items() if job in wanted and state.startswith(ENDED)}  # sacct lags by seconds


def cancel(ids: Sequence[str]) -> None:
    """End jobs. Raises SchedulerError where Slurm refuses."""
    for some in _batched(ids):
        _checked(["scancel", *some])


def cancel_named(name: str) -> None:
    """End the jobs of that name. Raises SchedulerError where Slurm refuses."""
    _checked(["scancel", f"--jobname={name}"])


@contextmanager
def outside_of_jobs() -> Iterator[None]:
    """Within: what is submitted inherits nothing of the job, if any, that it is submitted from; what sbatch complains of is
    left to the error that is raised."""
    import submitit

    kept = {name: value for name, value in os.environ.items() if name == "SLURM_CONF" or name.startswith("SBATCH_")}
    around = submitit.helpers.clean_env() if "SLURM_JOB_ID" in os.environ else nullcontext()
    with around, redirect_stderr(StringIO()):
        os.environ.update(kept)
        yield


def ensure_here() -> None:
    """Raises SchedulerError where a program of Slurm's is missing that a submission needs."""
    for name in PROGRAMS:
        if shutil.which(name) is None:
            raise SchedulerError(f"no {name} here: is this a node of a Slurm cluster?")


def longest_array() -> int:
    """How many jobs an array may have here."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", _checked(["scontrol", "show", "config"]))
    return max(1, int(found.group(1)) - 1) if found else 1000


def refusal(told: str) -> str:
    """The line of sbatch's that says why it refused."""
    lines = [line for line in map(str.strip, told.splitlines()) if REJECTED.match(line)]
    return "; ".join(dict.fromkeys(lines)) or _one_line(told)


def _checked(words: Sequence[str]) -> str:
    done = _ask(words)
    if done.returncode:
        raise SchedulerError(f"{words[0]} failed: {_one_line(done.stderr)}")
    return done.stdout


def _ask(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_", "SCANCEL_"))}
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=ASK_SECONDS, env=plain)
    except FileNotFoundError:
        raise SchedulerError(f"no {words[0]} here: is this a node of a Slurm cluster?") from None
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"{words[0]} has not answered for {ASK_SECONDS} s") from None


def _one_line(told: str) -> str:
    return " ".join(told.split())[:300] or "without a word"
