"""`bench run --dry-run`: what a request would train, and at what cost."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmark.analysis.costs import ASSUMED, bill, by_experience
from benchmark.execution.backends.slurm import SchedulerError
from benchmark.execution.launcher import Launcher
from benchmark.execution.setup import torch_device
from benchmark.spec.plan import Item

MOST_ROWS = 1000  # of the table: more take seconds to lay out, and nobody reads them


def preview(launcher: Launcher) -> dict[str, Any]:
    """The plan's runs with their stage and state, and what those that are to be trained need:

    `bill` by arithmetic, `estimate` by what `bench speed --protocol` measured (null without), `experience` by what
    finished runs of the plan took.
    """
    plan, todo = launcher.plan, launcher.survey()
    elsewhere = _elsewhere(launcher)
    left = [item for item in todo if item.key not in elsewhere]
    wanted = {item.key for item in todo}
    rows = [
        {
            "key": item.key,
            "stage": number,
            "cells": [cell.path for cell in item.cells],
            "steps": 0 if not item.run.is_trained else item.run.protocol.recipe.steps,
            "requires": list(item.requires),
            "finished": item.key not in wanted,
            "queued": item.key in elsewhere,
        }
        for number, stage in enumerate(plan.stages, start=1)
        for item in stage
    ]
    counts = {"runs": len(plan.items), "cells": len(plan.cells), "comparisons": plan.distinct_comparisons, "todo": len(left)}
    return {
        "protocol": plan.protocol,
        "study": plan.study,
        **counts,
        "jobs": launcher.count_jobs(left) if launcher.detached else None,
        "bill": bill(left, launcher.protocol.together) if left else None,
        "estimate": _estimate(launcher, left),
        "experience": by_experience(launcher.results_found(), left),
        "plan": rows,
    }


def _elsewhere(launcher: Launcher) -> set[str]:
    """Runs that are queued or running; none where the scheduler can not be asked."""
    try:
        return {key for key, at in launcher.jobs.standings().items() if at.live is not None}
    except SchedulerError:
        return set()


def _estimate(launcher: Launcher, items: list[Item]) -> dict[str, Any] | None:
    name = launcher.plan.protocol
    if not items or not (launcher.workspace.folder / "speed" / name).is_dir():
        return None
    from benchmark.tools.speed import estimate

    device = torch_device(launcher.setup.device)
    return estimate(launcher.workspace, name, launcher.protocol, items, launcher.setup.jobs, device)


def show(found: dict[str, Any], launcher: Launcher, console: Console) -> None:
    """Print it for people."""
    plan = launcher.plan
    table = Table(title=f"study {plan.study}, protocol {plan.protocol}")
    for column in ("stage", "run", "serves", "steps", ""):
        table.add_column(column)
    for row in found["plan"][:MOST_ROWS]:
        item = plan.items[row["key"]]
        serves = f"{len(item.cells)} cells" if len(item.cells) > 1 else ""
        table.add_row(str(row["stage"]), str(item.cells[0]), serves, str(row["steps"]), _state(row))
    console.print(table)
    if len(found["plan"]) > MOST_ROWS:
        console.print(f"and {len(found['plan']) - MOST_ROWS} more runs; --dry-run --json lists all", highlight=False)
    finished, queued = (sum(row[kind] for row in found["plan"]) for kind in ("finished", "queued"))
    console.print(
        f"{found['runs']} runs for {found['cells']} cells, {finished} finished, "
        + (f"{queued} queued or running, " if queued else "")
        + f"{found['todo']} to train; {found['comparisons']} distinct comparisons",
        highlight=False,
    )
    if found["jobs"]:
        config = launcher.config
        console.print(
            f"as {found['jobs']} jobs, at most {config.parallel} at a time, each on {config.nodes} x {config.tasks} processes"
            f" for up to {config.minutes} minutes before it queues again",
            highlight=False,
        )
    if found["todo"]:
        _show_costs(found, launcher, console)


def _state(row: dict[str, Any]) -> str:
    if row["finished"]:
        return "finished"
    if row["queued"]:
        return "queued or running"
    return "to train" if row["steps"] else "to evaluate"


def _show_costs(found: dict[str, Any], launcher: Launcher, console: Console) -> None:
    """By arithmetic where the teachers are real ones, and by measurement where there is one."""
    needs, cost, past = found["bill"], found["estimate"], found["experience"]
    hours = f"{needs['gpu_hours']:,.0f} GPU-hours ({ASSUMED}), " if launcher.protocol.teacher is None else ""
    disk = needs["disk_gb"]
    told = [f"by arithmetic: {hours}{f'{disk:,.0f} GB' if disk >= 1 else f'{1000 * disk:,.0f} MB'} in --work"]
    if past["covered"]:
        told.append(
            f"as finished runs took: {_duration(past['device_hours'])} of {' and '.join(past['devices'])} "
            f"for {past['covered']} of {past['runs']} runs"
        )
    if cost is not None and cost["covered"]:
        told.append(
            f"estimated for {cost['covered']} of {cost['runs']} runs: {_duration(cost['hours'])} "
            f"with {launcher.setup.jobs} workers ({_duration(cost['process_hours'])} of work), evaluation and start not counted"
            + ("" if cost["same_code"] else "; measured with other code")
        )
    elif not past["covered"]:
        told.append(
            f"no measured estimate: bench speed --protocol {launcher.plan.protocol} --family NAME --size SIZE"
            " measures what a step costs here"
        )
    for line in told:
        console.print(line, highlight=False, soft_wrap=True)


def _duration(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
