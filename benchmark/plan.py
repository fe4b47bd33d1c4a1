"""A study becomes runs: equal ones merge, and what others need comes before them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from pydantic import Field

import families
from benchmark.protocol import Arm, CuedDigits, Images, Normalisation, Protocol, Recipe, Record, Scale, Study
from families.spec import STANDARD, Component, Family, Teacher, UnknownName, UserError

TEACHER = "teacher"  # the arm of a teacher that the protocol trains


class Conditions(Record):
    """The part of a protocol that can change one run's number."""

    data: CuedDigits | Images = Field(discriminator="name")
    normalisation: Normalisation
    head: Literal["token", "avg"]
    recipe: Recipe
    evaluation_batch: int = 500


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
    teacher_drop_path: bool = False


Role = Literal["student", "teacher", "finetune", "ensemble"]


class Run(Record):
    """Everything that can change the number, and nothing else. Equal runs have equal keys and are trained once.

    Attributes:
        protocol, student, transfer, seed: the conditions, the model, what it is given.
        role: a student, a teacher that is pre-trained here, a teacher that is fine-tuned (`student` is its architecture), or the
            ensemble of a finished student with a fine-tuned teacher, which is evaluated and not trained.
        teacher: what attention or weights come from: `run`, the key of the run that trained it, and `weights`, timm's name or the
            authors' file, with `revision` or `sha256` where pinned, if it was pre-trained elsewhere. An ensemble adds the
            keys of its `student` and, as `ensemble`, of the teacher beside it.
    """

    protocol: Conditions
    student: Architecture
    seed: int
    role: Role = "student"
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
        protocol, size, recipe = self.protocol, self.student.geometry.img_size, self.protocol.recipe
        batch = (recipe.batch_size, recipe.precision, recipe.augment, recipe.smoothing, protocol.evaluation_batch)
        return f"{self.stream} {(protocol.data, protocol.normalisation, batch, size)}"


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

    @property
    def name(self) -> str:
        """As commands take it."""
        return self.path.removesuffix(".json")

    def __str__(self) -> str:
        return f"{self.family} {self.size} {self.arm} s{self.seed}"


@dataclass
class Item:
    """A run with every cell it serves; `requires` are the keys of the runs that come before it."""

    run: Run
    cells: list[Cell]
    requires: tuple[str, ...] = ()
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
        """Runs that can go at the same time: teachers, then students, which train beside their baselines, and so on."""
        level: dict[str, int] = {}
        students = int(any(item.run.role == TEACHER for item in self.items.values()))
        for key, item in self.items.items():  # what is needed stands before
            alone = 0 if item.run.role == TEACHER else students
            level[key] = max((1 + level[each] for each in item.requires), default=alone)
        return [[self.items[key] for key in level if level[key] == n] for n in sorted(set(level.values()))]

    @property
    def distinct_comparisons(self) -> int:
        """Transfer comparisons that differ in any run: the number that simultaneous intervals allow for."""
        return len({(comparison.keys, comparison.baseline_keys) for comparison in self.comparisons})


def together(items: Iterable[Item]) -> list[list[Item]]:
    """Runs that train together: the arms of one teacher and seed, which share data order and batch.

    A run without a teacher joins those of a teacher whose cells it is the baseline of; other roles than students go alone.
    """
    groups: dict[tuple[object, ...], list[Item]] = {}
    for item in items:
        run, given = item.run, item.run.transfer
        which: object = item.key
        if run.role == "student":
            which = _places([item]) if run.teacher is None else tuple(sorted(run.teacher.items()))
        drop_path = run.protocol.recipe.drop_path if given.teacher_drop_path else None
        # What one reader reads: a run alone would read no other blocks, nor with other ones dropped.
        reader = (given.blocks, given.teacher_precision, given.compile_teacher, drop_path)
        groups.setdefault((run.companions, which, reader), []).append(item)
    for key in [key for key, group in groups.items() if group[0].run.role == "student" and group[0].run.teacher is None]:
        host = next((k for k, group in groups.items() if k[0] == key[0] and _joins(groups[key], group)), None)
        if host is not None:
            groups[host] += groups.pop(key)
    return list(groups.values())


def _places(items: Iterable[Item]) -> frozenset[tuple[str, str]]:
    return frozenset((cell.family, cell.size) for item in items for cell in item.cells)


def _joins(items: list[Item], hosts: list[Item]) -> bool:
    taught = [item for item in hosts if item.run.role == "student" and item.run.teacher is not None]
    return bool(_places(items) & _places(taught))


def make_plan(
    protocol_name: str, protocol: Protocol, study_name: str, study: Study,
    teachers: Iterable[tuple[str, str]], seeds: Sequence[int],
) -> Plan:  # fmt: skip
    """The runs of `study` for each (family, size) in `teachers`, the baselines its transfers are compared with, and all that
    these need first.

    Raises UserError for a request that cannot be run.
    """
    items: dict[str, Item] = {}
    places: dict[str, str] = {}
    defined = Definitions(protocol)

    def add(cell: Cell) -> str:
        requires = tuple(add(each) for each in needed(protocol, cell))
        run = defined.run_of(cell)
        item = items.setdefault(run.key, Item(run, [], requires))
        if places.setdefault(cell.path, item.key) != item.key:
            raise UserError(f"two different runs claim {cell.path}")
        if cell not in item.cells:
            item.cells.append(cell)
        return item.key

    comparisons = []
    for family, size in teachers:
        for arm in map(Arm.parse, study.arms):
            keys, baselines = [], []
            for seed in seeds:
                keys.append(add(Cell(protocol_name, family, size, arm.name, seed)))
                if arm.transfers:
                    baselines.append(add(Cell(protocol_name, family, size, arm.baseline.name, seed)))
            if arm.transfers:
                comparisons.append(Comparison(family, size, arm.name, frozenset(keys), frozenset(baselines)))
    return Plan(protocol_name, study_name, items, comparisons)


def needed(protocol: Protocol, cell: Cell) -> list[Cell]:
    """The cells whose runs come before that of `cell`; a fine-tuned teacher is that of seed 0."""
    if cell.arm == TEACHER:
        return []
    arm = Arm.parse(cell.arm)
    if arm.ensemble == "finetuned":
        alone = replace(cell, arm=arm.alone.name)
        return [alone, replace(cell, arm=arm.tuned_teacher.name, seed=0), *needed(protocol, alone)]
    if arm.weights == "finetuned":
        return [replace(cell, arm=arm.tuned_teacher.name, seed=0)]
    if arm.method == "none" or protocol.teacher is None:
        return []
    return [replace(cell, arm=TEACHER, seed=arm.teacher)]


def run_of(protocol: Protocol, cell: Cell) -> Run:
    """The run that a cell stands for under the protocol as it is now. Raises UserError when there is none."""
    if cell.arm == TEACHER:
        return teacher_run(protocol, cell.family, cell.size, cell.seed)
    arm = Arm.parse(cell.arm)
    if arm.ensemble == "finetuned":
        student, tuned = (run_of(protocol, each) for each in needed(protocol, cell)[:2])
        pretrained = {} if protocol.teacher else tuned.teacher or {}
        teacher = pretrained | (student.teacher or {}) | {"student": student.key, "ensemble": tuned.key}
        return student.model_copy(update={"role": "ensemble", "teacher": teacher})
    recipe = _budgeted(protocol.recipe_of(arm.method), arm)
    spec = families.spec(cell.family)
    native = () if arm.student == "standard" else None
    run = Run(
        protocol=_conditions(protocol, recipe),
        student=architecture(protocol, spec, cell.size, spec.components(cell.size, native)),
        seed=cell.seed,
        role="finetune" if arm.method == "finetune" else "student",
    )
    if arm.method == "none":
        return run
    transfer = _transfer(protocol, arm, run.student.geometry.depth) if arm.transfers else Transfer()
    return run.model_copy(update={"transfer": transfer, "teacher": _teacher(protocol, spec, cell)})


class Definitions:
    """run_of for many cells of one protocol. Runs of cells that differ in their seed alone do so too, and are made once; but an
    ensemble names other runs of its seed."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.first: dict[tuple[str, str, str], Run] = {}

    def run_of(self, cell: Cell) -> Run:
        """The cell's run. Raises UserError when there is none."""
        first = self.first.get((cell.family, cell.size, cell.arm))
        if first is None or first.role == "ensemble":
            first = self.first[cell.family, cell.size, cell.arm] = run_of(self.protocol, cell)
        return first.model_copy(update={"seed": cell.seed})


def _budgeted(recipe: Recipe, arm: Arm) -> Recipe:
    steps = round(recipe.steps * arm.budget)
    if steps < 1:
        raise UserError(f"arm {arm.name!r}: {recipe.steps} steps times {arm.budget:g} leaves none")
    return recipe.model_copy(update={"steps": steps})


def _transfer(protocol: Protocol, arm: Arm, depth: int) -> Transfer:
    settings, distils = protocol.transfer, arm.method == "distill"
    return Transfer(
        method=arm.method,
        blocks=settings.indices(depth),
        loss=settings.loss if distils else None,
        weight=settings.weight if distils else None,
        source=arm.source,
        teacher_precision=settings.teacher_precision,
        compile_teacher=settings.compile_teacher,
        teacher_drop_path=settings.teacher_drop_path,
    )


def _teacher(protocol: Protocol, spec: Family, cell: Cell) -> dict[str, str]:
    """Where a run's attention, or the weights that it fine-tunes, come from."""
    arm, teacher = Arm.parse(cell.arm), spec.teacher(cell.size)
    before = needed(protocol, cell)
    trained = {"run": run_of(protocol, before[0]).key} if before else {}
    if protocol.teacher is not None:
        return trained
    if arm.teacher:
        raise UserError(f"arm {arm.name!r}: the teachers are pre-trained, there is one of each")
    pinned = {"revision": teacher.revision, "sha256": teacher.official.sha256 if teacher.official else None}
    source = teacher.official.url if teacher.official else teacher.model
    return {"weights": source} | {kind: value for kind, value in pinned.items() if value is not None} | trained


def teacher_run(protocol: Protocol, family: str, size: str, seed: int) -> Run:
    """The run that pre-trains a teacher: the family's whole architecture by the protocol's teacher recipe.

    Raises UserError for a protocol whose teachers are pre-trained already.
    """
    if protocol.teacher is None:
        raise UserError("this protocol's teachers are pre-trained already")
    spec = families.spec(family)
    conditions = _conditions(protocol, protocol.teacher.recipe)
    return Run(protocol=conditions, student=architecture(protocol, spec, size, spec.components(size)), seed=seed, role="teacher")


def architecture(protocol: Protocol, spec: Family, size: str, components: dict[str, Component]) -> Architecture:
    """A student of a teacher's geometry, at the protocol's scale where it has one.

    Raises UnknownName for a size the protocol has not.
    """
    described = {name: {"args": _plain(c.args), "initial": _plain(c.initial)} for name, c in components.items()}
    host = spec.host if components else STANDARD
    geometry = _geometry(protocol.scale, spec.teacher(size))
    return Architecture(geometry=geometry, components=described, host=host.model, switched_off=_plain(host.standard))


def _geometry(scale: Scale | None, teacher: Teacher) -> Geometry:
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


def teachers_of(names: str, sizes: str | None) -> list[tuple[str, str]]:
    """(family, size) pairs of a request: `names` as `deit3,dino` or `all`, `sizes` as `base,large` or None for all. Families that
    are named may be asked for alternatives too.

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
            if size in (spec.sizes if names == "all" else spec.labels):
                pairs.append((name, size))
            elif names != "all":
                raise UnknownName(f"size of {name}", size, spec.labels)
    return pairs


def _conditions(protocol: Protocol, recipe: Recipe) -> Conditions:
    kept = {name: getattr(protocol, name) for name in Conditions.model_fields if name != "recipe"}
    return Conditions(**kept, recipe=recipe)


def _plain(values: Any) -> dict[str, Any]:
    return {key: _tagged(value) for key, value in values.items()}


def _tagged(value: Any) -> Any:
    return {type(value).__name__: asdict(value)} if hasattr(value, "__dataclass_fields__") else value
