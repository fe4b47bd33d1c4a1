"""Wait for the jobs of a launch on a scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from benchmark.execution.backends.backend import SchedulerError
from benchmark.execution.launcher import Launch, Outcome
from benchmark.execution.run_state import State, state_of
from benchmark.execution.submissions import Standing
from benchmark.spec.plan import Item

FOLLOW_SECONDS, LAG_SECONDS = 5.0, 60.0


def follow(launch: Launch, tell: Callable[[str], None]) -> Outcome:
    """Wait until none of the launch's runs is queued or running, and complete its outcome.

    `tell` is called, once each time, when the scheduler does not answer: jobs go on meanwhile.
    """
    outcome = launch.outcome
    keys = {*outcome.submitted, *outcome.elsewhere}
    _wait(launch, keys, tell)
    with launch.submissions.exclusively():
        standings = launch.submissions.settle()
    outcome.submitted, outcome.elsewhere = [], []
    for key in keys:
        item = launch.plan.items[key]
        state = _last_state(launch, item, standings)
        if launch.workspace.payload(key) is not None:
            launch.deliver(item)  # another request's job may not have known all cells
        elif state.kind == "finished":
            outcome.finished.append(key)
        else:
            outcome.failed[key] = state.reason or state.kind
    return outcome


def _wait(launch: Launch, keys: set[str], tell: Callable[[str], None]) -> None:
    answered = True
    while True:
        try:
            standings, answered = launch.submissions.standings(), True
            if not any(standings[key].live for key in keys):
                return
        except SchedulerError as error:
            if answered:
                tell(str(error))
            answered = False
        time.sleep(FOLLOW_SECONDS)


def _last_state(launch: Launch, item: Item, standings: Mapping[str, Standing]) -> State:
    """A run's state once its job has ended. A job that completed has left files, which a remote
    folder may show late."""
    end = time.monotonic() + LAG_SECONDS
    while True:
        state = state_of(item, launch.workspace, launch.results, launch.submissions, standings)
        told = state.kind == "finished" or launch.workspace.error(item.key) is not None
        if told or standings[item.key].job.ended != "COMPLETED" or time.monotonic() > end:
            return state
        time.sleep(FOLLOW_SECONDS)
