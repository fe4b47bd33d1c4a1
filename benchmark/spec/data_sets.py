"""A protocol's `data` block: the embedded task, or images through timm's readers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from benchmark.spec import bounds
from benchmark.spec.records import NUMBER, ClassCount, ImageCount, NotNegative, Positive, Record
from families.spec import quoted


class CuedDigits(Record):
    """The embedded task (benchmark/data/cued_digits.py).

    Attributes:
        val_images, test_images: sizes of the evaluation sets.
        noise_std: of the shifted test set.
        imbalance: ratio of the first class's frequency in training to the last one's, falling
            geometrically in between; evaluation is balanced.
        hues: share of the colour circle that the eight colours are spread over.
    """

    name: Literal["cued_digits"]
    val_images: ImageCount
    test_images: ImageCount
    noise_std: NotNegative
    imbalance: Positive = Field(default=1, ge=1)
    hues: Positive = Field(default=1, le=1)

    @property
    def num_classes(self) -> int:
        """The ten digits."""
        return 10


class Split(Record):
    """A part of a data set: its name in timm's factory, and its number of images (checked before
    training)."""

    split: str
    images: ImageCount


class ShiftedSet(Record):
    """A shifted test set: image folders at `path`, in the data folder or beside it.

    It has `classes` of the training classes. Accuracy is over these alone: the model's other
    outputs are left out (ImageNet-A and -R: Hendrycks et al. 2021, arXiv 1907.07174 and
    2006.16241). `named_by`: whether its folders bear the training folders' names or their index in
    sorted order.
    """

    path: str
    images: ImageCount
    classes: ClassCount
    named_by: Literal["class", "index"] = "class"


class Images(Record):
    """Images in `--data DIR`, through timm's data set factory (benchmark/data/images.py).

    `source` is the factory's prefix: "" for image folders and tars, else as in "wds/" or
    "hfds/NAME". val is either `held_out` of the training images or a split of its own. Evaluation
    resizes the shorter side to the input size / crop_pct and crops the centre.
    """

    name: Literal["images"]
    source: str = ""
    num_classes: ClassCount
    train: Split
    test: Split
    val: Split | None = None
    held_out: Annotated[int, NUMBER, Field(ge=0, le=bounds.IMAGES.most)] = 0
    crop_pct: Positive = Field(default=0.875, le=1)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    shifted: dict[str, ShiftedSet] = {}

    @model_validator(mode="after")
    def _one_val(self) -> Images:
        if (self.val is None) == (self.held_out == 0):
            raise ValueError("either held_out images of train are val, or val names a split")
        if self.held_out >= self.train.images:
            raise ValueError(f"held_out {self.held_out} leaves none of {self.train.images} training images")
        if {"train", "val", "test"} & set(self.shifted):
            raise ValueError("shifted: train, val and test are names of their own")
        if self.streamed and self.held_out:
            raise ValueError(f"source {quoted(self.source)} is streamed: nothing can be held out of it; val names a split")
        return self

    @property
    def streamed(self) -> bool:
        """Whether the source is a stream, without access by index."""
        return self.source.split("/")[0].lower() == "wds"

    @property
    def training_images(self) -> int:
        """Images of an epoch."""
        return self.train.images - self.held_out
