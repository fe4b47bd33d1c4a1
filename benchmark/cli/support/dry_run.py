"""`bench run --dry-run`: the runs of a request and their cost."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmark.analysis.costs import ASSUMED, by_arithmetic, by_experience, by_measurement, disk_bytes, estimate
from benchmark.execution.backends.backend import SchedulerError
from benchmark.execution.launcher import Launch
from benchmark.execution.setup import torch_device
from benchmark.execution.submitter import Submitter
from benchmark.execution.survey import Survey
from benchmark.spec.plan import Item, counted
from benchmark.storage.measurements import read_measurements
from benchmark.storage.provenance import code_version
from benchmark.storage.result_file import Result

MOST_ROWS = 1000  # of the table: more take seconds to lay out


def preview(launch: Launch) -> dict[str, Any]:
    """The plan's runs with their stage and state, and the cost of those to train:

    `bill` by arithmetic, `estimate` by measurements of `bench speed --protocol` (null without),
    `experience` by the plan's finished runs.
    """
    plan, survey = launch.plan, Survey(launch)
    elsewhere = _elsewhere(launch)
    left = [item for item in survey.todo if item.key not in elsewhere]
    done = {*launch.outcome.found, *launch.outcome.restored}
    rows = [
        {
            "key": item.key,
            "stage": number,
            "cells": [cell.path for cell in item.cells],
            "steps": item.steps,
            "requires": list(item.requires),
            "finished": item.key in done and item.key not in launch.outcome.retrained,
            "queued": item.key in elsewhere,
        }
        for number, stage in enumerate(plan.stages, start=1)
        for item in stage
    ]
    evaluations = sum(item.evaluation is not None for item in plan.items.values())
    counts = {"runs": len(plan.items) - evaluations, "evaluations": evaluations, "cells": len(plan.cells)}
    counts |= {"comparisons": plan.distinct_comparisons, "todo": len(left)}
    return {
        "protocol": plan.protocol,
        "study": plan.study,
        **counts,
        "jobs": Submitter(launch).count_jobs(left) if launch.backend.detached else None,
        **_costs(launch, left, survey.results),
        "plan": rows,
    }


def _elsewhere(launch: Launch) -> set[str]:
    """Runs that are queued or running; none where the scheduler cannot be asked."""
    try:
        return {key for key, at in launch.submissions.standings().items() if at.live is not None}
    except SchedulerError:
        return set()


def _costs(launch: Launch, items: list[Item], finished: list[Result]) -> dict[str, Any]:
    """The parts `bill`, `estimate` and `experience` of a preview."""
    most, needs, cost = launch.protocol.together, None, None
    if items:
        needs = {"gpu_hours": estimate(items, by_arithmetic, most).hours, "disk_gb": disk_bytes(items, most) / 1e9}
    if items and launch.workspace.speed(launch.plan.protocol).is_dir():
        device = torch_device(launch.setup.device)
        measured = read_measurements(launch.workspace, launch.plan.protocol, launch.protocol, device)
        found = estimate(items, by_measurement(measured), most, launch.setup.jobs)
        cost = {
            "runs": found.runs,
            "covered": found.covered,
            "process_hours": found.hours,
            "hours": found.until_done,
            "same_code": found.origins <= {code_version()["code"]},
        }
    past = estimate(items, by_experience(finished), most)
    experience = {"runs": past.runs, "covered": past.covered, "device_hours": past.hours, "devices": sorted(past.origins)}
    return {"bill": needs, "estimate": cost, "experience": experience}


def show(found: dict[str, Any], launch: Launch, console: Console) -> None:
    """Print it for people."""
    plan = launch.plan
    table = Table(title=f"study {plan.study}, protocol {plan.protocol}")
    for column in ("stage", "run", "serves", "steps", ""):
        table.add_column(column)
    for row in found["plan"][:MOST_ROWS]:
        item = plan.items[row["key"]]
        serves = f"{len(item.cells)} cells" if len(item.cells) > 1 else ""
        table.add_row(str(row["stage"]), str(item), serves, str(row["steps"]), _state(row))
    console.print(table)
    if len(found["plan"]) > MOST_ROWS:
        console.print(f"and {len(found['plan']) - MOST_ROWS} more runs; --dry-run --json lists all", highlight=False)
    finished, queued = (sum(row[kind] for row in found["plan"]) for kind in ("finished", "queued"))
    console.print(
        f"{counted(plan.items.values())} for {found['cells']} cells, {finished} finished, "
        + (f"{queued} queued or running, " if queued else "")
        + f"{found['todo']} to train; {found['comparisons']} distinct comparisons",
        highlight=False,
    )
    if found["jobs"]:
        console.print(f"as {found['jobs']} jobs, {launch.backend.description}", highlight=False)
    if found["todo"]:
        _show_costs(found, launch, console)


def _state(row: dict[str, Any]) -> str:
    if row["finished"]:
        return "finished"
    if row["queued"]:
        return "queued or running"
    return "to train" if row["steps"] else "to evaluate"


def _show_costs(found: dict[str, Any], launch: Launch, console: Console) -> None:
    """By arithmetic where the teachers are real ones, and by measurement where there is one."""
    needs, cost, past = found["bill"], found["estimate"], found["experience"]
    number = needs["gpu_hours"]
    hours = f"{number:,.{0 if number >= 10 else 1}f} GPU-hours ({ASSUMED}), " if launch.protocol.teacher is None else ""
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
            f"with {launch.setup.jobs} workers ({_duration(cost['process_hours'])} of work), evaluation and start not counted"
            + ("" if cost["same_code"] else "; measured with other code")
        )
    elif not past["covered"]:
        told.append(
            f"no measured estimate: bench speed --protocol {launch.plan.protocol} --family NAME --size SIZE"
            " measures what a step costs here"
        )
    for line in told:
        console.print(line, highlight=False, soft_wrap=True)


def _duration(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
