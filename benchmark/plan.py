"""A study becomes runs: equal ones merge, and what others need comes before them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

import families
from benchmark.bounds import STEPS
from benchmark.protocol import (
    STAR,
    Arm,
    CuedDigits,
    Images,
    Normalisation,
    Part,
    Protocol,
    Recipe,
    Record,
    Reinit,
    Scale,
    Study,
    Teachers,
)
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

TEACHER = "teacher"  # the arm of a teacher that the protocol trains
EVALUATED = ("ensemble", "match")  # roles of what is not trained
LAYER_SCALE = "layer_scale"  # what families call the component that `gamma` and folding are about
ALL = Teachers()
QUARTERS = 4  # first and last blocks that are transferred, where a study leaves open how many


class Conditions(Record):
    """The part of a protocol that can change one run's number."""

    data: CuedDigits | Images = Field(discriminator="name")
    normalisation: Normalisation
    head: Literal["token", "avg"]
    recipe: Recipe
    evaluation_batch: int = 500

    @cached_property
    def batches(self) -> str:
        """What its batches are but for their size in pixels, and the precision that they are computed in."""
        recipe = self.recipe
        batch = (recipe.batch_size, recipe.precision, recipe.augment, recipe.smoothing, self.evaluation_batch)
        return str((self.data, self.normalisation, batch))


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
    """What the student gets from its teacher, in which blocks; loss and weight are distillation's. With method "match" it gets
    nothing, and its maps are compared with the teacher's. A teacher without a precision of its own runs in the student's.
    part, sinks and source are Arm's."""

    method: Literal["none", "copy", "distill", "match"] = "none"
    blocks: tuple[int, ...] = ()
    loss: str | None = None
    weight: float | None = None
    source: str = "teacher"
    teacher_precision: Literal["float32", "bfloat16"] | None = None
    compile_teacher: bool = False
    teacher_drop_path: bool = False
    part: Part = "map"
    sinks: Literal["keep", "drop", "redistribute"] = "keep"


Role = Literal["student", "teacher", "finetune", "ensemble", "match"]


def _digest(record: Record) -> str:
    text = json.dumps(record.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Run(Record):
    """Everything that can change the number, and nothing else. Equal runs have equal keys and are trained once.

    Attributes:
        protocol, student, transfer, seed: the conditions, the model, what it is given.
        role: a student, a teacher that is pre-trained here, a teacher that is fine-tuned (`student` is its architecture), the
            ensemble of a finished student with a fine-tuned teacher, or the comparison of a student's maps with its
            teacher's (match); these two are evaluated and not trained.
        teacher: what attention or weights come from: `run`, the key of the run that trained it, and `weights`, timm's name or the
            authors' file, with `revision` or `sha256` where pinned, if it was pre-trained elsewhere; `folded` what was folded
            into them. Or `untrained`, a digest of its architecture, and the `seed` of its weights. What is evaluated adds the key
            of its finished `student`, an ensemble also, as `ensemble`, that of the teacher beside it.
        reinit: what of a teacher that is fine-tuned starts anew.
    """

    protocol: Conditions
    student: Architecture
    seed: int
    role: Role = "student"
    transfer: Transfer = Transfer()
    teacher: dict[str, str] | None = None
    reinit: Reinit = "none"

    @cached_property
    def key(self) -> str:
        """Hash of the canonical JSON. Fields at their default are left out, so that a field added later changes no key."""
        return _digest(self)

    @property
    def stream(self) -> str:
        """What its data order and random numbers are drawn from."""
        return f"{self.role}:{self.seed}"

    @property
    def companions(self) -> str:
        """Equal for runs that can train together: they see the same batches, in the same precision."""
        return f"{self.stream} {self.protocol.batches} {self.student.geometry.img_size}"


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
        reader = (given.blocks, given.teacher_precision, given.compile_teacher, drop_path, given.part != "map")
        groups.setdefault((run.companions, which, reader), []).append(item)
    hosts: dict[object, list[tuple[tuple[object, ...], frozenset[tuple[str, str]]]]] = {}
    for key, group in groups.items():
        if group[0].run.role == "student" and group[0].run.teacher is not None:
            hosts.setdefault(key[0], []).append((key, _places(group)))
    for key in [key for key, group in groups.items() if group[0].run.role == "student" and group[0].run.teacher is None]:
        own = _places(groups[key])
        host = next((host for host, places in hosts.get(key[0], ()) if own & places), None)
        if host is not None:
            groups[host] += groups.pop(key)
    return list(groups.values())


def _places(items: Iterable[Item]) -> frozenset[tuple[str, str]]:
    return frozenset((cell.family, cell.size) for item in items for cell in item.cells)


def make_plan(
    protocol_name: str, protocol: Protocol, study_name: str, study: Study,
    teachers: Iterable[tuple[str, str]], seeds: Sequence[int], defined: Definitions | None = None,
) -> Plan:  # fmt: skip
    """The runs of `study` for each (family, size) in `teachers`, the baselines its transfers are compared with, and all that
    these need first. `defined`: the protocol's, where there are some that other plans share.

    Raises UserError for a request that cannot be run.
    """
    items: dict[str, Item] = {}
    places: dict[str, str] = {}
    keys_of: dict[Cell, str] = {}
    known = defined or Definitions(protocol)

    def add(cell: Cell) -> str:
        if cell not in keys_of:
            requires = tuple(add(each) for each in needed(protocol, cell))
            run = known.run_of(cell)
            if places.setdefault(cell.path, run.key) != run.key:
                raise UserError(f"two different runs claim {cell.path}")
            items.setdefault(run.key, Item(run, [], requires)).cells.append(cell)
            keys_of[cell] = run.key
        return keys_of[cell]

    comparisons = []
    for family, size in teachers:
        for arm in map(Arm.parse, arms_of(protocol, study, family, size, known)):
            keys, baselines = [], []
            for seed in seeds:
                keys.append(add(Cell(protocol_name, family, size, arm.name, seed)))
                if arm.transfers:
                    baselines.append(add(Cell(protocol_name, family, size, arm.baseline.name, seed)))
            if arm.transfers:
                comparisons.append(Comparison(family, size, arm.name, frozenset(keys), frozenset(baselines)))
    return Plan(protocol_name, study_name, items, comparisons)


def joined(plans: Sequence[Plan]) -> Plan:
    """One plan of several of one protocol: each run once, with every cell that any of them has it for."""
    items: dict[str, Item] = {}
    for plan in plans:
        for key, item in plan.items.items():
            cells = items.setdefault(key, Item(item.run, [], item.requires)).cells
            cells += [cell for cell in item.cells if cell not in cells]
    comparisons = [one for plan in plans for one in plan.comparisons]
    return Plan(plans[0].protocol, ",".join(plan.study for plan in plans), items, comparisons)


def arms_of(protocol: Protocol, study: Study, family: str, size: str, defined: Definitions | None = None) -> tuple[str, ...]:
    """A study's arms for one teacher, each `*` filled in: for blocks by quarters of the depth after `first-` and `last-` and by
    each block after `only-`, else by each of the family's native components, other families that have some (and say what those
    start at in this size), the protocol's other data sets or ways to pre-train a teacher.

    An arm with variants that is the same run as one listed before, of the same student and method, is left out.
    Raises UserError for an arm that this teacher can not have.
    """
    texts = dict.fromkeys(text for arm in study.arms for text in filled(protocol, arm, family, size))
    if not any("+" in text for text in texts):
        return tuple(texts)
    found: list[str] = []
    seen: set[tuple[str, str, str]] = set()
    defined = defined or Definitions(protocol)
    for text in texts:
        arm = Arm.parse(text)
        this = (arm.student, arm.method, defined.run_of(Cell("", family, size, text, 0)).key)
        if "+" not in text or this not in seen:
            found.append(text)
        seen.add(this)
    return tuple(found)


def spelt_out(protocol: Protocol, study: Study, teachers: Iterable[tuple[str, str]]) -> Study:
    """A study whose arms are all those that one of these teachers, (family, size), can have."""
    arms = dict.fromkeys(text for arm in study.arms for each in teachers for text in filled(protocol, arm, *each))
    return study.model_copy(update={"arms": tuple(arms) or study.arms})


def filled(protocol: Protocol, text: str, family: str, size: str) -> list[str]:
    """An arm, or a text that names several, with each value that this teacher has for its `*`, the same one throughout."""
    star = STAR.search(text)
    if star is None:
        return [text]
    texts = [text.replace(star.group(), star.group()[:-1] + value) for value in _values(protocol, star, family, size)]
    return [one for each in texts for one in filled(protocol, each, family, size)]


def _values(protocol: Protocol, star: re.Match[str], family: str, size: str) -> list[str]:
    key, before = star.groups()
    spec = families.spec(family)
    if key == "blocks":
        depth = _geometry(protocol.scale, spec.teacher(size)).depth
        return [str(k) for k in (range(depth) if before == "only-" else _quarters(depth))]
    if key in ("native", "without"):
        return [component.name for component in spec.native]
    if key == "of":
        return [name for name in families.names() if name != family and families.spec(name).native and _starts(name, size)]
    if key == "data":
        return list(protocol.datasets)
    return list(protocol.teacher.others) if protocol.teacher else []


def _quarters(depth: int) -> list[int]:
    return sorted({max(1, depth * part // QUARTERS) for part in range(1, QUARTERS)})


def _starts(family: str, size: str) -> bool:
    try:
        families.spec(family).components(size)
    except UserError:
        return False
    return True


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
        return {"untrained": _digest(whole), "seed": str(arm.teacher)}
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


def teachers_of(names: str, sizes: str | None, chosen: Teachers = ALL) -> list[tuple[str, str]]:
    """(family, size) pairs of a request: `names` as `deit3,dino`, or `all` that a study is for (`chosen`), `sizes` as in
    `base,large` or None for all. Families that are named may be asked for alternatives too.

    Raises UnknownName for a family that is none, or a size that a named family has not.
    """
    for word in chosen.families or ():
        families.spec(word)
    if isinstance(chosen.native, str):
        native = dict.fromkeys(component.name for name in families.names() for component in families.spec(name).native)
        if chosen.native not in native:
            raise UnknownName("native component", chosen.native, native)
    listed = chosen.chosen(families.names(), families.spec) if names == "all" else [word.strip() for word in names.split(",")]
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


def records_in(values: Mapping[str, Any]) -> dict[str, Any]:
    """What an Architecture holds of a component's arguments or initial values, as families' records again."""
    return {key: _record(value) for key, value in values.items()}


def _record(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    ((kind, fields),) = value.items()
    return _RECORDS[kind](**fields)


_RECORDS: dict[str, Callable[..., Any]] = {kind.__name__: kind for kind in (Constant, Normal, Ref, SinCos)}
