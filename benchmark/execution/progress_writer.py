"""Write a run's progress, log and failure into its folder."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from benchmark.execution.setup import job_id
from benchmark.spec.plan import Item
from benchmark.storage.files import append, last_line, write_json, write_text
from benchmark.storage.provenance import utc_now
from benchmark.storage.work_folder import NO_REASON, Workspace

if TYPE_CHECKING:
    from benchmark.training.run_trainer import RunTrainer

PROGRESS_SECONDS, SIGN_SECONDS, LINE_SECONDS = 0.5, 10.0, 10.0


class ProgressWriter:
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

    def step(self, training: RunTrainer) -> None:
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

    def evaluating(self, training: RunTrainer) -> None:
        """A batch was evaluated: renew the last sign of life."""
        if self.speaks and time.monotonic() - self.last > SIGN_SECONDS:
            with suppress(OSError):
                self._progress(training)

    def _progress(self, training: RunTrainer) -> None:
        self.last = time.monotonic()
        write_json(self.folder / "progress.json", self.record("running", training.state.step, **self.numbers(training)))

    def numbers(self, training: RunTrainer) -> dict[str, Any]:
        """What a training can tell at any time."""
        from benchmark.training.run_trainer import peak_memory

        return {
            "loss": training.loss if math.isfinite(training.loss) else None,
            "batch_size": training.recipe.batch_size,
            "together": training.together,
            "images_per_second": round(training.images_per_second, 1),
            "peak_memory_mb": round(peak_memory(training.device) / 2**20, 1),
        }

    def _line(self, training: RunTrainer) -> None:
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
        reporter = ProgressWriter(workspace, item, launcher)
        reporter.deaths += died
        reporter.log(f"failed: {last}")
        write_json(folder / "progress.json", reporter.record("failed", reporter.at))
    except OSError as error:
        why = "" if str(error.strerror) in last else f": {last}"
        print(f"bench: {item.cells[0]} failed, {folder}: {error.strerror}{why}", file=sys.stderr, flush=True)
