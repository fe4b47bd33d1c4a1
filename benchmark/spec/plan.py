"""A study becomes runs: equal ones merge, and what others need comes before them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from benchmark.spec.arm import Arm
from benchmark.spec.data_sets import FEATURES, TEACHER_FEATURES
from benchmark.spec.definitions import Definitions, needed
from benchmark.spec.evaluations import (
    Evaluation,
    of_features,
    of_teacher_features,
    on_set,
)
from benchmark.spec.protocol import Protocol
from benchmark.spec.run import Cell, Run
from benchmark.spec.study import Study
from benchmark.spec.teacher_source import TeacherSource
from benchmark.spec.teachers import filled
from families.spec import UnknownName, UserError


@dataclass
class Item:
    """A run to train, or an evaluation of a finished one, with every cell it serves; `requires` are
    the keys of the runs that it needs first."""

    run: Run
    cells: list[Cell]
    requires: tuple[str, ...] = ()
    evaluation: Evaluation | None = None
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.run.key if self.evaluation is None else self.evaluation.key

    @property
    def teacher(self) -> TeacherSource | None:
        """The teacher whose weights it reads; None where none are."""
        return self.run.teacher if self.evaluation is None else self.evaluation.read

    @property
    def loads(self) -> tuple[str, ...]:
        """Keys of the runs whose weights it needs."""
        return self.requires if self.evaluation is None else tuple(self.evaluation.files.values())

    def __str__(self) -> str:
        """Its name in messages."""
        return f"{self.cells[0]}{self._measured}"

    @property
    def name(self) -> str:
        """Its name in commands."""
        return f"{self.cells[0].name}{self._measured}"

    @property
    def _measured(self) -> str:
        named = self.evaluation is not None and self.evaluation.name not in self.cells[0].arm
        return f" on {self.evaluation.name}" if self.evaluation is not None and named else ""

    @property
    def steps(self) -> int:
        """Steps of training; none for an evaluation."""
        return self.run.protocol.recipe.steps if self.evaluation is None else 0


def counted(items: Collection[Item]) -> str:
    """The number of runs and, if there are some, of evaluations, as in `7 runs and 2 evaluations`."""
    evaluations = sum(item.evaluation is not None for item in items)
    runs = [f"{len(items) - evaluations} runs"] if len(items) > evaluations or not items else []
    return " and ".join([*runs, *([f"{evaluations} evaluations"] if evaluations else [])])


def evaluated(item: Item, evaluation: Evaluation) -> Item:
    """An evaluation of the run of an item, in all of its cells."""
    return Item(item.run, list(item.cells), tuple(dict.fromkeys((item.key, *evaluation.files.values()))), evaluation)


@dataclass(frozen=True)
class Comparison:
    """One arm that transfers against its baseline: the keys of their runs, over all seeds."""

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
        """All cells, in the order of the runs."""
        return [cell for item in self.items.values() for cell in item.cells]

    @property
    def stages(self) -> list[list[Item]]:
        """Runs that can go at the same time: teachers, then students beside their baselines, and so
        on."""
        level: dict[str, int] = {}
        students = int(any(item.run.is_teacher for item in self.items.values()))
        for key, item in self.items.items():  # what is needed stands before
            alone = 0 if item.run.is_teacher else students
            level[key] = max((1 + level[each] for each in item.requires), default=alone)
        return [[self.items[key] for key in level if level[key] == n] for n in sorted(set(level.values()))]

    @property
    def distinct_comparisons(self) -> int:
        """The number of distinct comparisons, which simultaneous intervals allow for."""
        return len({(comparison.keys, comparison.baseline_keys) for comparison in self.comparisons})


def together(items: Iterable[Item]) -> list[list[Item]]:
    """Group runs that train together: students of one teacher and seed, which share data order and
    batch.

    A student without a teacher joins a group for which it is the baseline. All other runs go alone.
    """
    groups: dict[tuple[object, ...], list[Item]] = {}
    for item in items:
        run, given = item.run, item.run.transfer
        which: object = item.key
        if run.is_student and item.evaluation is None:
            which = _places([item]) if run.teacher is None else run.teacher
        drop_path = run.protocol.recipe.drop_path if given.teacher_drop_path else None
        # All of a group read the same blocks in the same way, as each would alone.
        read = (given.blocks, given.pairing == "reversed", run.student.geometry.depth)
        reader = (read, given.teacher_precision, given.compile_teacher, drop_path, given.needs_route)
        groups.setdefault((run.companions, which, reader), []).append(item)
    students = {key: group for key, group in groups.items() if group[0].run.is_student and group[0].evaluation is None}
    hosts: dict[object, list[tuple[tuple[object, ...], frozenset[tuple[str, str]]]]] = {}
    for key, group in students.items():
        if group[0].run.teacher is not None:
            hosts.setdefault(key[0], []).append((key, _places(group)))
    for key in [key for key, group in students.items() if group[0].run.teacher is None]:
        own = _places(groups[key])
        host = next((host for host, places in hosts.get(key[0], ()) if own & places), None)
        if host is not None:
            groups[host] += groups.pop(key)
    return list(groups.values())


def _places(items: Iterable[Item]) -> frozenset[tuple[str, str]]:
    return frozenset((cell.family, cell.size) for item in items for cell in item.cells)


class _Planner:
    """Adds cells, and what they need before them, to the items of a plan."""

    def __init__(self, protocol: Protocol, defined: Definitions) -> None:
        self.protocol, self.defined = protocol, defined
        self.items: dict[str, Item] = {}
        self.places: dict[str, str] = {}
        self.keys: dict[Cell, str] = {}

    def add(self, cell: Cell) -> str:
        """The key of a cell's item. Raises UserError for an impossible one."""
        if cell not in self.keys:
            requires = tuple(self.add(each) for each in needed(self.protocol, cell))
            found = Item(self.defined.run_of(cell), [], requires, self.defined.evaluation_of(cell))
            if self.places.setdefault(cell.path, found.run.key) != found.run.key:
                raise UserError(f"two different runs claim {cell.path}")
            item = self.items.setdefault(found.key, found)
            if item.run.task != found.run.task:
                told = "are one training, but with other test sets: give these as data.shifted of one data set"
                raise UserError(f"{cell} and {item.cells[0]} {told}")
            item.cells.append(cell)
            self.keys[cell] = found.key
        return self.keys[cell]


def make_plan(
    protocol_name: str, protocol: Protocol, study_name: str, study: Study,
    teachers: Iterable[tuple[str, str]], seeds: Sequence[int], defined: Definitions | None = None,
) -> Plan:  # fmt: skip
    """Plan the runs of a study for each (family, size): its arms, their baselines, and what these
    need.

    `defined` shares the definitions of runs with other plans. Raises UserError for an impossible
    request.
    """
    planner = _Planner(protocol, defined or Definitions(protocol))
    comparisons = []
    for family, size in teachers:
        for arm in map(Arm.parse, arms_of(protocol, study, family, size, planner.defined)):
            keys, baselines = [], []
            for seed in seeds:
                keys.append(planner.add(Cell(protocol_name, family, size, arm.name, seed)))
                if arm.transfers:
                    baselines.append(planner.add(Cell(protocol_name, family, size, arm.baseline.name, seed)))
            if arm.transfers:
                comparisons.append(Comparison(family, size, arm.name, frozenset(keys), frozenset(baselines)))
    return Plan(protocol_name, study_name, planner.items, comparisons)


def plan_of_cells(protocol: Protocol, cells: Sequence[Cell]) -> Plan:
    """The plan of single cells and what they need, without comparisons. Raises UserError."""
    planner = _Planner(protocol, Definitions(protocol))
    for cell in cells:
        planner.add(cell)
    return Plan(cells[0].protocol, "", planner.items, [])


def with_evaluations(plan: Plan, names: Sequence[str], of: Collection[str] = ()) -> Plan:
    """The plan with evaluations of its runs, or of those in `of` (keys): on sets by name, `features`
    and `teacher_features`. Sets of other data than a run's, and features of detectors, are left
    out. Raises UnknownName for a set that no run has."""
    items = dict(plan.items)
    trained = [item for item in plan.items.values() if item.evaluation is None and (not of or item.key in of)]
    known = dict.fromkeys(name for item in trained for name in ("test", *item.run.settings.data.shifted_sets))
    for name in names:
        if name not in (*known, FEATURES, TEACHER_FEATURES):
            raise UnknownName("evaluation set of this protocol", name, known)
        for item in trained:
            evaluation = _evaluation(item.run, name)
            if evaluation is not None:
                new = evaluated(item, evaluation)
                cells = items.setdefault(new.key, replace(new, cells=[])).cells
                cells += [cell for cell in new.cells if cell not in cells]
    return Plan(plan.protocol, plan.study, items, plan.comparisons)


def _evaluation(run: Run, name: str) -> Evaluation | None:
    if name in (FEATURES, TEACHER_FEATURES) and run.detector is not None:
        return None
    if name == FEATURES:
        return of_features(run)
    if name == TEACHER_FEATURES:
        return of_teacher_features(run)
    return on_set(run, name) if name in ("test", *run.settings.data.shifted_sets) else None


def joined(plans: Sequence[Plan]) -> Plan:
    """Merge plans of one protocol: each run once, with its cells in all of them."""
    items: dict[str, Item] = {}
    for plan in plans:
        for key, item in plan.items.items():
            cells = items.setdefault(key, Item(item.run, [], item.requires, item.evaluation)).cells
            cells += [cell for cell in item.cells if cell not in cells]
    comparisons = [one for plan in plans for one in plan.comparisons]
    return Plan(plans[0].protocol, ",".join(plan.study for plan in plans), items, comparisons)


def arms_of(protocol: Protocol, study: Study, family: str, size: str, defined: Definitions | None = None) -> tuple[str, ...]:
    """A study's arms for one teacher, with each value that `*` stands for (see Variant.star).

    An arm that is the same run as an earlier one of the same student and method is left out. Raises
    UserError for an arm that this teacher cannot have.
    """
    texts = dict.fromkeys(text for arm in study.arms for text in filled(protocol, arm, family, size))
    if not any("+" in text for text in texts):
        return tuple(texts)
    found: list[str] = []
    seen: set[tuple[object, ...]] = set()
    defined = defined or Definitions(protocol)
    for text in texts:
        arm = Arm.parse(text)
        cell = Cell("", family, size, text, 0)
        this = (arm.student, arm.method, defined.key_of(cell), defined.run_of(cell).task)
        if "+" not in text or this not in seen:
            found.append(text)
        seen.add(this)
    return tuple(found)


def units(items: Sequence[Item], workers: int, most: int, alone: Collection[str] = ()) -> list[list[Item]]:
    """Units of work: groups of runs that train together, the longest first.

    A group is split if it has more than `most` runs or takes more than half of a worker's share;
    the teacher then runs once for each part. Runs in `alone` (keys), over which a worker died, are
    units of their own and come last: only so can the one at fault be found.
    """
    limit = sum(map(effort, items)) / (2 * workers) if workers > 1 else math.inf
    found = [[item] for item in items if item.key in alone]
    for group in together(item for item in items if item.key not in alone):
        share = math.ceil(_total(group) / limit) if limit else 1
        parts = max(math.ceil(len(group) / most), min(len(group), share))
        found += [group[number::parts] for number in range(parts)]
    return sorted(found, key=lambda unit: (any(item.key in alone for item in unit), -_total(unit)))


def effort(item: Item) -> float:
    """A run's relative cost: steps x images x parameters of the blocks; 0 if nothing is trained."""
    run, geometry = item.run, item.run.student.geometry
    return item.steps * run.protocol.recipe.batch_size * geometry.depth * geometry.embed_dim**2


def _total(unit: Sequence[Item]) -> float:
    return sum(map(effort, unit))
