"""Write a run's progress, log and failure into its folder."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmark.execution.setup import job_id
from benchmark.execution.trackers import Tracked, Tracker, load
from benchmark.spec.plan import Item
from benchmark.spec.run import Run
from benchmark.storage.files import append, last_line, write_text
from benchmark.storage.provenance import utc_now
from benchmark.storage.scores import told
from benchmark.storage.work_folder import NO_REASON, Progress, Workspace
from families.spec import one_line

if TYPE_CHECKING:
    from benchmark.training.run_trainer import RunTrainer

PROGRESS_SECONDS, SIGN_SECONDS, LINE_SECONDS = 0.5, 10.0, 10.0


class ProgressWriter:
    """Writes a run's progress at most twice a second, its log, a JSON line with each line of
    numbers, and sends these to trackers. A silent one writes nothing."""

    def __init__(
        self, workspace: Workspace, item: Item, launcher: str, trackers: Sequence[str] = (), speaks: bool = True
    ) -> None:
        self.launcher, self.item, self.names, self.speaks = launcher, item, trackers, speaks
        self.workspace, self.key, self.folder = workspace, item.key, workspace.run(item.key)
        self.steps = max(1, item.steps)
        self.last, self.last_line, self.begun, self.job = 0.0, 0.0, False, job_id()
        self.trackers: dict[str, Tracker] = {}
        before = workspace.progress(item.key)
        self.at, self.deaths = before.step, before.deaths

    def begin(self, line: str) -> None:
        """A worker starts or resumes the run."""
        if not self.speaks:
            return
        self.folder.error.unlink(missing_ok=True)
        self.write(self.record("running", 0))
        self.log(line)
        for name in () if self.item.evaluation else self.names:
            with self._tracking(name):
                self.trackers[name] = load(name)(tracked(self.item, self.folder.path))

    def step(self, training: RunTrainer) -> None:
        """Record a step."""
        state, now = training.state, time.monotonic()
        if not self.speaks:
            return
        self.at = state.step
        with suppress(OSError):  # a folder that is unreachable for a moment ends no training
            if not self.begun:
                self.begun = True
                self.log(f"training from step {state.step - 1}")
            if now - self.last > PROGRESS_SECONDS:
                self._progress(training)
            if now - self.last_line > LINE_SECONDS or state.step in training.points:
                self.last_line = now
                self._line(training)

    def evaluating(self, training: RunTrainer | None = None) -> None:
        """Give a sign of life after an evaluated batch; with no training, of a finished run."""
        if self.speaks and time.monotonic() - self.last > SIGN_SECONDS:
            with suppress(OSError):
                if training is not None:
                    self._progress(training)
                    return
                self.last = time.monotonic()
                self.write(self.record("running", 0))

    def _progress(self, training: RunTrainer) -> None:
        self.last = time.monotonic()
        self.write(self.record("running", training.state.step, **self.numbers(training)))

    def numbers(self, training: RunTrainer) -> dict[str, Any]:
        """Loss, speed and memory of a training."""
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
        name = f"val_{training.run.metric}"
        lr = max(group["lr"] for group in training.student.optimizer.param_groups)
        line = {
            "time": utc_now(),
            "step": state.step,
            "steps": recipe.steps,
            "lr": lr,
            name: None if training.val is None else training.val[training.run.metric],
            **self.numbers(training),
        }
        append(self.folder.log_lines, json.dumps(line) + "\n")
        val = "" if training.val is None else f", val {told(training.val)}"
        pace = f"{line['images_per_second']} images/s"
        self.log(f"step {state.step}/{recipe.steps}: loss {training.loss:.4f}, lr {lr:.2e}, {pace}{val}")
        found = {each: line[each] for each in ("loss", "lr", "images_per_second", name) if line[each] is not None}
        for each, tracker in list(self.trackers.items()):
            with self._tracking(each):
                tracker.log(found, state.step)

    @contextmanager
    def _tracking(self, name: str) -> Iterator[None]:
        """Within: an error of a tracker ends it with a line in the log, and never the training."""
        try:
            yield
        except Exception as error:
            self.trackers.pop(name, None)
            self.log(f"tracker {name} is left out from here on: {one_line(error)}")

    def close(self, summary: Mapping[str, float] | None = None) -> None:
        """End the trackers, with scores on test if the run has finished."""
        for name, tracker in list(self.trackers.items()):
            with self._tracking(name):
                tracker.close(summary or {})
        self.trackers.clear()

    def give_back(self) -> None:
        """Leave the run, with its checkpoint, to any worker."""
        self.close()
        if self.speaks:
            self.write(self.record("interrupted", self.at, launcher=None))
            self.log(f"given back at step {self.at}")

    def record(self, state: Literal["running", "interrupted", "failed"], step: int, **changes: Any) -> Progress:
        """The run's progress now."""
        where = {"launcher": self.launcher, "job": self.job, "pid": os.getpid(), "updated": time.time()}
        how_far = {"state": state, "step": step, "steps": self.steps, "loss": None, "deaths": self.deaths}
        return Progress(**(where | how_far | changes))

    def write(self, progress: Progress) -> None:
        """Replace the stored progress."""
        self.workspace.write_progress(self.key, progress)

    def log(self, line: str) -> None:
        """Add a line to the run's log. An error of the file system is ignored."""
        if self.speaks:
            with suppress(OSError):
                append(self.folder.log, f"{utc_now()} {line}\n")


def tracked(item: Item, folder: Path) -> Tracked:
    """A run as trackers see it."""
    cell = item.cells[0]
    return Tracked(f"{cell.family}/{cell.size}/{cell.arm}-s{cell.seed}", cell.protocol, item.key, dict(_flat(item.run)), folder)


def _flat(run: Run) -> Iterator[tuple[str, Any]]:
    def parts(place: str, content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, value in content.items():
            if isinstance(value, Mapping):
                yield from parts(f"{place}{name}.", value)
            else:
                yield f"{place}{name}", value

    return parts("", run.model_dump(mode="json"))


def mark_failed(workspace: Workspace, item: Item, launcher: str, reason: str, died: bool = False) -> None:
    """Write why a run failed into its folder, or to stderr where that is impossible, as on a full
    disk. `died` counts a worker's death over it."""
    folder, last = workspace.run(item.key), last_line(reason, NO_REASON)
    try:
        write_text(folder.error, reason)
        reporter = ProgressWriter(workspace, item, launcher)
        reporter.deaths += died
        reporter.log(f"failed: {last}")
        reporter.write(reporter.record("failed", reporter.at))
    except OSError as error:
        why = "" if str(error.strerror) in last else f": {last}"
        print(f"bench: {item} failed, {folder.path}: {error.strerror}{why}", file=sys.stderr, flush=True)
