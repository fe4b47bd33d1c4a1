"""A worker: takes units of runs, trains them, delivers each by itself; what one of them loses is visible.

A unit is a list of runs that train together: of one teacher and seed, so that batch and teacher are paid once. A run is taken
by locking its folder, so that no two workers, of one launcher or of several, train it at the same time, and a worker that
ends early leaves its share to the others. A failed or killed run is marked and passed over.
"""

from __future__ import annotations

import fcntl
import functools
import json
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from subprocess import CalledProcessError, TimeoutExpired
from typing import IO, TYPE_CHECKING, Any

import families
from benchmark.data import Place
from benchmark.files import append, last_line, open_regular, sweep, write_json, write_text
from benchmark.notice import Leaving, Notice
from benchmark.plan import EVALUATED, Item, Run, is_teacher
from benchmark.protocol import Arm, Protocol
from benchmark.store import NO_REASON, Results, Workspace, code_version, labelled, provenance, utc_now
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.ranks import Ranks
    from benchmark.train import Training

PROGRESS_SECONDS, SIGN_SECONDS, LINE_SECONDS, LOCK_SECONDS = 0.5, 10.0, 10.0, 0.2
PATIENCE_SECONDS = 3.0  # for the process that has the reason to tell it
RETRY_SECONDS = 15.0  # between attempts to be put into the queue again
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
        data: by a protocol's data settings (JSON) a digest of their images, which were looked at; embedded data have none.
    """

    device: str = "auto"
    jobs: int = 1
    processes: int = 1
    place: Place = field(default_factory=Place)
    weights: Path = Path("weights")
    micro_batch: int | None = None
    tensorboard: bool = False
    data: Mapping[str, str] = field(default_factory=dict)

    def images_of(self, run: Run) -> str | None:
        """The digest of a run's images."""
        return self.data.get(data_of(run))


def data_of(run: Run) -> str:
    """A run's data settings, as a key."""
    return run.protocol.data.model_dump_json()


def place_of(item: Item, place: Place) -> Place:
    """Where a run's data lies: another data set of the protocol's in a folder of its name. Raises UserError without one."""
    arm = item.cells[0].arm
    name = "" if is_teacher(arm) else Arm.parse(arm).data
    if not name or place.root is None:
        return place
    known = [folder / name for folder in (place.root, place.root.absolute().parent)]
    found = next((folder for folder in known if folder.is_dir()), None)
    if found is None:
        raise UserError(f"--data {place.root}: no folder {name} in it or beside it")
    return replace(place, root=found)


@dataclass
class Order:
    """What a worker gets.

    Attributes:
        units: of runs, in the order to take them in.
        protocol, workspace, results, setup: what they are, where everything lies, how they are trained.
        launcher: whose it is.
        process: the launcher's, to end with it; None for a worker that outlives it.
        number: of the worker among those on this machine, which chooses its GPU.
        announce: whether processes that wait for orders are to be told of this one.
        environment: variables to set, or to take away where None.
    """

    units: list[list[Item]]
    protocol: Protocol
    workspace: Workspace
    results: Results
    setup: Setup
    launcher: str
    process: int | None
    number: int = 0
    announce: bool = False
    environment: dict[str, str | None] = field(default_factory=dict)
    notice: Notice = field(default_factory=Notice)


def work(order: Order) -> None:
    """Take every unit's runs that nobody else has; then wait for those, and take what their workers left unbegun.

    Where several processes share a run's batches the first one does so, and tells the others what to train with it.
    """
    set_environment(order.environment)
    code_version()
    if order.process is not None:
        threading.Thread(target=_end_with, args=(order.process,), daemon=True).start()
    import torch

    from benchmark.ranks import joined

    torch.set_num_threads(1)
    with joined(torch_device(order.setup.device)) as ranks:
        share_work(ranks.tell(order) if order.announce else order, ranks)


class Worker:
    """`work` as submitit wants it for a job that is put into the queue again: all of its state is in the runs' folders."""

    def __call__(self, order: Order) -> None:
        """Work until the order is done, or until told to leave."""
        order.notice.heed()
        try:
            work(order)
        except Leaving:
            while True:  # until the scheduler ends this process
                if order.notice.leave:  # not where it has only been warned: it is requeued already, or cancelled
                    with suppress(CalledProcessError, TimeoutExpired, OSError):  # it is requeued already, or scontrol failed
                        order.notice.answer()  # which does not come back in the first process
                time.sleep(RETRY_SECONDS)

    def checkpoint(self, order: Order) -> Any:
        """What the job does when it starts again."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self, replace(order, notice=Notice()))


def set_environment(environment: Mapping[str, str | None]) -> None:
    """Set variables, or take them away where None."""
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def job_id() -> str | None:
    """Of the job of submitit's that this process belongs to; None outside of one."""
    import submitit

    try:
        return str(submitit.JobEnvironment().job_id)
    except RuntimeError:
        return None


def share_work(order: Order, ranks: Ranks) -> None:
    """A worker's part in an order."""
    if not ranks.first:
        _follow(order, ranks)
        return
    try:
        _lead(order, ranks)
    except Exception:
        ranks.tell([])
        raise
    ranks.tell([])  # not when leaving: the others leave too, and listen no more


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
                ranks.tell([])  # the others listen, and end in peace
                raise Leaving
            _settle(order, ranks, [item] if taken else [])


@contextmanager
def _taken(order: Order, item: Item, passed: set[str], wait: bool) -> Iterator[bool]:
    """Within: the run is ours alone, if it is True. A folder that is not ours to lock ends nothing but this, and is noted in
    `passed`."""
    with ExitStack() as within:
        try:
            mine = within.enter_context(locked(order.workspace.run(item.key), wait, order.notice))
        except UserError as error:
            print(f"bench: {item.cells[0]} is passed over: {error}", file=sys.stderr, flush=True)
            passed.add(item.key)
            mine = False
        yield mine


def _follow(order: Order, ranks: Ranks) -> None:
    items = {item.key: item for unit in order.units for item in unit}
    while keys := ranks.tell(None):
        _train(order, ranks, [items[key] for key in keys])


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
            _fail(order, item, error)
    if todo:
        ranks.tell([item.key for item in todo])
        _train(order, ranks, todo)


def _clear(order: Order, item: Item) -> None:
    """Set aside the damaged files of a run that is about to be trained, and remove temporary files of killed processes."""
    for aside in order.workspace.set_damaged_aside(item.key):
        print(f"bench: {aside} is damaged: {item.cells[0]} is trained again", file=sys.stderr, flush=True)
    sweep(order.workspace.run(item.key))


def _fail(order: Order, item: Item, error: Exception) -> None:
    lines = "".join(traceback.format_exception(error))
    told = str(error) if isinstance(error, UserError) else advice_on(error, order.setup)
    mark_failed(order.workspace, item, order.launcher, lines + told)


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


def lost_requirement(workspace: Workspace, item: Item) -> str | None:
    """Why a run cannot begin: one that it needs has left no weights. None when it can."""
    for key in item.requires:
        failed = workspace.payload(key) is None and workspace.progress(key).get("state") == "failed"  # below its floor, say
        if failed or not (workspace.run(key) / "weights.pt").exists():
            return f"what it needs first has failed: {workspace.error(key) or f'run {key} has no weights'}"
    return None


def finished(workspace: Workspace, item: Item) -> bool:
    """Whether the run has its numbers and its last weights here; what is only evaluated has no weights of its own."""
    kept = item.run.role in EVALUATED or (workspace.run(item.key) / "weights.pt").exists()
    return kept and workspace.payload(item.key) is not None


def deliver(workspace: Workspace, results: Results, item: Item) -> None:
    """Write a finished run into every cell that it serves, where it is not there yet."""
    payload = workspace.payload(item.key)
    assert payload is not None
    for cell in item.cells:
        results.put(cell, item.run, payload, workspace.superseded)
    progress, steps = workspace.progress(item.key), item.run.protocol.recipe.steps
    if progress.get("state") != "finished":
        ended = {"state": "finished", "step": steps, "steps": steps, "updated": time.time()}
        write_json(workspace.run(item.key) / "progress.json", progress | ended)


def below_floor(item: Item, payload: dict[str, Any], protocol: Protocol) -> str | None:
    """Why a teacher is none: its top-1 on val is below the protocol's floor. None when it is not, and for students."""
    if item.run.role != "teacher" or protocol.teacher is None:
        return None
    ways = (protocol.teacher, *protocol.teacher.others.values())
    floors = [way.floor for way in ways if way.recipe == item.run.protocol.recipe]
    top1, floor = payload["val"]["top1"], max(floors, default=protocol.teacher.floor)
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
    except Leaving:
        group.give_back()
        raise
    except Exception as error:
        if order.notice.told:
            group.give_back()
            raise Leaving from error
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
            first, _ = next(iter(self.going.values()))  # all of them have its data
            place = replace(place_of(first, setup.place), rank=self.ranks.rank, ranks=self.ranks.size)
            seconds, notice = self.order.protocol.checkpoint_seconds, self.order.notice
            means = Means(seconds, place, self.ranks, setup.micro_batch, notice)
            watcher = Watcher(self._stepped, self._ended, self._failed, self._evaluated)
            together = Together(trainings, watcher, means)
            trainings.clear()  # what has ended or failed shall leave the memory
            together.train()

    def failed(self, item: Item, error: Exception) -> None:
        """A run has failed, and all processes know."""
        if self.going.pop(item.key, None) is not None and self.ranks.first:
            _fail(self.order, item, error)

    def give_back(self) -> None:
        """Nobody trains them now, and none has failed."""
        for _, report in self.going.values():
            with suppress(OSError):
                report.give_back()

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
                    made_by(order, files, item.run),
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
        """A training has failed: in every process, or in this one alone, which then raises on. Not so when the job is ending."""
        if self.order.notice.told and not isinstance(error, FloatingPointError):
            raise Leaving from error
        if self.ranks.size > 1 and not isinstance(error, FloatingPointError):  # which is of a loss that all of them share
            self.raised = self.raised or training.run.key
            raise error
        self.failed(self.going[training.run.key][0], error)

    def _stepped(self, training: Training, loss: float) -> None:
        self.going[training.run.key][1].step(training)

    def _evaluated(self, training: Training) -> None:
        self.going[training.run.key][1].evaluating(training)

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


def made_by(order: Order, files: Mapping[str, Path], run: Run) -> str:
    """What a checkpoint must agree on to be gone on from: the code, and which pre-trained file and images."""
    from families.weights import file_digest

    weights = file_digest(files["weights"]) if "weights" in files else ""
    return ":".join((code_version()["code"], weights, order.setup.images_of(run) or "")).rstrip(":")


def files_of(order: Order, item: Item) -> dict[str, Path]:
    """Where the weights lie that a run names as its teacher's. Raises WeightsError for those of another run that are not what
    it left, UserError for pre-trained ones that are not there."""
    from families.weights import find_weights

    first, files = item.cells[0], {}
    for name, value in (item.run.teacher or {}).items():
        if name in ("run", "student", "ensemble"):
            files[name] = weights_of(order.workspace, value)
    if item.run.teacher and "weights" in item.run.teacher and "run" not in files:  # a fine-tuned one stands for them
        found = find_weights(order.setup.weights, first.family, first.size)
        if found is None:
            raise UserError(f"no weights of {first.family} {first.size} in {order.setup.weights}")
        files["weights"] = found
    return files


def weights_of(workspace: Workspace, key: str) -> Path:
    """The path of a finished run's weights. Raises WeightsError if the file is damaged or is not the one that the run left."""
    from benchmark.models import REMEDY
    from families.weights import WeightsError

    path = workspace.run(key) / "weights.pt"
    at = path.stat()
    found = _digest_of(path, at.st_size, at.st_mtime_ns)
    if workspace.weights_digest(key) not in (None, found):
        raise WeightsError(f"{path}: not the weights that run {key} left; {REMEDY}")
    return path


@functools.lru_cache
def _digest_of(path: Path, size: int, mtime_ns: int) -> str:
    from benchmark.train import weights_digest

    return weights_digest(path)


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
    from benchmark.train import CHECKPOINT, WEIGHTS, weights_digest

    workspace, first = order.workspace, item.cells[0]
    payload = found | {"teacher": _taught_by(order, item)}
    reason = below_floor(item, payload, order.protocol)
    if reason is not None:
        raise RuntimeError(reason)
    payload["provenance"] = provenance(started, utc_now(), order.setup.images_of(item.run))
    labelled(first, item.run, payload)
    own = None if item.run.role in EVALUATED else weights_digest(workspace.run(item.key) / WEIGHTS)
    workspace.finish(item.key, payload, own)
    (workspace.run(item.key) / CHECKPOINT).unlink(missing_ok=True)
    report.log(f"finished: top-1 {payload['metrics']['top1']:.2f}")
    deliver(workspace, order.results, item)


def _taught_by(order: Order, item: Item) -> dict[str, Any] | None:
    """What a result tells of its teacher."""
    from families.weights import record_of

    files = files_of(order, item)
    if "run" in files:
        assert item.run.teacher is not None
        key = item.run.teacher["run"]
        taught = order.workspace.payload(key)
        top1 = None if taught is None else taught["metrics"]["top1"]
        how = None if taught is None else "on the protocol's test set, at the last step"
        at = files["run"].stat()
        digest = _digest_of(files["run"], at.st_size, at.st_mtime_ns)
        return {"source": f"run {key}", "sha256": digest, "top1": top1, "how": how}
    if "untrained" in (item.run.teacher or {}):
        assert item.run.teacher is not None
        seed = item.run.teacher["seed"]
        return {"source": f"the same architecture untrained, seed {seed}", "sha256": None, "top1": None, "how": None}
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
        self.last, self.last_line, self.begun, self.job = 0.0, 0.0, False, job_id()
        self.events: Any = None
        before = workspace.progress(item.key)
        self.at: int = before.get("step", 0)
        self.deaths: int = before.get("deaths", 0)

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
        self.at = state.step
        with suppress(OSError):  # a folder that is away for a moment ends no training
            if not self.begun:
                self.begun = True
                self.log(f"training from step {state.step - 1}")
            if now - self.last > PROGRESS_SECONDS:
                self._progress(training)
            if now - self.last_line > LINE_SECONDS or state.step in training.points:
                self.last_line = now
                self._line(training)

    def evaluating(self, training: Training) -> None:
        """A batch was evaluated: renew the last sign of life."""
        if self.speaks and time.monotonic() - self.last > SIGN_SECONDS:
            with suppress(OSError):
                self._progress(training)

    def _progress(self, training: Training) -> None:
        self.last = time.monotonic()
        write_json(self.folder / "progress.json", self.record("running", training.state.step, **self.numbers(training)))

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
        append(self.folder / "log.jsonl", json.dumps(line) + "\n")
        val = "" if line["val_top1"] is None else f", val top-1 {line['val_top1']:.2f}"
        pace = f"{line['images_per_second']} images/s"
        self.log(f"step {state.step}/{recipe.steps}: loss {training.loss:.4f}, lr {lr:.2e}, {pace}{val}")
        if self.events is not None:
            for name in ("loss", "lr", "images_per_second", "val_top1"):
                if line[name] is not None:
                    self.events.add_scalar(name, line[name], state.step)
            self.events.flush()

    def give_back(self) -> None:
        """Nobody trains it now; what it has is in its checkpoint."""
        if self.speaks:
            write_json(self.folder / "progress.json", self.record("interrupted", self.at) | {"launcher": None})
            self.log(f"given back at step {self.at}")

    def record(self, state: str, step: int, **numbers: Any) -> dict[str, Any]:
        """What progress.json holds."""
        where = {"launcher": self.launcher, "job": self.job, "pid": os.getpid(), "updated": time.time()}
        return {"state": state, "step": step, "steps": self.steps, "loss": None, "deaths": self.deaths} | numbers | where

    def log(self, line: str) -> None:
        """A line of the run's log; no run fails for want of one."""
        if self.speaks:
            with suppress(OSError):
                append(self.folder / "run.log", f"{utc_now()} {line}\n")


def mark_failed(workspace: Workspace, item: Item, launcher: str, reason: str, died: bool = False) -> None:
    """Leave a failed run's reason in its folder, whose results stay unwritten; `died` counts a worker's death over it. Where it
    cannot be written, as on a full disk, it is said on stderr."""
    folder, last = workspace.run(item.key), last_line(reason, NO_REASON)
    try:
        write_text(folder / "error.txt", reason)
        reporter = _Reporter(workspace, item, launcher)
        reporter.deaths += died
        reporter.log(f"failed: {last}")
        write_json(folder / "progress.json", reporter.record("failed", reporter.at))
    except OSError as error:
        why = "" if str(error.strerror) in last else f": {last}"
        print(f"bench: {item.cells[0]} failed, {folder}: {error.strerror}{why}", file=sys.stderr, flush=True)


@contextmanager
def locked(folder: Path, wait: bool, notice: Notice | None = None) -> Iterator[bool]:
    """Within: nobody else has this lock, if it is True. With `wait` it always is, but where a notice to leave came first.

    Raises UserError for a folder that is another user's, or on a file system without locks.
    """
    with ExitStack() as within:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = within.enter_context(os.fdopen(open_regular(folder / "lock", os.O_RDWR | os.O_CREAT), "r+"))
            got = _lock(file)
            while wait and not got and not (notice is not None and notice.leave):
                time.sleep(LOCK_SECONDS)
                got = _lock(file)
        except OSError as error:
            raise UserError(f"{folder}: cannot be locked ({error.strerror})") from None
        yield got


def is_locked(folder: Path) -> bool:
    """Whether somebody has this lock."""
    try:
        with os.fdopen(open_regular(folder / "lock", os.O_RDONLY)) as file:
            return not _lock(file, fcntl.LOCK_SH)  # two who only look are not in each other's way
    except OSError:  # none is there, or what nobody could lock
        return False


def _lock(file: IO[str], kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
