"""torch's loader with its own seed, its errors on one line, and its batches on their device."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmark.data import Batch
from families.spec import UserError


def loader(dataset: Any, workers: int, seed: int = 0, **options: Any) -> DataLoader[Any]:
    """A DataLoader with its own generator: by default it would draw a seed from the training's
    global one. Where Python starts processes by a fork server, as it does by default from 3.14 on,
    the server imports torch once for all of them."""
    if workers:
        multiprocessing.set_forkserver_preload(["__main__", "benchmark.data.images"])
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


def moved(batches: Iterable[Batch], device: str) -> Iterator[Batch]:
    """The batches on a device. A GPU copies each one from pinned memory beside its other work, on a
    stream of its own."""
    target = torch.device(device)
    if target.type != "cuda":
        for images, labels in batches:
            yield images.to(target), labels.to(target)
        return
    side, now = _side_stream(target), torch.cuda.current_stream(target)
    for batch in batches:
        with torch.cuda.stream(side):
            images, labels = (tensor.pin_memory().to(target, non_blocking=True) for tensor in batch)
            copied = side.record_event()
        now.wait_event(copied)
        for tensor in (images, labels):
            tensor.record_stream(now)
        yield images, labels


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
