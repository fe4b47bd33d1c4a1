"""Runs that train together: which of them go on, how their teachers are read, and whose time it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from benchmark import data
from benchmark.data import DataLocation
from benchmark.training.clock import Moment, now, seconds
from benchmark.training.distributed import ALONE, Ranks
from benchmark.training.energy import EnergyMeter
from benchmark.training.inputs import Inputs, precision_of
from benchmark.training.preemption import Preempted, Preemption
from benchmark.training.run_trainer import RunTrainer
from benchmark.transfer.teacher_reader import TeacherAttention


@dataclass
class TrainingCallbacks:
    """Callbacks for step (with its loss), end (with what `RunTrainer.finish` gives), failure, and
    each evaluated batch."""

    stepped: Callable[[RunTrainer, float], None]
    ended: Callable[[RunTrainer, dict[str, Any]], None]
    failed: Callable[[RunTrainer, Exception], None]
    evaluated: Callable[[RunTrainer], None] = lambda training: None


@dataclass(frozen=True)
class TrainingContext:
    """Where and how runs train. Nothing of it changes a number but for rounding (and a streamed
    source's order).

    Attributes:
        checkpoint_seconds: between checkpoints.
        place: where the data lies, and this process's part of it.
        ranks: the processes that train together.
        micro_batch: images that go through a model at a time; the gradients of larger batches are
            accumulated.
        preemption: the scheduler's signals.
        meter: of the energy; None: it is not measured.
    """

    checkpoint_seconds: float = 60.0
    place: DataLocation = field(default_factory=DataLocation)
    ranks: Ranks = ALONE
    micro_batch: int | None = None
    preemption: Preemption = field(default_factory=Preemption)
    meter: EnergyMeter | None = None


class Group:
    """Runs of one data order. A run that raises is reported and leaves the others going, unless the
    callback raises.

    Raises ValueError for runs that cannot share a batch.
    """

    def __init__(self, trainings: Sequence[RunTrainer], callbacks: TrainingCallbacks, context: TrainingContext) -> None:
        if len({training.run.companions for training in trainings}) != 1:
            raise ValueError("runs that train together need the same data, order and batch")
        first = trainings[0]
        protocol, task = first.run.protocol, first.run.settings
        self.going, self.callbacks, self.context, self.ranks = list(trainings), callbacks, context, context.ranks
        self.charged: list[tuple[Sequence[RunTrainer], Moment, Moment]] = []
        self.device, self.recipe, self.stream = first.device, first.recipe, first.run.stream
        self.dataset = data.load(task.data, context.place, first.run.student.geometry.img_size, protocol.normalisation)
        self.evaluation_batch = task.evaluation_batch

    def still(self, trainings: Sequence[RunTrainer]) -> list[RunTrainer]:
        """Those that have neither failed nor ended."""
        return [training for training in trainings if training in self.going]

    def fail(self, training: RunTrainer, error: Exception) -> None:
        """Report a run's failure, once."""
        if training in self.going:
            self.going.remove(training)
            self.callbacks.failed(training, error)

    @contextmanager
    def isolated(self, training: RunTrainer) -> Iterator[None]:
        """Within: an error fails this run alone."""
        try:
            yield
        except Exception as error:
            self.fail(training, error)

    def leave_if_told(self, agreed: bool) -> None:
        """Raise Preempted if the scheduler wants this process's place; `agreed`: if it wants that
        of any process."""
        leave = self.context.preemption.leave
        if self.ranks.any(leave) if agreed else self.ranks.size == 1 and leave:
            raise Preempted

    def read(
        self, trainings: Sequence[RunTrainer], inputs: Inputs, draws: Tensor | None = None, charge: bool = False
    ) -> dict[int, TeacherAttention]:
        """The attention of each teacher by its reader's identity; each teacher runs once.

        A teacher that raises fails its own students. With `charge` its time counts as theirs.
        `draws` as StochasticDepth's.
        """
        found: dict[int, TeacherAttention] = {id(None): {}}
        for reader in {id(training.reader): training.reader for training in trainings}.values():
            if reader is None:
                continue
            taught = [training for training in trainings if training.reader is reader]
            began = now(self.device)
            try:
                with precision_of(self.recipe, self.device):  # the same in training and in evaluation
                    found[id(reader)] = reader.read(inputs.by(taught[0].teacher_input), draws)
            except Exception as error:
                for training in taught:
                    self.fail(training, error)
            if charge:
                self.charge(taught, began)
        return found

    def charge(self, trainings: Sequence[RunTrainer], began: Moment) -> None:
        """Share the time since `began` among runs, once it is settled."""
        self.charged.append((trainings, began, now(self.device)))

    def settle(self, at_once: bool = True) -> None:
        """Add the charged times to those of the runs, once the device has come so far, and their
        energy: `at_once`, or when the next reading is due."""
        for trainings, began, ended in self.charged:
            share = seconds(began, ended) / len(trainings)
            for training in trainings:
                training.state.seconds += share
                if self.context.meter is not None:
                    self.context.meter.charge(training.state, share)
        self.charged.clear()
        if self.context.meter is not None:
            self.context.meter.settle(at_once)
