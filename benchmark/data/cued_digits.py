"""Cued digits: a task that only attention solves, made of the digits shipped with scikit-learn (no
download).

An image is a 3x3 grid of 8x8 cells. Five cells, drawn for each image, are filled with one colour,
the cue. Of the other four, one to four hold a handwritten digit each (UCI digits), each in a colour
of its own, and the rest are black. The label is the class of the digit in the cue's colour. Source
images are split, so val and test show unseen handwriting. The shifted test sets are the same task
in hues half way between the trained ones, and with pixel noise.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from benchmark.data import Checked, DataLocation, part_of
from benchmark.data.loading import moved
from benchmark.spec.data_sets import EVALUATION_SETS
from families.core.seeds import seed_of

if TYPE_CHECKING:
    from benchmark.data import Batch
    from benchmark.spec.data_sets import CuedDigits as Settings
    from benchmark.spec.recipe import Normalisation, Recipe

CELL, GRID = 8, 3
DIGITS, HUES = 4, 8  # at most, of an image; and those that its colours are drawn from
SPLITS = {"train": (0.0, 0.6), "val": (0.6, 0.75), "test": (0.75, 1.0)}  # of the source images


def load(settings: Settings, place: DataLocation, img_size: int, normalisation: Normalisation) -> CuedDigits:
    """The data set of a protocol's `data` block. Raises ValueError for another image size than its
    own."""
    if img_size != GRID * CELL:
        raise ValueError(f"cued digits are {GRID * CELL} pixels a side, not {img_size}")
    return CuedDigits(settings, place)


def check(settings: Settings, place: DataLocation, progress: Callable[[str, int, int], None]) -> Checked:
    """Nothing to check: the images are generated."""
    return Checked()


class CuedDigits:
    """See the module's docstring; `settings` gives the sizes of the evaluation sets and the noise
    of the shifted one."""

    def __init__(self, settings: Settings, place: DataLocation) -> None:
        self.settings, self.place, self.num_classes = settings, place, settings.num_classes
        self.digits, self.answers = source_digits()
        self.cache: dict[str, Batch] = {}

    def train(self, stream: str, recipe: Recipe, start: int) -> Iterator[Batch]:
        """Fresh compositions of the training digits, a pure function of (stream, step)."""
        return moved(self._composed(stream, recipe.batch_size, start), self.place.device)

    def _composed(self, stream: str, batch_size: int, start: int) -> Iterator[Batch]:
        mine = part_of(self.place, batch_size)
        for step in count(start):
            images, labels = self.compose("train", batch_size, generator(stream, step))
            yield (images, labels) if len(mine) == len(labels) else (images[mine], labels[mine])

    def sets(self) -> tuple[str, ...]:
        """val, test and the two shifted test sets."""
        return (*EVALUATION_SETS, *self.settings.shifted_sets)

    def classes(self, name: str) -> None:
        """None: every set has all digits."""

    def evaluate(self, name: str, batch_size: int) -> Iterator[Batch]:
        """The fixed images of a set (or of training, drawn once), batch by batch."""
        if name not in self.cache:
            self.cache[name] = self._evaluation_set(name)
        images, labels = self.cache[name]
        batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
        return moved(islice(batches, self.place.rank, None, self.place.ranks), self.place.device)

    def _evaluation_set(self, name: str) -> Batch:
        size = int(self.settings.described(name)["images"])
        draw = generator(name, 0)
        split = name if name in SPLITS else "test"
        images, labels = self.compose(split, size, draw, shifted=name == "unseen_colours")
        if name == "noise":
            images = (images + self.settings.noise_std * torch.randn(images.shape, generator=draw)).clamp(0, 1)
        return images, labels

    def compose(self, split: str, count: int, draw: torch.Generator, shifted: bool = False) -> Batch:
        """`count` images [count, 3, 24, 24] in 0..1 with labels [count], from one split's source
        images."""
        low, high = (int(share * len(self.answers)) for share in SPLITS[split])
        which = torch.randint(low, high, (count, DIGITS), generator=draw)
        hues = torch.rand(count, HUES, generator=draw).argsort(dim=1)[:, :DIGITS]
        colours = palette(shifted, self.settings.hues)[hues]
        shown = torch.randint(1, DIGITS + 1, (count,), generator=draw)
        cued = (torch.rand(count, generator=draw) * shown).long()
        rows = torch.arange(count)
        if split == "train" and self.settings.imbalance != 1:
            which[rows, cued] = self._imbalanced(low, high, count, draw)
        inks = colours * (torch.arange(DIGITS) < shown[:, None])[:, :, None]
        cells = torch.empty(count, GRID * GRID, 3, CELL, CELL)
        cells[:, :DIGITS] = self.digits[which][:, :, None] * inks[:, :, :, None, None]
        cells[:, DIGITS:] = colours[rows, cued][:, None, :, None, None]
        cells = cells[rows[:, None], torch.rand(count, GRID * GRID, generator=draw).argsort(dim=1)]
        grid = cells.view(count, GRID, GRID, 3, CELL, CELL).permute(0, 3, 1, 4, 2, 5)
        return grid.reshape(count, 3, GRID * CELL, GRID * CELL), self.answers[which[rows, cued]]

    def _imbalanced(self, low: int, high: int, count: int, draw: torch.Generator) -> Tensor:
        """[count] source images in `low`..`high`, classes drawn with the settings' imbalance."""
        answers = self.answers[low:high]
        often = self.settings.imbalance ** -(torch.arange(self.num_classes) / (self.num_classes - 1))
        weights = (often / answers.bincount(minlength=self.num_classes))[answers]
        return low + torch.multinomial(weights, count, replacement=True, generator=draw)


def source_digits() -> tuple[Tensor, Tensor]:
    """The digits [n, 8, 8] in 0..1 and their classes [n], in a fixed random order."""
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    return torch.from_numpy(bunch.images[order]).float() / 16.0, torch.from_numpy(bunch.target[order])


def palette(shifted: bool, share: float = 1) -> Tensor:
    """[8, 3] RGB colours: hues evenly spaced over `share` of the colour circle, moved by half a
    step if `shifted`."""
    hues = [share * (i + 0.5 * shifted) / HUES for i in range(HUES)]
    return torch.tensor([colorsys.hsv_to_rgb(hue, 1.0, 1.0) for hue in hues])


def generator(stream: str, step: int) -> torch.Generator:
    """A generator seeded by (stream, step) alone."""
    return torch.Generator().manual_seed(seed_of(stream, step))
