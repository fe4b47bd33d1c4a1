"""Data sets by name: each `benchmark.data.<name>` offers `load` and `check`, which the functions here call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from benchmark.spec.recipe import Recipe

Batch = tuple["Tensor", "Tensor"]


@dataclass(frozen=True)
class DataLocation:
    """Where a data set lies and who reads it: nothing of it changes a number (but workers do the order of a streamed source).

    Attributes:
        root: the data folder; None where the data needs none.
        work: a folder for what was found out about the data once.
        workers: loader processes.
        rank, ranks: which of how many processes that share each batch this one is.
    """

    root: Path | None = None
    work: Path | None = None
    workers: int = 0
    rank: int = 0
    ranks: int = 1


class Dataset(Protocol):
    """What training and evaluation need. Images are [B, 3, H, W] in 0..1 (erased pixels may lie outside)."""

    num_classes: int

    def train(self, stream: str, recipe: Recipe, start: int) -> Iterator[Batch]:
        """Give this rank's part (`part_of`) of endless training batches from step `start` on: a pure function of (stream, step).

        Targets are labels [B] int64, or with mixup or cutmix probabilities [B, classes], smoothed already.
        """
        ...

    def sets(self) -> tuple[str, ...]:
        """Names of the evaluation sets: val, test, then the shifted test sets."""
        ...

    def classes(self, name: str) -> Tensor | None:
        """The classes that an evaluation set has, as indices among the training classes; None for all of them."""
        ...

    def evaluate(self, name: str, batch_size: int) -> Iterator[Batch]:
        """An evaluation set's images once, in batches that are always the same; of them those numbered rank, rank + ranks, ...

        Labels [B] int64 are those of training.
        """
        ...


@functools.lru_cache(maxsize=2)
def load(settings: Any, place: DataLocation, img_size: int, normalisation: Any) -> Dataset:
    """The data set that a protocol's `data` block describes, shared by all runs of a process.

    Images have `img_size` pixels a side; `normalisation` is the students', in whose units pixels are erased.
    """
    dataset: Dataset = _module(settings).load(settings, place, img_size, normalisation)
    return dataset


def check(settings: Any, place: DataLocation, progress: Callable[[str, int, int], None]) -> str | None:
    """Look at all of the data before anything is trained; gives a digest of what there is, None for embedded data.

    `progress` is told what is looked at, how many images are done, and of how many. Raises UserError for a folder that is not
    what the protocol says, a class that is missing, an image that cannot be read.
    """
    found: str | None = _module(settings).check(settings, place, progress)
    return found


def part_of(place: DataLocation, batch_size: int) -> Sequence[int]:
    """Positions of a rank's part of a batch, ascending: a piece of the first half and its mirror image in the second.

    timm's mixup pairs position i with the i-th from the end: so every pair is within one rank, and the batch is mixed alike
    by any number of ranks. A batch of one rank may have any size; else it is a multiple of twice the ranks (ValueError).
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
