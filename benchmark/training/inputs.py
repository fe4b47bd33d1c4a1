"""Normalised images, and the precision that models compute in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from benchmark.spec.recipe import Normalisation, Recipe
from families.core.adapter import normalised


class Inputs:
    """A batch of images [B, 3, H, W] in 0..1, normalised for each model once."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.made: dict[Normalisation, Tensor] = {}

    def by(self, chosen: Normalisation) -> Tensor:
        """The images with this normalisation."""
        if chosen not in self.made:
            self.made[chosen] = normalised(self.images, chosen)
        return self.made[chosen]


def precision_of(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    """A context with the precision of a recipe."""
    if recipe.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, recipe.precision))
