"""A worker: takes units of runs, trains them, and delivers each run by itself.

A unit is a list of runs that train together: of one teacher and seed, so that batch and teacher are
paid once. A worker takes a run by locking its folder: no two workers, of one launch or of several,
train it at the same time, and the share of a worker that ends early is left to the others. A failed
or killed run is marked and passed over.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from subprocess import CalledProcessError, TimeoutExpired
from typing import TYPE_CHECKING, Any

from benchmark.execution.backends.backend import set_environment
from benchmark.execution.delivery import deliver, finished, lost_requirement
from benchmark.execution.preemption import SignalledPreemption
from benchmark.execution.progress_writer import mark_failed
from benchmark.execution.setup import WorkerTask, job_id, torch_device
from benchmark.execution.unit_trainer import fail, train_unit
from benchmark.spec.plan import Item
from benchmark.storage.files import sweep
from benchmark.storage.locks import locked
from benchmark.storage.provenance import code_version
from benchmark.training.preemption import Preempted
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.training.distributed import Ranks

RETRY_SECONDS = 15.0  # between attempts to be put into the queue again
DIED = "its worker died (killed, or out of memory)"


def work(task: WorkerTask) -> None:
    """Train unlocked runs, then take over abandoned ones.

    Where several processes share a run's batches the first one leads, and tells the others what to
    train with it.
    """
    set_environment(task.environment)
    code_version()
    if task.process is not None:
        threading.Thread(target=_end_with, args=(task.process,), daemon=True).start()
    import torch

    from benchmark.training.distributed import joined

    torch.set_num_threads(1)
    with joined(torch_device(task.setup.device)) as ranks:
        share_work(ranks.broadcast(task) if task.announce else task, ranks)


class Worker:
    """`work` for submitit, which can put its job into the queue again: all of its state is in the
    runs' folders."""

    def __call__(self, task: WorkerTask) -> None:
        """Work until the task is done, or until told to leave."""
        task.preemption.heed()
        try:
            work(task)
        except Preempted:
            while True:  # until the scheduler ends this process
                if task.preemption.leave:  # a job that was only warned is requeued already, or cancelled
                    with suppress(CalledProcessError, TimeoutExpired, OSError):  # it is requeued already, or scontrol failed
                        task.preemption.answer()  # does not return in the first process
                time.sleep(RETRY_SECONDS)

    def checkpoint(self, task: WorkerTask) -> Any:
        """The job's work when it starts again."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self, replace(task, preemption=SignalledPreemption()))


def share_work(task: WorkerTask, ranks: Ranks) -> None:
    """One process's part of a task."""
    if not ranks.first:
        _follow(task, ranks)
        return
    try:
        _lead(task, ranks)
    except Exception:
        ranks.broadcast([])
        raise
    ranks.broadcast([])  # not when leaving: the others leave too, and no longer listen


def _lead(task: WorkerTask, ranks: Ranks) -> None:
    passed = set[str]()  # over runs whose folders cannot be locked
    for unit in task.units:
        with ExitStack() as locks:
            mine = [item for item in unit if locks.enter_context(_taken(task, item, passed, wait=False))]
            _settle(task, ranks, mine)
    rest = [item for unit in task.units for item in unit]
    for item in rest:  # one lock at a time, or two workers could wait for each other
        if item.key in passed:
            continue
        with _taken(task, item, passed, wait=True) as taken:
            if task.preemption.leave:
                ranks.broadcast([])  # the others still listen
                raise Preempted
            _settle(task, ranks, [item] if taken else [])


@contextmanager
def _taken(task: WorkerTask, item: Item, passed: set[str], wait: bool) -> Iterator[bool]:
    """Within: True if the run is ours alone. A folder that cannot be locked is reported and added
    to `passed`."""
    with ExitStack() as within:
        try:
            mine = within.enter_context(locked(task.workspace.run(item.key).path, wait, lambda: task.preemption.leave))
        except UserError as error:
            print(f"bench: {item} is passed over: {error}", file=sys.stderr, flush=True)
            passed.add(item.key)
            mine = False
        yield mine


def _follow(task: WorkerTask, ranks: Ranks) -> None:
    items = {item.key: item for unit in task.units for item in unit}
    while keys := ranks.broadcast(None):
        train_unit(task, ranks, [items[key] for key in keys])


def _settle(task: WorkerTask, ranks: Ranks, items: Sequence[Item]) -> None:
    """Deliver, fail or train runs whose locks are held; pass over those that a worker of this
    launch failed.

    A run that another job of this launch left running is one that the job died over. One that this
    job itself left running is resumed: the job was put into the queue again.
    """
    todo, job = [], job_id()
    for item in items:
        progress = task.workspace.progress(item.key)
        try:
            if finished(task.workspace, item):
                deliver(task.workspace, task.results, item)
            elif progress.launcher == task.launcher and progress.state != "running":
                continue
            elif progress.launcher == task.launcher and progress.job != job:
                mark_failed(task.workspace, item, task.launcher, DIED, died=True)
            elif (lost := lost_requirement(task.workspace, item)) is not None:
                mark_failed(task.workspace, item, task.launcher, lost)
            else:
                _clear(task, item)
                todo.append(item)
        except Exception as error:
            fail(task, item, error)
    if todo:
        ranks.broadcast([item.key for item in todo])
        train_unit(task, ranks, todo)


def _clear(task: WorkerTask, item: Item) -> None:
    """Set aside a run's damaged files, and remove temporary files of killed processes."""
    for aside in task.workspace.set_damaged_aside(item.key):
        print(f"bench: {aside} is damaged: {item} is trained again", file=sys.stderr, flush=True)
    sweep(task.workspace.run(item.key).path)


def _end_with(launcher: int) -> None:
    """End this process with the command that started it; its training is in checkpoints."""
    while True:
        time.sleep(1)
        try:
            os.kill(launcher, 0)
        except ProcessLookupError:
            os._exit(1)
