"""One run: its student, its learning curve, and a checkpoint that it resumes from exactly."""

from __future__ import annotations

import math
import re
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.spec.run import Run
from benchmark.storage.files import replacing, set_aside
from benchmark.storage.work_folder import RunFolder
from benchmark.training.distributed import ALONE, Ranks
from benchmark.training.models import load_state, model_of, teachers_input, trained
from benchmark.training.student import Student
from benchmark.transfer.teacher_reader import TeacherReader
from families.core.checkpoints import WeightsError, read_torch
from families.core.seeds import seed_of

ANEW = "set aside, and the run starts anew"  # what becomes of a checkpoint that is not believed


@dataclass
class State:
    """Where a training is: all of it that must survive a kill."""

    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)


class RunTrainer:
    """One run: its student, and where its training is. `folder` holds its checkpoint, and its last weights once it is done.

    Args:
        run: what is trained.
        folder: the run's files.
        reader: the teacher; needed when the transfer has one.
        device: torch device name.
        curve_points: how often val is measured on the way.
        code: digest of the code that trains; a checkpoint of another code is not resumed.
        files: by what `run.teacher` calls it (`run`, `weights`, `student`, `ensemble`), where its weights lie.
        ranks: the processes that train it together.
    """

    def __init__(
        self, run: Run, folder: RunFolder, reader: TeacherReader | None, device: str,
        curve_points: int, code: str, files: Mapping[str, Path] | None = None, ranks: Ranks = ALONE,
    ) -> None:  # fmt: skip
        self.run, self.recipe, self.folder, self.code, self.device = run, run.protocol.recipe, folder, code, torch.device(device)
        steps = {round(self.recipe.steps * (i + 1) / curve_points) for i in range(curve_points)}
        self.points = steps if run.is_trained else set()
        self.state, self.together, self.ranks, self.loss = State(), 1, ranks, math.nan
        self.val: dict[str, float] | None = None
        self.teacher_input = teachers_input(run)
        self.input = self.teacher_input if run.is_finetuned else run.protocol.normalisation
        self.model = model_of(run, files or {}).to(self.device)
        self.partner: nn.Module | None = None
        if not run.is_trained:
            self.state.step = self.recipe.steps
            if files and "student" in files:
                load_state(self.model, files["student"])
            if files and "ensemble" in files:
                self.partner = trained(run, files["ensemble"]).to(self.device)
        self.student = Student(self.model, run.transfer, reader, self.recipe, ranks)

    @property
    def reader(self) -> TeacherReader | None:
        """The teacher that its student learns from."""
        return self.student.transfer.reader

    def resume(self) -> None:
        """Go on from the folder's checkpoint, where there is one of this run and code. A damaged one, or what is none of this
        run's, is set aside with a line on stderr: the run starts anew."""
        path = self.folder.checkpoint
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
            raise WeightsError(f"{self.folder.checkpoint}: not a checkpoint of run {self.run.key}; {ANEW}")
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
        _save(self._parts(), self.folder.checkpoint)

    def begin(self) -> None:
        """Make ready for the next step."""
        self.model.train()
        self.val = None
        self.student.begin(self.state.step)

    def learn(self, *given: Any) -> Tensor:
        """As the student's; what it does depends on nothing but the run and what came before."""
        torch.manual_seed(seed_of(self.run.stream, self.state.step))
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
        if self.ranks.first and self.run.is_trained:
            with self.student.averaged():
                _save(self.model.state_dict(), self.folder.weights)
        metrics = test | {"shift": shifted}
        return {"metrics": metrics, "val": val, "curve": self.state.curve, "cost": self._cost()}

    @property
    def images_per_second(self) -> float:
        """Training images of the whole batch per second of its own steps."""
        done = 0 if not self.run.is_trained else self.state.step
        return done * self.recipe.batch_size / max(self.state.seconds, 1e-9)

    def _cost(self) -> dict[str, Any]:
        return {
            "seconds": round(self.state.seconds, 3),
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            "images_per_second": round(self.images_per_second, 1),
            "peak_memory_mb": round(peak_memory(self.device) / 2**20, 1),
            "together": self.together,
        } | ({"ranks": self.ranks.size} if self.ranks.size > 1 else {})


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


def _save(content: Any, path: Path) -> None:
    with replacing(path) as file:
        torch.save(content, file)
