"""One run: its student, its learning curve, and a checkpoint that it resumes from exactly."""

from __future__ import annotations

import math
import re
import resource
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.spec.evaluations import measured_on
from benchmark.spec.run import Run
from benchmark.storage.files import set_aside
from benchmark.storage.work_folder import RunFolder
from benchmark.training.checkpoint import Checkpoint, Progress, read_checkpoint, save, take_optimizer
from benchmark.training.distributed import ALONE, Ranks
from benchmark.training.models import model_of
from benchmark.training.student import Student
from benchmark.training.subject import Subject
from benchmark.transfer.teacher_reader import Reader
from families.core.seeds import seed_of
from families.spec import WeightsError


class RunTrainer:
    """One run: its student and its progress.

    Args:
        run: the run.
        folder: its files: the checkpoint, and the last weights once it has finished.
        reader: the teacher; needed if the transfer needs one.
        device: torch device name.
        curve_points: number of points of its learning curve.
        code: digest of the code; a checkpoint of another code is not resumed.
        files: the teacher's weights: those that a `run` left, or pre-trained `weights`.
        ranks: the processes that train it together.
    """

    def __init__(
        self, run: Run, folder: RunFolder, reader: Reader | None, device: str,
        curve_points: int, code: str, files: Mapping[str, Path] | None = None, ranks: Ranks = ALONE,
    ) -> None:  # fmt: skip
        self.run, self.recipe, self.folder, self.code, self.device = run, run.protocol.recipe, folder, code, torch.device(device)
        self.points = {round(self.recipe.steps * (i + 1) / curve_points) for i in range(curve_points)}
        self.state, self.together, self.ranks, self.loss, self.counted = Progress(), 1, ranks, math.nan, True
        self.val: dict[str, float] | None = None
        self.writing: Future[None] | None = None
        self.model = model_of(run, files or {}).to(self.device)
        self.student = Student(self.model, run.transfer, reader, self.recipe, ranks)
        self.subject = Subject(run, self.model, self.student.transfer)
        self.input, self.teacher_input = self.subject.input, self.subject.teacher_input

    @property
    def reader(self) -> Reader | None:
        """The teacher that its student learns from."""
        return self.subject.reader

    def resume(self) -> None:
        """Resume from the checkpoint, if there is one of this run and code.

        A checkpoint that is damaged or another run's is set aside, with a line on stderr.
        """
        path = self.folder.checkpoint
        if not path.exists():
            return
        try:
            saved = read_checkpoint(path, self._checkpoint())
            if saved is not None:
                take_optimizer(self.student.optimizer, saved, path)
        except WeightsError as error:  # a node that went down may leave half of it
            if self.ranks.first:
                print(f"bench: {error}", file=sys.stderr, flush=True)
                set_aside(path)
            return
        if saved is not None:
            self.model.load_state_dict(saved.model)
            if self.student.average is not None and saved.average is not None:
                self.student.average.module.load_state_dict(saved.average)
            if self.student.masked is not None and saved.masked is not None:
                self.student.masked.load_state_dict(saved.masked)
            self.state = saved.progress

    def _checkpoint(self) -> Checkpoint:
        student = self.student
        average = None if student.average is None else student.average.module.state_dict()
        masked = None if student.masked is None else student.masked.state_dict()
        model, optimizer = self.model.state_dict(), student.optimizer.state_dict()
        return Checkpoint(self.run.key, self.code, model, optimizer, self.state, average, masked)

    def save(self, background: bool = False) -> None:
        """Write the checkpoint, after the one before it. Raises OSError if either write fails; with
        `background` it returns at once, and `wait_for_write` raises."""
        self.wait_for_write()
        if background:
            self.writing = self._checkpoint().write_in_background(self.folder.checkpoint)
        else:
            self._checkpoint().write(self.folder.checkpoint)

    @property
    def is_writing(self) -> bool:
        """Whether a background write of its checkpoint has not ended."""
        return self.writing is not None and not self.writing.done()

    def wait_for_write(self) -> None:
        """Wait for the background write of the checkpoint, if there is one. Raises OSError if it
        failed."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

    def begin(self) -> None:
        """Prepare the next step."""
        self.model.train()
        self.val = None
        self.student.begin(self.state.step)

    def learn(self, *given: Any) -> Tensor:
        """As Student.learn, with random numbers that depend on the run and its step alone."""
        torch.manual_seed(seed_of(self.run.stream, self.state.step))
        return self.student.learn(*given)

    def update(self) -> None:
        """Take the optimiser's step, which `end` then counts."""
        self.counted = False
        self.student.update()

    def end(self, loss: float) -> None:
        """Count the step. `loss` is that of the whole batch; raises FloatingPointError if it is not
        finite."""
        state = self.state
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {state.step + 1}")
        self.loss, self.counted = loss, True
        state.step += 1
        state.loss_sum, state.loss_count = state.loss_sum + loss, state.loss_count + 1

    @property
    def due(self) -> bool:
        """Whether a point of the curve is due before the next step."""
        curve, step = self.state.curve, self.state.step
        return step in self.points and (not curve or curve[-1]["step"] != step)

    def point(self, val: dict[str, float]) -> None:
        """Add a point to the learning curve."""
        state, self.val = self.state, val
        name = self.run.metric
        state.curve.append({"step": state.step, "loss": state.loss_sum / state.loss_count, f"val_{name}": val[name]})
        state.loss_sum, state.loss_count = 0.0, 0

    def finish(self, val: dict[str, Any], test: dict[str, Any], shifted: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Write the last weights (averaged, if the recipe averages); gives the result without
        labels and provenance."""
        self.wait_for_write()
        if self.ranks.first:
            with self.student.averaged():
                save(self.model.state_dict(), self.folder.weights)
        found = {name: score | {"on": measured_on(self.run, name)} for name, score in shifted.items()}
        val, test = val | {"on": measured_on(self.run, "val")}, test | {"on": measured_on(self.run, "test")}
        return {"metrics": test, "evaluations": found, "val": val, "curve": self.state.curve, "cost": self._cost()}

    @property
    def images_per_second(self) -> float:
        """Training images of the whole batch per second of the run's own steps."""
        return self.state.step * self.recipe.batch_size / max(self.state.seconds, 1e-9)

    def _cost(self) -> dict[str, Any]:
        return {
            "seconds": round(self.state.seconds, 3),
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            "images_per_second": round(self.images_per_second, 1),
            "peak_memory_mb": round(peak_memory(self.device) / 2**20, 1),
            "together": self.together,
            "kwh": self.state.whole_kwh,
        } | ({"ranks": self.ranks.size} if self.ranks.size > 1 else {})


def peak_memory(device: torch.device) -> int:
    """The peak memory in bytes: of a GPU, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what this process's parent had at its start
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        if found is not None:
            return int(found.group(1)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
