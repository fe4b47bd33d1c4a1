"""One run: train, evaluate, and give back what a result file holds. Resumes from its folder's checkpoint exactly."""

from __future__ import annotations

import hashlib
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
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
from benchmark.plan import Run
from benchmark.transfer import Bond, kl_divergence

EVALUATION_BATCH = 500
NO_DECAY = ("*_token", "*pos_embed", "*relative_position_bias_table")  # and whatever is one-dimensional, in every class
CHECKPOINT, WEIGHTS = "checkpoint.pt", "weights.pt"

Progress = Callable[[int, float], None]


@dataclass
class State:
    """Where a training is: all of it that must survive a kill."""

    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)


class Training:
    """One run's models, data and optimiser. `folder` holds its checkpoint, and its last weights once it is done.

    Args:
        run: what is trained.
        family, size: the adapter that builds it (a label of one of the run's cells).
        folder: the run's own work folder.
        teacher_weights: state dict of the teacher's run; needed when the transfer has a teacher.
        device: torch device name.
        curve_points: how often val is measured on the way.
        code: digest of the code that trains; a checkpoint of another code is not resumed.
    """

    def __init__(
        self,
        run: Run,
        family: str,
        size: str,
        folder: Path,
        teacher_weights: Path | None,
        device: str,
        curve_points: int,
        code: str,
    ) -> None:
        self.code = code
        self.run, self.recipe, self.folder, self.device = run, run.protocol.recipe, folder, torch.device(device)
        self.points = {round(self.recipe.steps * (i + 1) / curve_points) for i in range(curve_points)}
        self.dataset = data.load(run.protocol.data)
        adapter = families.load(family)
        args = {
            **run.student.geometry.model_dump(),
            "global_pool": run.protocol.head,
            "num_classes": self.dataset.num_classes,
        }
        self.stream = f"{run.role}:{run.seed}"
        if run.role == "teacher":
            self.model = adapter.architecture(size, seed=run.seed, **args)
        else:
            self.model = adapter.student(size, seed=self.stream, native=run.student.components, **args)
        self.model.to(self.device)
        self.model.set_grad_checkpointing(self.recipe.grad_checkpointing)  # type: ignore[operator]
        teacher = None
        if run.teacher is not None:
            assert teacher_weights is not None
            teacher = adapter.teacher(size, pretrained=False, **args)
            teacher.load_state_dict(torch.load(teacher_weights, map_location="cpu", weights_only=True))
            teacher.to(self.device)
        self.bond = Bond(run.transfer, self.model, teacher)
        spared = [name for name, _ in self.model.named_parameters() if any(fnmatchcase(name, each) for each in NO_DECAY)]
        groups = param_groups_weight_decay(self.model, self.recipe.weight_decay, no_weight_decay_list=spared)
        self.optimizer = create_optimizer_v2(groups, opt="adamw", lr=self.recipe.lr, betas=self.recipe.betas)
        warmup = round(self.recipe.warmup * self.recipe.steps)
        self.schedule = CosineLRScheduler(
            self.optimizer, t_initial=max(1, self.recipe.steps - warmup), warmup_t=warmup,
            warmup_lr_init=self.recipe.lr / (warmup + 1), warmup_prefix=True, t_in_epochs=False,
        )  # fmt: skip
        self.state = State()

    def fit(self, progress: Progress, checkpoint_seconds: float) -> None:
        """Train to the last step, from the checkpoint where there is one. Raises FloatingPointError on a loss that is
        not finite."""
        self._resume()
        batches = self.dataset.train(self.stream, self.recipe.batch_size, self.state.step)
        last_saved = started = time.monotonic()
        before = self.state.seconds
        self.model.train()
        while self.state.step < self.recipe.steps:
            images, labels = next(batches)
            loss = self._step(images, labels)
            self.state.step += 1
            self.state.loss_sum, self.state.loss_count = self.state.loss_sum + loss, self.state.loss_count + 1
            if self.state.step in self.points:
                self._point()
            progress(self.state.step, loss)
            self.state.seconds = before + time.monotonic() - started
            if time.monotonic() - last_saved >= checkpoint_seconds:
                self._save()
                last_saved = time.monotonic()

    def finish(self) -> dict[str, Any]:
        """Evaluate once and keep the last weights; what the result file holds but for its labels and provenance."""
        val, test, *shifted = self.dataset.sets()
        metrics: dict[str, Any] = {**self.evaluate(test), "shift": {name: self.evaluate(name) for name in shifted}}
        metrics |= self._attention(test)
        _replace(self.model.state_dict(), self.folder / WEIGHTS)
        images = self.recipe.steps * self.recipe.batch_size
        return {"metrics": metrics, "val": self.evaluate(val), "curve": self.state.curve, "cost": self._cost(images)}

    @torch.no_grad()
    def evaluate(self, name: str) -> dict[str, float]:
        """top1 and top5 in percent and mean cross-entropy over every image of an evaluation set."""
        training = self.model.training
        self.model.eval()
        right1 = right5 = count = 0
        loss = 0.0
        for images, labels in self.dataset.evaluate(name, EVALUATION_BATCH):
            x, y = self._inputs(images), labels.to(self.device)
            with self._precision(), self.bond.guiding(x):
                logits = self.model(x).float()
            ranked = logits.topk(5, dim=1).indices == y[:, None]
            right1, right5 = right1 + int(ranked[:, 0].sum()), right5 + int(ranked.any(1).sum())
            loss += float(F.cross_entropy(logits, y, reduction="sum"))
            count += len(labels)
        self.model.train(training)
        return {"top1": 100 * right1 / count, "top5": 100 * right5 / count, "loss": loss / count}

    def _step(self, images: Tensor, labels: Tensor) -> float:
        torch.manual_seed(_number(f"{self.stream}:{self.state.step}"))
        self.schedule.step_update(self.state.step)
        x, y = self._inputs(images), labels.to(self.device)
        self.optimizer.zero_grad()
        with ExitStack() as guided:
            with self._precision():  # the teacher reads in the same precision as in evaluation
                guided.enter_context(self.bond.guiding(x))
                loss = F.cross_entropy(self.model(x).float(), y) + self.bond.loss()
            loss.backward()
        if self.recipe.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        self.optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} at step {self.state.step}")
        return value

    def _inputs(self, images: Tensor) -> Tensor:
        chosen = self.run.protocol.normalisation
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (chosen.mean, chosen.std))
        return (images.to(self.device) - mean) / std

    def _precision(self) -> AbstractContextManager[Any]:
        if self.recipe.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.recipe.precision))

    def _point(self) -> None:
        state = self.state
        top1 = self.evaluate("val")["top1"]
        state.curve.append({"step": state.step, "loss": state.loss_sum / state.loss_count, "val_top1": top1})
        state.loss_sum, state.loss_count = 0.0, 0

    @torch.no_grad()
    def _attention(self, name: str) -> dict[str, list[float] | None]:
        """By transferred block on an evaluation set: KL of a distilled student's own map from the teacher's, and the mass
        dropped with tokens that the student has not."""
        bond = self.bond
        found: dict[str, list[float] | None] = {"attention_kl": None, "dropped_mass": None}
        if bond.teacher is None:
            return found
        self.model.eval()
        sums: dict[str, Tensor] = {}
        count = 0
        for images, _ in self.dataset.evaluate(name, EVALUATION_BATCH):
            x = self._inputs(images)
            count += len(images)
            rows: dict[str, list[float]] = {}
            with self._precision(), bond.guiding(x):
                if bond.alignment.teacher_extra:
                    rows["dropped_mass"] = bond.dropped(bond.read(x))
                if self.run.transfer.method == "distill":
                    self.model(x)
                    blocks = self.run.transfer.blocks
                    rows["attention_kl"] = [float(kl_divergence(bond.routes[b], bond.own(b))) for b in blocks]
            for kind, values in rows.items():
                sums[kind] = sums.get(kind, torch.zeros(len(values))) + len(images) * torch.tensor(values)
        return found | {kind: (total / count).tolist() for kind, total in sums.items()}

    def _cost(self, images: int) -> dict[str, Any]:
        on_gpu = self.device.type == "cuda"
        unit = 1 if sys.platform == "darwin" else 1024
        peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return {
            "seconds": round(self.state.seconds, 3),
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "images_per_second": round(images / max(self.state.seconds, 1e-9), 1),
            "peak_memory_mb": round(peak / 2**20, 1),
        }

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        saved = torch.load(path, map_location=self.device, weights_only=True) if path.exists() else None
        if saved is not None and saved["code"] == self.code:  # a run is made by one code from beginning to end
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.state = State(**saved["state"])

    def _save(self) -> None:
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "state": vars(self.state)}
        _replace(parts | {"code": self.code}, self.folder / CHECKPOINT)


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
