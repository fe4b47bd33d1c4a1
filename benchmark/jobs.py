"""What was submitted from a work folder and what has become of it: one record for each command that has submitted runs.

`jobs/<submission>/submission.json` names each job with its runs. It is written before anything is submitted and again with the
job's numbers, all of it under one lock of the work folder: nothing is in the scheduler's hands that is not in a record.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmark import cluster
from benchmark.cluster import Live
from benchmark.store import Workspace, read_json, utc_now, write_json
from benchmark.work import is_locked, locked

RECORD, SLURM = "submission.json", "slurm"
ALIVE = Live("RUNNING")


@dataclass
class Job:
    """A job, or the workers of a command on one machine (which have no number).

    Attributes:
        runs: that it was given: by key, the cell that names each.
        id: as the scheduler has it.
        ended: how it did, in the scheduler's words.
    """

    runs: dict[str, str]
    id: str | None = None
    ended: str | None = None


@dataclass
class Array:
    """Jobs that were submitted as one, by a name that no others have."""

    name: str
    jobs: list[Job]
    submitted: bool = False


@dataclass
class Submission:
    """What one command has submitted.

    Attributes:
        name: process and time, in nanoseconds.
        cluster: as the command line has it.
        request: the options that say what was asked for.
        closed: none of its jobs is left to end, and `Job.ended` tells how they did.
    """

    name: str
    cluster: str
    request: dict[str, Any] = field(default_factory=dict)
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    created: str = field(default_factory=utc_now)
    closed: bool = False
    arrays: list[Array] = field(default_factory=list)

    @property
    def jobs(self) -> list[Job]:
        """Of all arrays."""
        return [job for array in self.arrays for job in array.jobs]

    @classmethod
    def read(cls, content: dict[str, Any]) -> Submission:
        """From what `asdict` gave."""
        arrays = [Array(**(each | {"jobs": [Job(**job) for job in each["jobs"]]})) for each in content["arrays"]]
        return cls(**(content | {"arrays": arrays}))


@dataclass(frozen=True)
class Standing:
    """Whose a run is, or was last: the submission, its job, and either what the scheduler says of that or how it ended (None:
    the scheduler has forgotten)."""

    submission: Submission
    job: Job
    live: Live | None


class Jobs:
    """The submissions of a work folder."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Within: nobody else submits runs of this work folder."""
        with locked(self.workspace.jobs, wait=True):
            yield

    def folder(self, submission: Submission) -> Path:
        """Where its record and submitit's files lie."""
        return self.workspace.jobs / submission.name

    def save(self, submission: Submission) -> None:
        """Write the record."""
        write_json(self.folder(submission) / RECORD, asdict(submission))

    @contextmanager
    def present(self, submission: Submission) -> Iterator[None]:
        """Within: others see that the command which submitted it is still there."""
        with locked(self.folder(submission), wait=True):
            yield

    def submissions(self) -> list[Submission]:
        """All, the oldest first."""
        found = []
        for path in self.workspace.jobs.glob(f"*/{RECORD}"):
            content = read_json(path)
            if content is not None:
                found.append(Submission.read(content))
        return sorted(found, key=lambda each: int(each.name.rpartition("-")[2]))

    def standings(self) -> dict[str, Standing]:
        """By run key. Nothing is written; raises SchedulerError where Slurm has to be asked and does not answer."""
        return self._standings(self.submissions())

    def _standings(self, submissions: Sequence[Submission]) -> dict[str, Standing]:
        live = self._live(submissions)
        over = [job for each in submissions if not each.closed for job in each.jobs if (each.name, job.id) not in live]
        states = cluster.endings(job.id for job in over if job.id is not None)
        for job in over:
            job.ended = states.get(job.id or "")
        found: dict[str, Standing] = {}
        for submission in submissions:
            for job in submission.jobs:
                at = live.get((submission.name, job.id))
                for key in job.runs:
                    if at is not None or key not in found or found[key].live is None:
                        found[key] = Standing(submission, job, at)
        return found

    def _live(self, submissions: Iterable[Submission]) -> dict[tuple[str, str | None], Live]:
        open_ones = [each for each in submissions if not each.closed]
        ids = {job.id: each.name for each in open_ones for job in each.jobs if each.cluster == SLURM and job.id is not None}
        found: dict[tuple[str, str | None], Live] = {(ids[key], key): at for key, at in cluster.live(ids).items()}
        for each in open_ones:
            if each.cluster != SLURM and is_locked(self.folder(each)):
                found[each.name, None] = ALIVE
        return found

    def settle(self) -> dict[str, Standing]:
        """The standings, once what an interrupted command left half submitted is cancelled, and how jobs ended is recorded.

        Within `exclusively` alone. Raises SchedulerError.
        """
        for submission in self.submissions():
            torn = [array for array in submission.arrays if not array.submitted and submission.cluster == SLURM]
            for array in torn:
                cluster.cancel_named(array.name)
                array.submitted = True
            if torn:
                self.save(submission)
        submissions = self.submissions()
        standings = self._standings(submissions)
        alive = {each.submission.name for each in standings.values() if each.live is not None}
        for submission in submissions:
            if not submission.closed and submission.name not in alive:
                submission.closed = True
                self.save(submission)
        return standings

    def said_last(self, standing: Standing) -> str | None:
        """The last line on a job's error stream; None where there is none."""
        lines: list[str] = []
        if standing.job.id is not None:
            for path in sorted(self.folder(standing.submission).glob(f"{standing.job.id}_*_log.err")):
                with suppress(OSError):
                    lines += [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else None
