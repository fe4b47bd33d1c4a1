"""Timed steps of a protocol, as `bench speed` leaves them in the work folder."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

import families
from benchmark.spec.architectures import architecture
from benchmark.spec.protocol import Protocol
from benchmark.spec.run import Geometry
from benchmark.storage.files import read_json, write_json
from benchmark.storage.work_folder import Workspace
from families.spec import UserError


class _Seconds(BaseModel):
    seconds: float


class _Made(BaseModel):
    code: str


class _Measured(BaseModel):
    """What estimates need of a measurement."""

    setting: dict[str, Any]
    plain: _Seconds
    second_copy: _Seconds
    second_distill: _Seconds
    teacher: _Seconds
    provenance: _Made


@dataclass(frozen=True)
class Setting:
    """The timed step: a family's teacher and student at their own geometry, or at a protocol's.

    Attributes:
        matched: with the native components; else the standard student.
        blocks: how many first blocks are transferred; None: all.
        precision: of student and teacher; `teacher_precision` where the teacher has its own.
        compile, compile_teacher: run the student, or the teacher, through torch.compile.
        threads: of torch on the CPU.
        held: maps or routes; None: the faster one on the device.
    """

    family: str
    size: str
    matched: bool
    geometry: dict[str, int]
    batch: int
    blocks: int | None
    device: str
    precision: str
    teacher_precision: str | None
    compile: bool
    compile_teacher: bool
    threads: int
    held: bool | None


def protocol_setting(protocol: Protocol, family: str, size: str, matched: bool, device: str) -> Setting:
    """The setting of a protocol's runs: its geometry, batch and recipe, one thread a worker."""
    geometry = architecture(protocol, families.spec(family), size, {}).geometry.model_dump()
    given, recipe = protocol.transfer, protocol.recipe
    return Setting(
        family=family,
        size=size,
        matched=matched,
        geometry=geometry,
        batch=recipe.batch_size,
        blocks=len(given.indices(geometry["depth"])),
        device=device,
        precision=recipe.precision,
        teacher_precision=given.teacher_precision,
        compile=recipe.compile,
        compile_teacher=given.compile_teacher,
        threads=1,
        held=None,
    )


def save_measurement(workspace: Workspace, protocol: str, setting: Setting, found: dict[str, Any]) -> Path:
    """Keep a measurement of a protocol's steps."""
    student = "matched" if setting.matched else "standard"
    path = workspace.speed(protocol) / f"{setting.family}-{setting.size}-{student}-{setting.device}.json"
    write_json(path, found | {"protocol": protocol, "setting": asdict(setting)})
    return path


def read_measurements(
    workspace: Workspace, name: str, protocol: Protocol, device: str
) -> dict[tuple[Geometry, bool], dict[str, Any]]:  # fmt: skip
    """(geometry, whether matched) -> measurement, of those on this device of the protocol as it is
    now."""
    measured: dict[tuple[Geometry, bool], dict[str, Any]] = {}
    for path in sorted(workspace.speed(name).glob(f"*-{device}.json")):
        found, setting = read_json(path) or {}, None
        with suppress(TypeError, ValidationError, UserError):
            setting = Setting(**_Measured.model_validate(found).setting)
            families.spec(setting.family).teacher(setting.size)
            if setting == protocol_setting(protocol, setting.family, setting.size, setting.matched, device):
                measured[Geometry(**setting.geometry), setting.matched] = found
            continue
        print(f"bench: {path}: left out, no measurement that bench speed wrote", file=sys.stderr)
    return measured
