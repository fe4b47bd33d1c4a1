"""Train runs together: the batch is made once and each teacher runs once, then each student takes a
step of its own.

What a run computes does not depend on the runs beside it.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from benchmark.data import Batch, part_of
from benchmark.training.clock import now
from benchmark.training.evaluation import end, learn_averages, measure_curves
from benchmark.training.group import Group, TrainingCallbacks, TrainingContext
from benchmark.training.inputs import Inputs
from benchmark.training.preemption import Preempted
from benchmark.training.run_trainer import RunTrainer
from families.core.seeds import seed_of


class CoTrainer(Group):
    """Trains a group of runs, each to its end, from their checkpoints where there are any.

    A run whose checkpoint is older catches up first: a batch is a pure function of the step.
    """

    def __init__(self, trainings: Sequence[RunTrainer], callbacks: TrainingCallbacks, context: TrainingContext) -> None:
        super().__init__(trainings, callbacks, context)
        self.positions = torch.tensor(part_of(context.place, self.recipe.batch_size))
        drops = any(training.recipe.drop_path for training in trainings)
        self.depth = trainings[0].run.student.geometry.depth if drops else 0
        self.ahead: Batch | None = None
        self.unsaved: list[RunTrainer] = []
        self.saving: RunTrainer | None = None
        for training in trainings:
            training.together = len(trainings)

    def train(self) -> None:
        """Train all runs. Raises Preempted, with checkpoints of all, if the process is told to leave."""
        for training in list(self.going):
            with self.isolated(training):
                training.resume()
        # All have read by now: rank 0 might otherwise overwrite what another one has yet to read.
        if len(set(self.ranks.all_gather(tuple(training.state.step for training in self.going)))) > 1:
            raise RuntimeError("the processes have read different checkpoints")
        learn_averages(self)
        try:
            self._train()
        except Preempted:
            self._save()
            raise

    def _train(self) -> None:
        batches: Iterator[Batch] = iter(())
        position = -1
        last_saved = time.monotonic()
        measure_curves(self)
        while self.going:
            self.leave_if_told(agreed=True)
            step = min(training.state.step for training in self.going)
            here = [training for training in self.going if training.state.step == step]
            end(self, [training for training in here if step >= training.recipe.steps])
            here = [training for training in here if step < training.recipe.steps]
            if not here:
                continue
            if position != step:
                batches, self.ahead = self.dataset.train(self.stream, self.recipe, step), None
            self._step(here, batches)
            position = step + 1
            if self.context.preemption.taken():
                self._save()
                last_saved = time.monotonic()
            elif not self.unsaved and time.monotonic() - last_saved >= self.context.checkpoint_seconds:
                self.unsaved, last_saved = list(self.going), time.monotonic()
            self._save_next()

    def _save(self) -> None:
        """Write the checkpoints of all runs. Of one that has taken a step which was not counted, the
        last one stands: it would take that step again."""
        self.settle()
        self.unsaved = []
        for training in [each for each in self.going if each.counted] if self.ranks.first else ():
            with self.isolated(training):
                training.save()

    def _save_next(self) -> None:
        """Start the background write of the next run's checkpoint once the previous one has ended.
        One at a time, so that no more than one checkpoint is held in memory."""
        self.unsaved = self.still(self.unsaved) if self.ranks.first else []
        if self.saving is not None:
            if self.saving.is_writing:
                return
            with self.isolated(self.saving):
                self.saving.wait_for_write()
        self.saving = self.unsaved.pop(0) if self.unsaved else None
        if self.saving is not None:
            self.settle()
            with self.isolated(self.saving):
                self.saving.save(background=True)

    def _step(self, trainings: Sequence[RunTrainer], batches: Iterator[Batch]) -> None:
        step = trainings[0].state.step
        images, targets = self.ahead or self._next(trainings, batches)
        draws = self._draws(step)
        for training in trainings:
            with self.isolated(training):
                training.begin()
        losses: dict[int, list[Tensor]] = {id(training): [] for training in trainings}
        parts = _parts(len(images), self.context.micro_batch)
        for part in parts:
            self._learn(trainings, (images[part], targets[part]), None if draws is None else draws[:, part],
                        len(images[part]) / len(images), part is parts[-1], losses)  # fmt: skip
        left = self.still(trainings)
        more = any(training.recipe.steps > step + 1 for training in left)
        self.ahead = self._next(left, batches) if more else None  # while a GPU works on this one
        for training, loss in self._mean_losses(left, losses):
            with self.isolated(training):
                training.end(loss)
        measure_curves(self)
        for training in self.still(trainings):
            with self.isolated(training):
                self.callbacks.stepped(training, training.loss)

    def _learn(
        self, trainings: Sequence[RunTrainer], batch: Batch, draws: Tensor | None, share: float, last: bool,
        losses: dict[int, list[Tensor]],
    ) -> None:  # fmt: skip
        """Add the gradients of a `share` of the batch for each run, and its part of the losses; at the
        last part take the step. Of a batch that is not split, gradients of one run are held at a
        time."""
        inputs = Inputs(batch[0])
        read = self.read(trainings, inputs, draws, charge=True)
        for training in self.still(trainings):
            began = now(self.device)
            with self.isolated(training):
                given = (inputs.by(training.input), batch[1], read[id(training.reader)])
                losses[id(training)].append(training.learn(*given, draws, share, last) * share)
                if last:
                    training.update()
                self.charge([training], began)

    def _next(self, trainings: Sequence[RunTrainer], batches: Iterator[Batch]) -> Batch:
        began = now(self.device)
        batch = next(batches)
        self.charge(trainings, began)
        return batch

    def _mean_losses(self, trainings: Sequence[RunTrainer], losses: dict[int, list[Tensor]]) -> list[tuple[RunTrainer, float]]:
        """Each run's loss over the whole batch. A GPU is waited for once, for all runs."""
        each = [loss for training in trainings for loss in losses[id(training)]]
        parts = iter(torch.stack(each).tolist() if each else [])
        sums = [sum(itertools.islice(parts, len(losses[id(training)]))) for training in trainings]
        self.settle(at_once=False)
        means = self.ranks.total(torch.tensor(sums, dtype=torch.float64)) / self.ranks.size
        return list(zip(trainings, means.tolist(), strict=True))

    def _draws(self, step: int) -> Tensor | None:
        """Stochastic depth's random numbers for this process's images [2 * depth, B], a function of
        (stream, step)."""
        if not self.depth:
            return None
        generator = torch.Generator().manual_seed(seed_of(self.stream, step, "depth"))
        whole = torch.rand(2 * self.depth, self.recipe.batch_size, generator=generator)
        mine = whole[:, self.positions]
        return mine if self.device.type != "cuda" else mine.pin_memory().to(self.device, non_blocking=True)


def _parts(count: int, most: int | None) -> list[slice]:
    """Slices of at most so many of `count` images, all of nearly one length."""
    number = 1 if most is None else math.ceil(count / most)
    bounds = [round(count * i / number) for i in range(number + 1)]
    return [slice(low, high) for low, high in itertools.pairwise(bounds)]
