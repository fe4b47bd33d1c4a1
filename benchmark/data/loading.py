"""torch's loader with its own seed, and its errors on one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from families.spec import UserError


def loader(dataset: Any, workers: int, seed: int = 0, **options: Any) -> DataLoader[Any]:
    """A DataLoader with its own generator: by default it would draw a seed from the training's
    global one."""
    return DataLoader(dataset, num_workers=workers, generator=torch.Generator().manual_seed(seed), **options)


def drawn(loader: Iterable[Any]) -> Iterator[Any]:
    """The pairs of a loader. A loader process's UserError, which arrives with a traceback, becomes
    one line again."""
    try:
        for pair in loader:
            yield tuple(pair)
        return
    except UserError as error:
        line = str(error).strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
        error.__traceback__ = None  # a cycle that would keep the loader's processes alive
    raise UserError(line)
