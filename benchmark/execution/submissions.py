"""The submissions of a work folder: one record for each command that submitted runs.

A record names each job with its runs. It is written before anything is submitted and again with the
jobs' numbers, under one lock of the work folder: a scheduler has no job that is not in a record.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from benchmark.execution.backends import load
from benchmark.execution.backends.backend import Backend, Live, SchedulerError
from benchmark.spec.yaml_files import read_bytes
from benchmark.storage.files import sweep, write_json
from benchmark.storage.locks import is_locked, locked
from benchmark.storage.provenance import utc_now
from benchmark.storage.result_file import first_error
from benchmark.storage.work_folder import Workspace
from families.spec import UnknownName

FORGOTTEN_SECONDS = 24 * 3600  # later a scheduler need not know how a job ended
ALIVE = Live("RUNNING")


@checked
class Job:
    """A job, or the workers of a command on one machine (which have no number).

    Attributes:
        runs: run key -> the cell that names it.
        id: the scheduler's.
        ended: how, in Slurm's words.
    """

    runs: dict[str, str]
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] | None = None
    ended: str | None = None


@checked
class Array:
    """Jobs that were submitted as one, under a name of their own."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    jobs: list[Job]
    submitted: bool = False


@checked
class Submission:
    """The record of one command.

    Attributes:
        name: process and time, in nanoseconds.
        cluster: the backend, as in --cluster.
        request: the command's options that say what to run.
        closed: all jobs have ended, and `Job.ended` says how.
    """

    name: Annotated[str, Field(pattern=r"^[0-9]+-[0-9]+$")]
    cluster: str
    request: dict[str, str | None] = Field(default_factory=dict)
    host: str = Field(default_factory=socket.gethostname)
    pid: int = Field(default_factory=os.getpid, gt=0)
    created: str = Field(default_factory=utc_now)
    closed: bool = False
    arrays: list[Array] = Field(default_factory=list)

    @property
    def jobs(self) -> list[Job]:
        """The jobs of all arrays."""
        return [job for array in self.arrays for job in array.jobs]


RECORD = TypeAdapter(Submission)  # ignores keys that another version of this code wrote


def backend_of(submission: Submission) -> type[Backend]:
    """The backend of a submission; of one that is gone, as of a command on one machine."""
    try:
        return load(submission.cluster)
    except UnknownName:
        return Backend


@dataclass(frozen=True)
class Standing:
    """The job that has a run, or had it last; `live` is None once it has ended."""

    submission: Submission
    job: Job
    live: Live | None


class Submissions:
    """The submissions of a work folder."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.endings: dict[tuple[str, str], str] = {}  # by backend and job number
        self.said: set[str] = set()

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Within: no other command submits runs of this work folder."""
        with locked(self.workspace.jobs, wait=True):
            yield

    def save(self, submission: Submission) -> None:
        """Write the record, so that it survives a crash of the machine."""
        write_json(self.workspace.submission(submission.name).record, asdict(submission), durable=True)

    @contextmanager
    def present(self, submission: Submission) -> Iterator[None]:
        """Within: other commands see that this submission's command still runs."""
        with locked(self.workspace.submission(submission.name).path, wait=True):
            yield

    def submissions(self) -> list[Submission]:
        """All of them, the oldest first. A damaged record is named on stderr and left out."""
        found = [self._read(folder.record) for folder in self.workspace.submissions()]
        return sorted((each for each in found if each is not None), key=lambda each: int(each.name.rpartition("-")[2]))

    def _read(self, path: Path) -> Submission | None:
        try:
            found = RECORD.validate_json(read_bytes(path))
        except (OSError, ValidationError) as error:
            why = first_error(error) if isinstance(error, ValidationError) else error.strerror or "not readable"
            self._say(f"{path}: left out, no record of what was submitted ({why})")
            return None
        if found.name != path.parent.name:
            self._say(f"{path}: left out, the record of another submission ({found.name})")
            return None
        return found

    def _say(self, told: str) -> None:
        """Print a line on stderr, once."""
        if told not in self.said:
            self.said.add(told)
            print(f"bench: {told}", file=sys.stderr, flush=True)

    def standings(self) -> dict[str, Standing]:
        """By run key. Writes nothing. Raises SchedulerError where a scheduler has to be asked and
        does not answer."""
        return self._chosen(self._looked_at(self.submissions()))

    def live(self) -> list[Standing]:
        """Every job that is queued or running. Raises SchedulerError."""
        return [at for at in self._looked_at(self.submissions()) if at.live is not None]

    def settle(self) -> dict[str, Standing]:
        """Clean up after interrupted commands (temporary files, half-submitted arrays) and record how
        jobs ended; the standings.

        To be called within `exclusively`. Raises SchedulerError.
        """
        for folder in self.workspace.jobs.glob("*/"):
            sweep(folder)
        submissions = self.submissions()
        for submission in submissions:
            backend = backend_of(submission)
            torn = [array for array in submission.arrays if not array.submitted and backend.detached]
            for array in torn:
                backend.cancel_named(array.name)
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
        live = self._ask(submissions)
        found = []
        for submission in submissions:
            backend, folder = backend_of(submission), self.workspace.submission(submission.name).path
            here = ALIVE if not backend.detached and not submission.closed and is_locked(folder) else None
            for job in submission.jobs:
                job_id = backend.name, job.id or ""
                at = live.get(job_id) if backend.detached else here
                job.ended = job.ended or (self.endings.get(job_id) if at is None else None)
                found.append(Standing(submission, job, at))
        return found

    def _ask(self, submissions: Sequence[Submission]) -> dict[tuple[str, str], Live]:
        """The live jobs of schedulers, by backend and number; how the others ended goes into
        `endings`."""
        numbers: dict[type[Backend], set[str]] = {}
        for submission in submissions:
            if not submission.closed:
                ids = {job.id for job in submission.jobs if job.id is not None}
                numbers.setdefault(backend_of(submission), set()).update(ids)
        found: dict[tuple[str, str], Live] = {}
        for backend, ids in numbers.items():
            live = backend.live(ids)
            found |= {(backend.name, job): at for job, at in live.items()}
            known = {job for name, job in self.endings if name == backend.name}
            try:
                ended = backend.endings(ids - live.keys() - known)
            except SchedulerError as error:  # which jobs run is known
                self._say(f"{error}: how jobs ended is not known")
            else:
                self.endings |= {(backend.name, job): state for job, state in ended.items()}
        return found

    def _chosen(self, standings: Iterable[Standing]) -> dict[str, Standing]:
        """Run key -> the job that has it or had it last; of several commands on one machine, the
        one that trains it."""
        found: dict[str, Standing] = {}
        for at in standings:
            for key in at.job.runs:
                known = found.get(key)
                if known is not None and known.live is not None:
                    trains = self.workspace.progress(key).launcher
                    if at.live is None or (known.submission.name == trains and known.submission.name != at.submission.name):
                        continue
                found[key] = at
        return found

    def said_last(self, standing: Standing) -> str | None:
        """The last line on a job's error streams; None without one."""
        folder, job = self.workspace.submission(standing.submission.name).path, standing.job.id
        return None if job is None else backend_of(standing.submission).said_last(folder, job)


def _is_known(submission: Submission) -> bool:
    """Whether it is known how each job ended, or will not be known any more."""
    if all(job.id is None or job.ended for job in submission.jobs):
        return True
    return time.time() - int(submission.name.rpartition("-")[2]) / 1e9 > FORGOTTEN_SECONDS
