"""torch's loader with a seed of its own, and errors on one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from families.spec import UserError


def loader(dataset: Any, workers: int, seed: int = 0, **options: Any) -> DataLoader[Any]:
    """A loader whose seed for its processes is its own: it would draw one from the training's global generator."""
    return DataLoader(dataset, num_workers=workers, generator=torch.Generator().manual_seed(seed), **options)


def drawn(loader: Iterable[Any]) -> Iterator[Any]:
    """The pairs that a loader gives. A loader process's UserError comes with a traceback in its text: it is one line again."""
    try:
        for pair in loader:
            yield tuple(pair)
        return
    except UserError as error:
        line = str(error).strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
        error.__traceback__ = None  # a cycle that holds on to the loader: its processes would linger until it is collected
    raise UserError(line)
