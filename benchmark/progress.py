"""What runs, how far, what is left: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmark.plan import Item
from benchmark.store import Workspace

HEARTBEAT_SECONDS = 30.0


class Board:
    """Follows runs by their progress files while it is entered."""

    def __init__(self, console: Console, items: Sequence[Item], workspace: Workspace) -> None:
        self.console, self.items, self.workspace = console, items, workspace
        self.since = time.time()
        self.over: set[str] = set()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.heartbeat = time.monotonic()
        self.bars: Progress | None = None
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
                TimeElapsedColumn(), TimeRemainingColumn(),
            )  # fmt: skip
            self.bars = Progress(*columns, console=self.console, transient=True)
            self.bars.start()
            total = sum(item.run.protocol.recipe.steps for item in self.items)
            self.tasks["all"] = self.bars.add_task(f"[bold]{len(self.items)} runs, steps", total=total)
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
                steps += item.run.protocol.recipe.steps
                continue
            progress = self.workspace.progress(item.key)
            if progress.get("updated", 0) < self.since:
                continue
            if progress["state"] == "running":
                steps += progress["step"]
                running.append((item, progress["step"]))
            else:
                self._end(item, progress["state"])
        if self.bars is not None:
            self._draw(steps, running)
        elif time.monotonic() - self.heartbeat > HEARTBEAT_SECONDS:
            self.heartbeat = time.monotonic()
            now = "; ".join(f"{item.cells[0]} {step}/{item.run.protocol.recipe.steps}" for item, step in running)
            self.console.print(f"running: {now or 'workers are starting'}", highlight=False, soft_wrap=True)

    def _draw(self, steps: int, running: list[tuple[Item, int]]) -> None:
        assert self.bars is not None
        self.bars.update(self.tasks["all"], completed=steps)
        for item, step in running:
            if item.key not in self.tasks:
                self.tasks[item.key] = self.bars.add_task(f"  {item.cells[0]}", total=item.run.protocol.recipe.steps)
            self.bars.update(self.tasks[item.key], completed=step)

    def _end(self, item: Item, state: str) -> None:
        self.over.add(item.key)
        if self.bars is not None and item.key in self.tasks:
            self.bars.remove_task(self.tasks.pop(item.key))
        count = f"[{len(self.over):{len(str(len(self.items)))}}/{len(self.items)}]"
        payload = self.workspace.payload(item.key)
        told = f"top-1 {payload['metrics']['top1']:.1f}" if payload and state == "finished" else self.workspace.error(item.key)
        self.console.print(f"{count} {state} {item.cells[0]}: {told}", highlight=False, markup=False, soft_wrap=True)
