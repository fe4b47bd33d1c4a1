"""The progress of runs in training: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich import progress as bars
from rich.console import Console

from benchmark.spec.plan import Item
from benchmark.storage.scores import field_of, told
from benchmark.storage.work_folder import Progress, Workspace

HEARTBEAT_SECONDS = 30.0


class LiveProgress:
    """Follows runs by their progress files while it is entered."""

    def __init__(self, console: Console, items: Sequence[Item], workspace: Workspace) -> None:
        self.console, self.items, self.workspace = console, items, workspace
        self.since = time.time()
        self.over: set[str] = set()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.heartbeat = time.monotonic()
        self.bars: bars.Progress | None = None
        self.tasks: dict[str, bars.TaskID] = {}

    def __enter__(self) -> LiveProgress:
        if self.console.is_terminal:
            columns = (
                bars.TextColumn("{task.description}"), bars.BarColumn(bar_width=24), bars.MofNCompleteColumn(),
                bars.TimeElapsedColumn(), bars.TimeRemainingColumn(), bars.TextColumn("{task.fields[pace]}"),
            )  # fmt: skip
            self.bars = bars.Progress(*columns, console=self.console, transient=True)
            self.bars.start()
            total = sum(item.steps for item in self.items)
            self.tasks["all"] = self.bars.add_task(f"[bold]{len(self.items)} runs, steps", total=total, pace="")
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop.set()
        self.thread.join()
        self._look()
        if self.bars is not None:
            self.bars.stop()

    def _follow(self) -> None:
        while not self.stop.wait(0.5):
            self._look()

    def _look(self) -> None:
        steps, running = 0, []
        for item in self.items:
            if item.key in self.over:
                steps += item.steps
                continue
            progress = self.workspace.progress(item.key)
            if progress.state is None or progress.updated < self.since:
                continue
            if progress.state == "running":
                steps += progress.step
                running.append((item, progress))
            else:
                self._end(item, progress.state)
        if self.bars is not None:
            self._draw(steps, running)
        elif time.monotonic() - self.heartbeat > HEARTBEAT_SECONDS:
            self.heartbeat = time.monotonic()
            self.console.print(f"running: {summary(running) or 'workers are starting'}", highlight=False, soft_wrap=True)

    def _draw(self, steps: int, running: list[tuple[Item, Progress]]) -> None:
        assert self.bars is not None
        self.bars.update(self.tasks["all"], completed=steps)
        for item, at in running:
            if item.key not in self.tasks:
                self.tasks[item.key] = self.bars.add_task(f"  {item}", total=at.steps, pace="")
            self.bars.update(self.tasks[item.key], completed=at.step, pace=pace(at))

    def _end(self, item: Item, state: str) -> None:
        self.over.add(item.key)
        if self.bars is not None and item.key in self.tasks:
            self.bars.remove_task(self.tasks.pop(item.key))
        count = f"[{len(self.over):{len(str(len(self.items)))}}/{len(self.items)}]"
        payload = self.workspace.payload(item.key)
        told = _scores(payload) if payload and state == "finished" else self.workspace.error(item.key)
        self.console.print(f"{count} {state} {item}: {told}", highlight=False, markup=False, soft_wrap=True)


def summary(running: Sequence[tuple[Item, Progress]]) -> str:
    """One line: of each process the run that is furthest behind, and how many train beside it."""
    processes: dict[int | None, list[tuple[Item, Progress]]] = {}
    for item, at in running:
        processes.setdefault(at.pid, []).append((item, at))
    told = []
    for beside in processes.values():
        item, at = min(beside, key=lambda each: each[1].step / each[1].steps)
        others = f" and {len(beside) - 1} beside it" if len(beside) > 1 else ""
        told.append(f"{item}{others} {at.step}/{at.steps} {pace(at)}".rstrip())
    return "; ".join(told)


def pace(progress: Progress) -> str:
    """A run's throughput, memory and remaining time; empty before its first step."""
    rate = progress.images_per_second
    if not rate or not progress.step:
        return ""
    each = (progress.batch_size or 0) / rate * (progress.together or 1)  # runs beside it take their steps in between
    left = round((progress.steps - progress.step) * each)
    hours, minutes = divmod(left // 60, 60)
    remaining = f"{hours} h {minutes} min" if hours else f"{minutes} min {left % 60} s"
    return f"{rate:.0f} images/s, {(progress.peak_memory_mb or 0) / 1024:.1f} GiB, {remaining} left"


def _scores(payload: dict[str, Any]) -> str:
    """The top-1 of a finished run, or of each score of an evaluation."""
    if "metrics" in payload:
        return told(payload["metrics"], 1)
    return ", ".join(f"{name} {score[field_of(score)]:.1f}" for name, score in payload["evaluations"].items())
