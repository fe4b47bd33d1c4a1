"""Attention within windows of the image, as in ViTDet (Li et al. 2022, arXiv 2203.16527, section 3)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from families.core.attention import layout, open_attention


def restrict(model: nn.Module, windows: int, global_blocks: int) -> None:
    """Restrict the attention of a timm model's blocks to `windows` x `windows` parts of the image, in
    place, but for evenly spaced ones.

    A patch then attends to the patches of its window, and to the tokens without a place (class
    token, registers), which attend to all. ViTDet has no such tokens.
    """
    sites = open_attention(model)
    window = None if windows == 1 else window_bias(model, windows)
    for number, site in enumerate(sites):
        site.window = None if number in global_of(len(sites), global_blocks) else window


def global_of(depth: int, count: int) -> set[int]:
    """The blocks with global attention: `count` of `depth`, evenly spaced, the last one among them."""
    return {math.ceil((number + 1) * depth / count) - 1 for number in range(min(count, depth))}


def window_bias(model: nn.Module, windows: int) -> Tensor:
    """[tokens, tokens], 0 where a token may attend and -inf elsewhere."""
    given: Any = model
    rows, columns = given.patch_embed.grid_size
    prefix = len(layout(model)) - rows * columns
    row, column = torch.arange(rows) * windows // rows, torch.arange(columns) * windows // columns
    numbers = (row[:, None] * windows + column).flatten()
    apart = numbers[:, None] != numbers
    bias = torch.zeros(prefix + len(numbers), prefix + len(numbers))
    bias[prefix:, prefix:].masked_fill_(apart, -math.inf)
    return bias
