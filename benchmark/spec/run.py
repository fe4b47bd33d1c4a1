"""A run: everything that can change the trained weights, and nothing else; and the cells that name
its place in the results."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from benchmark.spec import plugins
from benchmark.spec.arm import Part, Reinit, Start, trained_arm
from benchmark.spec.data_sets import CuedDigits, CuedDigitsTraining, Images, ImagesTraining
from benchmark.spec.detection import Backbone, Coco, CocoTraining, Detector, DigitBoxes, DigitBoxesTraining
from benchmark.spec.recipe import Normalisation, Recipe
from benchmark.spec.records import Record
from benchmark.spec.teacher_source import TeacherSource
from families.spec import STANDARD

TEACHER = "teacher"  # the arm of a teacher that the protocol trains


class Conditions(Record):
    """The part of a protocol that can change what a run trains."""

    data: CuedDigitsTraining | ImagesTraining | CocoTraining | DigitBoxesTraining = Field(discriminator="name")
    normalisation: Normalisation
    head: Literal["token", "avg"]
    recipe: Recipe

    @cached_property
    def batches(self) -> str:
        """Equal where batches and their precision are equal, except for the size in pixels."""
        recipe = self.recipe
        return str((self.normalisation, recipe.batch_size, recipe.precision, recipe.augment, recipe.smoothing))


class Task(Record):
    """Where a run's images come from, evaluation sets and all, the batch of evaluation, and the points
    of the learning curve (None: as many as the protocol says)."""

    data: CuedDigits | Images | Coco | DigitBoxes = Field(discriminator="name")
    evaluation_batch: int = 500
    curve_points: int | None = None


class Geometry(Record):
    """The geometry of teacher and student; sizes of image and patch in pixels."""

    img_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int


class Architecture(Record):
    """A model: geometry, native components with their initial values, the timm model that hosts
    them, the arguments that switch the host's other components off, and how its attention weights
    start."""

    geometry: Geometry
    components: dict[str, Any] = {}
    host: str = STANDARD.model
    switched_off: dict[str, Any] = {}
    start: Start = "usual"


class Transfer(Record):
    """What a student gets from its teacher.

    Attributes:
        blocks: indices of the transferred blocks. (Of method "none": of blocks to compare.)
        loss, weight: of Distillation.
        teacher_precision: None: that of the recipe.
        source, part, sinks, pairing: as in Arm.
        resized: whether teacher and student differ in size: each head of the student then gets a
            weighted mean of the teacher's maps, and each block the map of the block at its place.
    """

    method: Literal["none", "copy", "distill"] = "none"
    blocks: tuple[int, ...] = ()
    loss: str | None = None
    weight: float | None = None
    source: str = "teacher"
    teacher_precision: Literal["float32", "bfloat16"] | None = None
    compile_teacher: bool = False
    teacher_drop_path: bool = False
    part: Part = "map"
    sinks: Literal["keep", "drop", "redistribute"] = "keep"
    pairing: Literal["usual", "reversed", "shuffled"] = "usual"
    resized: bool = False

    @property
    def copies(self) -> bool:
        """Whether it is Attention Copy."""
        return self.method == "copy"

    @property
    def distils(self) -> bool:
        """Whether it is Attention Distillation."""
        return self.method == "distill"

    @property
    def needs_route(self) -> bool:
        """Whether its part needs the teacher's q, k and v, and not the map alone."""
        return bool(plugins.constant("transfer/parts", self.part, "NEEDS_ROUTE", True))

    @property
    def needs_whole_batch(self) -> bool:
        """Whether what an image gets depends on the other images of its batch."""
        return bool(plugins.constant("transfer/sources", self.source, "WHOLE_BATCH", False))

    @property
    def needs_average(self) -> bool:
        """Whether the teacher's average maps have to be known before."""
        return bool(plugins.constant("transfer/sources", self.source, "AVERAGED", False))

    @property
    def needs_teacher(self) -> bool:
        """Whether attention is transferred that depends on a teacher."""
        return self.method != "none" and bool(plugins.constant("transfer/sources", self.source, "NEEDS_TEACHER", True))


Role = Literal["student", "teacher", "finetune", "detector"]


def digest(record: Record) -> str:
    """The first 16 hex digits of the sha256 of a record's canonical JSON, without fields at their
    default."""
    text = json.dumps(record.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Run(Record):
    """Everything that can change the trained weights, and nothing else. Equal runs have equal keys
    and are trained once.

    Attributes:
        protocol: training data and recipe.
        student: the model that is trained, also where that is a teacher.
        role: train a student, pre-train a teacher, fine-tune a teacher, or train a detector.
        teacher: where attention or weights come from; None without.
        reinit: the part of a fine-tuned teacher that is re-initialised.
        taught_by: the teacher's geometry, where it is not the student's.
        backbone: the weights that a detector begins with; None for any other role.
        detector: the rest of its model.
        family, size: name the adapter that builds the models. They are labels: no part of the
            identity, and not stored. So is `task`, the data settings with their evaluation sets.
    """

    protocol: Conditions
    student: Architecture
    seed: int
    role: Role = "student"
    transfer: Transfer = Transfer()
    teacher: TeacherSource | None = None
    reinit: Reinit = "none"
    taught_by: Geometry | None = None
    backbone: Backbone | None = None
    detector: Detector | None = None
    family: str = Field(default="", exclude=True, repr=False)
    size: str = Field(default="", exclude=True, repr=False)
    task: Task | None = Field(default=None, exclude=True, repr=False)

    @cached_property
    def key(self) -> str:
        """The digest. Fields at their default are left out, so that a field added later changes no
        key."""
        return digest(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def settings(self) -> Task:
        """The task, of a run that a protocol defines. (One read from a result file has none.)"""
        assert self.task is not None
        return self.task

    @property
    def teachers_geometry(self) -> Geometry:
        """The teacher's geometry."""
        return self.taught_by or self.student.geometry

    @property
    def is_teacher(self) -> bool:
        """Whether it pre-trains a teacher."""
        return self.role == TEACHER

    @property
    def is_finetuned(self) -> bool:
        """Whether it fine-tunes a teacher."""
        return self.role == "finetune"

    @property
    def metric(self) -> str:
        """The field that stands for its scores (storage/scores.py)."""
        return "top1" if self.detector is None else "box_ap"

    @property
    def is_student(self) -> bool:
        """Whether it trains a student."""
        return self.role == "student"

    @property
    def stream(self) -> str:
        """Seeds its data order and random numbers."""
        return f"{self.role}:{self.seed}"

    @property
    def companions(self) -> str:
        """Equal for runs that can train together: they have the same batches and precision."""
        return f"{self.stream} {self.protocol.batches} {self.task} {self.student.geometry.img_size}"


@dataclass(frozen=True, order=True)
class Cell:
    """A place in the results: labels, which are no part of a run's identity."""

    protocol: str
    family: str
    size: str
    arm: str
    seed: int

    @property
    def path(self) -> str:
        """The path of its result file in the results folder: that of the arm that is trained."""
        return f"{self.protocol}/{self.family}/{self.size}/{trained_arm(self.arm)}-s{self.seed}.json"

    @property
    def name(self) -> str:
        """Its name in commands."""
        return f"{self.protocol}/{self.family}/{self.size}/{self.arm}-s{self.seed}"

    def __str__(self) -> str:
        return f"{self.family} {self.size} {self.arm} s{self.seed}"
