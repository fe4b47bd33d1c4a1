"""The states of requested runs: as a table, live, or for programs; a run's log; and the cancelling
of jobs."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from benchmark.execution.backends.backend import Backend, SchedulerError
from benchmark.execution.live_progress import pace
from benchmark.execution.run_state import KINDS, State, ago, state_of
from benchmark.execution.submissions import Standing, Submissions, backend_of
from benchmark.spec.plan import Item, Plan
from benchmark.spec.run import Cell
from benchmark.storage.files import read_text
from benchmark.storage.results import Results
from benchmark.storage.work_folder import Workspace
from families.spec import UserError, quoted

WATCH_SECONDS, FOLLOW_SECONDS, ASK_SECONDS, MOST_LINES = 5.0, 1.0, 3.0, 15
MOST_LOG = 100 * 2**20  # bytes
SIGN_SECONDS = 60.0  # a longer silence of a running run is shown
STYLES = {
    "finished": "green",
    "running": "cyan",
    "lost": "magenta",
    "queued": "blue",
    "failed": "red",
    "stale": "yellow",
    "missing": "dim",
}


@dataclass(frozen=True)
class Wanted:
    """A request's runs and where their results go."""

    plan: Plan
    results: Results

    def narrowed(self, only: Mapping[str, Collection[Any]]) -> Wanted:
        """The runs that serve a cell whose labels (family, size, arm, seed) are among the values in
        `only`."""
        items = {
            key: item
            for key, item in self.plan.items.items()
            if any(all(getattr(cell, label) in values for label, values in only.items()) for cell in item.cells)
        }
        return Wanted(replace(self.plan, items=items), self.results)


@dataclass(frozen=True)
class Seen:
    """A run and its state."""

    item: Item
    state: State


class Monitor:
    """The runs of requests, each once."""

    def __init__(self, workspace: Workspace, wanted: Sequence[Wanted], submissions: Submissions | None = None) -> None:
        self.workspace, self.submissions = workspace, submissions or Submissions(workspace)
        self.entries: dict[tuple[str, Path], tuple[Item, Results]] = {}
        for each in wanted:
            for key, item in each.plan.items.items():
                empty = Item(item.run, [], item.requires, item.evaluation)
                known = self.entries.setdefault((key, each.results.folder), (empty, each.results))
                known[0].cells.extend(cell for cell in item.cells if cell not in known[0].cells)
        self.others: dict[str, Standing] = {}
        self.over: dict[tuple[str, Path], State] = {}

    def look(self) -> list[Seen]:
        """The present state of every run. Raises SchedulerError where a scheduler does not answer."""
        standings = self.submissions.standings()
        keys = {key for key, _ in self.entries}
        self.others = {key: at for key, at in standings.items() if at.live is not None and key not in keys}
        return [Seen(item, self._state(item, results, standings)) for item, results in self.entries.values()]

    def goes_on(self, key: str) -> bool:
        """Whether a run is in training or will be; True while a scheduler does not answer."""
        try:
            at = self.submissions.standings().get(key)
        except SchedulerError:
            return True
        if at is None or at.live is None:
            return False
        progress = self.workspace.progress(key)  # its job may have others after it
        return progress.launcher != at.submission.name or progress.state not in ("finished", "failed")

    def _state(self, item: Item, results: Results, standings: dict[str, Standing]) -> State:
        """The present state; a finished run, whose file was read and checked, is not looked at again."""
        entry = item.key, results.folder
        if entry not in self.over:
            state = state_of(item, self.workspace, results, self.submissions, standings)
            if state.kind != "finished":
                return state
            self.over[entry] = state
        return self.over[entry]


def as_json(seen: Sequence[Seen]) -> dict[str, Any]:
    """For programs: how many runs are in each state, and each run."""
    counts = Counter(each.state.kind for each in seen)
    runs = [
        {
            "key": each.item.key,
            "cells": [cell.path for cell in each.item.cells],
            "state": each.state.kind,
            "reason": each.state.reason,
            "job": each.state.job,
            "step": each.state.progress.step if each.state.progress.state else None,
            "steps": each.item.steps,
            "silent_seconds": None if each.state.silent is None else round(each.state.silent),
        }
        for each in seen
    ]
    return {"counts": {kind: counts[kind] for kind in KINDS}, "runs": runs}


def show(monitor: Monitor, console: Console) -> None:
    """Print the states once."""
    console.print(_drawn(monitor.look(), monitor), highlight=False, soft_wrap=not console.is_terminal)


def watch(monitor: Monitor, console: Console) -> None:
    """Keep the states on the terminal until nothing is queued or running."""
    with Live(console=console, auto_refresh=False) as screen:
        while True:
            try:
                seen = monitor.look()
                screen.update(_drawn(seen, monitor), refresh=True)
                if not {"queued", "running"} & {each.state.kind for each in seen}:
                    return
            except SchedulerError as error:
                screen.update(Text(f"{error}; still trying", style="yellow"), refresh=True)
            time.sleep(WATCH_SECONDS)


def _drawn(seen: Sequence[Seen], monitor: Monitor) -> RenderableType:
    parts: list[RenderableType] = [_counts(seen)]
    for kind in ("running", "lost", "failed", "stale"):
        parts += _lines(kind, [each for each in seen if each.state.kind == kind])
    waits = Counter(each.state.reason for each in seen if each.state.kind == "queued" and each.state.reason)
    if waits:
        parts.append(Text("queued for: " + ", ".join(f"{reason} ({count})" for reason, count in waits.most_common())))
    if monitor.others:
        parts.append(Text(f"{len(monitor.others)} more are queued or running in this work folder"))
    return Group(*parts)


def _counts(seen: Sequence[Seen]) -> Table:
    table = Table(header_style="bold", title=f"{len(seen)} runs")
    table.add_column("protocol")
    table.add_column("teacher")
    for kind in KINDS:
        table.add_column(kind, justify="right", style=STYLES[kind])
    groups: dict[tuple[str, str], Counter[str]] = {}
    for each in seen:
        first = each.item.cells[0]
        groups.setdefault((first.protocol, f"{first.family} {first.size}"), Counter())[each.state.kind] += 1
    for (protocol, teacher), counts in groups.items():
        table.add_row(protocol, teacher, *(str(counts[kind] or "") for kind in KINDS))
    if len(groups) > 1:
        table.add_section()
        whole = Counter(each.state.kind for each in seen)
        table.add_row("", "all", *(str(whole[kind]) for kind in KINDS))
    return table


def _lines(kind: str, seen: Sequence[Seen]) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for each in seen[:MOST_LINES]:
        told = each.state.reason or ""
        if kind == "running":
            at = each.state.progress
            told = f"{at.step}/{at.steps} {pace(at)}".rstrip() + (f", job {each.state.job}" if each.state.job else "")
            if each.state.silent is not None and each.state.silent > SIGN_SECONDS:
                told += f", last sign of life {ago(each.state.silent)} ago"
        lines.append(Text.assemble((f"{kind}: ", STYLES[kind]), f"{each.item.cells[0].name} ({each.item.key}): {told}"))
    if len(seen) > MOST_LINES:
        lines.append(Text(f"and {len(seen) - MOST_LINES} more {kind}; bench status --json names all"))
    return lines


def cancel(submissions: Submissions, only: Sequence[Wanted] | None) -> tuple[int, int, int]:
    """Cancel the jobs whose runs are all wanted (None: every job).

    Returns the number of jobs, that of runs that they had left, and that of jobs that go on since
    they have other runs too. A command on this machine is a job too. Raises SchedulerError where a
    scheduler refuses, and UserError for a command on another machine.
    """
    with submissions.exclusively():
        submissions.settle()
        wanted = None if only is None else {key for each in only for key in each.plan.items}
        live = submissions.live()
        chosen = [at for at in live if wanted is None or wanted >= at.job.runs.keys()]
        mixed = [at for at in live if at not in chosen and wanted is not None and wanted & at.job.runs.keys()]
        numbers: dict[type[Backend], list[str]] = {}
        for at in reversed(chosen):  # dependent jobs first, or they would begin
            if at.job.id is not None:
                numbers.setdefault(backend_of(at.submission), []).append(at.job.id)
        for backend, ids in numbers.items():
            backend.cancel(ids)
        for at in reversed(chosen):
            if not backend_of(at.submission).detached:
                _end_command(at)
        left = {key for at in chosen for key in at.job.runs if submissions.workspace.payload(key) is None}
    return len(chosen), len(left), len(mixed)


def _end_command(at: Standing) -> None:
    if at.submission.host != socket.gethostname():
        raise UserError(f"process {at.submission.pid} trains on {at.submission.host}: type this there")
    try:
        os.kill(at.submission.pid, signal.SIGTERM)
    except ProcessLookupError:
        return  # it has just ended
    except PermissionError:
        raise UserError(f"process {at.submission.pid} is another user's") from None


def find_run(monitor: Monitor, word: str) -> str:
    """The key of the run that `word` names by its key, a cell, or the beginning or end of these.
    Raises UserError."""
    current: dict[str, list[str]] = {}
    for (key, _), (item, _) in monitor.entries.items():
        current.setdefault(key, []).extend([item.name] if item.evaluation else [cell.name for cell in item.cells])
    older: dict[str, list[str]] = {}  # of protocols that have changed since
    for job in (job for each in monitor.submissions.submissions() for job in each.jobs):
        for key, name in job.runs.items():
            older.setdefault(key, []).append(name)
    word = word.removesuffix(".json")
    for names in (current, older):
        found = [key for key, cells in names.items() if key.startswith(word) or any(_ends(name, word) for name in cells)]
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(f"{names[key][0]} ({key})" for key in found[:6])
            raise UserError(f"{quoted(word)} is not one run: {some}{', ...' if found[6:] else ''}")
    raise UserError(f"no run {quoted(word)} in this work folder; bench status --json names all")


def names_cell(word: str, cell: Cell) -> bool:
    """Whether a word that names a run names this cell of it."""
    return _ends(cell.name, word.removesuffix(".json"))


def _ends(name: str, word: str) -> bool:
    return f"/{name}".endswith(f"/{word}")


def log_of(monitor: Monitor, key: str, follow: bool) -> Iterator[str]:
    """The lines of a run's log, its error, and the paths of its jobs' output; with `follow`, lines
    as they are written."""
    folder = monitor.workspace.run(key)
    if not folder.log.exists():
        yield "no line yet: no worker has begun it"
    shown, asked, told = 0, -ASK_SECONDS, False
    while True:
        over = not follow
        if follow and time.monotonic() - asked >= ASK_SECONDS:
            over, asked = not monitor.goes_on(key), time.monotonic()
        lines = read_text(folder.log, MOST_LOG).splitlines()
        if not lines and not told and folder.log.exists() and not (folder.log.is_file() and not folder.log.stat().st_size):
            told = True
            yield f"{folder.log}: not a file of up to {MOST_LOG / 2**20:g} MB with text; nothing is shown of it"
        yield from map(shown_line, lines[shown:])
        shown = len(lines)
        if over:
            break
        time.sleep(FOLLOW_SECONDS)
    yield from map(shown_line, read_text(folder.error).splitlines())
    yield from _jobs_output(monitor, key)


def shown_line(line: str) -> str:
    """A line of a file without what a terminal would act on, tabs aside."""
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in line)


def _jobs_output(monitor: Monitor, key: str) -> Iterator[str]:
    for submission in monitor.submissions.submissions():
        for job in submission.jobs:
            if key in job.runs and job.id is not None:
                ended = f", {job.ended}" if job.ended else ""
                yield f"job {job.id}{ended}: {monitor.workspace.submission(submission.name).path}/{job.id}_*_log.err"
