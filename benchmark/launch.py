"""Run a plan through submitit: workers take runs from one list until it is empty; what one of them loses is visible.

A run is taken by locking its folder, so that no two workers, of this launcher or of another one, train it at the same
time, and a worker that ends early leaves its share to the others. A failed or killed run is marked and passed over.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from benchmark.plan import Item, Plan
from benchmark.protocol import Protocol
from benchmark.store import Result, Results, Workspace, code_version, labelled, provenance, write_json

Cluster = Literal["local", "debug"]
CLUSTERS: tuple[Cluster, ...] = ("local", "debug")
WEEK_MIN = 7 * 24 * 60
DIED = "its worker died (killed, or out of memory)"


@dataclass
class Order:
    """What a worker gets: a list of runs, where everything lies, and whose it is (name, and process to end with)."""

    items: list[Item]
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
            # The longest first, so that no worker is left with a long one at the end.
            self._stage(sorted(items, key=lambda item: -effort(item)))
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
        order = Order(items, self.protocol, self.workspace, self.results, self.device, self.name, launcher)
        with _interrupts_ignored():
            jobs = [executor.submit(work, order) for _ in range(min(self.jobs, len(items)))]
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


def effort(item: Item) -> float:
    """A run's relative cost: steps times images times parameters of the blocks, more where a teacher runs beside it."""
    run, geometry = item.run, item.run.student.geometry
    size = run.protocol.recipe.steps * run.protocol.recipe.batch_size * geometry.depth * geometry.embed_dim**2
    return size * (1.0 if run.transfer.method == "none" else 1.5)


def payload_of(result: Result) -> dict[str, Any]:
    """A result without its labels."""
    return result.model_dump(mode="json", include={"metrics", "val", "curve", "teacher", "cost", "provenance"})


# ---- the worker's side


def work(order: Order) -> None:
    """Take every run that nobody else has; then wait for those, and take what their workers left unbegun."""
    if order.visible_devices is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = order.visible_devices
    code_version()
    if order.process is not None:
        threading.Thread(target=_end_with, args=(order.process,), daemon=True).start()
    import torch

    torch.set_num_threads(1)
    for patient in (False, True):
        for item in order.items:
            with _locked(order.workspace.run(item.key), patient) as mine:
                if mine:
                    _settle(order, item)


def _settle(order: Order, item: Item) -> None:
    """Bring one run, whose lock is held, to its end: delivered, failed, or passed over if this launcher's worker failed."""
    progress = order.workspace.progress(item.key)
    try:
        if finished(order.workspace, item):
            deliver(order.workspace, order.results, item)
        elif progress.get("launcher") != order.launcher:
            _train(order, item)
        elif progress["state"] == "running":
            mark_failed(order.workspace, item, order.launcher, DIED)
    except Exception:
        mark_failed(order.workspace, item, order.launcher, traceback.format_exc())


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


def _train(order: Order, item: Item) -> None:
    from benchmark.train import CHECKPOINT, WEIGHTS, Training, weights_digest

    workspace, first = order.workspace, item.cells[0]
    folder, report = workspace.run(item.key), _Reporter(workspace, item, order.launcher)
    (folder / "error.txt").unlink(missing_ok=True)
    report(0, None, force=True)
    started, code = _now(), code_version()["code"]
    teacher_weights = None if item.requires is None else workspace.run(item.requires) / WEIGHTS
    device, points = _device(order.device), order.protocol.curve_points
    training = Training(item.run, first.family, first.size, folder, teacher_weights, device, points, code)
    report.log(f"{first} ({item.key}), {item.run.protocol.recipe.steps} steps")
    training.fit(report, order.protocol.checkpoint_seconds)
    payload = training.finish() | {"teacher": None}
    reason = below_floor(item, payload, order.protocol)
    if reason is not None:
        raise RuntimeError(reason)
    if teacher_weights is not None and item.requires is not None:
        taught = workspace.payload(item.requires)
        payload["teacher"] = {
            "source": f"run {item.requires}",
            "sha256": weights_digest(teacher_weights),
            "top1": None if taught is None else taught["metrics"]["top1"],
            "how": None if taught is None else "on the protocol's test set, at the last step",
        }
    payload["provenance"] = provenance(started, _now())
    labelled(first, item.run, payload)
    write_json(folder / "payload.json", payload)
    (folder / CHECKPOINT).unlink(missing_ok=True)
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
            file.write(f"{_now()} {line}\n")


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


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
