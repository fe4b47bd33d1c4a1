"""Teacher and student of different sizes: whose map each block and head of the student gets.

Copy and Distillation are linear in the teacher's map, so a student's head can get a weighted mean
of several heads' maps without any map being built: Copy attends once for each pair of heads that
share a weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.spec.run import Transfer
from families.core.attention import ATTEND, Map, Route


def teachers_blocks(transfer: Transfer, teacher: int, student: int) -> dict[int, int]:
    """The teacher's block for each transferred block of the student, of two depths: the one that
    ends at the same part of the depth, ceil((m + 1) teacher / student) - 1; with pairing "reversed"
    that of block student - 1 - m."""
    blocks = {block: student - 1 - block if transfer.pairing == "reversed" else block for block in transfer.blocks}
    return {block: -(-(place + 1) * teacher // student) - 1 for block, place in blocks.items()}


def heads_weights(transfer: Transfer, teacher: int, student: int) -> Tensor | None:
    """[student's heads, teacher's heads], rows sum to 1; None where each head has its own.

    Both sets of heads divide the interval from 0 to 1 evenly; a weight is the share of the
    student's piece that the teacher's covers. So heads in contiguous groups are averaged, or
    repeated. With pairing "shuffled" the teacher's heads come in another, fixed order.
    """
    shuffled = transfer.pairing == "shuffled"
    if teacher == student and not shuffled:
        return None
    edges = [torch.arange(count + 1, dtype=torch.float64) / count for count in (student, teacher)]
    mine, theirs = (torch.stack([each[:-1], each[1:]]) for each in edges)
    covered = torch.minimum(mine[1][:, None], theirs[1]) - torch.maximum(mine[0][:, None], theirs[0])
    weights = (covered.clamp_min(0) * student).float()
    weights[weights < 1e-6] = 0.0
    if shuffled:
        weights = weights[:, _shuffled(teacher)]
    return weights


def _shuffled(heads: int) -> list[int]:
    """Another order of heads, in steps of about the golden ratio of their number, so that those
    side by side part."""
    if heads < 3:
        return list(reversed(range(heads)))
    steps = [step for step in range(2, heads) if math.gcd(step, heads) == 1]
    step = min(steps, key=lambda each: abs(each - 0.618 * heads))
    return [head * step % heads for head in range(heads)]


def mixed(route: Route | Map, weights: Tensor) -> Mixed | Map:
    """The route with the heads of `weights` [student's heads, teacher's heads]; a Map stays one."""
    if isinstance(route, Map):
        return Map(_mean(weights, route.weights))
    return Mixed(route, weights)


def _mean(weights: Tensor, maps: Tensor) -> Tensor:
    """[B, teacher's heads, ...] -> [B, student's heads, ...]."""
    return torch.einsum("gh,bhqk->bgqk", weights.to(maps), maps)


@dataclass(frozen=True)
class Mixed:
    """Weighted means of a route's heads; it offers what Route does.

    Attributes:
        route: of the teacher.
        weights: [student's heads, teacher's heads], rows sum to 1.
    """

    route: Route
    weights: Tensor

    def __len__(self) -> int:
        return len(self.route)

    def map(self) -> Tensor:
        """[B, student's heads, tokens, tokens], rows sum to 1."""
        return _mean(self.weights, self.route.map())

    def select(self, tokens: Sequence[int]) -> Map:
        """Among `tokens` alone, renormalised; a mean of maps is renormalised as a whole."""
        return Map(self.map()).select(tokens)

    def rows(self, images: slice, queries: slice) -> Tensor:
        """The map's part [images, student's heads, queries, tokens]."""
        return _mean(self.weights, self.route.rows(images, queries))

    def attend(self, v: Tensor, dropout_p: float = 0.0) -> Tensor:
        """Map @ v without holding the map: v and the result are [B, student's heads, tokens, any
        head_dim]."""
        mine, theirs = (each.to(v.device) for each in self.weights.nonzero(as_tuple=True))
        bias = self.route.bias
        if bias is not None and bias.dim() > 2 and bias.shape[-3] > 1:
            bias = bias.index_select(-3, theirs)
        bias = None if bias is None else bias.to(v.dtype)
        q, k = (each.index_select(1, theirs).to(v.dtype) for each in (self.route.q, self.route.k))
        each = ATTEND(q, k, v.index_select(1, mine), attn_mask=bias, dropout_p=dropout_p, scale=self.route.scale)
        share = self.weights.to(v)[mine, theirs][:, None, None]
        return torch.zeros_like(v).index_add(1, mine, each * share)
