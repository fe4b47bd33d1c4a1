"""Slurm's commands: `squeue` knows the jobs that have not ended, `sacct` how the others did."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from io import StringIO

from benchmark.execution.backends.backend import Live, SchedulerError
from families.spec import one_line

PROGRAMS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol")
ASK_SECONDS = 60
IDS_A_CALL = 500
REJECTED = re.compile(r"sbatch: (?:error: )?(.*)")
ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")


def live(ids: Iterable[str]) -> dict[str, Live]:
    """Those of these jobs (as in 12 or 12_3) that have not ended. Raises SchedulerError where Slurm
    does not answer.

    The reason of a held job, as after its node went down, says what releases it.
    """
    wanted = set(ids)
    found: dict[str, Live] = {}
    for some in _batched(sorted({each.split("_")[0] for each in wanted})):
        for line in _squeue(some):
            job, state, reason = line.split("|", 2)
            if job in wanted:
                reason = f"{reason}: scontrol release {job}" if "held" in reason.lower() else reason
                found[job] = Live(state, None if state != "PENDING" or reason in ("None", "") else reason)
    return found


def _squeue(ids: Sequence[str]) -> list[str]:
    words = ["squeue", "--noheader", "--array", "--format=%i|%T|%r", f"--jobs={','.join(ids)}"]
    done = _ask(words)
    if done.returncode and "Invalid job id" not in done.stderr:  # of one id alone, when it is forgotten
        raise SchedulerError(f"squeue does not answer: {one_line(done.stderr)}")
    return done.stdout.splitlines()


def _batched(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[at : at + IDS_A_CALL] for at in range(0, len(ids), IDS_A_CALL))


def endings(ids: Iterable[str]) -> dict[str, str]:
    """How these jobs ended, as in OUT_OF_MEMORY or CANCELLED by 1000, without those that Slurm has
    forgotten.

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
    """Within: submitted jobs inherit nothing of a job that this process belongs to, and sbatch's
    complaints are not printed, since the error that is raised has them."""
    import submitit

    kept = {name: value for name, value in os.environ.items() if name == "SLURM_CONF" or name.startswith("SBATCH_")}
    around = submitit.helpers.clean_env() if "SLURM_JOB_ID" in os.environ else nullcontext()
    with around, redirect_stderr(StringIO()):
        os.environ.update(kept)
        yield


def ensure_here() -> None:
    """Raises SchedulerError where a program of Slurm's is missing."""
    for name in PROGRAMS:
        if shutil.which(name) is None:
            raise SchedulerError(f"no {name} here: is this a node of a Slurm cluster?")


def longest_array() -> int:
    """The most jobs of an array here."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", _checked(["scontrol", "show", "config"]))
    return max(1, int(found.group(1)) - 1) if found else 1000


def refusal(told: str) -> str:
    """The lines of sbatch's output that say why it refused."""
    lines = [line for line in map(str.strip, told.splitlines()) if REJECTED.match(line)]
    return "; ".join(dict.fromkeys(lines)) or one_line(told)


def _checked(words: Sequence[str]) -> str:
    done = _ask(words)
    if done.returncode:
        raise SchedulerError(f"{words[0]} failed: {one_line(done.stderr)}")
    return done.stdout


def _ask(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_", "SCANCEL_"))}
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=ASK_SECONDS, env=plain)
    except FileNotFoundError:
        raise SchedulerError(f"no {words[0]} here: is this a node of a Slurm cluster?") from None
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"{words[0]} has not answered for {ASK_SECONDS} s") from None
