"""One training: optimiser, schedule, augmentation and precision."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from benchmark.spec.records import BatchSize, Centre, Fraction, NotNegative, Positive, Record, Steps


class Augment(Record):
    """Augmentation by timm, with its names: of each image (a pure function of seed, epoch and
    image), then mixup and cutmix within a batch (of seed and step)."""

    scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    hflip: Fraction = 0.5
    auto_augment: str | None = None
    color_jitter: NotNegative | None = None
    erase: Fraction = 0.0
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0


class Normalisation(Record):
    """(image - mean) / std per channel, for values in 0..1."""

    mean: tuple[Centre, Centre, Centre]
    std: tuple[Positive, Positive, Positive]


class Recipe(Record):
    """One training: AdamW, linear warm-up, then cosine to `min_lr`, stepped per batch (timm).

    Attributes:
        steps, epochs: the budget. A protocol file gives one of them; epochs are converted to steps.
        lr: of the whole batch, not scaled further.
        min_lr: the rate that the cosine ends at; a factor on lr is one on it too.
        layer_decay: factor on lr per layer below the head, or below the last block where
            `layer_decay_from` says so.
        warmup: share of the steps.
        drop_path: rate of stochastic depth in the last block, growing linearly from 0 in the first.
        smoothing: of labels.
        ema: decay per step of averaged weights, which are then the ones that are evaluated.
        augment: None: images are resized and cropped as for evaluation.
        compile: run the student through torch.compile, attention and transfer included.
        objective: labels, or masked image modelling (benchmark/training/simmim.py) for teachers,
            whose head is then a probe on frozen features.
        mask_ratio: share of masked patches in masked image modelling.
    """

    steps: Steps
    epochs: Positive | None = None
    batch_size: BatchSize
    lr: Positive
    min_lr: NotNegative = 0.0
    warmup: Fraction
    weight_decay: NotNegative
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    clip_grad: Positive | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    grad_checkpointing: bool = False
    layer_decay: Positive | None = Field(default=None, le=1)
    layer_decay_from: Literal["head", "last_block"] = "head"
    drop_path: NotNegative = Field(default=0.0, lt=1)
    smoothing: NotNegative = Field(default=0.0, lt=1)
    ema: Positive | None = Field(default=None, lt=1)
    augment: Augment | None = None
    compile: bool = False
    objective: Literal["labels", "masked"] = "labels"
    mask_ratio: Positive = Field(default=0.5, lt=1)


def with_steps(recipe: Any, data: Any, few: Any = None) -> Any:
    """The content of a recipe with its epochs converted to steps of whole batches: of `few` images,
    or else of the training images of a `data` block that are not held out. Raises ValueError."""
    if not isinstance(recipe, dict) or recipe.get("epochs") is None:
        return recipe
    if recipe.get("steps") is not None:
        raise ValueError("a recipe gives epochs or steps, not both (write null for the one that is not meant)")
    try:  # as pydantic reads numbers
        images = int(few) if few else int(data["train"]["images"]) - int(data.get("held_out", 0))
        size = int(recipe["batch_size"])
        steps = max(1, round(float(recipe["epochs"]) * (images // size)))
    except (TypeError, KeyError, AttributeError, ValueError, ArithmeticError):  # their own records say what is wrong
        return recipe | {"steps": 1}
    if images // size < 1 <= images:
        raise ValueError(f"a batch of {size} is more than the {images} training images")
    return recipe | {"steps": steps, "epochs": None}
