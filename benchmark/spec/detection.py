"""Detection: a task of a protocol, which trains a detector on the backbone of each finished run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from benchmark.spec import bounds
from benchmark.spec.data_sets import EVALUATION_SETS, Described
from benchmark.spec.recipe import Recipe, with_steps
from benchmark.spec.records import NUMBER, BatchSize, Fraction, ImageCount, Pixels, Points, Record, Width
from families.spec import UnknownName

FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=100)]
Categories = Annotated[int, NUMBER, Field(ge=bounds.CATEGORIES.least, le=bounds.CATEGORIES.most)]


class Detector(Record):
    """Mask R-CNN (He et al. 2017, arXiv 1703.06870) on a plain ViT with a simple feature pyramid (Li
    et al. 2022, arXiv 2203.16527).

    Attributes:
        width: channels of the pyramid and of the mask head; the box head has four times as many.
        anchor: side of a level's anchors, in strides of that level.
        proposals: regions that go to the heads for each image, at most.
        sampled: of these, regions that the heads learn from.
        detections: told of each image, at most.
        windows: windows a side that attention is restricted to; 1: attention is global in every
            block.
        global_blocks: blocks with global attention beside windows, evenly spaced, the last one
            among them.
        positions: the rule that resamples position tables of models that were trained here
            (families/core/positions.py).
    """

    width: Width = 256
    anchor: Annotated[float, NUMBER, Field(ge=0.1, le=100)] = 8
    proposals: Annotated[int, NUMBER, Field(ge=1, le=10**5)] = 1000
    sampled: Annotated[int, NUMBER, Field(ge=1, le=10**5)] = 512
    detections: Annotated[int, NUMBER, Field(ge=1, le=10**5)] = 100
    windows: Annotated[int, NUMBER, Field(ge=1, le=1024)] = 1
    global_blocks: Annotated[int, NUMBER, Field(ge=1, le=bounds.DEPTH.most)] = 4
    positions: Literal["bicubic_antialias"] = "bicubic_antialias"


Factor = Annotated[float, NUMBER, Field(ge=0.01, le=100)]  # on an image's size


class Backbone(Record):
    """What a detector begins with: the weights that run `run` left, of a student or a fine-tuned
    teacher (`role`) with inputs of `img_size` pixels."""

    run: str
    role: Literal["student", "finetune"] = "student"
    img_size: int


class DigitBoxesTraining(Record):
    """What the embedded detection task (benchmark/data/digit_boxes.py) trains on; `edition` is
    raised whenever its images change."""

    name: Literal["digit_boxes"]
    edition: Literal[1] = 1

    @property
    def num_classes(self) -> int:
        """The ten digits."""
        return 10


class DigitBoxes(Record):
    """The embedded detection task, with the sizes of its evaluation sets."""

    name: Literal["digit_boxes"]
    val_images: ImageCount
    test_images: ImageCount

    @property
    def is_embedded(self) -> bool:
        """Whether its images need no folder."""
        return True

    @property
    def num_classes(self) -> int:
        """The ten digits."""
        return 10

    @property
    def shifted_sets(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def training_images(self) -> None:
        """Without a number: they are made on the spot."""

    def training(self) -> DigitBoxesTraining:
        """The part that can change trained weights."""
        return DigitBoxesTraining(name=self.name)

    def described(self, name: str) -> Described:
        """An evaluation set by its settings. Raises UnknownName."""
        if name not in EVALUATION_SETS:
            raise UnknownName("evaluation set", name, EVALUATION_SETS)
        return {"set": name, "images": self.val_images if name == "val" else self.test_images}


class AnnotatedImages(Record):
    """A part of a data set in COCO's layout: a folder of images, the file of their annotations, and
    the number of images in that file (checked before training)."""

    folder: str
    annotations: str
    images: ImageCount


class CocoTraining(Record):
    """What is trained on of `Coco`."""

    name: Literal["coco"]
    folder: str
    num_classes: Categories
    train: AnnotatedImages
    held_out: int = 0
    jitter: tuple[Factor, Factor] | None = None
    hflip: Fraction = 0.0


class Coco(Record):
    """Images and annotations in COCO's layout (Lin et al. 2014, arXiv 1405.0312).

    Attributes:
        folder: that they lie in, in or beside `--data DIR`; by default it has the task's name.
        num_classes: categories of the annotation files.
        train, test: see `AnnotatedImages`; training images without a box are left out.
        held_out: training images that are val; which ones is a function of their ids.
        jitter: range of the factor on an image's size in training (large-scale jitter: Ghiasi et
            al. 2021, arXiv 2012.07177), 1 being the longer side at the input size.
        hflip: how often a training image is mirrored.
    """

    name: Literal["coco"]
    folder: FolderName = ""
    num_classes: Categories
    train: AnnotatedImages
    test: AnnotatedImages
    held_out: Annotated[int, NUMBER, Field(ge=1, le=bounds.IMAGES.most)]
    jitter: tuple[Factor, Factor] | None = None
    hflip: Fraction = 0.0

    @model_validator(mode="after")
    def _some_left(self) -> Coco:
        if self.held_out >= self.train.images:
            raise ValueError(f"held_out {self.held_out} leaves none of {self.train.images} training images")
        if self.jitter is not None and self.jitter[0] > self.jitter[1]:
            raise ValueError(f"jitter: from {self.jitter[0]:g} to {self.jitter[1]:g} is no range")
        return self

    @property
    def is_embedded(self) -> bool:
        """Whether its images need no folder."""
        return False

    @property
    def shifted_sets(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def training_images(self) -> int:
        """Images of an epoch; those without a box are counted."""
        return self.train.images - self.held_out

    def training(self) -> CocoTraining:
        """The part that can change trained weights."""
        return CocoTraining(**{name: getattr(self, name) for name in CocoTraining.model_fields})

    def described(self, name: str) -> Described:
        """An evaluation set by its settings. Raises UnknownName."""
        if name not in EVALUATION_SETS:
            raise UnknownName("evaluation set", name, EVALUATION_SETS)
        if name == "val":
            return {"set": f"{self.folder}/{self.train.annotations}", "images": self.held_out, "held_out": True}
        return {"set": f"{self.folder}/{self.test.annotations}", "images": self.test.images}


def in_folder(name: str, task: Any) -> Any:
    """The content of a task, with the folder of data in COCO's layout that does not name its own."""
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(data, dict) or data.get("name") != "coco" or data.get("folder"):
        return task
    return task | {"data": data | {"folder": name}}


class DetectionTask(Record):
    """A detection task of a protocol.

    Attributes:
        data: images with boxes and masks.
        img_size: of the detector's input, in pixels a side, a multiple of each teacher's patch
            size; images are resized to it by their longer side and padded.
        detector: the model.
        recipe: its training, the same for all arms.
        evaluation_batch: images at a time.
        curve_points: how often val is measured on the way.
    """

    data: DigitBoxes | Coco = Field(discriminator="name")
    img_size: Pixels
    detector: Detector = Detector()
    recipe: Recipe
    evaluation_batch: BatchSize = 16
    curve_points: Points = 4

    @model_validator(mode="before")
    @classmethod
    def _steps_of_epochs(cls, content: Any) -> Any:
        if not isinstance(content, dict) or "recipe" not in content:
            return content
        return content | {"recipe": with_steps(content["recipe"], content.get("data"))}

    @model_validator(mode="after")
    def _trainable(self) -> DetectionTask:
        recipe = self.recipe
        if recipe.objective != "labels" or recipe.augment is not None or recipe.smoothing or recipe.compile:
            raise ValueError("recipe: a detector has no objective, augment, smoothing and compile; data says how images change")
        if recipe.epochs is not None:
            raise ValueError("epochs need data whose images are counted; give steps")
        return self
