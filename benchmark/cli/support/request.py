"""A request: the options that name runs, and their plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import families
from benchmark.cli.support.common import REQUEST, read_seeds
from benchmark.spec import bounds
from benchmark.spec.yaml_files import shipped
from families.spec import TIMM, UserError, quoted

if TYPE_CHECKING:
    from benchmark.spec.plan import Plan
    from benchmark.spec.protocol import Protocol
    from benchmark.spec.run import Cell
    from benchmark.spec.study import Study


@dataclass(frozen=True)
class RequestedStudy:
    """One study of a request, with its teachers as (family, size) and its own plan."""

    name: str
    study: Study
    teachers: list[tuple[str, str]]
    plan: Plan


@dataclass(frozen=True)
class Request:
    """A request: its options with defaults, and what they name; `plan` is that of all studies."""

    words: dict[str, str | None]
    protocol: Protocol
    parts: list[RequestedStudy]
    plan: Plan


def read_request(options: Mapping[str, Any]) -> Request:
    """The request of the options. Raises UserError."""
    from benchmark.cli.support.evaluation_sets import absolute, named_sets, with_sets
    from benchmark.spec.plan import joined, make_plan, with_evaluations
    from benchmark.spec.protocol import load_protocol, with_values
    from benchmark.spec.study import load_studies
    from benchmark.spec.teachers import licensed, teachers_of
    from benchmark.storage.results import uncollected

    words = {name: default if options.get(name) is None else options[name] for name, default in REQUEST.items()}
    teachers = list(options.get("teacher") or ())
    for word in teachers:
        if not word.startswith(TIMM):
            raise UserError(
                f"--teacher {quoted(word)}: a model of timm, such as timm:vit_small_patch16_dinov3; families go with --family"
            )
    if teachers:
        words["family"] = ",".join([*([options["family"]] if options.get("family") else []), *teachers])
    words["protocol"] = with_values(str(words["protocol"]), options.get("set") or ())
    name, protocol = load_protocol(str(words["protocol"]))
    if words["sets"] is not None:
        words["sets"] = absolute(words["sets"])
        protocol = with_sets(protocol, words["sets"])
    if words["runs"] is not None:
        return _single_runs(words, name, protocol)
    parts = list[RequestedStudy]()
    for study_name, study in load_studies(str(words["study"])).items():
        teachers = licensed(teachers_of(str(words["family"]), words["sizes"], study.teachers), words["licence"])
        with uncollected():
            plan = make_plan(name, protocol, study_name, study, teachers, read_seeds(words["seeds"], protocol))
        if not plan.items:
            raise UserError(
                f"study {study_name} has no arm for {words['family']}: what its * stands for is not there, or it is for others"
            )
        parts.append(RequestedStudy(study_name, study, teachers, plan))
    _make_absolute(words)
    listed = dict.fromkeys(word.strip() for word in str(words["study"]).split(","))
    words["study"] = ",".join(word if word in shipped("studies") else str(Path(word).absolute()) for word in listed)
    plan = joined([part.plan for part in parts])
    if words["sets"] is not None:
        plan = with_evaluations(plan, named_sets(protocol, words["sets"]))
    return Request(words, protocol, parts, plan)


def _single_runs(words: dict[str, str | None], name: str, protocol: Protocol) -> Request:
    from benchmark.cli.support.evaluation_sets import named_sets
    from benchmark.spec.plan import plan_of_cells, with_evaluations

    cells = [_cell(word, name) for word in str(words["runs"]).split("\n")]
    plan = plan_of_cells(protocol, cells)
    own = {item.run.key for item in plan.items.values() if {*item.cells} & {*cells}}
    _make_absolute(words)
    return Request(words, protocol, [], with_evaluations(plan, named_sets(protocol, words["sets"]), own))


def _cell(word: str, protocol: str) -> Cell:
    """The cell that a word names, as in deit3/base/standard-copy-s0. Raises UserError."""
    from benchmark.spec.run import Cell

    parts = word.removesuffix(".json").removeprefix(f"{protocol}/").split("/")
    arm, _, seed = parts[-1].rpartition("-s")
    if len(parts) != 3 or not seed.isdecimal() or not arm:
        raise UserError(f"{quoted(word)}: not a run, such as deit3/base/standard-copy-s0")
    families.spec(parts[0]).teacher(parts[1])
    return Cell(protocol, parts[0], parts[1], arm, bounds.SEED.read("seed", seed))


def _make_absolute(words: dict[str, str | None]) -> None:
    """Name a protocol's file so that it is found from any folder later."""
    from benchmark.spec.protocol import split_values

    if split_values(str(words["protocol"]))[0] not in shipped("protocols"):
        words["protocol"] = str(Path(str(words["protocol"])).absolute())
