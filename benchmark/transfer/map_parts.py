"""Attention maps in parts that fit into a device's memory, and the precision of their products."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

PART_ELEMENTS = {"cpu": 2**21}  # size of a piece of a map that is not held; else PART_ELEMENTS_ELSEWHERE
PART_ELEMENTS_ELSEWHERE = 2**27


def parts_of(q: Tensor, whole: bool = False) -> list[tuple[slice, slice]]:
    """Slices of images and queries of q [B, heads, tokens, head_dim]: everything at once, or parts of
    the map within the device's limit."""
    count, heads, tokens, _ = q.shape
    limit = PART_ELEMENTS.get(q.device.type, PART_ELEMENTS_ELSEWHERE)
    images = count if whole else max(1, limit // (heads * tokens * tokens))
    queries = tokens if whole else min(tokens, max(1, limit // (heads * tokens)))
    return [
        (slice(first, min(count, first + images)), slice(row, min(tokens, row + queries)))
        for first in range(0, count, images)
        for row in range(0, tokens, queries)
    ]


@contextmanager
def products_of(dtypes: Iterable[torch.dtype], device: torch.device) -> Iterator[None]:
    """No autocast, and on a GPU products in TF32 if all inputs came in half precision, of whose
    numbers TF32 rounds none."""
    halves = device.type == "cuda" and all(dtype.itemsize < 4 for dtype in dtypes) and not torch.compiler.is_compiling()
    before = torch.get_float32_matmul_precision() if halves else ""
    try:
        if halves:
            torch.set_float32_matmul_precision("high")
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        if halves:
            torch.set_float32_matmul_precision(before)
