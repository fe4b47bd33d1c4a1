"""The run of a cell under the current protocol."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, NoReturn

import families
from benchmark.spec.architectures import architecture, geometry_of, hosted
from benchmark.spec.arm import VARIANTS, Arm, Reinit, Start, trained_arm
from benchmark.spec.bounds import STEPS
from benchmark.spec.detection import Backbone
from benchmark.spec.evaluations import Evaluation, beside_of, measured_on
from benchmark.spec.protocol import Protocol
from benchmark.spec.recipe import Normalisation, Recipe
from benchmark.spec.run import TEACHER, Cell, Conditions, Geometry, Run, Task, Transfer, digest
from benchmark.spec.teacher_source import LAYER_SCALE, Pretrained, TeacherSource, Trained, Untrained
from families.spec import Component, UserError, quoted


def teacher_arm(recipe: str = "") -> str:
    """The arm of a teacher that the protocol trains, by its default recipe or an alternative one."""
    return f"{TEACHER}+recipe={recipe}" if recipe else TEACHER


def is_teacher(arm: str) -> bool:
    """Whether it is the arm of a teacher that the protocol trains."""
    return arm.partition("+")[0] == TEACHER


def needed(protocol: Protocol, cell: Cell) -> list[Cell]:
    """The cells whose runs `cell` needs first: seed k's student learns from seed k's teacher."""
    if is_teacher(cell.arm):
        return []
    arm = Arm.parse(cell.arm)
    if arm.task:
        copied = _taught(protocol, cell, arm) if arm.method == "copy" else []  # which runs at test time too
        return [replace(cell, arm=arm.default("task").name), *copied]
    if arm.evaluation:
        alone = replace(cell, arm=trained_arm(cell.arm))
        tuned = [replace(cell, arm=arm.tuned_teacher.name)] if arm.ensemble == "finetuned" else []
        return [alone, *tuned, *(_teachers(protocol, cell, arm) if arm.compares_maps else [])]
    return _taught(protocol, cell, arm)


def _taught(protocol: Protocol, cell: Cell, arm: Arm) -> list[Cell]:
    """The cells of the teacher that an arm learns from."""
    if arm.method == "none" or arm.learns_untrained or arm.ignores_teacher:
        return []
    if arm.weights == "finetuned":
        return [replace(cell, arm=arm.tuned_teacher.name)]
    return _teachers(protocol, cell, arm)


def _teachers(protocol: Protocol, cell: Cell, arm: Arm) -> list[Cell]:
    return [] if protocol.teacher is None else [replace(cell, arm=teacher_arm(arm.recipe))]


def run_of(protocol: Protocol, cell: Cell) -> Run:
    """The run of a cell under the current protocol: of the arm that is trained. Raises UserError if
    there is none."""
    return Definitions(protocol).run_of(cell)


def _draft(defined: Definitions, cell: Cell) -> Draft:
    draft = Draft(defined, cell)
    for name, value in Arm.parse(cell.arm).variants():
        VARIANTS[name].change(draft, value)
    return draft


@dataclass
class Draft:
    """The parts of a run, which the variants of the cell's arm change before it is made.

    Attributes:
        budget, lr: factors on the recipe's.
        data, task: names of another data set and of a task of the protocol's; "" for none.
        giving: the family that the student's components come from.
        components: of the student.
        transfer: fields of the run's Transfer.
        teacher_recipe, teacher_weights: of the teacher.
        reinit, start, into: as Arm's.
    """

    defined: Definitions
    cell: Cell
    budget: float = 1
    lr: float = 1
    data: str = ""
    task: str = ""
    teacher_recipe: str = ""
    teacher_weights: str = "pretrained"
    reinit: Reinit = "none"
    start: Start = "usual"
    into: str = ""

    def __post_init__(self) -> None:
        self.protocol, self.arm = self.defined.protocol, Arm.parse(self.cell.arm)
        self.family, self.size, self.giving = self.cell.family, self.cell.size, self.cell.family
        self.spec = families.spec(self.family)
        self.geometry = self.defined.geometry_of(self.family, self.size)
        self.components = self.spec.components(self.size, None if self.arm.student != "standard" else ())
        self.transfer: dict[str, Any] = {}
        if self.arm.transfers or self.arm.compares_maps:
            settings = self.protocol.transfer
            kept = ("teacher_precision", "compile_teacher", "teacher_drop_path")
            self.transfer = {"method": self.arm.method} | {name: getattr(settings, name) for name in kept}
            if self.arm.method == "distill":
                self.transfer |= {"loss": settings.loss, "weight": settings.weight}

    def refuse(self, reason: str) -> NoReturn:
        """Raise UserError: there is no such run."""
        raise UserError(f"arm {quoted(self.arm.name)}: {reason}")

    def run(self) -> Run:
        """The run that trains the arm's model."""
        usual = self.protocol.on(self.data).recipe_of(self.arm.method).steps
        if not STEPS.least <= (steps := round(usual * self.budget)) <= STEPS.most:
            told = "leaves none" if steps < STEPS.least else f"is more than {STEPS.most}"
            self.refuse(f"{usual} steps times {self.budget:g} {told}")
        transfer, given = self._transfer(), dict[str, Any]()
        geometry = self._own_geometry() if self.into else self.geometry
        student = hosted(geometry, self.components, families.spec(self.giving).host, self.start)
        if self.arm.method != "none":
            source = None if self.arm.ignores_teacher else self._teacher()
            given = {"transfer": transfer, "teacher": source, "taught_by": self.geometry if transfer.resized else None}
        given |= {"role": "finetune"} if self.arm.is_finetuned else {}
        labels: dict[str, Any] = {"family": self.family, "size": self.size, "task": self.defined.task_of(self.data)}
        conditions = self.defined.conditions_of(self.data, self.arm.method, self.budget, self.lr, transfer.needs_average)
        return Run(protocol=conditions, student=student, seed=self.cell.seed, reinit=self.reinit, **labels, **given)

    def detector(self) -> Run:
        """The run of a detector on the arm without its task; Copy has its teacher there too."""
        task = self.protocol.task(self.task)
        before = self.defined.run_of(needed(self.protocol, self.cell)[0])
        patch = self.geometry.patch_size
        if task.img_size % (patch * task.detector.windows):
            windows = f"{task.detector.windows} windows of whole patches a side"
            self.refuse(f"tasks.{self.task}.img_size: {task.img_size} px are not {windows} ({patch} px)")
        self.geometry = self.geometry.model_copy(update={"img_size": task.img_size})
        copies, seen = before.transfer.copies, before.protocol.normalisation
        if before.is_finetuned and before.teacher is not None and before.teacher.pinned:
            seen = Normalisation(mean=self.spec.mean, std=self.spec.std)
        changed = {"data": task.data.training(), "recipe": task.recipe, "normalisation": seen}
        return before.model_copy(
            update={
                "protocol": before.protocol.model_copy(update=changed),
                "student": before.student.model_copy(update={"geometry": self.geometry, "start": "usual"}),
                "role": "detector",
                "reinit": "none",
                "transfer": before.transfer if copies else Transfer(),
                "teacher": self._teacher() if copies and before.teacher is not None else None,
                "backbone": Backbone(run=before.key, role=before.role, img_size=before.student.geometry.img_size),
                "detector": task.detector,
                "task": Task(data=task.data, evaluation_batch=task.evaluation_batch, curve_points=task.curve_points),
            }
        )

    def evaluation(self, run: Run) -> Evaluation:
        """The evaluation of `run` that the arm names."""
        on, name = measured_on(run, "test"), self.arm.evaluation
        if not self.arm.compares_maps:
            tuned = self.defined.run_of(needed(self.protocol, self.cell)[1])
            return Evaluation(run, name, on, tuned.key, teacher=tuned.teacher)
        teacher = self._teacher()
        return Evaluation(run, name, on, beside_of(teacher), self._transfer(), teacher)

    def _transfer(self) -> Transfer:
        if not self.transfer:
            return Transfer()
        own = self._own_geometry() if self.into else self.geometry
        resized = {"resized": True} if own != self.geometry and not self.arm.ignores_teacher else {}
        if resized and (self.protocol.transfer.teacher_drop_path or "blocks" in self.transfer):
            self.refuse("a student of another size has all blocks transferred, and its teacher no stochastic depth")
        return Transfer(**({"blocks": self.protocol.transfer.indices(own.depth)} | self.transfer | resized))

    def _own_geometry(self) -> Geometry:
        """The geometry of a student of another size, on the teacher's grid."""
        sizes = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,2})x([1-9]\d{0,2})", self.into)
        if sizes is None:
            found = geometry_of(self.protocol, self.spec.teacher(self.into))
        else:
            width, depth, heads = map(int, sizes.groups())
            if width % heads or (width // heads) % 4:
                self.refuse(f"width {width} is not {heads} heads of a multiple of 4 channels")
            found = self.geometry.model_copy(update={"embed_dim": width, "depth": depth, "num_heads": heads})
        if (found.patch_size, found.img_size) != (self.geometry.patch_size, self.geometry.img_size):
            self.refuse(f"the grid of {self.into} is not its teacher's: patches of {found.patch_size} px at {found.img_size} px")
        return found

    def _teacher(self) -> TeacherSource:
        """The source of the run's attention, or of the weights that it fine-tunes."""
        teacher, spec = self.spec.teacher(self.size), self.spec
        if self.arm.learns_untrained:
            whole = architecture(self.protocol, spec, self.size, spec.components(self.size))
            return Untrained(untrained=digest(whole), seed=str(self.cell.seed))
        folded = LAYER_SCALE if self.teacher_weights == "folded" else None
        if folded and folded not in spec.components(self.size):
            self.refuse(f"{self.family} has no {LAYER_SCALE} to fold")
        before = needed(self.protocol, self.cell)[int(self.arm.compares_maps or bool(self.task)) :]  # without the student
        run = self.defined.run_of(before[0]).key if before else None
        if self.protocol.teacher is not None:
            return Trained(run=str(run), folded=folded)
        if self.teacher_recipe:
            self.refuse("the teachers are pre-trained: there is one of each")
        sha256 = teacher.official.sha256 if teacher.official else None
        weights = teacher.official.url if teacher.official else teacher.model
        positions = None if self.geometry.img_size == teacher.native_size else spec.positions
        return Pretrained(weights=weights, revision=teacher.revision, sha256=sha256, positions=positions, run=run, folded=folded)


class Definitions:
    """Runs and evaluations of one protocol's cells, each made once. Cells that differ in their seed
    alone share one definition of a run, but for the seeds of student and teacher."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self._first: dict[tuple[str, str, str], Run] = {}
        self._runs: dict[tuple[str, str, str, int], Run] = {}
        self._evaluations: dict[Cell, Evaluation] = {}
        self._tasks: dict[str, Task] = {}
        self._geometries: dict[tuple[str, str], Geometry] = {}
        self._conditions: dict[tuple[str, str, float, float, bool], Conditions] = {}

    def task_of(self, dataset: str) -> Task:
        """The task of the protocol's data, or of another of its data sets by name."""
        if dataset not in self._tasks:
            self._tasks[dataset] = _task(self.protocol.on(dataset))
        return self._tasks[dataset]

    def geometry_of(self, family: str, size: str) -> Geometry:
        """A teacher's geometry under the protocol. Raises as the function of this name does."""
        if (family, size) not in self._geometries:
            self._geometries[family, size] = geometry_of(self.protocol, families.spec(family).teacher(size))
        return self._geometries[family, size]

    def conditions_of(self, dataset: str, method: str, budget: float, lr: float, uses_val: bool) -> Conditions:
        """Data and recipe of a method, with its budget and learning rates times these factors."""
        place = (dataset, method, budget, lr, uses_val)
        if place not in self._conditions:
            task = self.protocol.on(dataset)
            recipe = task.recipe_of(method)
            if (budget, lr) != (1, 1):
                factors = {"steps": round(recipe.steps * budget), "lr": recipe.lr * lr, "min_lr": recipe.min_lr * lr}
                recipe = recipe.model_copy(update=factors)
            self._conditions[place] = _conditions(task, recipe, uses_val)
        return self._conditions[place]

    def run_of(self, cell: Cell) -> Run:
        """The run of a cell: of the arm that is trained. Raises UserError if there is none."""
        place = (cell.family, cell.size, trained_arm(cell.arm))
        if (*place, cell.seed) not in self._runs:
            trained = replace(cell, arm=place[2])
            if place not in self._first:
                self._first[place] = self._define(trained)
            self._runs[*place, cell.seed] = self._of_seed(self._first[place], trained)
        return self._runs[*place, cell.seed]

    def _of_seed(self, run: Run, cell: Cell) -> Run:
        """The run, or the same of a cell's seed."""
        if run.seed == cell.seed:
            return run
        teacher, backbone = run.teacher, run.backbone
        before = [self.run_of(each).key for each in needed(self.protocol, cell)]
        if isinstance(teacher, Untrained):
            teacher = teacher.model_copy(update={"seed": str(cell.seed)})
        elif teacher is not None and teacher.run_key is not None:
            teacher = teacher.model_copy(update={"run": before[-1]})
        if backbone is not None:
            backbone = backbone.model_copy(update={"run": before[0]})
        return run.model_copy(update={"seed": cell.seed, "teacher": teacher, "backbone": backbone})

    def _define(self, cell: Cell) -> Run:
        if is_teacher(cell.arm):
            recipe = cell.arm.removeprefix(TEACHER).removeprefix("+recipe=")
            return teacher_run(self.protocol, cell.family, cell.size, cell.seed, recipe)
        draft = _draft(self, cell)
        return draft.detector() if draft.task else draft.run()

    def evaluation_of(self, cell: Cell) -> Evaluation | None:
        """The evaluation that a cell's arm names; None for an arm that is trained. Raises UserError
        if there is none."""
        if is_teacher(cell.arm) or not Arm.parse(cell.arm).evaluation:
            return None
        if cell not in self._evaluations:
            self._evaluations[cell] = _draft(self, cell).evaluation(self.run_of(cell))
        return self._evaluations[cell]

    def key_of(self, cell: Cell) -> str:
        """The key of a cell's evaluation, else of its run. Raises UserError if there is none."""
        evaluation = self.evaluation_of(cell)
        return self.run_of(cell).key if evaluation is None else evaluation.key


def components_of(arm: Arm, family: str, size: str) -> dict[str, Component]:
    """The native components that an arm gives to the student of a family's teacher. Raises
    UnknownName for an unknown one."""
    components = families.spec(family).components(size, () if arm.student == "standard" else None)
    student: Any = SimpleNamespace(family=family, size=size, giving=family, components=components)
    for name, value in arm.variants():
        if VARIANTS[name].matched:
            VARIANTS[name].change(student, value)
    return dict(student.components)


def teacher_run(protocol: Protocol, family: str, size: str, seed: int, recipe: str = "") -> Run:
    """The run that pre-trains a teacher, with all native components, by the protocol's (or an
    alternative) recipe.

    Raises UserError if the protocol's teachers are pre-trained elsewhere, UnknownName for an
    unknown recipe.
    """
    if protocol.teacher is None:
        raise UserError("this protocol's teachers are pre-trained already")
    spec, taught = families.spec(family), protocol.teacher.by(recipe).recipe
    protocol = protocol.model_copy(update={"data": protocol.data.of_teachers})
    conditions = _conditions(protocol, taught)
    whole = architecture(protocol, spec, size, spec.components(size))
    return Run(
        protocol=conditions, student=whole, seed=seed, role="teacher", family=family, size=size, task=_task(protocol)
    )  # fmt: skip


def _conditions(protocol: Protocol, recipe: Recipe, uses_val: bool = False) -> Conditions:
    data = protocol.data.training(augmented=recipe.augment is not None, uses_val=uses_val)
    return Conditions(data=data, normalisation=protocol.normalisation, head=protocol.head, recipe=recipe)


def _task(protocol: Protocol) -> Task:
    return Task(data=protocol.data, evaluation_batch=protocol.evaluation_batch)
