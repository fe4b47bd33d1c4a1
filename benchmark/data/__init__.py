"""Data sets by name: `load` and `check` of the module `benchmark.data.<name>`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from benchmark.data.boxes import Truth
    from benchmark.spec.recipe import Recipe

Batch = tuple["Tensor", "Tensor"]


@dataclass(frozen=True)
class DataLocation:
    """Where a data set lies and how it is read. No field changes a number, but `workers` changes
    the order of a stream.

    Attributes:
        root: the data folder; None for embedded data.
        work: a folder that remembers which sets were decoded in full.
        workers: loader processes.
        absent: shifted sets that a check found to be of no use.
        rank, ranks: this process's number among those that share each batch, and their number.
        device: name of the torch device that holds the batches and mixes them.
    """

    root: Path | None = None
    work: Path | None = None
    workers: int = 0
    absent: tuple[str, ...] = ()
    rank: int = 0
    ranks: int = 1
    device: str = "cpu"


class Dataset(Protocol):
    """The interface that training and evaluation use. Images are [B, 3, H, W] in 0..1 (erased
    pixels may lie outside), on the place's device."""

    num_classes: int

    def train(self, stream: str, recipe: Recipe, start: int) -> Iterator[Batch]:
        """Endless training batches from step `start` on, this rank's part (`part_of`): a pure
        function of (stream, step).

        Targets are labels [B] int64; with mixup or cutmix, smoothed probabilities [B, classes].
        """
        ...

    def sets(self) -> tuple[str, ...]:
        """Names of the evaluation sets that are there: val, test, then the shifted test sets."""
        ...

    def classes(self, name: str) -> Tensor | None:
        """Indices of an evaluation set's classes among the training classes; None for all of them."""
        ...

    def truth(self, name: str) -> Truth:
        """The true objects of an evaluation set, where it has boxes and masks."""
        ...

    def evaluate(self, name: str, batch_size: int) -> Iterator[Batch]:
        """An evaluation set's images (or those of `train`, as in evaluation), each once, in fixed
        batches; this rank gets batches rank, rank + ranks, ... Raises UserError for a set that is
        not there.

        Labels [B] int64 are numbered as in training.
        """
        ...


@functools.lru_cache(maxsize=2)
def load(settings: Any, place: DataLocation, img_size: int, normalisation: Any) -> Dataset:
    """The data set that a protocol's `data` block describes, shared by all runs of a process.

    Images have `img_size` pixels a side; `normalisation` is the students', in whose units pixels
    are erased.
    """
    dataset: Dataset = _module(settings).load(settings, place, img_size, normalisation)
    return dataset


@dataclass(frozen=True)
class Checked:
    """What a check of a data set found.

    Attributes:
        digest: of the images of training, val and test; None for embedded data.
        digests: of each shifted set that is there.
        absent: why each other shifted set cannot be used.
    """

    digest: str | None = None
    digests: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def check(settings: Any, place: DataLocation, progress: Callable[[str, int, int], None]) -> Checked:
    """Check all data before training.

    `progress(set, done, total)` is called as images are decoded. Raises UserError for a folder of
    training, val or test that differs from the protocol, a missing class or an unreadable image.
    """
    found: Checked = _module(settings).check(settings, place, progress)
    return found


def part_of(place: DataLocation, batch_size: int) -> Sequence[int]:
    """Positions of a rank's part of a batch, ascending: a piece of the first half and its mirror
    image in the second.

    timm's mixup pairs position i with the i-th from the end, so every pair stays within one rank
    and the number of ranks does not change the mixture. Raises ValueError for a batch that is not a
    multiple of twice the ranks (more than one).
    """
    if place.ranks == 1:
        return range(batch_size)
    if batch_size % (2 * place.ranks):
        raise ValueError(f"a batch of {batch_size} is not a multiple of twice the {place.ranks} processes that share it")
    piece = batch_size // (2 * place.ranks)
    first = range(place.rank * piece, (place.rank + 1) * piece)
    return [*first, *(batch_size - 1 - position for position in reversed(first))]


def _module(settings: Any) -> Any:
    return import_module(f"benchmark.data.{settings.name}")
