"""A worker: takes units of runs, trains them, delivers each by itself; what one of them loses is visible.

A unit is a list of runs that train together: of one teacher and seed, so that batch and teacher are paid once. A run is taken
by locking its folder, so that no two workers, of one launcher or of several, train it at the same time, and a worker that
ends early leaves its share to the others. A failed or killed run is marked and passed over.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from subprocess import CalledProcessError, TimeoutExpired
from typing import TYPE_CHECKING, Any

from benchmark.execution.delivery import deliver, finished, lost_requirement
from benchmark.execution.progress_writer import mark_failed
from benchmark.execution.setup import Order, job_id, torch_device
from benchmark.execution.unit_trainer import fail, train_unit
from benchmark.spec.plan import Item
from benchmark.storage.files import sweep
from benchmark.storage.locks import locked
from benchmark.storage.provenance import code_version
from benchmark.training.preemption import Preempted, Preemption
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.training.distributed import Ranks

RETRY_SECONDS = 15.0  # between attempts to be put into the queue again


DIED = "its worker died (killed, or out of memory)"


def work(order: Order) -> None:
    """Take every unit's runs that nobody else has; then wait for those, and take what their workers left unbegun.

    Where several processes share a run's batches the first one does so, and tells the others what to train with it.
    """
    set_environment(order.environment)
    code_version()
    if order.process is not None:
        threading.Thread(target=_end_with, args=(order.process,), daemon=True).start()
    import torch

    from benchmark.training.distributed import joined

    torch.set_num_threads(1)
    with joined(torch_device(order.setup.device)) as ranks:
        share_work(ranks.broadcast(order) if order.announce else order, ranks)


class Worker:
    """`work` as submitit wants it for a job that is put into the queue again: all of its state is in the runs' folders."""

    def __call__(self, order: Order) -> None:
        """Work until the order is done, or until told to leave."""
        order.notice.heed()
        try:
            work(order)
        except Preempted:
            while True:  # until the scheduler ends this process
                if order.notice.leave:  # not where it has only been warned: it is requeued already, or cancelled
                    with suppress(CalledProcessError, TimeoutExpired, OSError):  # it is requeued already, or scontrol failed
                        order.notice.answer()  # which does not come back in the first process
                time.sleep(RETRY_SECONDS)

    def checkpoint(self, order: Order) -> Any:
        """What the job does when it starts again."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self, replace(order, notice=Preemption()))


def set_environment(environment: Mapping[str, str | None]) -> None:
    """Set variables, or take them away where None."""
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def share_work(order: Order, ranks: Ranks) -> None:
    """A worker's part in an order."""
    if not ranks.first:
        _follow(order, ranks)
        return
    try:
        _lead(order, ranks)
    except Exception:
        ranks.broadcast([])
        raise
    ranks.broadcast([])  # not when leaving: the others leave too, and listen no more


def _lead(order: Order, ranks: Ranks) -> None:
    passed = set[str]()  # over runs whose folders cannot be locked
    for unit in order.units:
        with ExitStack() as locks:
            mine = [item for item in unit if locks.enter_context(_taken(order, item, passed, wait=False))]
            _settle(order, ranks, mine)
    rest = [item for unit in order.units for item in unit]
    for item in rest:  # one lock at a time: two who wait never wait for each other
        if item.key in passed:
            continue
        with _taken(order, item, passed, wait=True) as taken:
            if order.notice.leave:
                ranks.broadcast([])  # the others listen, and end in peace
                raise Preempted
            _settle(order, ranks, [item] if taken else [])


@contextmanager
def _taken(order: Order, item: Item, passed: set[str], wait: bool) -> Iterator[bool]:
    """Within: the run is ours alone, if it is True. A folder that is not ours to lock ends nothing but this, and is noted in
    `passed`."""
    with ExitStack() as within:
        try:
            mine = within.enter_context(locked(order.workspace.run(item.key), wait, lambda: order.notice.leave))
        except UserError as error:
            print(f"bench: {item.cells[0]} is passed over: {error}", file=sys.stderr, flush=True)
            passed.add(item.key)
            mine = False
        yield mine


def _follow(order: Order, ranks: Ranks) -> None:
    items = {item.key: item for unit in order.units for item in unit}
    while keys := ranks.broadcast(None):
        train_unit(order, ranks, [items[key] for key in keys])


def _settle(order: Order, ranks: Ranks, items: Sequence[Item]) -> None:
    """Bring runs, whose locks are held, to their end: delivered, failed, or passed over if this launcher's worker failed.

    A run that another job of this launcher has left running is one it died over. One that this job itself left so is gone on
    with: the job has been put into the queue again.
    """
    todo, job = [], job_id()
    for item in items:
        progress = order.workspace.progress(item.key)
        try:
            if finished(order.workspace, item):
                deliver(order.workspace, order.results, item)
            elif progress.get("launcher") == order.launcher and progress["state"] != "running":
                continue
            elif progress.get("launcher") == order.launcher and progress.get("job") != job:
                mark_failed(order.workspace, item, order.launcher, DIED, died=True)
            elif (lost := lost_requirement(order.workspace, item)) is not None:
                mark_failed(order.workspace, item, order.launcher, lost)
            else:
                _clear(order, item)
                todo.append(item)
        except Exception as error:
            fail(order, item, error)
    if todo:
        ranks.broadcast([item.key for item in todo])
        train_unit(order, ranks, todo)


def _clear(order: Order, item: Item) -> None:
    """Set aside the damaged files of a run that is about to be trained, and remove temporary files of killed processes."""
    for aside in order.workspace.set_damaged_aside(item.key):
        print(f"bench: {aside} is damaged: {item.cells[0]} is trained again", file=sys.stderr, flush=True)
    sweep(order.workspace.run(item.key))


def _end_with(launcher: int) -> None:
    """A worker on one machine ends with the command that started it; what it trained so far is in its checkpoint."""
    while True:
        time.sleep(1)
        try:
            os.kill(launcher, 0)
        except ProcessLookupError:
            os._exit(1)
