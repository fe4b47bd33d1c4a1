"""From a cell to its run, by the protocol as it is now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import families
from benchmark.spec.arm import Arm
from benchmark.spec.bounds import STEPS
from benchmark.spec.protocol import Protocol, Scale
from benchmark.spec.recipe import Recipe
from benchmark.spec.run import EVALUATED, TEACHER, Architecture, Cell, Conditions, Geometry, Run, Transfer, digest
from families.spec import (
    STANDARD,
    Component,
    Constant,
    Family,
    Host,
    Normal,
    Ref,
    SinCos,
    Teacher,
    UnknownName,
    UserError,
    quoted,
)

LAYER_SCALE = "layer_scale"  # what families call the component that `gamma` and folding are about


def teacher_arm(recipe: str = "") -> str:
    """The arm of a teacher that the protocol trains by its usual recipe, or by another one of its."""
    return f"{TEACHER}+recipe={recipe}" if recipe else TEACHER


def is_teacher(arm: str) -> bool:
    """Whether it is one of teacher_arm's."""
    return arm.partition("+")[0] == TEACHER


def needed(protocol: Protocol, cell: Cell) -> list[Cell]:
    """The cells whose runs come before that of `cell`; a fine-tuned teacher is that of seed 0."""
    if is_teacher(cell.arm):
        return []
    arm = Arm.parse(cell.arm)
    if arm.ensemble == "finetuned":
        alone = replace(cell, arm=arm.alone.name)
        return [alone, replace(cell, arm=arm.tuned_teacher.name, seed=0), *needed(protocol, alone)]
    if arm.weights == "finetuned":
        return [replace(cell, arm=arm.tuned_teacher.name, seed=0)]
    student = [replace(cell, arm=arm.alone.name)] if arm.match == "end" else []
    if (arm.method == "none" and arm.match == "none") or arm.source == "untrained" or protocol.teacher is None:
        return student
    return [*student, replace(cell, arm=teacher_arm(arm.recipe), seed=arm.teacher)]


def run_of(protocol: Protocol, cell: Cell) -> Run:
    """The run that a cell stands for under the protocol as it is now. Raises UserError when there is none."""
    return Definitions(protocol).run_of(cell)


def _run_of(defined: Definitions, cell: Cell) -> Run:
    protocol = defined.protocol
    if is_teacher(cell.arm):
        return teacher_run(protocol, cell.family, cell.size, cell.seed, cell.arm.removeprefix(TEACHER).removeprefix("+recipe="))
    arm = Arm.parse(cell.arm)
    if arm.ensemble == "finetuned":
        student, tuned = (defined.run_of(each) for each in needed(protocol, cell)[:2])
        pretrained = {} if protocol.teacher else tuned.teacher or {}
        teacher = pretrained | (student.teacher or {}) | {"student": student.key, "ensemble": tuned.key}
        return student.model_copy(update={"role": "ensemble", "teacher": teacher})
    task = protocol.on(arm.data)
    run = Run(
        protocol=_conditions(task, _tuned(task.recipe_of(arm.method), arm)),
        student=_student(protocol, cell, arm),
        seed=cell.seed,
        role="finetune" if arm.method == "finetune" else "student",
        reinit=arm.reinit,
    )
    depth = run.student.geometry.depth
    if arm.match != "none":
        finished = {"student": run.key} if arm.match == "end" else {}
        transfer = _transfer(protocol, arm, depth).model_copy(update={"method": "match"})
        return run.model_copy(update={"role": "match", "transfer": transfer, "teacher": _teacher(defined, cell, arm) | finished})
    if arm.method == "none":
        return run
    transfer = _transfer(protocol, arm, depth) if arm.transfers else Transfer()
    return run.model_copy(update={"transfer": transfer, "teacher": _teacher(defined, cell, arm)})


class Definitions:
    """run_of for many cells of one protocol, each made once. Runs of cells that differ in their seed alone do so too, and are
    copies of the first; but what is evaluated names other runs of its seed."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self._first: dict[tuple[str, str, str], Run] = {}
        self._runs: dict[tuple[str, str, str, int], Run] = {}

    def run_of(self, cell: Cell) -> Run:
        """The cell's run. Raises UserError when there is none."""
        place = (cell.family, cell.size, cell.arm)
        if (*place, cell.seed) not in self._runs:
            first = self._first.get(place)
            if first is None or first.role in EVALUATED:
                first = self._first[place] = _run_of(self, cell)
            self._runs[*place, cell.seed] = first if first.seed == cell.seed else first.model_copy(update={"seed": cell.seed})
        return self._runs[*place, cell.seed]


def _tuned(recipe: Recipe, arm: Arm) -> Recipe:
    steps = round(recipe.steps * arm.budget)
    if not STEPS.least <= steps <= STEPS.most:
        told = "leaves none" if steps < STEPS.least else f"is more than {STEPS.most}"
        raise UserError(f"arm {quoted(arm.name)}: {recipe.steps} steps times {arm.budget:g} {told}")
    return recipe.model_copy(update={"steps": steps, "lr": recipe.lr * arm.lr})


def _student(protocol: Protocol, cell: Cell, arm: Arm) -> Architecture:
    """What is trained: of the teacher's geometry, with the components that the arm gives it."""
    own, giving = families.spec(cell.family), families.spec(arm.of or cell.family)
    components = components_of(arm, cell.family, cell.size)
    if arm.gamma is not None:
        if LAYER_SCALE not in components:
            raise UserError(f"arm {quoted(arm.name)}: {cell.family}'s matched student has no {LAYER_SCALE} here")
        scale = components[LAYER_SCALE]
        initial = {pattern: Constant(arm.gamma) for pattern in scale.initial}
        components[LAYER_SCALE] = replace(scale, initial=initial)
    return architecture(protocol, own, cell.size, components, giving.host)


def components_of(arm: Arm, family: str, size: str) -> dict[str, Component]:
    """The native components that an arm gives to the student of a family's teacher. Raises UnknownName for one that is none."""
    giving = families.spec(arm.of or family)
    left_out = giving.components(size, _names(arm.without))
    wanted = _names(arm.native) if arm.native else None
    found = giving.components(size, () if arm.student == "standard" else wanted)
    return {name: component for name, component in found.items() if name not in left_out}


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _transfer(protocol: Protocol, arm: Arm, depth: int) -> Transfer:
    settings, distils = protocol.transfer, arm.method == "distill"
    return Transfer(
        method=arm.method,
        blocks=_blocks(arm, depth) if arm.blocks else settings.indices(depth),
        loss=arm.loss or settings.loss if distils else None,
        weight=settings.weight * arm.weight if distils else None,
        source=arm.source,
        teacher_precision=settings.teacher_precision,
        compile_teacher=settings.compile_teacher,
        teacher_drop_path=settings.teacher_drop_path,
        part=arm.part,
        sinks=arm.sinks,
    )


def _blocks(arm: Arm, depth: int) -> tuple[int, ...]:
    kind, _, count = arm.blocks.partition("-")
    number = int(count)
    if number > depth - (kind == "only"):
        raise UserError(
            f"arm {quoted(arm.name)}: the teacher has {depth} blocks" + (", counted from 0" if kind == "only" else "")
        )
    return {"first": tuple(range(number)), "last": tuple(range(depth - number, depth)), "only": (number,)}[kind]


def _teacher(defined: Definitions, cell: Cell, arm: Arm) -> dict[str, str]:
    """Where a run's attention, or the weights that it fine-tunes, come from."""
    protocol = defined.protocol
    spec = families.spec(cell.family)
    teacher = spec.teacher(cell.size)
    if arm.source == "untrained":
        whole = architecture(protocol, spec, cell.size, spec.components(cell.size))
        return {"untrained": digest(whole), "seed": str(arm.teacher)}
    folded = {"folded": LAYER_SCALE} if arm.weights == "folded" else {}
    if folded and LAYER_SCALE not in spec.components(cell.size):
        raise UserError(f"arm {quoted(arm.name)}: {cell.family} has no {LAYER_SCALE} to fold")
    before = [each for each in needed(protocol, cell) if is_teacher(each.arm) or Arm.parse(each.arm).method == "finetune"]
    trained = {"run": defined.run_of(before[0]).key} if before else {}
    if protocol.teacher is not None:
        return trained | folded
    if arm.teacher or arm.recipe:
        raise UserError(f"arm {quoted(arm.name)}: the teachers are pre-trained, there is one of each")
    pinned = {"revision": teacher.revision, "sha256": teacher.official.sha256 if teacher.official else None}
    source = teacher.official.url if teacher.official else teacher.model
    return {"weights": source} | {kind: value for kind, value in pinned.items() if value is not None} | trained | folded


def teacher_run(protocol: Protocol, family: str, size: str, seed: int, recipe: str = "") -> Run:
    """The run that pre-trains a teacher: the family's whole architecture by the protocol's teacher recipe, or another of its.

    Raises UserError for a protocol whose teachers are pre-trained already, UnknownName for a recipe that it has not.
    """
    if protocol.teacher is None:
        raise UserError("this protocol's teachers are pre-trained already")
    spec = families.spec(family)
    conditions = _conditions(protocol, protocol.teacher.by(recipe).recipe)
    whole = architecture(protocol, spec, size, spec.components(size))
    return Run(protocol=conditions, student=whole, seed=seed, role="teacher")


def architecture(
    protocol: Protocol, spec: Family, size: str, components: dict[str, Component], host: Host | None = None
) -> Architecture:
    """A student of a teacher's geometry with components that `host` (None: the family's) can hold, at the protocol's scale where
    it has one.

    Raises UnknownName for a size the protocol has not.
    """
    described = {name: {"args": _plain(c.args), "initial": _plain(c.initial)} for name, c in components.items()}
    host = (host or spec.host) if components else STANDARD
    geometry = geometry_of(protocol.scale, spec.teacher(size))
    return Architecture(geometry=geometry, components=described, host=host.model, switched_off=_plain(host.standard))


def geometry_of(scale: Scale | None, teacher: Teacher) -> Geometry:
    if scale is None:
        return Geometry(**teacher.geometry)
    if teacher.size not in scale.sizes:
        raise UnknownName("size of this protocol", teacher.size, scale.sizes)
    head_dim = round(teacher.embed_dim / teacher.num_heads * scale.head_dim)
    scaled = scale.sizes[teacher.size]
    if head_dim < 1 or scaled.embed_dim % head_dim:
        raise UserError(f"scale.sizes.{teacher.size}: embed_dim {scaled.embed_dim} is not a multiple of head_dim {head_dim}")
    heads = scaled.embed_dim // head_dim
    patch, img = scale.patch_size, scale.img_size
    return Geometry(img_size=img, patch_size=patch, embed_dim=scaled.embed_dim, depth=scaled.depth, num_heads=heads)


def _conditions(protocol: Protocol, recipe: Recipe) -> Conditions:
    kept = {name: getattr(protocol, name) for name in Conditions.model_fields if name != "recipe"}
    return Conditions(**kept, recipe=recipe)


def _plain(values: Any) -> dict[str, Any]:
    return {key: _tagged(value) for key, value in values.items()}


def _tagged(value: Any) -> Any:
    return {type(value).__name__: asdict(value)} if hasattr(value, "__dataclass_fields__") else value


def records_in(values: Mapping[str, Any]) -> dict[str, Any]:
    """What an Architecture holds of a component's arguments or initial values, as families' records again."""
    return {key: _record(value) for key, value in values.items()}


def _record(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    ((kind, fields),) = value.items()
    return _RECORDS[kind](**fields)


_RECORDS: dict[str, Callable[..., Any]] = {kind.__name__: kind for kind in (Constant, Normal, Ref, SinCos)}
