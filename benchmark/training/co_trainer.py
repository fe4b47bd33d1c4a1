"""Runs that train together: the batch is made once and the teacher runs once, then each student takes a step of its own.

What a run computes does not depend on who trains beside it.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmark import data
from benchmark.data import DataLocation, part_of
from benchmark.training.distributed import ALONE, Ranks
from benchmark.training.evaluation import Tally
from benchmark.training.inputs import Inputs, normalised, precision_of, seed_of
from benchmark.training.preemption import Preempted, Preemption
from benchmark.training.run_trainer import RunTrainer
from benchmark.transfer.teacher_reader import TeacherAttention


@dataclass
class TrainingCallbacks:
    """Who follows trainings: is told of each step with its loss, of the end with what `Training.finish` gave, of a failure, of
    each batch that is evaluated."""

    stepped: Callable[[RunTrainer, float], None]
    ended: Callable[[RunTrainer, dict[str, Any]], None]
    failed: Callable[[RunTrainer, Exception], None]
    evaluated: Callable[[RunTrainer], None] = lambda training: None


@dataclass(frozen=True)
class TrainingContext:
    """What trains and from where: nothing of it changes a number but for rounding (and a streamed source's order).

    Attributes:
        checkpoint_seconds: between checkpoints.
        place: where the data lies and this process's part of it.
        ranks: the processes that train together.
        micro_batch: how many images go through a model at a time; the gradients of larger batches are accumulated.
        notice: what the scheduler says meanwhile.
    """

    checkpoint_seconds: float = 60.0
    place: DataLocation = field(default_factory=DataLocation)
    ranks: Ranks = ALONE
    micro_batch: int | None = None
    notice: Preemption = field(default_factory=Preemption)


class CoTrainer:
    """Trainings of one data order, each to its end, from their checkpoints where there are any.

    One that raises is reported and leaves the others running, unless the watcher raises then. One whose checkpoint is older
    catches up first: a batch is a pure function of the step. Runs that cannot share a batch are refused with a ValueError.
    """

    def __init__(self, trainings: Sequence[RunTrainer], watcher: TrainingCallbacks, means: TrainingContext) -> None:
        if len({training.run.companions for training in trainings}) != 1:
            raise ValueError("runs that train together need the same data, order and batch")
        first = trainings[0]
        protocol = first.run.protocol
        self.alive, self.watcher, self.means, self.ranks = list(trainings), watcher, means, means.ranks
        self.device, self.recipe, self.stream = first.device, first.recipe, first.run.stream
        size = first.run.student.geometry.img_size
        self.dataset = data.load(protocol.data, means.place, size, protocol.normalisation)
        self.positions = torch.tensor(part_of(means.place, self.recipe.batch_size))
        self.depth = 0 if not any(training.recipe.drop_path for training in trainings) else first.run.student.geometry.depth
        self.evaluation_batch = protocol.evaluation_batch
        for training in trainings:
            training.together = len(trainings)

    def train(self) -> None:
        """Train all of them. Raises Leaving, with checkpoints of all, when the process is told to leave."""
        for training in list(self.alive):
            with self._isolated(training):
                training.resume()
        # All of them have read by now: rank 0 might otherwise write what another one has yet to read.
        if len(set(self.ranks.all_gather(tuple(training.state.step for training in self.alive)))) > 1:
            raise RuntimeError("the processes have read different checkpoints")
        self._learn_averages()
        try:
            self._train()
        except Preempted:
            self._save()
            raise

    def _train(self) -> None:
        batches: Iterator[data.Batch] = iter(())
        position = -1
        last_saved = time.monotonic()
        self._measure()
        while self.alive:
            if self.ranks.any(self.means.notice.leave):
                raise Preempted
            now = min(training.state.step for training in self.alive)
            here = [training for training in self.alive if training.state.step == now]
            self._end([training for training in here if now >= training.recipe.steps])
            here = [training for training in here if now < training.recipe.steps]
            if not here:
                continue
            if position != now:
                batches = self.dataset.train(self.stream, self.recipe, now)
            self._step(here, batches)
            position = now + 1
            if self.means.notice.taken() or time.monotonic() - last_saved >= self.means.checkpoint_seconds:
                self._save()
                last_saved = time.monotonic()

    @torch.no_grad()
    def _learn_averages(self) -> None:
        """The mean maps over val's images of those teachers whose students get these."""
        for training in list(self.alive):
            reader = training.student.bond.reader
            if training.run.transfer.source == "average" and reader is not None and not reader.average:
                with self._isolated(training), precision_of(self.recipe, self.device):
                    val = self.dataset.evaluate(self.dataset.sets()[0], self.evaluation_batch)
                    images = (normalised(each.to(self.device), training.teacher_input) for each, _ in val)
                    reader.learn_average(images, self.ranks.all_gather)

    def _save(self) -> None:
        for training in list(self.alive) if self.ranks.first else ():
            with self._isolated(training):
                training.save()

    def _step(self, trainings: Sequence[RunTrainer], batches: Iterator[data.Batch]) -> None:
        began = self._now()
        images, targets = (each.to(self.device, non_blocking=True) for each in next(batches))
        draws = self._draws(trainings[0].state.step)
        self._charge(trainings, began)
        for training in trainings:
            with self._isolated(training):
                training.begin()
        losses: dict[int, list[Tensor]] = {id(training): [] for training in trainings}
        parts = _parts(len(images), self.means.micro_batch)
        for part in parts:
            share, last = len(images[part]) / len(images), part is parts[-1]
            inputs, dropped = Inputs(images[part]), None if draws is None else draws[:, part]
            readings = self._read(trainings, inputs, dropped, charge=True)
            y = targets[part]
            for training in [each for each in trainings if each in self.alive]:
                began = self._now()
                with self._isolated(training):
                    reading = readings[id(training.student.bond.reader)]
                    loss = training.learn(inputs.by(training.input), y, reading, dropped, share, last)
                    losses[id(training)].append(loss * share)
                    self._charge([training], began)
            del readings
        for training in [each for each in trainings if each in self.alive]:
            began = self._now()
            with self._isolated(training):
                training.end(self.ranks.mean(sum(float(loss) for loss in losses[id(training)])))
                self._charge([training], began)
        self._measure()
        for training in trainings:
            if training in self.alive:
                with self._isolated(training):
                    self.watcher.stepped(training, training.loss)

    def _measure(self) -> None:
        """Points of learning curves that are due; a checkpoint may be older than the one of its own step."""
        for training, score in self.evaluate([training for training in self.alive if training.due], self.dataset.sets()[0]):
            training.point(score)

    def _draws(self, step: int) -> Tensor | None:
        """Stochastic depth's random numbers for this process's images [2 * depth, B], a function of (stream, step)."""
        if not self.depth:
            return None
        generator = torch.Generator().manual_seed(seed_of(f"{self.stream}:{step}:depth"))
        whole = torch.rand(2 * self.depth, self.recipe.batch_size, generator=generator)
        return whole[:, self.positions].to(self.device)

    def _end(self, trainings: Sequence[RunTrainer]) -> None:
        val, test, *shifted = self.dataset.sets()
        scores: dict[int, dict[str, dict[str, Any]]] = {id(training): {} for training in trainings}
        for training in trainings:
            if training.val is not None:
                scores[id(training)][val] = training.val
        for name in (val, test, *shifted):
            unknown = [training for training in trainings if training in self.alive and name not in scores[id(training)]]
            for training, score in self.evaluate(unknown, name, attention=name == test):
                scores[id(training)][name] = score
        for training in trainings:
            if training in self.alive:
                with self._isolated(training):
                    found = scores[id(training)]
                    self.watcher.ended(training, training.finish(found[val], found[test], {n: found[n] for n in shifted}))
                    self.alive.remove(training)

    @torch.no_grad()
    def evaluate(
        self, trainings: Sequence[RunTrainer], name: str, attention: bool = False
    ) -> list[tuple[RunTrainer, dict[str, Any]]]:
        """For each training top1 and top5 in percent and mean cross-entropy over every image of an evaluation set, each
        counted once whatever the number of processes, among the classes that the set has.

        With `attention` also, by transferred block: `attention_kl` of a distilled student's own map from the teacher's, and
        `dropped_mass` with tokens that the student has not; None where there is none.
        """
        if trainings and self.ranks.any(self.means.notice.leave):
            raise Preempted
        classes = self.dataset.classes(name) if trainings else None
        tallies = [(training, Tally(training, attention, classes)) for training in trainings]
        with ExitStack() as within:
            for training in trainings:
                within.enter_context(training.student.averaged())
            for images, labels in self.dataset.evaluate(name, self.evaluation_batch) if tallies else ():
                if self.ranks.size == 1 and self.means.notice.leave:  # several agree before each set
                    raise Preempted
                inputs, y = Inputs(images.to(self.device)), labels.to(self.device)
                readings = self._read([training for training, _ in tallies], inputs)
                for training, tally in tallies:
                    if training in self.alive:
                        with self._isolated(training):
                            tally.add(inputs, y, readings[id(training.student.bond.reader)])
                            self.watcher.evaluated(training)
        return [(training, tally.score(self.ranks)) for training, tally in tallies if training in self.alive]

    def _read(
        self, trainings: Sequence[RunTrainer], inputs: Inputs, draws: Tensor | None = None, charge: bool = False
    ) -> dict[int, TeacherAttention]:
        """By reader's identity what it reads: each teacher runs once. One that raises fails its own students; its time is
        theirs where they are to be charged."""
        readings: dict[int, TeacherAttention] = {id(None): {}}
        for reader in {id(training.student.bond.reader): training.student.bond.reader for training in trainings}.values():
            if reader is None:
                continue
            taught = [training for training in trainings if training.student.bond.reader is reader]
            began = self._now()
            try:
                with precision_of(self.recipe, self.device):  # the same in training and in evaluation
                    readings[id(reader)] = reader.read(inputs.by(taught[0].teacher_input), draws)
            except Exception as error:
                for training in taught:
                    self._fail(training, error)
            if charge:
                self._charge(taught, began)
        return readings

    def _charge(self, trainings: Sequence[RunTrainer], began: float) -> None:
        """Share the time since `began` among trainings."""
        share = (self._now() - began) / len(trainings)
        for training in trainings:
            training.state.seconds += share

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()

    def _fail(self, training: RunTrainer, error: Exception) -> None:
        if training in self.alive:
            self.alive.remove(training)
            self.watcher.failed(training, error)

    @contextmanager
    def _isolated(self, training: RunTrainer) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._fail(training, error)


def _parts(count: int, most: int | None) -> list[slice]:
    """Slices of at most so many of `count` images, all of nearly one length."""
    number = 1 if most is None else math.ceil(count / most)
    bounds = [round(count * i / number) for i in range(number + 1)]
    return [slice(low, high) for low, high in itertools.pairwise(bounds)]
