"""Where a run is: from its result, its work folder and what the scheduler says of its job. Nothing here writes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from benchmark.execution.submissions import Standing, Submissions
from benchmark.spec.plan import Item
from benchmark.storage.result_file import Rejected
from benchmark.storage.results import Results
from benchmark.storage.work_folder import Workspace

Kind = Literal["finished", "running", "lost", "queued", "failed", "stale", "missing"]


KINDS: tuple[Kind, ...] = get_args(Kind)


LOST_SECONDS = 30 * 60  # without a sign of life; a run that works gives one at least every 10 s


@dataclass(frozen=True)
class State:
    """Where a run is.

    Attributes:
        kind: in a word.
        reason: why it failed, waits, is lost or stale.
        progress: the last that its worker wrote; empty when none has.
        job: the scheduler's number of the job that has it, or had it last.
    """

    kind: Kind
    reason: str | None = None
    progress: Mapping[str, Any] = field(default_factory=dict)
    job: str | None = None

    @property
    def silent(self) -> float | None:
        """Seconds since the last sign of life of a run that is trained now; None for any other."""
        return max(0.0, time.time() - self.progress["updated"]) if self.kind in ("running", "lost") else None


def state_of(item: Item, workspace: Workspace, results: Results, jobs: Submissions, standings: Mapping[str, Standing]) -> State:
    """A run's state. A result counts by its key; one of an older protocol in its place makes a run stale until it runs."""
    found = [results.get(cell) for cell in item.cells]
    if any(each is not None and not isinstance(each, Rejected) and each.key == item.key for each in found):
        return State("finished")
    at, progress = standings.get(item.key), workspace.progress(item.key)
    state = _in_work(item, workspace, jobs, at, progress)
    if state is not None:
        return replace(state, progress=progress, job=None if at is None else at.job.id)
    if any(each is not None for each in found):
        return State("stale", "its result is of another protocol, or no valid one")
    return State("missing", progress=progress)


def _in_work(
    item: Item, workspace: Workspace, jobs: Submissions, at: Standing | None, progress: Mapping[str, Any]
) -> State | None:  # fmt: skip
    """What the work folder and the scheduler tell; None where nobody has it."""
    ours = at is not None and progress.get("launcher") == at.submission.name
    failed = progress.get("state") == "failed"
    if at is not None and at.live is not None and not (ours and failed):
        if ours and at.live.state in ("RUNNING", "COMPLETING", "SUSPENDED") and progress["state"] == "running":
            silent = time.time() - progress["updated"]
            return State("running") if silent < LOST_SECONDS else State("lost", f"no sign of life for {ago(silent)}; {REMEDY}")
        return State("queued", _why_queued(at))
    if workspace.payload(item.key) is not None:
        told = workspace.error(item.key) if failed else None
        return State("failed", f"{told}; its numbers are kept, bench run writes them") if told else State("finished")
    if failed:
        return State("failed", workspace.error(item.key) or "no reason was left")
    if at is not None and at.live is None:
        return State("failed", _ended(jobs, at, progress))
    return None


REMEDY = "bench cancel ends its job, bench run then goes on from its checkpoint"


def ago(seconds: float) -> str:
    """A time span in words."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _why_queued(at: Standing) -> str | None:
    """Slurm's reason; of a held job, as after its node went down, also what releases it."""
    reason = at.live.reason if at.live is not None else None
    return f"{reason}: scontrol release {at.job.id}" if reason and "held" in reason.lower() else reason


def _ended(jobs: Submissions, at: Standing, progress: Mapping[str, Any]) -> str:
    """Why a run is not finished whose job has ended, or whose command on one machine has."""
    begun = progress.get("state") in ("running", "interrupted") and progress["step"]
    where = f"at step {progress['step']}/{progress['steps']}" if begun else "before it began"
    if at.job.id is None:
        return f"the command that had it ended {where}"
    said = jobs.said_last(at)
    return f"job {at.job.id} ended {where}: {at.job.ended or 'Slurm does not say how'}" + (f" ({said})" if said else "")
