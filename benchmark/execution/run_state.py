"""The state of a run, by its result, its work folder and its job. Nothing here writes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from benchmark.execution.delivery import holds, payload_of
from benchmark.execution.submissions import Standing, Submissions, backend_of
from benchmark.spec.plan import Item
from benchmark.storage.results import Results
from benchmark.storage.work_folder import NO_PROGRESS, Progress, Workspace

Kind = Literal["finished", "running", "lost", "queued", "failed", "stale", "missing"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LOST_SECONDS = 30 * 60  # without a sign of life, which a running run gives every 10 s


@dataclass(frozen=True)
class State:
    """The state of a run.

    Attributes:
        kind: in a word.
        reason: why it failed, waits, is lost or stale.
        progress: the last that its worker wrote.
        job: the scheduler's number of the job that has it, or had it last.
    """

    kind: Kind
    reason: str | None = None
    progress: Progress = NO_PROGRESS
    job: str | None = None

    @property
    def silent(self) -> float | None:
        """Seconds since the last sign of life of a run in training; None for any other."""
        return max(0.0, time.time() - self.progress.updated) if self.kind in ("running", "lost") else None


def state_of(
    item: Item, workspace: Workspace, results: Results, submissions: Submissions, standings: Mapping[str, Standing]
) -> State:  # fmt: skip
    """A run's state. A result counts by its key; a run is stale while a result of an older protocol
    is in its place."""
    found = [results.get(cell) for cell in item.cells]
    if any(holds(each, item) for each in found):
        return State("finished")
    at, progress = standings.get(item.key), workspace.progress(item.key)
    state = _in_work(item, workspace, submissions, at, progress)
    if state is not None:
        return replace(state, progress=progress, job=None if at is None else at.job.id)
    if item.evaluation is None and any(each is not None for each in found):
        return State("stale", "its result is of another protocol, or no valid one")
    return State("missing", progress=progress)


def _in_work(
    item: Item, workspace: Workspace, submissions: Submissions, at: Standing | None, progress: Progress
) -> State | None:  # fmt: skip
    """A run's state by work folder and scheduler; None if no job has or had it."""
    ours = at is not None and progress.launcher == at.submission.name
    failed = progress.state == "failed"
    if at is not None and at.live is not None and not (ours and failed):
        if ours and at.live.begun and progress.state == "running":
            silent = time.time() - progress.updated
            return State("running") if silent < LOST_SECONDS else State("lost", f"no sign of life for {ago(silent)}; {REMEDY}")
        return State("queued", at.live.reason)
    if payload_of(workspace, item) is not None:
        told = workspace.error(item.key) if failed else None
        return State("failed", f"{told}; its numbers are kept, bench run writes them") if told else State("finished")
    if failed:
        return State("failed", workspace.error(item.key) or "no reason was left")
    if at is not None and at.live is None:
        return State("failed", _ended(submissions, at, progress))
    return None


REMEDY = "bench cancel ends its job, bench run then goes on from its checkpoint"


def ago(seconds: float) -> str:
    """A time span in words."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _ended(submissions: Submissions, at: Standing, progress: Progress) -> str:
    """Why an unfinished run goes on no more: how its job ended, or its command on one machine."""
    begun = progress.state in ("running", "interrupted") and progress.step
    where = f"at step {progress.step}/{progress.steps}" if begun else "before it began"
    if at.job.id is None:
        return f"the command that had it ended {where}"
    said = submissions.said_last(at)
    how = at.job.ended or f"{backend_of(at.submission).title} does not say how"
    return f"job {at.job.id} ended {where}: {how}" + (f" ({said})" if said else "")
