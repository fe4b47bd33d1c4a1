"""What was submitted from a work folder and what has become of it: one record for each command that has submitted runs.

`jobs/<submission>/submission.json` names each job with its runs. It is written before anything is submitted and again with the
job's numbers, all of it under one lock of the work folder: nothing is in the scheduler's hands that is not in a record.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from benchmark.execution.backends import slurm as cluster
from benchmark.execution.backends.slurm import Live, SchedulerError
from benchmark.spec.yaml_files import read_bytes
from benchmark.storage.files import write_json
from benchmark.storage.locks import is_locked, locked
from benchmark.storage.provenance import utc_now
from benchmark.storage.work_folder import Workspace

RECORD, SLURM = "submission.json", "slurm"


TAIL_BYTES, FORGOTTEN_SECONDS = 4096, 24 * 3600


ALIVE = Live("RUNNING")


@checked
class Job:
    """A job, or the workers of a command on one machine (which have no number).

    Attributes:
        runs: that it was given: by key, the cell that names each.
        id: as the scheduler has it.
        ended: how it did, in the scheduler's words.
    """

    runs: dict[str, str]
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] | None = None
    ended: str | None = None


@checked
class Array:
    """Jobs that were submitted as one, by a name that no others have."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    jobs: list[Job]
    submitted: bool = False


@checked
class Submission:
    """What one command has submitted.

    Attributes:
        name: process and time, in nanoseconds.
        cluster: as the command line has it.
        request: the options that say what was asked for.
        closed: none of its jobs is left to end, and `Job.ended` tells how they did.
    """

    name: Annotated[str, Field(pattern=r"^[0-9]+-[0-9]+$")]
    cluster: str
    request: dict[str, Any] = Field(default_factory=dict)
    host: str = Field(default_factory=socket.gethostname)
    pid: int = Field(default_factory=os.getpid, gt=0)
    created: str = Field(default_factory=utc_now)
    closed: bool = False
    arrays: list[Array] = Field(default_factory=list)

    @property
    def jobs(self) -> list[Job]:
        """Of all arrays."""
        return [job for array in self.arrays for job in array.jobs]


WRITTEN = TypeAdapter(Submission)  # keys that another version of this code wrote are passed over


@dataclass(frozen=True)
class Standing:
    """Whose a run is, or was last: the submission, its job, and either what the scheduler says of that or how it ended (None:
    the scheduler has forgotten)."""

    submission: Submission
    job: Job
    live: Live | None


class Submissions:
    """The submissions of a work folder."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.endings: dict[str, str] = {}
        self.said: set[str] = set()

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Within: nobody else submits runs of this work folder."""
        with locked(self.workspace.jobs, wait=True):
            yield

    def folder(self, submission: Submission) -> Path:
        """Where its record and submitit's files lie."""
        return self.workspace.jobs / submission.name

    def save(self, submission: Submission) -> None:
        """Write the record, whole, so that it is there also after the machine goes down."""
        write_json(self.folder(submission) / RECORD, asdict(submission), durable=True)

    @contextmanager
    def present(self, submission: Submission) -> Iterator[None]:
        """Within: others see that the command which submitted it is still there."""
        with locked(self.folder(submission), wait=True):
            yield

    def submissions(self) -> list[Submission]:
        """All, the oldest first. A record that is damaged is named on stderr and left out."""
        found = [self._read(path) for path in self.workspace.jobs.glob(f"*/{RECORD}")]
        return sorted((each for each in found if each is not None), key=lambda each: int(each.name.rpartition("-")[2]))

    def _read(self, path: Path) -> Submission | None:
        try:
            found = WRITTEN.validate_json(read_bytes(path))
        except (OSError, ValidationError) as error:
            self._say(f"{path}: left out, no record of what was submitted ({_why(error)})")
            return None
        if found.name != path.parent.name:
            self._say(f"{path}: left out, the record of another submission ({found.name})")
            return None
        return found

    def _say(self, told: str) -> None:
        """A line on stderr, once."""
        if told not in self.said:
            self.said.add(told)
            print(f"bench: {told}", file=sys.stderr, flush=True)

    def standings(self) -> dict[str, Standing]:
        """By run key. Nothing is written; raises SchedulerError where Slurm has to be asked and does not answer."""
        return self._chosen(self._looked_at(self.submissions()))

    def live(self) -> list[Standing]:
        """Every job that is queued or running. Raises SchedulerError."""
        return [at for at in self._looked_at(self.submissions()) if at.live is not None]

    def settle(self) -> dict[str, Standing]:
        """The standings, once what an interrupted command left half submitted is cancelled, and how jobs ended is recorded.

        Within `exclusively` alone. Raises SchedulerError.
        """
        submissions = self.submissions()
        for submission in submissions:
            torn = [array for array in submission.arrays if not array.submitted and submission.cluster == SLURM]
            for array in torn:
                cluster.cancel_named(array.name)
                array.submitted = True
            if torn:
                self.save(submission)
        found = self._looked_at(submissions)
        alive = {at.submission.name for at in found if at.live is not None}
        for submission in submissions:
            if not submission.closed and submission.name not in alive and _is_known(submission):
                submission.closed = True
                self.save(submission)
        return self._chosen(found)

    def _looked_at(self, submissions: Sequence[Submission]) -> list[Standing]:
        """Every job, the oldest first; `Job.ended` is filled in."""
        open_ones = [each for each in submissions if not each.closed]
        numbered = {job.id for each in open_ones for job in each.jobs if each.cluster == SLURM and job.id is not None}
        live = cluster.live(numbered)
        try:
            self.endings |= cluster.endings(numbered - live.keys() - self.endings.keys())
        except SchedulerError as error:  # who still runs is known
            self._say(f"{error}: how jobs ended is not known")
        found = []
        for submission in submissions:
            here = submission.cluster != SLURM and not submission.closed and is_locked(self.folder(submission))
            for job in submission.jobs:
                at = live.get(job.id or "") if submission.cluster == SLURM else ALIVE if here else None
                job.ended = job.ended or (self.endings.get(job.id or "") if at is None else None)
                found.append(Standing(submission, job, at))
        return found

    def _chosen(self, standings: Iterable[Standing]) -> dict[str, Standing]:
        """By run key the job that has it or had it last; of several commands on one machine that share it, whoever trains it."""
        found: dict[str, Standing] = {}
        for at in standings:
            for key in at.job.runs:
                known = found.get(key)
                if known is not None and known.live is not None:
                    trains = self.workspace.progress(key).get("launcher")
                    if at.live is None or (known.submission.name == trains and known.submission.name != at.submission.name):
                        continue
                found[key] = at
        return found

    def said_last(self, standing: Standing) -> str | None:
        """The last line on a job's error stream; None where there is none."""
        folder, job = self.folder(standing.submission), standing.job.id
        lines: list[str] = []
        for path in takewhile(Path.exists, (folder / f"{job}_{rank}_log.err" for rank in itertools.count())):
            with suppress(OSError), path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - TAIL_BYTES))
                lines += [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        own = [line for line in lines if not line.startswith(("srun:", "slurmstepd", "submitit "))]
        why = [line for line in lines if line.startswith("srun: error:")]  # the lines after tell that it ends the rest
        return (own or why or lines)[-1] if lines else None


def _why(error: OSError | ValidationError) -> str:
    if isinstance(error, OSError):
        return error.strerror or "not readable"
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))[:80]
    return f"{place}: {first['msg'][:80]}" if place else str(first["msg"])[:80]


def _is_known(submission: Submission) -> bool:
    """Whether it is known how each job ended, or will not be known any more."""
    if all(job.id is None or job.ended for job in submission.jobs):
        return True
    return time.time() - int(submission.name.rpartition("-")[2]) / 1e9 > FORGOTTEN_SECONDS
