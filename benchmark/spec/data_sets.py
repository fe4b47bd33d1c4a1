"""A protocol's `data` block: the embedded task, or images through timm's readers or torchvision."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from benchmark.spec import bounds
from benchmark.spec.records import NUMBER, ClassCount, ImageCount, Name, NotNegative, Positive, Record
from benchmark.spec.torchvision_sets import TorchvisionSet, set_of, with_facts
from families.spec import UnknownName, quoted

EVALUATION_SETS = ("val", "test")
FEATURE_SCORES = ("knn10", "knn20", "probe")  # of frozen features (benchmark/training/features.py)
FEATURES, TEACHER_FEATURES = "features", "teacher_features"  # evaluations
TEACHER_SCORES = tuple(f"teacher_{name}" for name in FEATURE_SCORES)  # the same of the teacher's
RESERVED = {"all", "train", *EVALUATION_SETS, FEATURES, TEACHER_FEATURES, *FEATURE_SCORES, *TEACHER_SCORES}
MOST_SHARDS = 100_000  # that the name of a split may stand for
Described: TypeAlias = dict[str, str | int | float | bool]


class CuedDigitsTraining(Record):
    """What the embedded task (benchmark/data/cued_digits.py) trains on.

    Attributes:
        edition: of the images, raised whenever they change. (In the first, the cue had a cell of
            its own.)
        imbalance: ratio of the first class's frequency in training to the last one's, falling
            geometrically in between; evaluation is balanced.
        hues: share of the colour circle that the eight colours are spread over.
        val: size of the validation set, for transfers that use it in training.
    """

    name: Literal["cued_digits"]
    edition: Literal[1, 2, 3] = 1
    imbalance: Positive = Field(default=1, ge=1)
    hues: Positive = Field(default=1, le=1)
    val: ImageCount | None = None

    @property
    def num_classes(self) -> int:
        """The ten digits."""
        return 10


class CuedDigits(Record):
    """The embedded task with its evaluation sets.

    Attributes:
        val_images, test_images: sizes of the evaluation sets.
        noise_std: of the shifted test set with noise.
        imbalance, hues: as in CuedDigitsTraining.
    """

    name: Literal["cued_digits"]
    val_images: ImageCount
    test_images: ImageCount
    noise_std: NotNegative
    imbalance: Positive = Field(default=1, ge=1)
    hues: Positive = Field(default=1, le=1)

    @property
    def is_embedded(self) -> bool:
        """Whether its images need no folder."""
        return True

    @property
    def num_classes(self) -> int:
        """The ten digits."""
        return 10

    @property
    def of_teachers(self) -> CuedDigits:
        """The same: students and teachers learn from fresh images."""
        return self

    @property
    def shifted_sets(self) -> tuple[str, ...]:
        """The names of the shifted test sets."""
        return ("unseen_colours", "noise")

    def training(self, augmented: bool, uses_val: bool) -> CuedDigitsTraining:
        """The part that can change trained weights."""
        val = self.val_images if uses_val else None
        return CuedDigitsTraining(name=self.name, edition=3, imbalance=self.imbalance, hues=self.hues, val=val)

    def described(self, name: str) -> Described:
        """A set by its settings: an evaluation set or `train`, of which as many images as test has
        are drawn. Raises UnknownName."""
        if name not in ("train", *EVALUATION_SETS, *self.shifted_sets):
            raise UnknownName("evaluation set", name, (*EVALUATION_SETS, *self.shifted_sets))
        found: Described = {"set": name, "images": self.val_images if name == "val" else self.test_images, "hues": self.hues}
        return found | ({"noise_std": self.noise_std} if name == "noise" else {})


class Split(Record):
    """A part of a data set: its name in timm's factory, and its number of images (checked before
    training)."""

    split: str
    images: ImageCount

    @field_validator("split")
    @classmethod
    def _names_not_too_many(cls, split: str) -> str:
        count = 1
        for first, last in re.findall(r"\{(\d{1,18})\.\.(\d{1,18})\}", split):
            count *= abs(int(last) - int(first)) + 1
        if count > MOST_SHARDS:
            raise ValueError(f"names more than {MOST_SHARDS} shards")
        return split


class ShiftedSet(Record):
    """A shifted test set: image folders at `path`, in the data folder or beside it.

    It has `classes` of the training classes. Accuracy is over these alone: the model's other
    outputs are left out (ImageNet-A and -R: Hendrycks et al. 2021, arXiv 1907.07174 and
    2006.16241). `named_by`: whether its folders bear the training folders' names or their index in
    sorted order. `digest` is of the files' names and sizes, of a set that a command names by its
    path.
    """

    path: str
    images: ImageCount
    classes: ClassCount
    named_by: Literal["class", "index"] = "class"
    digest: str | None = None


class ImagesTraining(Record):
    """What is trained on of `Images`; `student_images` of students alone. `crop_pct` where training
    images are cropped as for evaluation; `val` and `crop_pct` for transfers that use the validation
    set in training."""

    name: Literal["images"]
    source: str = ""
    num_classes: ClassCount
    classes: tuple[str, ...] = ()
    train: Split
    held_out: int = 0
    student_images: int | None = None
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    crop_pct: Positive | None = None
    val: Split | None = None

    @property
    def training_images(self) -> int:
        """Images of an epoch."""
        return self.student_images or self.train.images - self.held_out


class Images(Record):
    """Images in `--data DIR`, through timm's data set factory or torchvision's classes
    (benchmark/data/images.py).

    `source` is the factory's prefix: "" for image folders and tars, else as in "wds/" or
    "hfds/NAME"; or it is "torchvision/NAME", of which classes and splits are known and may be left
    out (benchmark/spec/torchvision_sets.py). `classes`: the folders that are used; none named: all.
    val is either `held_out` of the training images or a split of its own. Students learn from
    `student_images` of the training images, the same for every run; teachers that the protocol
    trains learn from all. Evaluation resizes the shorter side to the input size / crop_pct and
    crops the centre.
    """

    name: Literal["images"]
    source: str = ""
    num_classes: ClassCount
    classes: tuple[str, ...] = ()
    train: Split
    test: Split
    val: Split | None = None
    held_out: Annotated[int, NUMBER, Field(ge=0, le=bounds.IMAGES.most)] = 0
    student_images: ImageCount | None = None
    crop_pct: Positive = Field(default=0.875, le=1)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    shifted: dict[Name, ShiftedSet] = {}

    @model_validator(mode="before")
    @classmethod
    def _known(cls, content: Any) -> Any:
        return with_facts(content)

    @model_validator(mode="after")
    def _splits_there(self) -> Images:
        found = self.torchvision
        for split in (self.train, self.test, self.val):
            if found is not None and split is not None and split.split not in found[1].splits:
                raise ValueError(str(UnknownName(f"split of {found[0]}", split.split, found[1].splits)))
        return self

    @model_validator(mode="after")
    def _one_val(self) -> Images:
        if (self.val is None) == (self.held_out == 0):
            raise ValueError("either held_out images of train are val, or val names a split")
        if self.classes and (self.source or len(set(self.classes)) != self.num_classes):
            raise ValueError(f"classes: {self.num_classes} different names of folders; other sources choose none")
        if self.held_out >= self.train.images:
            raise ValueError(f"held_out {self.held_out} leaves none of {self.train.images} training images")
        if self.training_images > self.of_teachers.training_images:
            raise ValueError(
                f"student_images {self.student_images}: more than {self.of_teachers.training_images} training images"
            )
        if taken := RESERVED & set(self.shifted):
            raise ValueError(f"shifted: {', '.join(sorted(taken))} is a name of its own")
        if self.streamed and (self.held_out or self.student_images):
            told = "nothing can be held out of it, nor some of it chosen; val names a split"
            raise ValueError(f"source {quoted(self.source)} is streamed: {told}")
        return self

    @property
    def is_embedded(self) -> bool:
        """Whether its images need no folder."""
        return False

    @property
    def torchvision(self) -> tuple[str, TorchvisionSet] | None:
        """(torchvision's name, the set) of a source that torchvision reads; None for another one."""
        return set_of(self.source)

    @property
    def streamed(self) -> bool:
        """Whether the source is a stream, without access by index."""
        return self.source.split("/")[0].lower() == "wds"

    @property
    def training_images(self) -> int:
        """Images of an epoch."""
        return self.student_images or self.train.images - self.held_out

    @property
    def of_teachers(self) -> Images:
        """The same with all training images."""
        return self.model_copy(update={"student_images": None})

    @property
    def shifted_sets(self) -> tuple[str, ...]:
        """The names of the shifted test sets."""
        return tuple(self.shifted)

    def training(self, augmented: bool, uses_val: bool) -> ImagesTraining:
        """The part that can change trained weights."""
        return ImagesTraining(
            name=self.name,
            source=self.source,
            num_classes=self.num_classes,
            classes=self.classes,
            train=self.train,
            held_out=self.held_out,
            student_images=self.student_images,
            interpolation=self.interpolation,
            crop_pct=self.crop_pct if uses_val or not augmented else None,
            val=self.val if uses_val else None,
        )

    def described(self, name: str) -> Described:
        """A set by its settings: an evaluation set or `train`. Raises UnknownName."""
        found: Described = {"crop_pct": self.crop_pct, "interpolation": self.interpolation}
        if name in self.shifted:
            given = self.shifted[name]
            own: Described = {"set": name, "images": given.images, "classes": given.classes}
            return found | own | ({} if given.digest is None else {"digest": given.digest})
        if name == "train":
            return found | {"set": self.train.split, "images": self.training_images}
        if name not in EVALUATION_SETS:
            raise UnknownName("evaluation set", name, (*EVALUATION_SETS, *self.shifted))
        split = self.test if name == "test" else self.val
        if split is None:
            return found | {"set": self.train.split, "images": self.held_out, "held_out": True}
        return found | {"set": split.split, "images": split.images}


DataSettings = CuedDigits | Images
TrainingData = CuedDigitsTraining | ImagesTraining
