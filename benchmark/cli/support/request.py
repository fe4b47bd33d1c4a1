"""A request: the options that name runs, and their plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cli.support.common import REQUEST, read_seeds
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.spec.plan import Plan
    from benchmark.spec.protocol import Protocol
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
    from benchmark.spec.plan import joined, make_plan
    from benchmark.spec.protocol import load_protocol
    from benchmark.spec.study import load_studies
    from benchmark.spec.teachers import teachers_of
    from benchmark.spec.yaml_files import shipped
    from benchmark.storage.results import uncollected

    words = {name: default if options.get(name) is None else options[name] for name, default in REQUEST.items()}
    name, protocol = load_protocol(str(words["protocol"]))
    parts = list[RequestedStudy]()
    for study_name, study in load_studies(str(words["study"])).items():
        teachers = teachers_of(str(words["family"]), words["sizes"], study.teachers)
        with uncollected():
            plan = make_plan(name, protocol, study_name, study, teachers, read_seeds(words["seeds"], protocol))
        if not plan.items:
            raise UserError(
                f"study {study_name} has no arm for {words['family']}: what its * stands for is not there, or it is for others"
            )
        parts.append(RequestedStudy(study_name, study, teachers, plan))
    if words["protocol"] not in shipped("protocols"):  # a file, to be found from any folder later
        words["protocol"] = str(Path(str(words["protocol"])).absolute())
    listed = dict.fromkeys(word.strip() for word in str(words["study"]).split(","))
    words["study"] = ",".join(word if word in shipped("studies") else str(Path(word).absolute()) for word in listed)
    return Request(words, protocol, parts, joined([part.plan for part in parts]))
