"""Data sets by name: `benchmark.data.<name>` offers `load(settings) -> Dataset`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

Batch = tuple["Tensor", "Tensor"]


class Dataset(Protocol):
    """What training and evaluation need. Images are [B, 3, H, W] in 0..1, labels [B] int64."""

    num_classes: int

    def train(self, stream: str, batch_size: int, start: int) -> Iterator[Batch]:
        """Endless training batches from step `start` on: a pure function of (stream, step)."""
        ...

    def sets(self) -> tuple[str, ...]:
        """Names of the evaluation sets: val, test, then the shifted test sets."""
        ...

    def evaluate(self, name: str, batch_size: int) -> Iterator[Batch]:
        """Every image of an evaluation set once, always the same."""
        ...


@functools.lru_cache(maxsize=2)
def load(settings: Any) -> Dataset:
    """The data set that a protocol's `data` block describes, shared by all runs of a process."""
    dataset: Dataset = import_module(f"benchmark.data.{settings.name}").load(settings)
    return dataset
