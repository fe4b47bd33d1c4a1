"""Digit boxes: a detection task made of the digits shipped with scikit-learn (no download).

An image is black, with one to four handwritten digits (UCI digits), each in a colour, size and
quarter of the image of its own. An object is a digit: its class, the pixels that it lights, and the
box around them. Source images are split as in cued digits, so val and test show
unseen handwriting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import masks_to_boxes

from benchmark.data import Checked, DataLocation, part_of
from benchmark.data.boxes import Target, Truth, on_device, truth_of
from benchmark.data.cued_digits import SPLITS, generator, palette, source_digits
from benchmark.spec.data_sets import EVALUATION_SETS

if TYPE_CHECKING:
    from benchmark.spec.detection import DigitBoxes as Settings
    from benchmark.spec.recipe import Normalisation, Recipe

PLACES = 4  # quarters of an image
SMALLEST = 0.5  # side of a digit, as a share of its quarter's; the largest fills it
LIT = 0.25  # a pixel is a digit's from this brightness on
BoxBatch = tuple[Tensor, list[Target]]


def load(settings: Settings, place: DataLocation, img_size: int, normalisation: Normalisation) -> DigitBoxes:
    """The data set of a task's `data` block. Raises ValueError for images that are too small."""
    if img_size < 32:
        raise ValueError(f"digit boxes have at least 32 pixels a side, not {img_size}")
    return DigitBoxes(settings, place, img_size)


def check(settings: Settings, place: DataLocation, progress: Callable[[str, int, int], None]) -> Checked:
    """Nothing to check: the images are generated."""
    return Checked()


class DigitBoxes:
    """See the module's docstring; `settings` gives the sizes of the evaluation sets."""

    def __init__(self, settings: Settings, place: DataLocation, img_size: int) -> None:
        self.settings, self.place, self.img_size, self.num_classes = settings, place, img_size, settings.num_classes
        self.digits, self.answers = source_digits()
        self.cache: dict[str, BoxBatch] = {}

    def train(self, stream: str, recipe: Recipe, start: int) -> Iterator[BoxBatch]:
        """Fresh images of the training digits, a pure function of (stream, step)."""
        mine = part_of(self.place, recipe.batch_size)
        for step in count(start):
            images, targets = self.compose("train", recipe.batch_size, generator(stream, step))
            yield self._moved(images[list(mine)], [targets[position] for position in mine])

    def sets(self) -> tuple[str, ...]:
        """Val and test."""
        return EVALUATION_SETS

    def truth(self, name: str) -> Truth:
        """The true objects of an evaluation set."""
        _, targets = self._set(name)
        return truth_of(targets, [str(digit) for digit in range(self.num_classes)])

    def evaluate(self, name: str, batch_size: int) -> Iterator[BoxBatch]:
        """The fixed images of a set, batch by batch."""
        images, targets = self._set(name)
        starts = range(0, len(images), batch_size)
        batches = ((images[start : start + batch_size], targets[start : start + batch_size]) for start in starts)
        return (self._moved(*batch) for batch in islice(batches, self.place.rank, None, self.place.ranks))

    def _set(self, name: str) -> BoxBatch:
        if name not in self.cache:
            size = int(self.settings.described(name)["images"])
            self.cache[name] = self.compose(name, size, generator(f"digit_boxes {name}", 0))
        return self.cache[name]

    def _moved(self, images: Tensor, targets: list[Target]) -> BoxBatch:
        return images.to(self.place.device), [on_device(target, self.place.device) for target in targets]

    def compose(self, split: str, count: int, draw: torch.Generator) -> BoxBatch:
        """`count` images [count, 3, S, S] in 0..1 with their targets, from one split's source images."""
        low, high = (int(share * len(self.answers)) for share in SPLITS[split])
        quarter = self.img_size // 2
        which = torch.randint(low, high, (count, PLACES), generator=draw)
        sides = torch.randint(round(SMALLEST * quarter), quarter + 1, (count, PLACES), generator=draw)
        corners = (torch.rand(count, PLACES, 2, generator=draw) * (quarter + 1 - sides[:, :, None])).long()
        colours = palette(shifted=False)[torch.randint(len(palette(shifted=False)), (count, PLACES), generator=draw)]
        shown = torch.randint(1, PLACES + 1, (count,), generator=draw)
        places = torch.rand(count, PLACES, generator=draw).argsort(dim=1)
        images = torch.zeros(count, 3, self.img_size, self.img_size)
        targets = []
        for number in range(count):
            masks = []
            for digit in range(int(shown[number])):
                place, side = int(places[number, digit]), int(sides[number, digit])
                top, left = (corners[number, digit] + quarter * torch.tensor([place // 2, place % 2])).tolist()
                ink = F.interpolate(self.digits[which[number, digit]][None, None], size=(side, side), mode="bilinear")[0, 0]
                images[number, :, top : top + side, left : left + side] = colours[number, digit][:, None, None] * ink
                mask = torch.zeros(self.img_size, self.img_size, dtype=torch.uint8)
                mask[top : top + side, left : left + side] = (ink >= LIT).to(torch.uint8)
                masks.append(mask)
            whole = torch.stack(masks)
            boxes = masks_to_boxes(whole) + torch.tensor([0.0, 0.0, 1.0, 1.0])  # torchvision's ends with the last pixel
            labels = 1 + self.answers[which[number, : len(masks)]]
            targets.append({"boxes": boxes, "labels": labels, "masks": whole, "image": number,
                            "size": (self.img_size, self.img_size), "shown": (self.img_size, self.img_size)})  # fmt: skip
        return images, targets
