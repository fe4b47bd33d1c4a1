"""Normalised images, and the precision that models compute in."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from benchmark.spec.recipe import Normalisation, Recipe


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


def normalised(images: Tensor, chosen: Normalisation) -> Tensor:
    """Normalise images [B, 3, H, W] in 0..1."""
    mean, std = (torch.tensor(value, device=images.device).view(1, 3, 1, 1) for value in (chosen.mean, chosen.std))
    return (images - mean) / std


def precision_of(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    """A context with the precision of a recipe."""
    if recipe.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, recipe.precision))


def seed_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 2**63
