"""Training: one student's step, one run that resumes exactly, and runs that share what they have in common.

Runs of one data order train together: the batch is made once and the teacher runs once, then each student takes a step of
its own. What a run computes does not depend on who trains beside it.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmark import data
from benchmark.data import Place, part_of
from benchmark.files import replacing, set_aside
from benchmark.masked import Masked
from benchmark.models import load_state, model_of, read_state, teachers_input, trained
from benchmark.notice import Leaving, Notice
from benchmark.plan import EVALUATED, Run, Transfer
from benchmark.protocol import Normalisation, Recipe
from benchmark.ranks import Ranks
from benchmark.transfer import Bond, Reader, Reading, StochasticDepth
from families.weights import WeightsError, read_torch

NO_DECAY = ("*_token", "*pos_embed", "*relative_position_bias_table")  # and whatever is one-dimensional, in every class
CHECKPOINT, WEIGHTS = "checkpoint.pt", "weights.pt"
ANEW = "set aside, and the run starts anew"  # what becomes of a checkpoint that is not believed
SCORE = ("top1", "top5", "loss")
ALONE = Ranks()


class Student:
    """A model that learns: its optimiser, its schedule and its tie to a teacher.

    Args:
        model: on its device.
        transfer, reader: what is transferred, and the teacher it comes from (None without transfer).
        recipe: of the training.
        ranks: the processes that share its batches.
    """

    def __init__(self, model: nn.Module, transfer: Transfer, reader: Reader | None, recipe: Recipe, ranks: Ranks = ALONE) -> None:
        self.model, self.recipe = model, recipe
        self.average = None if recipe.ema is None else ModelEmaV3(model, decay=recipe.ema)
        model.set_grad_checkpointing(recipe.grad_checkpointing)  # type: ignore[operator]
        self.bond = Bond(transfer, model, reader)
        self.depth = StochasticDepth(model, recipe.drop_path)
        self.optimizer = create_optimizer_v2(self._groups(), opt="adamw", lr=recipe.lr, betas=recipe.betas)
        self.masked = None
        if recipe.objective == "masked":
            dim, patch = int(model.embed_dim), int(model.patch_embed.patch_size[0])  # type: ignore[arg-type, union-attr, index]
            self.masked = Masked(dim, patch, recipe.mask_ratio).to(next(model.parameters()).device)
            beside = {"params": list(self.masked.parameters()), "weight_decay": recipe.weight_decay}
            self.optimizer.add_param_group(beside)
        warmup = round(recipe.warmup * recipe.steps)
        self.schedule = CosineLRScheduler(
            self.optimizer, t_initial=max(1, recipe.steps - warmup), warmup_t=warmup,
            warmup_lr_init=recipe.lr / (warmup + 1), warmup_prefix=True, t_in_epochs=False,
        )  # fmt: skip
        self.shared = None
        if ranks.size > 1:  # a copied block's own q, k or bias table may get no gradient
            self.shared = DistributedDataParallel(model, find_unused_parameters=transfer.method == "copy")
        self.forward: Callable[[Tensor], Tensor] = self.shared or model
        if recipe.compile:
            for block in model.blocks:  # type: ignore[union-attr]
                block.attn.forward = torch.compiler.disable(block.attn.forward)
            self.forward = torch.compile(self.forward)

    def _groups(self) -> list[dict[str, Any]]:
        """One rule for every class: what is spared weight decay, and with layer decay (Clark et al. 2020, arXiv 2003.10555; BEiT)
        a rate that falls from head and last norm by `layer_decay` per block down to the embeddings."""
        model, recipe = self.model, self.recipe
        spared = [name for name, _ in model.named_parameters() if any(fnmatchcase(name, each) for each in NO_DECAY)]
        if recipe.layer_decay is None:
            return list(param_groups_weight_decay(model, recipe.weight_decay, no_weight_decay_list=spared))
        depth = len(list(model.blocks))  # type: ignore[arg-type]
        groups: dict[tuple[int, bool], dict[str, Any]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                below, decays = layers_below_head(name, depth), parameter.dim() > 1 and name not in spared
                decay, scale = recipe.weight_decay if decays else 0.0, recipe.layer_decay**below
                group = groups.setdefault((below, decays), {"params": [], "weight_decay": decay, "lr_scale": scale})
                group["params"].append(parameter)
        return list(groups.values())

    def begin(self, number: int) -> None:
        """Make ready for step `number`: its learning rate, no gradients."""
        self.schedule.step_update(number)
        self.optimizer.zero_grad()

    def learn(
        self, x: Tensor, y: Tensor, reading: Reading, draws: Tensor | None = None, share: float = 1.0, last: bool = True,
        mark: Callable[[str], None] = lambda phase: None,
    ) -> Tensor:  # fmt: skip
        """Add the gradients of a batch or of a `share` of it: normalised images x [B, 3, H, W] with targets y, labels [B] or
        probabilities [B, classes]. Gives the loss; `draws` as StochasticDepth's; `last` tells that nothing is added after.

        `mark` is told the name of each phase as it ends.
        """
        smoothing = self.recipe.smoothing if y.dim() == 1 else 0.0  # mixed targets are smoothed already
        with ExitStack() as within:
            if self.shared is not None and not last:
                within.enter_context(self.shared.no_sync())
            within.enter_context(self.depth.dropping(draws))
            with precision_of(self.recipe, x.device):
                within.enter_context(self.bond.guiding(reading))
                if self.masked is not None:
                    loss = self.masked.loss(self.model, x, y, smoothing)
                else:
                    loss = F.cross_entropy(self.forward(x).float(), y, label_smoothing=smoothing) + self.bond.loss()
            mark("forward")
            (loss if share == 1 else loss * share).backward()
        mark("backward")
        return loss.detach()

    def update(self) -> None:
        """Take the step that the gradients say."""
        if self.recipe.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within: the model has its averaged weights, where the recipe averages."""
        if self.average is None:
            yield
            return
        try:
            self._swap()
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        assert self.average is not None
        both = ([*model.parameters(), *model.buffers()] for model in (self.model, self.average.module))
        for own, averaged in zip(*both, strict=True):
            own.data, averaged.data = averaged.data, own.data


@dataclass
class State:
    """Where a training is: all of it that must survive a kill."""

    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)


class Training:
    """One run: its student, and where its training is. `folder` holds its checkpoint, and its last weights once it is done.

    Args:
        run: what is trained.
        family, size: the adapter that builds it (a label of one of the run's cells).
        folder: the run's own work folder.
        reader: the teacher; needed when the transfer has one.
        device: torch device name.
        curve_points: how often val is measured on the way.
        code: digest of the code that trains; a checkpoint of another code is not resumed.
        files: by what `run.teacher` calls it (`run`, `weights`, `student`, `ensemble`), where its weights lie.
        ranks: the processes that train it together.
    """

    def __init__(
        self, run: Run, family: str, size: str, folder: Path, reader: Reader | None, device: str, curve_points: int, code: str,
        files: Mapping[str, Path] | None = None, ranks: Ranks = ALONE,
    ) -> None:  # fmt: skip
        self.run, self.recipe, self.folder, self.code, self.device = run, run.protocol.recipe, folder, code, torch.device(device)
        steps = {round(self.recipe.steps * (i + 1) / curve_points) for i in range(curve_points)}
        self.points = steps if run.role not in EVALUATED else set()
        self.state, self.together, self.ranks, self.loss = State(), 1, ranks, math.nan
        self.val: dict[str, float] | None = None
        self.teacher_input = teachers_input(run, family)
        self.input = self.teacher_input if run.role == "finetune" else run.protocol.normalisation
        self.model = model_of(run, family, size, files or {}).to(self.device)
        self.partner: nn.Module | None = None
        if run.role in EVALUATED:
            self.state.step = self.recipe.steps
            if files and "student" in files:
                load_state(self.model, files["student"])
            if files and "ensemble" in files:
                self.partner = trained(run, family, size, files["ensemble"]).to(self.device)
        self.student = Student(self.model, run.transfer, reader, self.recipe, ranks)

    def resume(self) -> None:
        """Go on from the folder's checkpoint, where there is one of this run and code. A damaged one, or what is none of this
        run's, is set aside with a line on stderr: the run starts anew."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return
        try:
            saved = self._own(read_torch(path, ANEW))
        except WeightsError as error:  # a node that went down may leave half of it
            if self.ranks.first:
                print(f"bench: {error}", file=sys.stderr, flush=True)
                set_aside(path)
            return
        if saved["code"] == self.code:  # a run is made by one code from beginning to end
            self.model.load_state_dict(saved["model"])
            self.student.optimizer.load_state_dict(saved["optimizer"])
            if self.student.average is not None:
                self.student.average.module.load_state_dict(saved["average"])
            if self.student.masked is not None:
                self.student.masked.load_state_dict(saved["masked"])
            self.state = State(**saved["state"])

    def _own(self, saved: Any) -> dict[str, Any]:
        """A checkpoint's content. Raises WeightsError for one that `save` of this run did not write."""
        parts = self._parts()
        if not isinstance(saved, dict) or saved.keys() != parts.keys() or saved["run"] != parts["run"]:
            raise WeightsError(f"{self.folder / CHECKPOINT}: not a checkpoint of run {self.run.key}; {ANEW}")
        return saved

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model.state_dict(), "optimizer": self.student.optimizer.state_dict(), "state": vars(self.state)}
        if self.student.average is not None:
            parts["average"] = self.student.average.module.state_dict()
        if self.student.masked is not None:
            parts["masked"] = self.student.masked.state_dict()
        return parts | {"run": self.run.key, "code": self.code}

    def save(self) -> None:
        """Write the checkpoint."""
        _save(self._parts(), self.folder / CHECKPOINT)

    def begin(self) -> None:
        """Make ready for the next step."""
        self.model.train()
        self.val = None
        self.student.begin(self.state.step)

    def learn(self, *given: Any) -> Tensor:
        """As the student's; what it does depends on nothing but the run and what came before."""
        torch.manual_seed(_number(f"{self.run.stream}:{self.state.step}"))
        return self.student.learn(*given)

    def end(self, loss: float) -> None:
        """Take the step; `loss` is the whole batch's before it. Raises FloatingPointError where that is not finite."""
        state = self.state
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {state.step + 1}")
        self.student.update()
        self.loss = loss
        state.step += 1
        state.loss_sum, state.loss_count = state.loss_sum + loss, state.loss_count + 1

    @property
    def due(self) -> bool:
        """Whether val is to be measured before the next step."""
        curve, step = self.state.curve, self.state.step
        return step in self.points and (not curve or curve[-1]["step"] != step)

    def point(self, val: dict[str, float]) -> None:
        """Add a point to the learning curve."""
        state, self.val = self.state, val
        state.curve.append({"step": state.step, "loss": state.loss_sum / state.loss_count, "val_top1": val["top1"]})
        state.loss_sum, state.loss_count = 0.0, 0

    def finish(self, val: dict[str, Any], test: dict[str, Any], shifted: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Keep the last weights, averaged ones where the recipe averages; what the result file holds but for its labels and
        provenance."""
        if self.ranks.first and self.run.role not in EVALUATED:
            with self.student.averaged():
                _save(self.model.state_dict(), self.folder / WEIGHTS)
        metrics = test | {"shift": shifted}
        return {"metrics": metrics, "val": val, "curve": self.state.curve, "cost": self._cost()}

    @property
    def images_per_second(self) -> float:
        """Training images of the whole batch per second of its own steps."""
        done = 0 if self.run.role in EVALUATED else self.state.step
        return done * self.recipe.batch_size / max(self.state.seconds, 1e-9)

    def _cost(self) -> dict[str, Any]:
        return {
            "seconds": round(self.state.seconds, 3),
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            "images_per_second": round(self.images_per_second, 1),
            "peak_memory_mb": round(peak_memory(self.device) / 2**20, 1),
            "together": self.together,
        } | ({"ranks": self.ranks.size} if self.ranks.size > 1 else {})


@dataclass
class Watcher:
    """Who follows trainings: is told of each step with its loss, of the end with what `Training.finish` gave, of a failure, of
    each batch that is evaluated."""

    stepped: Callable[[Training, float], None]
    ended: Callable[[Training, dict[str, Any]], None]
    failed: Callable[[Training, Exception], None]
    evaluated: Callable[[Training], None] = lambda training: None


@dataclass(frozen=True)
class Means:
    """What trains and from where: nothing of it changes a number but for rounding (and a streamed source's order).

    Attributes:
        checkpoint_seconds: between checkpoints.
        place: where the data lies and this process's part of it.
        ranks: the processes that train together.
        micro_batch: how many images go through a model at a time; the gradients of larger batches are accumulated.
        notice: what the scheduler says meanwhile.
    """

    checkpoint_seconds: float = 60.0
    place: Place = field(default_factory=Place)
    ranks: Ranks = ALONE
    micro_batch: int | None = None
    notice: Notice = field(default_factory=Notice)


class Together:
    """Trainings of one data order, each to its end, from their checkpoints where there are any.

    One that raises is reported and leaves the others running, unless the watcher raises then. One whose checkpoint is older
    catches up first: a batch is a pure function of the step. Runs that cannot share a batch are refused with a ValueError.
    """

    def __init__(self, trainings: Sequence[Training], watcher: Watcher, means: Means) -> None:
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
        if len(set(self.ranks.all(tuple(training.state.step for training in self.alive)))) > 1:
            raise RuntimeError("the processes have read different checkpoints")
        self._learn_averages()
        try:
            self._train()
        except Leaving:
            self._save()
            raise

    def _train(self) -> None:
        batches: Iterator[data.Batch] = iter(())
        position = -1
        last_saved = time.monotonic()
        self._measure()
        while self.alive:
            if self.ranks.any(self.means.notice.leave):
                raise Leaving
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
                    reader.learn_average(images, self.ranks.all)

    def _save(self) -> None:
        for training in list(self.alive) if self.ranks.first else ():
            with self._isolated(training):
                training.save()

    def _step(self, trainings: Sequence[Training], batches: Iterator[data.Batch]) -> None:
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
            inputs, dropped = _Inputs(images[part]), None if draws is None else draws[:, part]
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
        generator = torch.Generator().manual_seed(_number(f"{self.stream}:{step}:depth"))
        whole = torch.rand(2 * self.depth, self.recipe.batch_size, generator=generator)
        return whole[:, self.positions].to(self.device)

    def _end(self, trainings: Sequence[Training]) -> None:
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
        self, trainings: Sequence[Training], name: str, attention: bool = False
    ) -> list[tuple[Training, dict[str, Any]]]:
        """For each training top1 and top5 in percent and mean cross-entropy over every image of an evaluation set, each
        counted once whatever the number of processes, among the classes that the set has.

        With `attention` also, by transferred block: `attention_kl` of a distilled student's own map from the teacher's, and
        `dropped_mass` with tokens that the student has not; None where there is none.
        """
        if trainings and self.ranks.any(self.means.notice.leave):
            raise Leaving
        classes = self.dataset.classes(name) if trainings else None
        tallies = [(training, _Tally(training, attention, classes)) for training in trainings]
        with ExitStack() as within:
            for training in trainings:
                within.enter_context(training.student.averaged())
            for images, labels in self.dataset.evaluate(name, self.evaluation_batch) if tallies else ():
                if self.ranks.size == 1 and self.means.notice.leave:  # several agree before each set
                    raise Leaving
                inputs, y = _Inputs(images.to(self.device)), labels.to(self.device)
                readings = self._read([training for training, _ in tallies], inputs)
                for training, tally in tallies:
                    if training in self.alive:
                        with self._isolated(training):
                            tally.add(inputs, y, readings[id(training.student.bond.reader)])
                            self.watcher.evaluated(training)
        return [(training, tally.score(self.ranks)) for training, tally in tallies if training in self.alive]

    def _read(
        self, trainings: Sequence[Training], inputs: _Inputs, draws: Tensor | None = None, charge: bool = False
    ) -> dict[int, Reading]:
        """By reader's identity what it reads: each teacher runs once. One that raises fails its own students; its time is
        theirs where they are to be charged."""
        readings: dict[int, Reading] = {id(None): {}}
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

    def _charge(self, trainings: Sequence[Training], began: float) -> None:
        """Share the time since `began` among trainings."""
        share = (self._now() - began) / len(trainings)
        for training in trainings:
            training.state.seconds += share

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()

    def _fail(self, training: Training, error: Exception) -> None:
        if training in self.alive:
            self.alive.remove(training)
            self.watcher.failed(training, error)

    @contextmanager
    def _isolated(self, training: Training) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._fail(training, error)


class _Inputs:
    """A batch of images [B, 3, H, W] in 0..1, as each model wants it."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.made: dict[Normalisation, Tensor] = {}

    def by(self, chosen: Normalisation) -> Tensor:
        """The images so normalised."""
        if chosen not in self.made:
            self.made[chosen] = normalised(self.images, chosen)
        return self.made[chosen]


def _parts(count: int, most: int | None) -> list[slice]:
    """Slices of at most so many of `count` images, all of nearly one length."""
    number = 1 if most is None else math.ceil(count / most)
    bounds = [round(count * i / number) for i in range(number + 1)]
    return [slice(low, high) for low, high in itertools.pairwise(bounds)]


class _Tally:
    """One training's counts over an evaluation set of all `classes` (None) or some."""

    def __init__(self, training: Training, attention: bool, classes: Tensor | None) -> None:
        self.training, self.attention, self.classes = training, attention, classes
        self.count, self.sums = 0, torch.zeros(len(SCORE), dtype=torch.float64)
        bond, blocks = training.student.bond, len(training.run.transfer.blocks)
        self.rows: dict[str, Tensor] = {}
        if attention and bond.reader is not None and bond.compares:
            self.rows["attention_kl"] = torch.zeros(blocks)
        if attention and bond.reader is not None and bond.alignment.teacher_extra:
            self.rows["dropped_mass"] = torch.zeros(blocks)

    def add(self, inputs: _Inputs, y: Tensor, reading: Reading) -> None:
        """Count a batch with labels y [B]."""
        training, bond, count = self.training, self.training.student.bond, len(y)
        training.model.eval()
        watching = bond.comparing if self.attention else bond.guiding
        rows: dict[str, list[float]] = {}
        with precision_of(training.recipe, y.device), watching(reading) as own:
            logits = training.model(inputs.by(training.input)).float()
            if "attention_kl" in self.rows and own is not None:
                rows["attention_kl"] = bond.divergence(own)
            if "dropped_mass" in self.rows:
                rows["dropped_mass"] = bond.dropped(reading)
            if training.partner is not None:
                logits = mixed(logits, training.partner(inputs.by(training.teacher_input)).float())
        if self.classes is not None:
            logits = logits[:, self.classes.to(y.device)]
            y = torch.searchsorted(self.classes.to(y.device), y)
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == y[:, None]
        found = (int(ranked[:, 0].sum()), int(ranked.any(1).sum()), float(F.cross_entropy(logits, y, reduction="sum")))
        self.sums += torch.tensor(found, dtype=torch.float64)
        for kind, values in rows.items():
            self.rows[kind] += count * torch.tensor(values)
        self.count += count

    def score(self, ranks: Ranks) -> dict[str, Any]:
        """Over what all ranks have counted."""
        count = ranks.total(torch.tensor(self.count))
        top1, top5, loss = (ranks.total(self.sums) / count).tolist()
        found: dict[str, Any] = {"top1": 100 * top1, "top5": 100 * top5, "loss": loss}
        if self.attention:
            found |= {"attention_kl": None, "dropped_mass": None}
            found |= {kind: (ranks.total(sums) / count).tolist() for kind, sums in self.rows.items()}
        return found


def mixed(one: Tensor, other: Tensor) -> Tensor:
    """Log-probabilities [B, classes] of an ensemble: the mean of the two models' probabilities."""
    return torch.stack([one.log_softmax(1), other.log_softmax(1)]).logsumexp(0) - math.log(2)


def layers_below_head(name: str, depth: int) -> int:
    """How far a parameter of a model of `depth` blocks lies below the head: 0 for the head and the norm before it."""
    parts = name.split(".")
    if parts[0] == "blocks":
        return depth - int(parts[1])
    return 0 if parts[0] in ("head", "norm", "fc_norm") else depth + 1


def normalised(images: Tensor, chosen: Normalisation) -> Tensor:
    """[B, 3, H, W] in 0..1 -> what students get."""
    mean, std = (torch.tensor(value, device=images.device).view(1, 3, 1, 1) for value in (chosen.mean, chosen.std))
    return (images - mean) / std


def precision_of(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    """The precision that a recipe trains and evaluates in."""
    if recipe.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, recipe.precision))


def peak_memory(device: torch.device) -> int:
    """Bytes: of the device, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what this process's parent had at its start
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        if found is not None:
            return int(found.group(1)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def weights_digest(path: Path) -> str:
    """sha256 of a state-dict file's tensors, independent of how they were stored. Raises WeightsError for a file that is
    damaged or no state dict."""
    digest = hashlib.sha256()
    for name, value in sorted(read_state(path).items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _save(content: Any, path: Path) -> None:
    with replacing(path) as file:
        torch.save(content, file)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 2**63
