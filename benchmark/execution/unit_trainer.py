"""Train the runs of a unit together; deliver or fail each run by itself."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import families
from benchmark.execution.delivery import below_floor, deliver
from benchmark.execution.progress_writer import ProgressWriter, mark_failed
from benchmark.execution.setup import Setup, WorkerTask, device_of, place_of
from benchmark.spec.plan import Item
from benchmark.spec.run import Run
from benchmark.spec.teacher_source import Untrained
from benchmark.storage.provenance import code_version, provenance, utc_now
from benchmark.storage.result_file import labelled
from benchmark.storage.scores import field_of, told
from benchmark.training.preemption import Preempted
from families.spec import UserError, one_line

if TYPE_CHECKING:
    from benchmark.data import DataLocation
    from benchmark.training.distributed import Ranks
    from benchmark.training.run_trainer import RunTrainer

PATIENCE_SECONDS = 3.0  # for the process that knows the reason


def fail(task: WorkerTask, item: Item, error: Exception) -> None:
    """Mark a run as failed by an error."""
    lines = "".join(traceback.format_exception(error))
    told = str(error) if isinstance(error, UserError) else advice_on(error, task.setup)
    mark_failed(task.workspace, item, task.launcher, lines + told)


def advice_on(error: Exception, setup: Setup) -> str:
    """The settings that help against an error of memory; empty for any other error."""
    import torch

    told = str(error)
    if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in told:
        return ""
    micro = f"--micro-batch below {setup.micro_batch}" if setup.micro_batch else "--micro-batch N"
    return (
        f"out of memory: {micro}, more --processes or a smaller together in the protocol file hold less at a time, and change no"
        " number; so do grad_checkpointing: true, precision: bfloat16 and a smaller evaluation_batch, as another protocol."
        f" ({one_line(told, 160)})"
    )


def train_unit(task: WorkerTask, ranks: Ranks, items: Sequence[Item]) -> None:
    """Train runs together; each is delivered or failed by itself.

    Of several processes the first one writes. An error of one run that only one of them sees ends
    them all, for the others would wait for it for ever. That run fails; those beside it are given
    back, to be trained without it.
    """
    group = _Group(task, ranks)
    try:
        group.begin(items)
        ranks.barrier()  # an older error is gone before anyone can write a new one
        if items[0].evaluation is None:
            group.train()
        else:
            group.evaluate()
    except Preempted:
        group.give_back()
        raise
    except Exception as error:
        if task.preemption.told:
            group.give_back()
            raise Preempted from error
        if ranks.size == 1:  # an error of what the runs share
            for item, _ in list(group.going.values()):
                group.failed(item, error)
            return
        try:
            group.give_up(error)
        finally:
            os._exit(1)


class _Group:
    """Runs that train together, with their progress."""

    def __init__(self, task: WorkerTask, ranks: Ranks) -> None:
        self.task, self.ranks, self.started, self.device = task, ranks, utc_now(), device_of(task, ranks)
        self.going: dict[str, tuple[Item, ProgressWriter]] = {}
        self.raised: str | None = None

    def begin(self, items: Sequence[Item]) -> None:
        for item in items:
            report = ProgressWriter(self.task.workspace, item, self.task.launcher, self.task.setup.trackers, self.ranks.first)
            self.going[item.key] = (item, report)
            beside = f", together with {len(items) - 1} others" if len(items) > 1 else ""
            shared = f", by {self.ranks.size} processes" if self.ranks.size > 1 else ""
            with self._isolated(item):
                steps = "evaluation" if item.evaluation else f"{item.steps} steps"
                report.begin(f"{item} ({item.key}), {steps}{beside}{shared}")
        # Only the first process writes and may have failed here: the others drop the same runs.
        self.going = {key: self.going[key] for key in self.ranks.broadcast(list(self.going))}

    def train(self) -> None:
        from benchmark.training.co_trainer import CoTrainer
        from benchmark.training.energy import metering
        from benchmark.training.group import TrainingCallbacks, TrainingContext

        trainings = self._trainings()
        if trainings:
            task, (first, _) = self.task, next(iter(self.going.values()))  # all of them have its data
            callbacks = TrainingCallbacks(self._stepped, self._ended, self._failed, self._evaluated)
            given = (task.protocol.checkpoint_seconds, self._place(first), self.ranks, task.setup.micro_batch, task.preemption)
            with metering(task.setup.energy, self.device) as meter:
                together = CoTrainer(trainings, callbacks, TrainingContext(*given, meter))
                trainings.clear()  # so that those that end or fail leave the memory
                together.train()

    def evaluate(self) -> None:
        """Evaluate the finished run of the only item that is left."""
        from benchmark.training.measurement import Measurement

        for item, report in list(self.going.values()):
            assert item.evaluation is not None

            def alive(report: ProgressWriter = report) -> None:
                report.evaluating()
                if self.ranks.size == 1 and self.task.preemption.leave:
                    raise Preempted

            try:
                files = files_of(self.task, item)
                found = Measurement(files, self.device, self._place(item), self.ranks, alive).scores(item.evaluation)
                if self.ranks.first:
                    _deliver_evaluation(self.task, item, found, report)
                self.going.pop(item.key)
            except Exception as error:
                if self.ranks.size > 1:
                    raise
                self.failed(item, error)

    def _place(self, item: Item) -> DataLocation:
        setup = self.task.setup
        absent = tuple(setup.checked(item.run).absent)
        mine = replace(place_of(item, setup.place), rank=self.ranks.rank, ranks=self.ranks.size)
        return replace(mine, absent=absent, device=self.device)

    def failed(self, item: Item, error: Exception) -> None:
        """Fail a run, in every process."""
        _, report = self.going.pop(item.key, (item, None))
        if report is not None and self.ranks.first:
            fail(self.task, item, error)
            report.close()

    def give_back(self) -> None:
        """Leave the runs to any worker; none has failed."""
        for _, report in self.going.values():
            with suppress(OSError):
                report.give_back()

    def give_up(self, error: Exception) -> None:
        """Handle an error that other processes have not met, or the loss of one of them. The first
        to fail a run has the reason: the others only see a connection close."""
        time.sleep(0.0 if self.raised is not None else PATIENCE_SECONDS)
        if any(self.task.workspace.run(key).error.exists() for key in self.going):
            return
        blamed = self.raised or next(iter(self.going), None)
        for key, (item, report) in self.going.items():
            if key == blamed:
                fail(self.task, item, error)
            else:
                report.give_back()
        print(f"bench: {self.going[blamed][0] if blamed else 'a worker'}: {error}", file=sys.stderr, flush=True)

    def _trainings(self) -> list[RunTrainer]:
        from benchmark.training.models import reader_of
        from benchmark.training.run_trainer import RunTrainer

        task, reader = self.task, None
        trainings: dict[str, RunTrainer] = {}
        errors: dict[str, Exception] = {}
        for item in [item for item, _ in self.going.values()]:
            try:
                files = files_of(task, item)
                transfers = item.run.transfer.needs_teacher
                if transfers and reader is None:
                    reader = reader_of(item.run, files, self.device)
                mine, folder = reader if transfers else None, task.workspace.run(item.key)
                code = made_by(task, files, item.run)
                points = item.run.settings.curve_points or task.protocol.curve_points
                trainings[item.key] = RunTrainer(item.run, folder, mine, self.device, points, code, files, self.ranks)
            except Exception as error:
                errors[item.key] = error
        for key in dict.fromkeys(key for each in self.ranks.all_gather(list(errors)) for key in each):
            self.failed(self.going[key][0], errors.get(key) or RuntimeError("it could not be built in another process"))
            trainings.pop(key, None)
        return list(trainings.values())

    @contextmanager
    def _isolated(self, item: Item) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failed(item, error)

    def _failed(self, training: RunTrainer, error: Exception) -> None:
        """Handle a failed training; raise where this process alone may have met the error, or the
        job is ending."""
        if self.task.preemption.told and not isinstance(error, FloatingPointError):
            raise Preempted from error
        if self.ranks.size > 1 and not isinstance(error, FloatingPointError):  # which is of a loss that all of them share
            self.raised = self.raised or training.run.key
            raise error
        self.failed(self.going[training.run.key][0], error)

    def _stepped(self, training: RunTrainer, loss: float) -> None:
        self.going[training.run.key][1].step(training)

    def _evaluated(self, training: RunTrainer) -> None:
        self.going[training.run.key][1].evaluating(training)

    def _ended(self, training: RunTrainer, found: dict[str, Any]) -> None:
        item, report = self.going[training.run.key]
        error: Exception | None = None
        if self.ranks.first:
            try:
                _deliver(self.task, item, found, self.started, report)
            except Exception as raised:
                error = raised
        if self.ranks.broadcast(error is not None):
            self.failed(item, error or RuntimeError("it could not be delivered"))
        else:
            del self.going[item.key]


def made_by(task: WorkerTask, files: Mapping[str, Path], run: Run) -> str:
    """The identity of a checkpoint's making: code, pre-trained file and images, which must be equal
    to resume it."""
    from families.core.weights import file_digest

    weights = file_digest(files["weights"]) if "weights" in files else ""
    return ":".join((code_version()["code"], weights, task.setup.checked(run).digest or "")).rstrip(":")


def files_of(task: WorkerTask, item: Item) -> dict[str, Path]:
    """The weights that a run names as its teacher's, or that an evaluation reads.

    Raises WeightsError for those of a run that are not what it left, UserError for missing
    pre-trained ones.
    """
    from benchmark.training.state_files import weights_of
    from families.core.weights_folder import find_weights

    run, evaluation = item.run, item.evaluation
    teacher = run.teacher if evaluation is None else evaluation.read
    keys = {} if teacher is None or teacher.run_key is None else {"run": teacher.run_key}
    if run.backbone is not None:
        keys["backbone"] = run.backbone.run
    files = {name: weights_of(task.workspace, key) for name, key in (evaluation.files if evaluation else keys).items()}
    if teacher is not None and teacher.pinned and "run" not in files:  # fine-tuned weights stand for them
        found = find_weights(task.setup.weights, run.family, run.size)
        if found is None:
            raise UserError(f"no weights of {run.family} {run.size} in {task.setup.weights}")
        files["weights"] = found
    return files


def _deliver(task: WorkerTask, item: Item, found: dict[str, Any], started: str, report: ProgressWriter) -> None:
    from benchmark.training.state_files import weights_digest

    workspace, folder = task.workspace, task.workspace.run(item.key)
    payload = found | {"teacher": _teacher_record(task, item)}
    reason = below_floor(item, payload, task.protocol)
    if reason is not None:
        raise RuntimeError(reason)
    payload["provenance"] = provenance(started, utc_now(), task.setup.checked(item.run).digest, task.setup.by)
    payload["evaluations"] = _dated(task, item.run, found["evaluations"])
    labelled(item.cells[0], item.run, payload)
    workspace.finish(item.key, payload, weights_digest(folder.weights))
    folder.checkpoint.unlink(missing_ok=True)
    report.log(f"finished: {told(payload['metrics'])}")
    deliver(workspace, task.results, item)
    report.close({f"test_{name}": value for name, value in payload["metrics"].items() if isinstance(value, float)})


def _deliver_evaluation(task: WorkerTask, item: Item, found: dict[str, dict[str, Any]], report: ProgressWriter) -> None:
    task.workspace.finish(item.key, {"evaluations": _dated(task, item.run, found)}, None)
    report.log("finished: " + ", ".join(f"{name} {score[field_of(score)]:.2f}" for name, score in found.items()))
    deliver(task.workspace, task.results, item)


def _dated(task: WorkerTask, run: Run, found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Scores by evaluation, with date and digests of code and images."""
    checked, made = task.setup.checked(run), {"date": utc_now("milliseconds"), "code": code_version()["code"]}
    return {name: score | made | {"data": checked.digests.get(name, checked.digest)} for name, score in found.items()}


def _teacher_record(task: WorkerTask, item: Item) -> dict[str, Any] | None:
    """The teacher's record in a result."""
    from benchmark.training.state_files import digest_at
    from families.core.weights import record_of

    files = files_of(task, item)
    if "run" in files:
        assert item.run.teacher is not None
        key = str(item.run.teacher.run_key)
        taught = task.workspace.payload(key)
        top1 = None if taught is None else taught["metrics"]["top1"]
        how = None if taught is None else "on the protocol's test set, at the last step"
        at = files["run"].stat()
        digest = digest_at(files["run"], at.st_size, at.st_mtime_ns)
        return {"source": f"run {key}", "sha256": digest, "top1": top1, "how": how}
    if isinstance(item.run.teacher, Untrained):
        seed = item.run.teacher.seed
        return {"source": f"the same architecture untrained, seed {seed}", "sha256": None, "top1": None, "how": None}
    if "weights" in files:
        record = record_of(families.spec(item.run.family).teacher(item.run.size), files["weights"])
        return {**record, "top1": None, "how": None}
    return None
