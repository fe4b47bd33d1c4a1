"""Run a frozen teacher once a batch, for all of its students; or do without one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.transfer.cpu_layout import prepack
from benchmark.transfer.stochastic_depth import StochasticDepth
from families.core.attention import Map, Route, layout, open_attention, read_routes

HELD_TOKENS = {"cpu": 1024}  # by device type the most tokens for which maps are held (docs/speed.md)
TeacherAttention = dict[int, Any]  # by block a Route or Map over all the teacher's tokens


def holds_maps(device: torch.device, tokens: int) -> bool:
    """Whether maps are built and held: faster on a CPU, for B x heads x tokens^2 numbers a block."""
    return tokens <= HELD_TOKENS.get(device.type, 0)


class TeacherReader:
    """A frozen teacher, read once a batch for all of its students.

    Args:
        teacher: timm model, in eval mode. It is changed in place: its attention is opened, and on a
            CPU its weights are laid out (`prepack`).
        blocks: the blocks to read; the teacher runs no further than the last of them.
        precision: float32 or bfloat16; None: that of the caller.
        compiled: run the teacher through torch.compile (seconds to minutes at the first batch).
        held: read maps (True) or routes (False); None: as `holds_maps` decides.
        drop_path: rate of stochastic depth, for reads that are given the students' draws.
        values: read routes with their values, for parts other than the map.

    Attributes:
        average: mean map over images by block, [1, heads, tokens, tokens]; see `learn_average`.
    """

    def __init__(
        self, teacher: nn.Module, blocks: Sequence[int], precision: str | None = None, compiled: bool = False,
        held: bool | None = None, drop_path: float = 0.0, values: bool = False,
    ) -> None:  # fmt: skip
        self.teacher, self.blocks, self.precision, self.values = teacher, sorted(blocks), precision, values
        self.held = False if values else held
        self.average: dict[int, Map] = {}
        self.depth = StochasticDepth(teacher, drop_path)
        open_attention(teacher)
        if not compiled and next(teacher.parameters()).device.type == "cpu":
            prepack(teacher)
        self._routes: Callable[[Tensor, bool], list[Any]] = torch.compile(self._forward) if compiled else self._forward

    def read(self, images: Tensor, draws: Tensor | None = None) -> TeacherAttention:
        """The route or map of each block for `images` [B, 3, H, W], normalised for the teacher."""
        held = holds_maps(images.device, len(layout(self.teacher))) if self.held is None else self.held
        with torch.inference_mode(), self._own_precision(images.device.type), self.depth.dropping(draws):
            routes = self._routes(images, held)
        if not held:  # out of inference mode, so that autograd may keep them
            routes = [_cloned(route) for route in routes]
        return dict(zip(self.blocks, routes, strict=True))

    def _forward(self, images: Tensor, held: bool) -> list[Any]:
        return read_routes(self.teacher, images, self.blocks, held, self.values)

    def learn_average(self, batches: Iterable[Tensor], everyone: Callable[[Any], list[Any]] = lambda own: [own]) -> None:
        """Set `average` from all images of `batches` [B, 3, H, W], normalised for the teacher.

        `everyone` gathers the sums of all processes, each of which has a part of the images.
        """
        count, sums = 0, dict[int, Tensor]()
        for images in batches:
            count += len(images)
            for block, route in self.read(images).items():
                own = route.map().double().sum(0, keepdim=True).cpu()
                sums[block] = sums[block] + own if block in sums else own
        found = everyone((count, sums))
        whole = sum(counted for counted, _ in found)
        device = next(self.teacher.parameters()).device
        for block in self.blocks:
            parts = [part[block] for _, part in found if part]
            self.average[block] = Map((torch.stack(parts).sum(0) / whole).float().to(device))

    def _own_precision(self, device: str) -> Any:
        if self.precision is None:
            return nullcontext()
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")


class NoReader:
    """In place of a teacher's reader, for attention that depends on no teacher: uniform maps over
    the student's own tokens. Interface as TeacherReader's."""

    def __init__(self, student: nn.Module, blocks: Sequence[int]) -> None:
        self.teacher, self.blocks = student, sorted(blocks)
        self.average: dict[int, Map] = {}

    def read(self, images: Tensor, draws: Tensor | None = None) -> TeacherAttention:
        """A uniform map for each block."""
        heads, tokens = int(self.teacher.blocks[0].attn.num_heads), len(layout(self.teacher))  # type: ignore[index, union-attr, arg-type]
        weights = images.new_full((1, heads, tokens, tokens), 1 / tokens)
        return dict.fromkeys(self.blocks, Map(weights.expand(len(images), -1, -1, -1)))


Reader = TeacherReader | NoReader


def _cloned(route: Route) -> Route:
    given = (route.q, route.k, route.bias, route.v)
    q, k, bias, v = (None if each is None else each.clone() for each in given)
    assert q is not None and k is not None
    return Route(q, k, bias, route.scale, v)
