"""A study becomes runs: equal ones merge, teachers come before the students that need them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import families
from benchmark.protocol import Arm, CuedDigits, Normalisation, Protocol, Recipe, Record, Study
from families.spec import STANDARD, Component, Family, UnknownName, UserError

TEACHER = "teacher"  # the arm of a teacher that the protocol trains


class Conditions(Record):
    """The part of a protocol that can change one run's number."""

    data: CuedDigits
    normalisation: Normalisation
    head: Literal["token", "avg"]
    recipe: Recipe


class Geometry(Record):
    """What teacher and student share; pixels for the sizes of image and patch."""

    img_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int


class Architecture(Record):
    """The model that is trained: geometry, native components with their initial values, and the timm model hosting them
    with the arguments that switch off the components it is not given."""

    geometry: Geometry
    components: dict[str, Any] = {}
    host: str = STANDARD.model
    switched_off: dict[str, Any] = {}


class Transfer(Record):
    """What the student gets from its teacher, in which blocks; loss and weight are distillation's. A teacher without a
    precision of its own runs in the student's."""

    method: Literal["none", "copy", "distill"] = "none"
    blocks: tuple[int, ...] = ()
    loss: str | None = None
    weight: float | None = None
    source: str = "teacher"
    teacher_precision: Literal["float32", "bfloat16"] | None = None
    compile_teacher: bool = False


class Run(Record):
    """Everything that can change the number, and nothing else. Equal runs have equal keys and are trained once."""

    protocol: Conditions
    student: Architecture
    seed: int
    role: Literal["student", "teacher"] = "student"
    transfer: Transfer = Transfer()
    teacher: dict[str, str] | None = None

    @property
    def key(self) -> str:
        """Hash of the canonical JSON. Fields at their default are left out, so that a field added later changes no key."""
        text = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def stream(self) -> str:
        """What its data order and random numbers are drawn from."""
        return f"{self.role}:{self.seed}"

    @property
    def companions(self) -> str:
        """Equal for runs that can train together: they see the same batches, in the same precision."""
        protocol, size = self.protocol, self.student.geometry.img_size
        shared = (protocol.data, protocol.normalisation, protocol.recipe.batch_size, protocol.recipe.precision, size)
        return f"{self.stream} {shared}"


@dataclass(frozen=True, order=True)
class Cell:
    """A place in the results: labels that are no part of a run's identity."""

    protocol: str
    family: str
    size: str
    arm: str
    seed: int

    @property
    def path(self) -> str:
        """Where its result lies, below the results folder."""
        return f"{self.protocol}/{self.family}/{self.size}/{self.arm}-s{self.seed}.json"

    def __str__(self) -> str:
        return f"{self.family} {self.size} {self.arm} s{self.seed}"


@dataclass
class Item:
    """A run with every cell it serves; `requires` is the key of its teacher's run."""

    run: Run
    cells: list[Cell]
    requires: str | None = None
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.run.key


@dataclass(frozen=True)
class Comparison:
    """One transferred student against its baseline: the cells of all seeds, and the keys that identify it."""

    family: str
    size: str
    arm: str
    keys: frozenset[str]
    baseline_keys: frozenset[str]


@dataclass
class Plan:
    """The runs of a request, teachers first, and its comparisons."""

    protocol: str
    study: str
    items: dict[str, Item]
    comparisons: list[Comparison]

    @property
    def cells(self) -> list[Cell]:
        """Every cell, in the order of the runs."""
        return [cell for item in self.items.values() for cell in item.cells]

    @property
    def stages(self) -> list[list[Item]]:
        """Runs that can go at the same time: first teachers, then students."""
        first = [item for item in self.items.values() if item.run.role == TEACHER]
        second = [item for item in self.items.values() if item.run.role != TEACHER]
        return [stage for stage in (first, second) if stage]

    @property
    def distinct_comparisons(self) -> int:
        """Transfer comparisons that differ in any run: the number that simultaneous intervals allow for."""
        return len({(comparison.keys, comparison.baseline_keys) for comparison in self.comparisons})


def together(items: Iterable[Item]) -> list[list[Item]]:
    """Runs that train together: the arms of one teacher and seed, which share data order and batch.

    A run without a teacher joins those of a teacher whose cells it is the baseline of; a teacher trains alone.
    """
    groups: dict[tuple[object, ...], list[Item]] = {}
    for item in items:
        run = item.run
        which: object = item.requires
        if which is None:
            which = item.key if run.role == TEACHER else _places([item])
        given = run.transfer  # what one reader reads: a run alone would read no other blocks
        reader = (given.blocks, given.teacher_precision, given.compile_teacher)
        groups.setdefault((run.companions, which, reader), []).append(item)
    for key in [key for key, group in groups.items() if group[0].requires is None and group[0].run.role != TEACHER]:
        host = next(
            (k for k, group in groups.items() if k[0] == key[0] and group[0].requires and _joins(groups[key], group)), None
        )
        if host is not None:
            groups[host] += groups.pop(key)
    return list(groups.values())


def _places(items: Iterable[Item]) -> frozenset[tuple[str, str]]:
    return frozenset((cell.family, cell.size) for item in items for cell in item.cells)


def _joins(items: list[Item], hosts: list[Item]) -> bool:
    return bool(_places(items) & _places(item for item in hosts if item.requires is not None))


def make_plan(
    protocol_name: str, protocol: Protocol, study_name: str, study: Study,
    teachers: Iterable[tuple[str, str]], seeds: Sequence[int],
) -> Plan:  # fmt: skip
    """The runs of `study` for each (family, size) in `teachers`, and the baselines its transfers are compared with.

    Raises UserError for a request that cannot be run.
    """
    items: dict[str, Item] = {}
    places: dict[Cell, str] = {}

    def add(run: Run, cell: Cell, requires: str | None = None) -> str:
        item = items.setdefault(run.key, Item(run, [], requires))
        if places.setdefault(cell, item.key) != item.key:
            raise UserError(f"two different runs claim {cell.path}")
        if cell not in item.cells:
            item.cells.append(cell)
        return item.key

    comparisons = []
    for family, size in teachers:
        for arm in map(Arm.parse, study.arms):
            keys, baselines = [], []
            for seed in seeds:
                cell = Cell(protocol_name, family, size, arm.name, seed)
                run = student_run(protocol, family, size, arm, seed)
                requires = None
                if arm.method != "none":
                    label = Cell(protocol_name, family, size, TEACHER, arm.teacher)
                    requires = add(teacher_run(protocol, family, size, arm.teacher), label)
                keys.append(add(run, cell, requires))
                baseline = Cell(protocol_name, family, size, arm.baseline.name, seed)
                baselines.append(add(student_run(protocol, family, size, arm.baseline, seed), baseline))
            if arm.method != "none":
                comparisons.append(Comparison(family, size, arm.name, frozenset(keys), frozenset(baselines)))
    ordered = sorted(items.values(), key=lambda item: item.run.role != TEACHER)
    return Plan(protocol_name, study_name, {item.key: item for item in ordered}, comparisons)


def run_of(protocol: Protocol, cell: Cell) -> Run:
    """The run that a cell stands for under the protocol as it is now. Raises UserError when there is none."""
    if cell.arm == TEACHER:
        return teacher_run(protocol, cell.family, cell.size, cell.seed)
    return student_run(protocol, cell.family, cell.size, Arm.parse(cell.arm), cell.seed)


def student_run(protocol: Protocol, family: str, size: str, arm: Arm, seed: int) -> Run:
    """The run of one arm and seed."""
    spec = families.spec(family)
    components = spec.components(size, () if arm.student == "standard" else None)
    steps = round(protocol.recipe.steps * arm.budget)
    if steps < 1:
        raise UserError(f"arm {arm.name!r}: {protocol.recipe.steps} steps times {arm.budget:g} leaves none")
    recipe = protocol.recipe.model_copy(update={"steps": steps})
    student = architecture(protocol, spec, size, components)
    if arm.method == "none":
        return Run(protocol=_conditions(protocol, recipe), student=student, seed=seed)
    settings = protocol.transfer
    distils = arm.method == "distill"
    transfer = Transfer(
        method=arm.method,
        blocks=settings.indices(student.geometry.depth),
        loss=settings.loss if distils else None,
        weight=settings.weight if distils else None,
        source=arm.source,
        teacher_precision=settings.teacher_precision,
        compile_teacher=settings.compile_teacher,
    )
    teacher = {"run": teacher_run(protocol, family, size, arm.teacher).key}
    return Run(protocol=_conditions(protocol, recipe), student=student, seed=seed, transfer=transfer, teacher=teacher)


def teacher_run(protocol: Protocol, family: str, size: str, seed: int) -> Run:
    """The run that pre-trains a teacher: the family's whole architecture by the protocol's teacher recipe."""
    spec = families.spec(family)
    conditions = _conditions(protocol, protocol.teacher.recipe)
    return Run(protocol=conditions, student=architecture(protocol, spec, size, spec.components(size)), seed=seed, role="teacher")


def architecture(protocol: Protocol, spec: Family, size: str, components: dict[str, Component]) -> Architecture:
    """The student of a teacher's geometry at the protocol's scale. Raises UnknownName for a size the protocol has not."""
    scale, teacher = protocol.scale, spec.teacher(size)
    if size not in scale.sizes:
        raise UnknownName("size of this protocol", size, scale.sizes)
    head_dim = round(teacher.embed_dim / teacher.num_heads * scale.head_dim)
    scaled = scale.sizes[size]
    if head_dim < 1 or scaled.embed_dim % head_dim:
        raise UserError(f"scale.sizes.{size}: embed_dim {scaled.embed_dim} is not a multiple of head_dim {head_dim}")
    geometry = Geometry(
        img_size=scale.img_size,
        patch_size=scale.patch_size,
        embed_dim=scaled.embed_dim,
        depth=scaled.depth,
        num_heads=scaled.embed_dim // head_dim,
    )
    described = {name: {"args": _plain(c.args), "initial": _plain(c.initial)} for name, c in components.items()}
    host = spec.host if components else STANDARD
    return Architecture(geometry=geometry, components=described, host=host.model, switched_off=_plain(host.standard))


def teachers_of(names: str, sizes: str | None) -> list[tuple[str, str]]:
    """(family, size) pairs of a request: `names` as `deit3,dino` or `all`, `sizes` as `base,large` or None for all.

    Raises UnknownName for a family that is none, or a size that a named family has not.
    """
    listed = list(families.names()) if names == "all" else [word.strip() for word in names.split(",")]
    wanted = None if sizes is None else [word.strip() for word in sizes.split(",")]
    known = dict.fromkeys(size for name in listed for size in families.spec(name).sizes)
    for size in wanted or ():
        if names == "all" and size not in known:
            raise UnknownName("size", size, known)
    pairs = []
    for name in dict.fromkeys(listed):
        spec = families.spec(name)
        for size in dict.fromkeys(wanted or spec.sizes):
            if size in spec.sizes:
                pairs.append((name, size))
            elif names != "all":
                raise UnknownName(f"size of {name}", size, spec.sizes)
    return pairs


def _conditions(protocol: Protocol, recipe: Recipe) -> Conditions:
    return Conditions(data=protocol.data, normalisation=protocol.normalisation, head=protocol.head, recipe=recipe)


def _plain(values: Any) -> dict[str, Any]:
    return {key: _tagged(value) for key, value in values.items()}


def _tagged(value: Any) -> Any:
    return {type(value).__name__: asdict(value)} if hasattr(value, "__dataclass_fields__") else value
