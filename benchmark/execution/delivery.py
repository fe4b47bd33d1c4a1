"""Whether a run can begin or is finished, and its delivery into the results."""

from __future__ import annotations

import time
from typing import Any

from benchmark.spec.evaluations import measured_on
from benchmark.spec.plan import Item
from benchmark.spec.protocol import Protocol
from benchmark.spec.run import Cell
from benchmark.storage.result_file import EvaluationPayload, Rejected, Result, answers
from benchmark.storage.results import Results
from benchmark.storage.work_folder import Workspace


def lost_requirement(workspace: Workspace, item: Item) -> str | None:
    """Why a run cannot begin: one that it needs left no weights. None if it can."""
    for key in item.requires:
        failed = workspace.payload(key) is None and workspace.progress(key).state == "failed"  # below its floor, say
        if failed or (key in item.loads and not workspace.run(key).weights.exists()):
            return f"what it needs first has failed: {workspace.error(key) or f'run {key} has no weights'}"
    return None


def finished(workspace: Workspace, item: Item) -> bool:
    """Whether the run has left its payload, and its last weights unless it is an evaluation."""
    kept = item.evaluation is not None or workspace.run(item.key).weights.exists()
    return kept and payload_of(workspace, item) is not None


def payload_of(workspace: Workspace, item: Item) -> dict[str, Any] | None:
    """The record of a finished run or evaluation; None without one, for a run that was validated on
    another set, and for an evaluation on other sets."""
    payload, evaluation = workspace.payload(item.key), item.evaluation
    if payload is None:
        return None
    if evaluation is None:
        return payload if payload["val"]["on"] == measured_on(item.run, "val") else None
    records = EvaluationPayload.model_validate(payload).evaluations
    return payload if all(answers(records.get(name), evaluation) for name in evaluation.scores) else None


def holds(result: Result | Rejected | None, item: Item) -> bool:
    """Whether it is the result of a run, or has the scores of its evaluation."""
    if not isinstance(result, Result) or not result.is_of(item.run):
        return False
    return item.evaluation is None or result.has(item.evaluation)


def deliver(workspace: Workspace, results: Results, item: Item) -> None:
    """Write a finished run, or an evaluation's scores, into every cell that it serves and that has
    it not yet."""
    payload = workspace.payload(item.key)
    assert payload is not None
    for cell in item.cells:
        put(workspace, results, item, cell, payload)
    progress, steps = workspace.progress(item.key), max(1, item.steps)
    if progress.state != "finished":
        ended = {"state": "finished", "step": steps, "steps": steps, "updated": time.time()}
        workspace.write_progress(item.key, progress.model_copy(update=ended))


def put(workspace: Workspace, results: Results, item: Item, cell: Cell, payload: dict[str, Any]) -> None:
    """Write an item's payload into one cell."""
    if item.evaluation is None:
        results.put(cell, item.run, payload, workspace.superseded)
    elif not results.add(cell, item.run, payload):
        own = workspace.payload(item.run.key)
        if own is not None:  # its own result is not there yet
            results.put(cell, item.run, own, workspace.superseded)
            results.add(cell, item.run, payload)


def below_floor(item: Item, payload: dict[str, Any], protocol: Protocol) -> str | None:
    """Why a teacher fails: its top-1 on val is below the protocol's floor. None if it is not, and
    for students."""
    if item.evaluation is not None or not item.run.is_teacher or protocol.teacher is None:
        return None
    ways = (protocol.teacher, *protocol.teacher.others.values())
    floors = [way.floor for way in ways if way.recipe == item.run.protocol.recipe]
    top1, floor = payload["val"]["top1"], max(floors, default=protocol.teacher.floor)
    if top1 >= floor:
        return None
    return f"the teacher's top-1 on val is {top1:.1f}, below the protocol's floor of {floor:g}"
