"""Run a plan through submitit: workers take units from one list until it is empty; what one of them loses is visible.

A unit is a list of runs that train together: of one teacher and seed, so that batch and teacher are paid once. A run is taken
by locking its folder, so that no two workers, of this launcher or of another one, train it at the same time, and a worker
that ends early leaves its share to the others. A failed or killed run is marked and passed over.
"""

from __future__ import annotations

import fcntl
import math
import os
import signal
import threading
import time
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmark.plan import Item, Plan, together
from benchmark.protocol import Protocol
from benchmark.store import Result, Results, Workspace, code_version, labelled, provenance, utc_now, write_json

if TYPE_CHECKING:
    from benchmark.train import Training

Cluster = Literal["local", "debug"]
CLUSTERS: tuple[Cluster, ...] = ("local", "debug")
WEEK_MIN = 7 * 24 * 60
DIED = "its worker died (killed, or out of memory)"


@dataclass
class Order:
    """What a worker gets: units of runs, where everything lies, and whose it is (name, and process to end with)."""

    units: list[list[Item]]
    protocol: Protocol
    workspace: Workspace
    results: Results
    device: str
    launcher: str
    process: int | None
    visible_devices: str | None = os.environ.get("CUDA_VISIBLE_DEVICES")


@dataclass
class Outcome:
    """What became of a plan: run keys by state, with the reason for those that failed."""

    finished: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    retrained: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


# ---- the launcher's side


class Launcher:
    """Finds what is finished, trains what is not.

    Args:
        plan, protocol: what is asked for.
        workspace, results: where runs and cells lie.
        cluster: submitit's executor: local processes, or debug (in this process).
        jobs: workers at a time.
        device: for training, as torch names it, or auto.
    """

    def __init__(
        self, plan: Plan, protocol: Protocol, workspace: Workspace, results: Results, cluster: Cluster, jobs: int, device: str
    ) -> None:
        self.plan, self.protocol, self.workspace, self.results = plan, protocol, workspace, results
        self.cluster, self.jobs, self.device = cluster, jobs, device
        self.name = f"{os.getpid()}-{time.time_ns()}"
        self.outcome = Outcome()

    def survey(self) -> list[Item]:
        """The runs to train, teachers first. Nothing is written: results found in a cell or in the work folder count."""
        outcome = self.outcome = Outcome()
        for key, item in self.plan.items.items():
            recorded = self._recorded(item)
            payload = self.workspace.payload(key) if recorded is None else payload_of(recorded)
            if payload is None:
                continue
            (outcome.restored if recorded is None else outcome.found).append(key)
            reason = below_floor(item, payload, self.protocol)
            if reason is not None:
                outcome.failed[key] = reason
        done = {*outcome.found, *outcome.restored}
        todo = {key for key in self.plan.items if key not in done}
        needed = {item.requires for key, item in self.plan.items.items() if key in todo and item.requires}
        outcome.retrained = [key for key in needed if key in done and not (self.workspace.run(key) / "weights.pt").exists()]
        return [item for key, item in self.plan.items.items() if key in todo or key in outcome.retrained]

    def fill(self) -> None:
        """Write every cell that an already finished run serves."""
        for key in (*self.outcome.found, *self.outcome.restored):
            item = self.plan.items[key]
            recorded = self._recorded(item)
            payload = self.workspace.payload(key) if recorded is None else payload_of(recorded)
            assert payload is not None
            for cell in item.cells:
                self.results.put(cell, item.run, payload, self.workspace.superseded)

    def train(self, todo: Sequence[Item]) -> Outcome:
        """Train `todo` stage by stage. A student whose teacher failed is failed with it; all others still run."""
        keys = {item.key for item in todo}
        for stage in self.plan.stages:
            items = []
            for item in (item for item in stage if item.key in keys):
                if item.requires in self.outcome.failed:
                    self.outcome.failed[item.key] = f"its teacher failed: {self.outcome.failed[item.requires]}"
                else:
                    items.append(item)
            self._stage(items)
        return self.outcome

    def _stage(self, items: list[Item]) -> None:
        pending = items
        while pending:
            self._submit(pending)
            rest = []
            for item in pending:
                if finished(self.workspace, item):
                    self._take(item)
                elif self._failed(item):
                    self.outcome.failed[item.key] = self.workspace.error(item.key) or "no reason was left"
                else:
                    rest.append(item)
            if len(rest) == len(pending):
                for item in rest:
                    self.outcome.failed[item.key] = f"no worker could start; see {self.workspace.jobs}"
                return
            pending = rest

    def _take(self, item: Item) -> None:
        """A finished run: its cells are there, or their place is gone; then its payload waits in the work folder."""
        try:
            deliver(self.workspace, self.results, item)
            self.outcome.finished.append(item.key)
        except OSError as error:
            self.outcome.failed[item.key] = f"trained, but its result could not be written: {error}"

    def _failed(self, item: Item) -> bool:
        """Whether a worker of this launcher failed it, or died over it. What another launcher does is not ours to judge."""
        progress = self.workspace.progress(item.key)
        if progress.get("launcher") != self.name:
            return False
        with _locked(self.workspace.run(item.key), wait=True):
            if progress["state"] == "running":
                mark_failed(self.workspace, item, self.name, DIED)
        return True

    def _submit(self, items: list[Item]) -> None:
        import submitit

        executor = submitit.AutoExecutor(folder=self.workspace.jobs, cluster=self.cluster)
        executor.update_parameters(timeout_min=WEEK_MIN)
        launcher = os.getpid() if self.cluster == "local" else None
        alone = {item.key for item in items if self.workspace.error(item.key) == DIED}
        shares = units(items, self.jobs, self.protocol.together, alone)
        order = Order(shares, self.protocol, self.workspace, self.results, self.device, self.name, launcher)
        with _interrupts_ignored():
            jobs = [executor.submit(work, order) for _ in range(min(self.jobs, len(shares)))]
        for job in jobs:
            job.exception()

    def _recorded(self, item: Item) -> Result | None:
        for cell in item.cells:
            result = self.results.get(cell)
            if isinstance(result, Result) and result.key == item.key:
                return result
        return None


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started within inherit it: Ctrl-C is the launcher's to answer, and workers end with their launcher."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def units(items: Sequence[Item], workers: int, most: int, alone: Collection[str] = ()) -> list[list[Item]]:
    """What workers take at a time: groups of runs that train together, the longest first.

    A group of more than `most` runs is split, and one that is more than half of a worker's share, so that no worker is left
    without; a teacher then runs once for each part. Runs whose keys are in `alone`, since a worker died over them, are
    units of their own: which of them was the reason would otherwise never be known.
    """
    limit = sum(map(effort, items)) / (2 * workers) if workers > 1 else math.inf
    found = [[item] for item in items if item.key in alone]
    for group in together(item for item in items if item.key not in alone):
        parts = max(math.ceil(len(group) / most), min(len(group), math.ceil(_total(group) / limit)))
        found += [group[number::parts] for number in range(parts)]
    return sorted(found, key=lambda unit: -_total(unit))


def effort(item: Item) -> float:
    """A run's relative cost: steps times images times parameters of the blocks."""
    run, geometry = item.run, item.run.student.geometry
    return run.protocol.recipe.steps * run.protocol.recipe.batch_size * geometry.depth * geometry.embed_dim**2


def _total(unit: Sequence[Item]) -> float:
    return sum(map(effort, unit))


def payload_of(result: Result) -> dict[str, Any]:
    """A result without its labels."""
    return result.model_dump(mode="json", include={"metrics", "val", "curve", "teacher", "cost", "provenance"})


# ---- the worker's side


def work(order: Order) -> None:
    """Take every unit's runs that nobody else has; then wait for those, and take what their workers left unbegun."""
    if order.visible_devices is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = order.visible_devices
    code_version()
    if order.process is not None:
        threading.Thread(target=_end_with, args=(order.process,), daemon=True).start()
    import torch

    torch.set_num_threads(1)
    for unit in order.units:
        with ExitStack() as locks:
            _settle(order, [item for item in unit if locks.enter_context(_locked(order.workspace.run(item.key), wait=False))])
    for item in (item for unit in order.units for item in unit):  # one lock at a time: two who wait never wait for each other
        with _locked(order.workspace.run(item.key), wait=True):
            _settle(order, [item])


def _settle(order: Order, items: Sequence[Item]) -> None:
    """Bring runs, whose locks are held, to their end: delivered, failed, or passed over if this launcher's worker failed."""
    todo = []
    for item in items:
        progress = order.workspace.progress(item.key)
        try:
            if finished(order.workspace, item):
                deliver(order.workspace, order.results, item)
            elif progress.get("launcher") != order.launcher:
                todo.append(item)
            elif progress["state"] == "running":
                mark_failed(order.workspace, item, order.launcher, DIED)
        except Exception as error:
            _fail(order, item, error)
    if todo:
        _train(order, todo)


def _fail(order: Order, item: Item, error: Exception) -> None:
    mark_failed(order.workspace, item, order.launcher, "".join(traceback.format_exception(error)))


def finished(workspace: Workspace, item: Item) -> bool:
    """Whether the run has its numbers and its last weights here."""
    return workspace.payload(item.key) is not None and (workspace.run(item.key) / "weights.pt").exists()


def deliver(workspace: Workspace, results: Results, item: Item) -> None:
    """Write a finished run into every cell that it serves, where it is not there yet."""
    payload = workspace.payload(item.key)
    assert payload is not None
    for cell in item.cells:
        results.put(cell, item.run, payload, workspace.superseded)
    progress, steps = workspace.progress(item.key), item.run.protocol.recipe.steps
    if progress.get("state") != "finished":
        write_json(
            workspace.run(item.key) / "progress.json", progress | {"state": "finished", "step": steps, "updated": time.time()}
        )


def below_floor(item: Item, payload: dict[str, Any], protocol: Protocol) -> str | None:
    """Why a teacher is none: its top-1 on val is below the protocol's floor. None when it is not, and for students."""
    top1, floor = payload["val"]["top1"], protocol.teacher.floor
    if item.run.role != "teacher" or top1 >= floor:
        return None
    return f"the teacher's top-1 on val is {top1:.1f}, below the protocol's floor of {floor:g}"


def _train(order: Order, items: Sequence[Item]) -> None:
    """Train runs together; each is delivered or failed by itself."""
    from benchmark.train import WEIGHTS, Together, Training, Watcher, read_teacher

    workspace, device, code = order.workspace, torch_device(order.device), code_version()["code"]
    started = utc_now()
    going: dict[str, tuple[Item, _Reporter]] = {}

    def failed(item: Item, error: Exception) -> None:
        if going.pop(item.key, None) is not None:
            _fail(order, item, error)

    def stepped(training: Training, loss: float) -> None:
        going[training.run.key][1](training.state.step, loss)

    def ended(training: Training, found: dict[str, Any]) -> None:
        item, report = going[training.run.key]
        _deliver(order, item, found, started, report)
        del going[item.key]

    for item in items:
        report = _Reporter(workspace, item, order.launcher)
        going[item.key] = (item, report)
        try:
            (workspace.run(item.key) / "error.txt").unlink(missing_ok=True)
            report(0, None, force=True)
            beside = f", together with {len(items) - 1} others" if len(items) > 1 else ""
            report.log(f"{item.cells[0]} ({item.key}), {item.run.protocol.recipe.steps} steps{beside}")
        except Exception as error:
            failed(item, error)
    trainings = []
    try:
        reader = None
        for item in [item for item, _ in going.values()]:
            first = item.cells[0]
            try:
                if item.requires is not None and reader is None:
                    reader = read_teacher(item.run, first.family, first.size, workspace.run(item.requires) / WEIGHTS, device)
                mine = None if item.requires is None else reader
                folder, points = workspace.run(item.key), order.protocol.curve_points
                trainings.append(Training(item.run, first.family, first.size, folder, mine, device, points, code))
            except Exception as error:
                failed(item, error)
        if trainings:
            watcher = Watcher(stepped, ended, lambda training, error: failed(going[training.run.key][0], error))
            group = Together(trainings, watcher, order.protocol.checkpoint_seconds)
            trainings.clear()  # what has ended or failed shall leave the memory
            group.train()
    except Exception as error:  # of what they share
        for item, _ in list(going.values()):
            failed(item, error)


def _deliver(order: Order, item: Item, found: dict[str, Any], started: str, report: _Reporter) -> None:
    from benchmark.train import CHECKPOINT, WEIGHTS, weights_digest

    workspace, first = order.workspace, item.cells[0]
    payload = found | {"teacher": None}
    reason = below_floor(item, payload, order.protocol)
    if reason is not None:
        raise RuntimeError(reason)
    if item.requires is not None:
        taught = workspace.payload(item.requires)
        payload["teacher"] = {
            "source": f"run {item.requires}",
            "sha256": weights_digest(workspace.run(item.requires) / WEIGHTS),
            "top1": None if taught is None else taught["metrics"]["top1"],
            "how": None if taught is None else "on the protocol's test set, at the last step",
        }
    payload["provenance"] = provenance(started, utc_now())
    labelled(first, item.run, payload)
    write_json(workspace.run(item.key) / "payload.json", payload)
    (workspace.run(item.key) / CHECKPOINT).unlink(missing_ok=True)
    report.log(f"finished: top-1 {payload['metrics']['top1']:.2f}")
    deliver(workspace, order.results, item)


class _Reporter:
    """Writes progress.json at most twice a second, and the run's log."""

    def __init__(self, workspace: Workspace, item: Item, launcher: str) -> None:
        self.launcher = launcher
        self.folder, self.steps = workspace.run(item.key), item.run.protocol.recipe.steps
        self.last, self.begun = 0.0, False

    def __call__(self, step: int, loss: float | None, force: bool = False) -> None:
        if not self.begun and step > 0:
            self.begun = True
            self.log(f"training from step {step - 1}")
        if force or time.monotonic() - self.last > 0.5:
            self.last = time.monotonic()
            write_json(self.folder / "progress.json", self.record("running", step, loss))

    def record(self, state: str, step: int, loss: float | None) -> dict[str, Any]:
        where = {"launcher": self.launcher, "pid": os.getpid(), "updated": time.time()}
        return {"state": state, "step": step, "steps": self.steps, "loss": loss} | where

    def log(self, line: str) -> None:
        with (self.folder / "run.log").open("a", encoding="utf-8") as file:
            file.write(f"{utc_now()} {line}\n")


def mark_failed(workspace: Workspace, item: Item, launcher: str, reason: str) -> None:
    """Leave a failed run's reason in its folder, whose results stay unwritten."""
    folder = workspace.run(item.key)
    (folder / "error.txt").write_text(reason, encoding="utf-8")
    reporter = _Reporter(workspace, item, launcher)
    reporter.log(f"failed: {reason.strip().splitlines()[-1]}")
    write_json(folder / "progress.json", reporter.record("failed", workspace.progress(item.key).get("step", 0), None))


@contextmanager
def _locked(folder: Path, wait: bool) -> Iterator[bool]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _end_with(launcher: int) -> None:
    """A worker on one machine ends with the command that started it; what it trained so far is in its checkpoint."""
    while True:
        time.sleep(1)
        try:
            os.kill(launcher, 0)
        except ProcessLookupError:
            os._exit(1)


def torch_device(wanted: str) -> str:
    """What `auto` stands for here; any other name as it is."""
    if wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
