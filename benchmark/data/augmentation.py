"""Transforms of images and mixing of batches, and their seeds."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from timm.data import Mixup, create_transform
from timm.data.auto_augment import AugmentOp, posterize
from torch import Tensor
from torchvision.transforms import Compose, Normalize

from benchmark.data.image_files import one_line_errors
from families.core.seeds import seed_of
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.data import Batch
    from benchmark.spec.data_sets import Images as Settings
    from benchmark.spec.recipe import Augment, Normalisation, Recipe

Transform = Callable[[Image.Image], Tensor]


def image_seed(*parts: object) -> int:
    """The 56-bit seed of an order or an augmentation of images."""
    return seed_of(*parts, octets=7)


@contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch's CPU within; afterwards restore their
    states.

    `torch.manual_seed` would also reseed the device that trains.
    """
    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    seed = image_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.default_generator.set_state(before[2])


def evaluation_transform(settings: Settings, img_size: int) -> Transform:
    """Resize, by timm, of the shorter side to img_size / crop_pct (rounded down), and centre crop:
    [3, H, W] in 0..1."""
    units = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    done: Transform = create_transform(img_size, crop_pct=settings.crop_pct, interpolation=settings.interpolation, **units)
    return done


def training_transform(augment: Augment, settings: Settings, img_size: int, normalisation: Normalisation) -> Transform:
    """Augmentation by timm, with its normalisation undone: [3, H, W] in 0..1.

    Erased pixels are standard normal noise in normalised units, as in timm, and may lie outside
    0..1.
    """
    mean, std = normalisation.mean, normalisation.std
    with one_line_errors("recipe.augment"):
        there = create_transform(
            img_size,
            is_training=True,
            scale=augment.scale,
            hflip=augment.hflip,
            color_jitter=augment.color_jitter,
            auto_augment=augment.auto_augment,
            interpolation=settings.interpolation,
            mean=mean,
            std=std,
            re_prob=augment.erase,
            re_mode="pixel",
        )
    for operation in _operations(there):
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterize
    back = Normalize([-m / s for m, s in zip(mean, std, strict=True)], [1 / s for s in std])
    done: Transform = Compose([there, back])
    return done


def _operations(transform: Any) -> list[AugmentOp]:
    """The operations of timm's RandAugment, AutoAugment or AugMix, wherever they are in a transform."""
    if isinstance(transform, AugmentOp):
        return [transform]
    held = [getattr(transform, name, ()) for name in ("transforms", "ops", "policy")]
    parts = transform if isinstance(transform, list | tuple) else itertools.chain(*held)
    return [operation for part in parts for operation in _operations(part)]


def _posterize(image: Any, bits: int, **_: object) -> Any:
    """As timm's, but black for 0 bits, which timm's policies ask for and Pillow 13 refuses."""
    return posterize(image, bits) if bits else image.point([0] * 256 * len(image.getbands()))


def mixup_of(recipe: Recipe, num_classes: int) -> Mixup | None:
    """Mixup and cutmix of a recipe, by timm; None without either. Raises UserError for an odd batch
    size."""
    augment = recipe.augment
    if augment is None or not (augment.mixup or augment.cutmix):
        return None
    if recipe.batch_size % 2:
        raise UserError(f"recipe.batch_size {recipe.batch_size}: mixup and cutmix pair images; an even number is needed")
    return Mixup(augment.mixup, augment.cutmix, label_smoothing=recipe.smoothing, num_classes=num_classes)


def mix(mixup: Mixup | None, batch: Batch, *seed: object) -> Batch:
    """A batch mixed under a seed: images and target probabilities [B, classes]; the batch itself
    without mixup."""
    if mixup is None:
        return batch
    with seeded(*seed):
        images, targets = mixup(*batch)
    return images, targets
