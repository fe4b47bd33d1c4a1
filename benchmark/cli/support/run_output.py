"""Train or submit the runs of `bench run`, and say so."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from benchmark.execution.launcher import Launch, Outcome
    from benchmark.execution.survey import Survey


def train(launch: Launch, survey: Survey, console: Console, wait: bool) -> Outcome:
    """Train missing runs; on a scheduler submit them, and follow them with `wait`."""
    survey.fill()
    _show_plan(launch, survey, console)
    if survey.todo and launch.backend.detached:
        from benchmark.execution.submitter import Submitter

        Submitter(launch).begin(survey.todo)
        _show_submitted(launch, console)
    if survey.todo and (wait or not launch.backend.detached):
        _show_training(launch, survey, console)
    _show_outcome(launch, console)
    return launch.outcome


def _show_plan(launch: Launch, survey: Survey, console: Console) -> None:
    from benchmark.spec.plan import counted

    plan, outcome = launch.plan, launch.outcome
    merged = len(plan.cells) - len(plan.items)
    evaluations = sum(item.evaluation is not None for item in survey.todo)
    left = f"{len(survey.todo) - evaluations} to train" + (f" and {evaluations} to evaluate" if evaluations else "")
    console.print(
        f"{counted(plan.items.values())} ({len(plan.cells)} cells, {merged} shared): {len(outcome.found)} finished before, "
        f"{len(outcome.restored)} restored from {launch.workspace.folder}, {left} on {launch.backend.name}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    for reason, items in survey.unmeasured.items():
        console.print(f"{len(items)} evaluations are not made: {reason}", highlight=False, soft_wrap=True)
    for key in outcome.retrained:
        console.print(f"{plan.items[key]}: has a result but no weights here, so it is trained again", highlight=False)


def _show_submitted(launch: Launch, console: Console) -> None:
    from benchmark.spec.plan import counted

    outcome, arrays = launch.outcome, launch.submission.arrays
    if outcome.submitted:
        jobs = sum(len(array.jobs) for array in arrays)
        told = ", ".join(str(array.jobs[0].id).split("_")[0] for array in arrays)
        submitted = counted([launch.plan.items[key] for key in outcome.submitted])
        console.print(
            f"submitted {submitted} as {jobs} jobs ({launch.backend.title}'s {told}), "
            f"at most {launch.setup.jobs} at a time",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    _show_elsewhere(outcome, console)


def _show_elsewhere(outcome: Outcome, console: Console) -> None:
    if outcome.elsewhere:
        console.print(f"{len(outcome.elsewhere)} runs are queued or running already: left as they are", highlight=False)


def _show_training(launch: Launch, survey: Survey, console: Console) -> None:
    """Train here, or follow the scheduler's jobs, with live progress."""
    from benchmark.execution.follower import follow
    from benchmark.execution.live_progress import LiveProgress
    from benchmark.execution.stage_trainer import StageTrainer
    from benchmark.spec.plan import counted

    begun = time.monotonic()
    with LiveProgress(console, survey.todo, launch.workspace):
        if launch.backend.detached:
            follow(launch, lambda told: console.print(f"{told}; still waiting", style="yellow", markup=False))
        else:
            StageTrainer(launch).train(survey.todo)
            _show_elsewhere(launch.outcome, console)
    minutes, seconds = divmod(round(time.monotonic() - begun), 60)
    done = [launch.plan.items[key] for key in launch.outcome.finished]
    evaluations = [item for item in done if item.evaluation is not None]
    made = f" and made {counted(evaluations)}" if evaluations else ""
    console.print(f"trained {len(done) - len(evaluations)} runs{made} in {minutes} min {seconds} s", highlight=False)


def _show_outcome(launch: Launch, console: Console) -> None:
    outcome, items = launch.outcome, launch.plan.items
    for key in outcome.waiting:
        console.print(f"{items[key]}: left, since what it needs first is queued or running elsewhere", highlight=False)
    for key, reason in outcome.failed.items():
        told = f"failed: {items[key]} ({key}): {reason}"
        console.print(told, style="red", highlight=False, markup=False, soft_wrap=True)
    if outcome.failed:
        console.print(f"logs and tracebacks: {launch.workspace.folder}/runs/<key>/; the same command tries again")


def show_where_to_look(launch: Launch, console: Console) -> None:
    """Name the commands that look after submitted runs."""
    work = launch.workspace.folder
    option = "" if work == Path(".bench").absolute() else f" --work {work}"
    console.print(
        f"bench status{option}: how far they are; bench logs{option} RUN: what one says; bench cancel{option}: end them\n"
        "The same command again submits what failed, and shows the leaderboard once all is done.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
