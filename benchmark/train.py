"""Training: one student's step, one run that resumes exactly, and runs that share what they have in common.

Runs of one data order train together: the batch is made once and the teacher runs once, then each student takes a step of
its own. What a run computes does not depend on who trains beside it.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn

import families
from benchmark import data
from benchmark.plan import Run, Transfer
from benchmark.protocol import Normalisation, Recipe
from benchmark.transfer import Bond, Reader, Reading

EVALUATION_BATCH = 500
NO_DECAY = ("*_token", "*pos_embed", "*relative_position_bias_table")  # and whatever is one-dimensional, in every class
CHECKPOINT, WEIGHTS = "checkpoint.pt", "weights.pt"
SCORE = ("top1", "top5", "loss")


class Student:
    """A model that learns: its optimiser, its schedule and its tie to a teacher.

    Args:
        model: on its device.
        transfer, reader: what is transferred, and the teacher it comes from (None without transfer).
        recipe: of the training.
    """

    def __init__(self, model: nn.Module, transfer: Transfer, reader: Reader | None, recipe: Recipe) -> None:
        self.model, self.recipe = model, recipe
        model.set_grad_checkpointing(recipe.grad_checkpointing)  # type: ignore[operator]
        self.bond = Bond(transfer, model, reader)
        spared = [name for name, _ in model.named_parameters() if any(fnmatchcase(name, each) for each in NO_DECAY)]
        groups = param_groups_weight_decay(model, recipe.weight_decay, no_weight_decay_list=spared)
        self.optimizer = create_optimizer_v2(groups, opt="adamw", lr=recipe.lr, betas=recipe.betas)
        warmup = round(recipe.warmup * recipe.steps)
        self.schedule = CosineLRScheduler(
            self.optimizer, t_initial=max(1, recipe.steps - warmup), warmup_t=warmup,
            warmup_lr_init=recipe.lr / (warmup + 1), warmup_prefix=True, t_in_epochs=False,
        )  # fmt: skip

    def step(
        self, number: int, x: Tensor, y: Tensor, reading: Reading, mark: Callable[[str], None] = lambda phase: None
    ) -> float:
        """Step `number` on normalised images x [B, 3, H, W] with labels y [B]; gives the loss before it.

        `mark` is told the name of each phase as it ends. Raises FloatingPointError on a loss that is not finite.
        """
        self.schedule.step_update(number)
        self.optimizer.zero_grad()
        with ExitStack() as guided:
            with precision_of(self.recipe, x.device):
                guided.enter_context(self.bond.guiding(reading))
                loss = F.cross_entropy(self.model(x).float(), y) + self.bond.loss()
            mark("forward")
            loss.backward()
        mark("backward")
        if self.recipe.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        self.optimizer.step()
        value = float(loss.detach())
        mark("update")
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} at step {number + 1}")
        return value


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
    """

    def __init__(
        self, run: Run, family: str, size: str, folder: Path, reader: Reader | None, device: str, curve_points: int, code: str
    ) -> None:  # fmt: skip
        self.run, self.recipe, self.folder, self.code, self.device = run, run.protocol.recipe, folder, code, torch.device(device)
        self.points = {round(self.recipe.steps * (i + 1) / curve_points) for i in range(curve_points)}
        adapter = families.load(family)
        if run.role == "teacher":
            self.model = adapter.architecture(size, seed=run.seed, **timm_args(run))
        else:
            self.model = adapter.student(size, seed=run.stream, native=run.student.components, **timm_args(run))
        self.model.to(self.device)
        self.student = Student(self.model, run.transfer, reader, self.recipe)
        self.state = State()
        self.val: dict[str, float] | None = None
        self.together = 1

    def resume(self) -> None:
        """Go on from the folder's checkpoint, where there is one of this code."""
        path = self.folder / CHECKPOINT
        saved = torch.load(path, map_location=self.device, weights_only=True) if path.exists() else None
        if saved is not None and saved["code"] == self.code:  # a run is made by one code from beginning to end
            self.model.load_state_dict(saved["model"])
            self.student.optimizer.load_state_dict(saved["optimizer"])
            self.state = State(**saved["state"])

    def save(self) -> None:
        """Write the checkpoint."""
        parts = {"model": self.model.state_dict(), "optimizer": self.student.optimizer.state_dict(), "state": vars(self.state)}
        _replace(parts | {"code": self.code}, self.folder / CHECKPOINT)

    def step(self, x: Tensor, y: Tensor, reading: Reading) -> float:
        """Take the next step; what it does depends on nothing but the run and what came before."""
        state = self.state
        torch.manual_seed(_number(f"{self.run.stream}:{state.step}"))
        self.model.train()
        self.val = None
        loss = self.student.step(state.step, x, y, reading)
        state.step += 1
        state.loss_sum, state.loss_count = state.loss_sum + loss, state.loss_count + 1
        return loss

    def point(self, val: dict[str, float]) -> None:
        """Add a point to the learning curve."""
        state, self.val = self.state, val
        state.curve.append({"step": state.step, "loss": state.loss_sum / state.loss_count, "val_top1": val["top1"]})
        state.loss_sum, state.loss_count = 0.0, 0

    def finish(self, val: dict[str, Any], test: dict[str, Any], shifted: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Keep the last weights; what the result file holds but for its labels and provenance."""
        _replace(self.model.state_dict(), self.folder / WEIGHTS)
        metrics = test | {"shift": shifted}
        return {"metrics": metrics, "val": val, "curve": self.state.curve, "cost": self._cost()}

    def _cost(self) -> dict[str, Any]:
        images = self.recipe.steps * self.recipe.batch_size
        return {
            "seconds": round(self.state.seconds, 3),
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            "images_per_second": round(images / max(self.state.seconds, 1e-9), 1),
            "peak_memory_mb": round(peak_memory(self.device) / 2**20, 1),
            "together": self.together,
        }


@dataclass
class Watcher:
    """Who follows trainings: is told of each step with its loss, of the end with what `Training.finish` gave, of a failure."""

    stepped: Callable[[Training, float], None]
    ended: Callable[[Training, dict[str, Any]], None]
    failed: Callable[[Training, Exception], None]


class Together:
    """Trainings of one data order, each to its end, from their checkpoints where there are any.

    One that raises is reported and leaves the others running. One whose checkpoint is older catches up first: a batch is a
    pure function of the step. Runs that cannot share a batch are refused with a ValueError.
    """

    def __init__(self, trainings: Sequence[Training], watcher: Watcher, checkpoint_seconds: float) -> None:
        if len({training.run.companions for training in trainings}) != 1:
            raise ValueError("runs that train together need the same data, order and batch")
        first = trainings[0]
        self.alive, self.watcher, self.checkpoint_seconds = list(trainings), watcher, checkpoint_seconds
        self.device, self.recipe, self.stream = first.device, first.recipe, first.run.stream
        self.normalisation: Normalisation = first.run.protocol.normalisation
        self.dataset = data.load(first.run.protocol.data)
        for training in trainings:
            training.together = len(trainings)

    def train(self) -> None:
        """Train all of them."""
        for training in list(self.alive):
            with self._isolated(training):
                training.resume()
        batches: Iterator[data.Batch] = iter(())
        position = -1
        last_saved = time.monotonic()
        while self.alive:
            now = min(training.state.step for training in self.alive)
            here = [training for training in self.alive if training.state.step == now]
            self._end([training for training in here if now >= training.recipe.steps])
            here = [training for training in here if now < training.recipe.steps]
            if not here:
                continue
            if position != now:
                batches = self.dataset.train(self.stream, self.recipe.batch_size, now)
            self._step(here, batches)
            position = now + 1
            if time.monotonic() - last_saved >= self.checkpoint_seconds:
                for training in list(self.alive):
                    with self._isolated(training):
                        training.save()
                last_saved = time.monotonic()

    def _step(self, trainings: Sequence[Training], batches: Iterator[data.Batch]) -> None:
        began = self._now()
        images, labels = next(batches)
        x, y = normalised(images.to(self.device), self.normalisation), labels.to(self.device)
        self._charge(trainings, began)
        readings = self._read(trainings, x, charge=True)
        losses = {}
        for training in [each for each in trainings if each in self.alive]:
            began = self._now()
            with self._isolated(training):
                losses[id(training)] = training.step(x, y, readings[id(training.student.bond.reader)])
                self._charge([training], began)
        del readings
        measured = [training for training in trainings if training in self.alive and training.state.step in training.points]
        val = self.dataset.sets()[0]
        for training, score in self.evaluate(measured, val):
            training.point(score)
        for training in trainings:
            if training in self.alive:
                with self._isolated(training):
                    self.watcher.stepped(training, losses[id(training)])

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
        """For each training top1 and top5 in percent and mean cross-entropy over every image of an evaluation set.

        With `attention` also, by transferred block: `attention_kl` of a distilled student's own map from the teacher's, and
        `dropped_mass` with tokens that the student has not; None where there is none.
        """
        tallies = [(training, _Tally()) for training in trainings]
        for images, labels in self.dataset.evaluate(name, EVALUATION_BATCH) if tallies else ():
            x, y = normalised(images.to(self.device), self.normalisation), labels.to(self.device)
            readings = self._read([training for training, _ in tallies], x)
            for training, tally in tallies:
                if training in self.alive:
                    with self._isolated(training):
                        tally.add(training, x, y, readings[id(training.student.bond.reader)], attention)
        return [(training, tally.score(attention)) for training, tally in tallies if training in self.alive]

    def _read(self, trainings: Sequence[Training], x: Tensor, charge: bool = False) -> dict[int, Reading]:
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
                    readings[id(reader)] = reader.read(x)
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


class _Tally:
    """One training's counts over an evaluation set."""

    def __init__(self) -> None:
        self.count, self.sums = 0, dict.fromkeys(SCORE, 0.0)
        self.rows: dict[str, Tensor] = {}

    def add(self, training: Training, x: Tensor, y: Tensor, reading: Reading, attention: bool) -> None:
        bond, count = training.student.bond, len(y)
        training.model.eval()
        watching = bond.comparing if attention else bond.guiding
        rows = {}
        with precision_of(training.recipe, x.device), watching(reading) as own:
            logits = training.model(x).float()
            if attention and own:
                rows["attention_kl"] = bond.divergence(own)
            if attention and bond.reader is not None and bond.alignment.teacher_extra:
                rows["dropped_mass"] = bond.dropped(reading)
        ranked = logits.topk(5, dim=1).indices == y[:, None]
        found = (int(ranked[:, 0].sum()), int(ranked.any(1).sum()), float(F.cross_entropy(logits, y, reduction="sum")))
        for key, value in zip(SCORE, found, strict=True):
            self.sums[key] += value
        for kind, values in rows.items():
            self.rows[kind] = self.rows.get(kind, torch.zeros(len(values))) + count * torch.tensor(values)
        self.count += count

    def score(self, attention: bool) -> dict[str, Any]:
        top1, top5, loss = (self.sums[key] / self.count for key in SCORE)
        found: dict[str, Any] = {"top1": 100 * top1, "top5": 100 * top5, "loss": loss}
        if attention:
            found |= {"attention_kl": None, "dropped_mass": None}
            found |= {kind: (total / self.count).tolist() for kind, total in self.rows.items()}
        return found


def timm_args(run: Run) -> dict[str, Any]:
    """The arguments that give a run's models their geometry, head and classes."""
    classes = data.load(run.protocol.data).num_classes
    return {**run.student.geometry.model_dump(), "global_pool": run.protocol.head, "num_classes": classes}


def read_teacher(run: Run, family: str, size: str, weights: Path, device: str) -> Reader:
    """The trained teacher of a run, from its state-dict file, to be read in the blocks that are transferred."""
    model = families.load(family).teacher(size, pretrained=False, **timm_args(run))
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    given = run.transfer
    return Reader(model.to(device), given.blocks, given.teacher_precision, given.compile_teacher)


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
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what this process's parent had at its start
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        if found is not None:
            return int(found.group(1)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def weights_digest(path: Path) -> str:
    """sha256 of a state-dict file's tensors, independent of how they were stored."""
    digest = hashlib.sha256()
    for name, value in sorted(torch.load(path, map_location="cpu", weights_only=True).items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _replace(content: Any, path: Path) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    torch.save(content, temporary)
    os.replace(temporary, path)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 2**63
