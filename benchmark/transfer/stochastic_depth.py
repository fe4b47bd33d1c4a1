"""Stochastic depth with given random numbers, so that two models can drop the same branches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


class StochasticDepth:
    """Stochastic depth (Huang et al. 2016, arXiv 1603.09382) of a timm model, with given random
    numbers.

    The rate grows linearly from 0 in the first block to `rate` in the last (the rule of timm and
    DeiT). A residual branch is kept for an image if its number is at least the rate, and then
    divided by 1 - rate. Outside `dropping` nothing is dropped.
    """

    def __init__(self, model: nn.Module, rate: float) -> None:
        blocks = list(model.blocks) if rate else []  # type: ignore[arg-type]
        self.branches = []
        for number, block in enumerate(blocks):
            block.drop_path1, block.drop_path2 = (_Branch(rate * number / max(1, len(blocks) - 1)) for _ in range(2))
            self.branches += [block.drop_path1, block.drop_path2]

    @contextmanager
    def dropping(self, draws: Tensor | None) -> Iterator[None]:
        """Within: drop branches by `draws` [2 * depth, B], uniform in 0..1, one row per branch."""
        if draws is None or not self.branches:
            yield
            return
        for branch, row in zip(self.branches, draws, strict=True):
            branch.draws = row
        try:
            yield
        finally:
            for branch in self.branches:
                branch.draws = None


class _Branch(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.draws: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.draws is None or self.rate == 0:
            return x
        kept = (self.draws >= self.rate).to(x.dtype) / (1 - self.rate)
        return x * kept.view(-1, *[1] * (x.dim() - 1))
