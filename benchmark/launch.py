"""Run a plan through submitit: workers take units from one list until it is empty; what one of them loses is visible.

A unit is a list of runs that train together: of one teacher and seed, so that batch and teacher are paid once. A run is taken
by locking its folder, so that no two workers, of this launcher or of another one, train it at the same time, and a worker
that ends early leaves its share to the others. A failed or killed run is marked and passed over.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import families
from benchmark.data import Place
from benchmark.plan import Item, Plan, Run, together
from benchmark.protocol import Protocol
from benchmark.store import (
    Labelled,
    Result,
    Results,
    Workspace,
    code_version,
    labelled,
    provenance,
    read_result,
    utc_now,
    write_json,
)
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.ranks import Ranks
    from benchmark.train import Training

Cluster = Literal["local", "debug"]
CLUSTERS: tuple[Cluster, ...] = ("local", "debug")
WEEK_MIN = 7 * 24 * 60
PROGRESS_SECONDS, LINE_SECONDS = 0.5, 10.0
PATIENCE_SECONDS = 3.0  # for the process that has the reason to tell it
DIED = "its worker died (killed, or out of memory)"


@dataclass(frozen=True)
class Setup:
    """How runs are trained here; nothing of it changes a number but for rounding (and a streamed source's order).

    Attributes:
        device: as torch names it, or auto.
        jobs: workers at a time.
        processes: how many share one run's batches.
        place: where the data lies, and how it is read.
        weights: the folder of pre-trained teachers.
        micro_batch: images that go through a model at a time; None: a batch at once.
        tensorboard: whether runs write event files.
        data: a digest of the images that were looked at; None for embedded data.
    """

    device: str = "auto"
    jobs: int = 1
    processes: int = 1
    place: Place = field(default_factory=Place)
    weights: Path = Path("weights")
    micro_batch: int | None = None
    tensorboard: bool = False
    data: str | None = None


@dataclass
class Order:
    """What a worker gets: units of runs, where everything lies, and whose it is (name, and process to end with)."""

    units: list[list[Item]]
    protocol: Protocol
    workspace: Workspace
    results: Results
    setup: Setup
    launcher: str
    process: int | None
    number: int = 0
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
        setup: how runs are trained.
    """

    def __init__(
        self, plan: Plan, protocol: Protocol, workspace: Workspace, results: Results, cluster: Cluster, setup: Setup
    ) -> None:
        self.plan, self.protocol, self.workspace, self.results = plan, protocol, workspace, results
        self.cluster, self.setup = cluster, setup
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
        needed = self._needed_by(todo)
        outcome.retrained = [key for key in needed if key in done and not (self.workspace.run(key) / "weights.pt").exists()]
        return [item for key, item in self.plan.items.items() if key in todo or key in outcome.retrained]

    def _needed_by(self, todo: Collection[str]) -> list[str]:
        """The runs whose weights `todo` needs, and what those need that have lost theirs."""
        needed: dict[str, None] = {}
        queue = list(todo)
        while queue:
            for key in self.plan.items[queue.pop()].requires:
                if key not in needed:
                    needed[key] = None
                    if not (self.workspace.run(key) / "weights.pt").exists():
                        queue.append(key)
        return list(needed)

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
                lost = next((key for key in item.requires if key in self.outcome.failed), None)
                if lost is None:
                    items.append(item)
                else:
                    what = "teacher" if self.plan.items[lost].run.role != "student" else "student"
                    self.outcome.failed[item.key] = f"its {what} failed: {self.outcome.failed[lost]}"
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
                told = self.workspace.run(item.key) / "error.txt"  # by a process that another one's progress came after
                mark_failed(self.workspace, item, self.name, told.read_text(encoding="utf-8") if told.exists() else DIED)
        return True

    def _submit(self, items: list[Item]) -> None:
        import submitit

        executor = submitit.AutoExecutor(folder=self.workspace.jobs, cluster=self.cluster)
        local, setup = self.cluster == "local", self.setup
        executor.update_parameters(timeout_min=WEEK_MIN, **({"tasks_per_node": setup.processes} if local else {}))
        shared = setup.processes > 1 or not local  # where a failure may take its process along
        alone = {item.key for item in items if (error := self.workspace.error(item.key)) and (shared or error == DIED)}
        shares = units(items, setup.jobs, self.protocol.together, alone)
        process = os.getpid() if local else None
        order = Order(shares, self.protocol, self.workspace, self.results, setup, self.name, process)
        with _interrupts_ignored():
            workers = range(min(setup.jobs, len(shares)))
            jobs = [executor.submit(work, replace(order, number=number)) for number in workers]
        for job in jobs:
            job.exception()

    def other_weights(self, item: Item, sha256: str) -> Path | None:
        """A result of the same protocol and pre-trained teacher that another file than this one made."""
        for folder in {self.results.path(cell).parent for cell in item.cells}:
            for path in sorted(folder.glob("*.json")):
                found = read_result(path)
                if isinstance(found, Result) and found.teacher and pretrained_by(found.run) == pretrained_by(item.run):
                    first_hand = "run" not in (found.run.teacher or {})
                    if first_hand and found.teacher.sha256 != sha256:
                        return path
        return None

    def other_images(self, digest: str | None) -> Path | None:
        """A finished result of this plan that other images than these made."""
        for key in self.outcome.found:
            found = self._recorded(self.plan.items[key])
            if found is not None and found.provenance.data not in (None, digest):
                return self.results.path(found.cell)
        return None

    def _recorded(self, item: Item) -> Result | None:
        for cell in item.cells:
            result = self.results.get(cell)
            if isinstance(result, Result) and result.key == item.key:
                return result
        return None


def pretrained_by(run: Run | Labelled) -> dict[str, str]:
    """What names a run's pre-trained teacher; empty without one."""
    return {name: value for name, value in (run.teacher or {}).items() if name in ("weights", "revision", "sha256")}


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
    units of their own: which of them was the reason would otherwise never be known. They come last.
    """
    limit = sum(map(effort, items)) / (2 * workers) if workers > 1 else math.inf
    found = [[item] for item in items if item.key in alone]
    for group in together(item for item in items if item.key not in alone):
        share = math.ceil(_total(group) / limit) if limit else 1
        parts = max(math.ceil(len(group) / most), min(len(group), share))
        found += [group[number::parts] for number in range(parts)]
    return sorted(found, key=lambda unit: (any(item.key in alone for item in unit), -_total(unit)))


def effort(item: Item) -> float:
    """A run's relative cost: steps times images times parameters of the blocks; none for what is only evaluated."""
    run, geometry = item.run, item.run.student.geometry
    if run.role == "ensemble":
        return 0.0
    return run.protocol.recipe.steps * run.protocol.recipe.batch_size * geometry.depth * geometry.embed_dim**2


def _total(unit: Sequence[Item]) -> float:
    return sum(map(effort, unit))


def payload_of(result: Result) -> dict[str, Any]:
    """A result without its labels."""
    return result.model_dump(mode="json", include={"metrics", "val", "curve", "teacher", "cost", "provenance"})


# ---- the worker's side


def work(order: Order) -> None:
    """Take every unit's runs that nobody else has; then wait for those, and take what their workers left unbegun.

    Where several processes share a run's batches the first one does so, and tells the others what to train with it.
    """
    if order.visible_devices is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = order.visible_devices
    code_version()
    if order.process is not None:
        threading.Thread(target=_end_with, args=(order.process,), daemon=True).start()
    import torch

    from benchmark.ranks import joined

    torch.set_num_threads(1)
    with joined(torch_device(order.setup.device)) as ranks:
        share_work(ranks.tell(order) if order.process is None else order, ranks)


def share_work(order: Order, ranks: Ranks) -> None:
    """A worker's part in an order."""
    if ranks.first:
        try:
            _lead(order, ranks)
        finally:
            ranks.tell([])
    else:
        _follow(order, ranks)


def _lead(order: Order, ranks: Ranks) -> None:
    for unit in order.units:
        with ExitStack() as locks:
            mine = [item for item in unit if locks.enter_context(_locked(order.workspace.run(item.key), wait=False))]
            _settle(order, ranks, mine)
    for item in (item for unit in order.units for item in unit):  # one lock at a time: two who wait never wait for each other
        with _locked(order.workspace.run(item.key), wait=True):
            _settle(order, ranks, [item])


def _follow(order: Order, ranks: Ranks) -> None:
    items = {item.key: item for unit in order.units for item in unit}
    while keys := ranks.tell(None):
        _train(order, ranks, [items[key] for key in keys])


def _settle(order: Order, ranks: Ranks, items: Sequence[Item]) -> None:
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
        ranks.tell([item.key for item in todo])
        _train(order, ranks, todo)


def _fail(order: Order, item: Item, error: Exception) -> None:
    lines = "".join(traceback.format_exception(error))
    mark_failed(order.workspace, item, order.launcher, lines + advice_on(error, order.setup))


def advice_on(error: Exception, setup: Setup) -> str:
    """A last line for an error of memory: the settings that help. Empty for any other."""
    import torch

    told = str(error)
    if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in told:
        return ""
    micro = f"--micro-batch below {setup.micro_batch}" if setup.micro_batch else "--micro-batch N"
    return (
        f"out of memory: {micro}, more --processes or a smaller together in the protocol file hold less at a time, and change no"
        " number; so do grad_checkpointing: true, precision: bfloat16 and a smaller evaluation_batch, as another protocol."
        f" ({' '.join(told.split())[:160]})"
    )


def finished(workspace: Workspace, item: Item) -> bool:
    """Whether the run has its numbers and its last weights here; an ensemble has no weights of its own."""
    kept = item.run.role == "ensemble" or (workspace.run(item.key) / "weights.pt").exists()
    return kept and workspace.payload(item.key) is not None


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
    if item.run.role != "teacher" or protocol.teacher is None:
        return None
    top1, floor = payload["val"]["top1"], protocol.teacher.floor
    if top1 >= floor:
        return None
    return f"the teacher's top-1 on val is {top1:.1f}, below the protocol's floor of {floor:g}"


def _train(order: Order, ranks: Ranks, items: Sequence[Item]) -> None:
    """Train runs together; each is delivered or failed by itself.

    Of several processes the first one writes. An error that one of them alone sees, of one run, ends them all: the others
    would wait for it for ever. That run is failed, those beside it are given back to be trained without it.
    """
    group = _Group(order, ranks)
    try:
        group.begin(items)
        ranks.wait()  # an older error is gone before anyone can write a new one
        group.train()
    except Exception as error:
        if ranks.size == 1:  # of what they share
            for item, _ in list(group.going.values()):
                group.failed(item, error)
            return
        try:
            group.give_up(error)
        finally:
            os._exit(1)


class _Group:
    """Runs that train together, and what is told of them."""

    def __init__(self, order: Order, ranks: Ranks) -> None:
        self.order, self.ranks, self.started = order, ranks, utc_now()
        self.device = device_of(order, ranks)
        self.going: dict[str, tuple[Item, _Reporter]] = {}
        self.raised: str | None = None

    def begin(self, items: Sequence[Item]) -> None:
        for item in items:
            report = _Reporter(self.order.workspace, item, self.order.launcher, self.order.setup.tensorboard, self.ranks.first)
            self.going[item.key] = (item, report)
            beside = f", together with {len(items) - 1} others" if len(items) > 1 else ""
            shared = f", by {self.ranks.size} processes" if self.ranks.size > 1 else ""
            with self._isolated(item):
                report.begin(f"{item.cells[0]} ({item.key}), {item.run.protocol.recipe.steps} steps{beside}{shared}")
        # Only the first process writes, so it alone may have failed here: all go on with what it has.
        self.going = {key: self.going[key] for key in self.ranks.tell(list(self.going))}

    def train(self) -> None:
        from benchmark.train import Means, Together, Watcher

        trainings = self._trainings()
        if trainings:
            setup = self.order.setup
            place = replace(setup.place, rank=self.ranks.rank, ranks=self.ranks.size)
            means = Means(self.order.protocol.checkpoint_seconds, place, self.ranks, setup.micro_batch)
            watcher = Watcher(self._stepped, self._ended, self._failed)
            together = Together(trainings, watcher, means)
            trainings.clear()  # what has ended or failed shall leave the memory
            together.train()

    def failed(self, item: Item, error: Exception) -> None:
        """A run has failed, and all processes know."""
        if self.going.pop(item.key, None) is not None and self.ranks.first:
            _fail(self.order, item, error)

    def give_up(self, error: Exception) -> None:
        """After an error that the other processes have not met, or the loss of one of them. Who fails a run first is right: the
        others only see a connection close."""
        time.sleep(0.0 if self.raised is not None else PATIENCE_SECONDS)
        folders = {key: self.order.workspace.run(key) for key in self.going}
        if any((folder / "error.txt").exists() for folder in folders.values()):
            return
        blamed = self.raised or next(iter(self.going), None)
        for key, (item, report) in self.going.items():
            if key == blamed:
                _fail(self.order, item, error)
            else:
                report.give_back()
        print(f"bench: {self.going[blamed][0].cells[0] if blamed else 'a worker'}: {error}", file=sys.stderr, flush=True)

    def _trainings(self) -> list[Training]:
        from benchmark.models import reader_of
        from benchmark.train import Training

        order, reader = self.order, None
        trainings: dict[str, Training] = {}
        errors: dict[str, Exception] = {}
        points = order.protocol.curve_points
        for item in [item for item, _ in self.going.values()]:
            first = item.cells[0]
            try:
                files = files_of(order, item)
                transfers = item.run.transfer.method != "none"
                if transfers and reader is None:
                    reader = reader_of(item.run, first.family, first.size, files, self.device)
                mine, folder = reader if transfers else None, order.workspace.run(item.key)
                trainings[item.key] = Training(
                    item.run,
                    first.family,
                    first.size,
                    folder,
                    mine,
                    self.device,
                    points,
                    made_by(order, files),
                    files,
                    self.ranks,
                )
            except Exception as error:
                errors[item.key] = error
        for key in dict.fromkeys(key for each in self.ranks.all(list(errors)) for key in each):
            self.failed(self.going[key][0], errors.get(key) or RuntimeError("it could not be built in another process"))
            trainings.pop(key, None)
        return list(trainings.values())

    @contextmanager
    def _isolated(self, item: Item) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failed(item, error)

    def _failed(self, training: Training, error: Exception) -> None:
        """A training has failed: in every process, or in this one alone, which then raises on."""
        if self.ranks.size > 1 and not isinstance(error, FloatingPointError):  # which is of a loss that all of them share
            self.raised = self.raised or training.run.key
            raise error
        self.failed(self.going[training.run.key][0], error)

    def _stepped(self, training: Training, loss: float) -> None:
        self.going[training.run.key][1].step(training)

    def _ended(self, training: Training, found: dict[str, Any]) -> None:
        item, report = self.going[training.run.key]
        error: Exception | None = None
        if self.ranks.first:
            try:
                _deliver(self.order, item, found, self.started, report)
            except Exception as raised:
                error = raised
        if self.ranks.tell(error is not None):
            self.failed(item, error or RuntimeError("it could not be delivered"))
        else:
            del self.going[item.key]


def made_by(order: Order, files: Mapping[str, Path]) -> str:
    """What a checkpoint must agree on to be gone on from: the code, and which pre-trained file and images."""
    from families.weights import file_digest

    weights = file_digest(files["weights"]) if "weights" in files else ""
    return ":".join((code_version()["code"], weights, order.setup.data or "")).rstrip(":")


def files_of(order: Order, item: Item) -> dict[str, Path]:
    """Where the weights lie that a run names as its teacher's. Raises UserError for pre-trained ones that are not there."""
    from families.weights import find_weights

    first, files = item.cells[0], {}
    for name, value in (item.run.teacher or {}).items():
        if name in ("run", "student", "ensemble"):
            files[name] = order.workspace.run(value) / "weights.pt"
    if item.run.teacher and "weights" in item.run.teacher and "run" not in files:
        found = find_weights(order.setup.weights, first.family, first.size)
        if found is None:
            raise UserError(f"no weights of {first.family} {first.size} in {order.setup.weights}")
        files["weights"] = found
    return files


def device_of(order: Order, ranks: Ranks) -> str:
    """A process's device: of a node's GPUs that of its worker and rank."""
    device = torch_device(order.setup.device)
    if device != "cuda":
        return device
    import torch

    number = (order.number * order.setup.processes + ranks.local) % torch.cuda.device_count()
    torch.cuda.set_device(number)
    return f"cuda:{number}"


def _deliver(order: Order, item: Item, found: dict[str, Any], started: str, report: _Reporter) -> None:
    from benchmark.train import CHECKPOINT

    workspace, first = order.workspace, item.cells[0]
    payload = found | {"teacher": _taught_by(order, item)}
    reason = below_floor(item, payload, order.protocol)
    if reason is not None:
        raise RuntimeError(reason)
    payload["provenance"] = provenance(started, utc_now(), order.setup.data)
    labelled(first, item.run, payload)
    write_json(workspace.run(item.key) / "payload.json", payload)
    (workspace.run(item.key) / CHECKPOINT).unlink(missing_ok=True)
    report.log(f"finished: top-1 {payload['metrics']['top1']:.2f}")
    deliver(workspace, order.results, item)


def _taught_by(order: Order, item: Item) -> dict[str, Any] | None:
    """What a result tells of its teacher."""
    from benchmark.train import weights_digest
    from families.weights import record_of

    files = files_of(order, item)
    if "run" in files:
        assert item.run.teacher is not None
        key = item.run.teacher["run"]
        taught = order.workspace.payload(key)
        top1 = None if taught is None else taught["metrics"]["top1"]
        how = None if taught is None else "on the protocol's test set, at the last step"
        return {"source": f"run {key}", "sha256": weights_digest(files["run"]), "top1": top1, "how": how}
    if "weights" in files:
        first = item.cells[0]
        return {**record_of(families.spec(first.family).teacher(first.size), files["weights"]), "top1": None, "how": None}
    return None


class _Reporter:
    """Writes progress.json at most twice a second, the run's log, a line of log.jsonl for each point in time, and event files
    for TensorBoard where these are wanted. A silent one writes nothing."""

    def __init__(self, workspace: Workspace, item: Item, launcher: str, tensorboard: bool = False, speaks: bool = True) -> None:
        self.launcher, self.tensorboard, self.speaks = launcher, tensorboard, speaks
        self.folder, self.steps = workspace.run(item.key), item.run.protocol.recipe.steps
        self.last, self.last_line, self.begun = 0.0, 0.0, False
        self.events: Any = None

    def begin(self, line: str) -> None:
        """The run is taken up."""
        if not self.speaks:
            return
        (self.folder / "error.txt").unlink(missing_ok=True)
        write_json(self.folder / "progress.json", self.record("running", 0))
        self.log(line)
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.events = SummaryWriter(str(self.folder / "tensorboard"))  # type: ignore[no-untyped-call]

    def step(self, training: Training) -> None:
        """A step was taken."""
        state, now = training.state, time.monotonic()
        if not self.speaks:
            return
        if not self.begun:
            self.begun = True
            self.log(f"training from step {state.step - 1}")
        if now - self.last > PROGRESS_SECONDS:
            self.last = now
            write_json(self.folder / "progress.json", self.record("running", state.step, **self.numbers(training)))
        if now - self.last_line > LINE_SECONDS or state.step in training.points:
            self.last_line = now
            self._line(training)

    def numbers(self, training: Training) -> dict[str, Any]:
        """What a training can tell at any time."""
        from benchmark.train import peak_memory

        return {
            "loss": training.loss if math.isfinite(training.loss) else None,
            "batch_size": training.recipe.batch_size,
            "together": training.together,
            "images_per_second": round(training.images_per_second, 1),
            "peak_memory_mb": round(peak_memory(training.device) / 2**20, 1),
        }

    def _line(self, training: Training) -> None:
        state, recipe = training.state, training.recipe
        lr = max(group["lr"] for group in training.student.optimizer.param_groups)
        line = {
            "time": utc_now(),
            "step": state.step,
            "steps": recipe.steps,
            "lr": lr,
            "val_top1": None,
            **self.numbers(training),
        }
        if training.val is not None:
            line["val_top1"] = training.val["top1"]
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.events is not None:
            for name in ("loss", "lr", "images_per_second", "val_top1"):
                if line[name] is not None:
                    self.events.add_scalar(name, line[name], state.step)
            self.events.flush()

    def give_back(self) -> None:
        """Nobody trains it now; what it has is in its checkpoint."""
        write_json(self.folder / "progress.json", self.record("interrupted", 0) | {"launcher": None})

    def record(self, state: str, step: int, **numbers: Any) -> dict[str, Any]:
        """What progress.json holds."""
        where = {"launcher": self.launcher, "pid": os.getpid(), "updated": time.time()}
        return {"state": state, "step": step, "steps": self.steps, "loss": None} | numbers | where

    def log(self, line: str) -> None:
        """A line of the run's log."""
        if self.speaks:
            with (self.folder / "run.log").open("a", encoding="utf-8") as file:
                file.write(f"{utc_now()} {line}\n")


def mark_failed(workspace: Workspace, item: Item, launcher: str, reason: str) -> None:
    """Leave a failed run's reason in its folder, whose results stay unwritten."""
    folder = workspace.run(item.key)
    (folder / "error.txt").write_text(reason, encoding="utf-8")
    reporter = _Reporter(workspace, item, launcher)
    reporter.log(f"failed: {reason.strip().splitlines()[-1]}")
    write_json(folder / "progress.json", reporter.record("failed", workspace.progress(item.key).get("step", 0)))


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
