"""One training: optimiser, schedule, augmentation and precision."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from benchmark.spec.records import BatchSize, Centre, Fraction, NotNegative, Positive, Record, Steps


class Augment(Record):
    """What is done to training images, by timm's names: each image by itself (a pure function of seed, epoch and image),
    then mixup and cutmix between images of a batch (of seed and step)."""

    scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    hflip: Fraction = 0.5
    auto_augment: str | None = None
    color_jitter: NotNegative | None = None
    erase: Fraction = 0.0
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0


class Normalisation(Record):
    """What students get: (image - mean) / std per channel, on values in 0..1."""

    mean: tuple[Centre, Centre, Centre]
    std: tuple[Positive, Positive, Positive]


class Recipe(Record):
    """One training: AdamW, linear warm-up, then cosine to zero, stepped per batch (timm).

    Attributes:
        steps, epochs: the budget; a protocol file gives one of them, and epochs become steps.
        lr: of the whole batch, not scaled further; `layer_decay` multiplies it per layer below the head.
        warmup: share of the steps.
        drop_path: stochastic depth of the last block, growing linearly from 0 at the first.
        smoothing: of labels.
        ema: decay per step of the averaged weights that are evaluated then.
        augment: of training images; None: they are resized and cropped as for evaluation.
        compile: run the student through torch.compile, its attention left out.
        objective: what is learnt, of labels, or of masked image modelling (benchmark/masked.py), which a teacher can be
            pre-trained by; its head then is a probe on features that it does not change.
        mask_ratio: share of the patches that are masked then.
    """

    steps: Steps
    epochs: Positive | None = None
    batch_size: BatchSize
    lr: Positive
    warmup: Fraction
    weight_decay: NotNegative
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    clip_grad: Positive | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    grad_checkpointing: bool = False
    layer_decay: Positive | None = Field(default=None, le=1)
    drop_path: NotNegative = Field(default=0.0, lt=1)
    smoothing: NotNegative = Field(default=0.0, lt=1)
    ema: Positive | None = Field(default=None, lt=1)
    augment: Augment | None = None
    compile: bool = False
    objective: Literal["labels", "masked"] = "labels"
    mask_ratio: Positive = Field(default=0.5, lt=1)
