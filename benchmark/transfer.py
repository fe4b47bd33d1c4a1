"""Attention Copy and Attention Distillation: how a teacher's routes enter a student's step and its loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from benchmark.plan import Transfer
from families.attention import Alignment, Route, align, dropped_mass, layout, open_attention, read_routes


class Bond:
    """A student tied to its teacher as `transfer` says; with method "none" it does nothing.

    Raises ValueError when the two differ in blocks, heads or patch grid.
    """

    def __init__(self, transfer: Transfer, student: nn.Module, teacher: nn.Module | None) -> None:
        self.transfer, self.teacher = transfer, teacher
        self.sites = open_attention(student)
        self.routes: list[Route] = []
        if teacher is not None:
            blocks = [len(list(model.blocks)) for model in (teacher, student)]  # type: ignore[arg-type]
            heads = [model.blocks[0].attn.num_heads for model in (teacher, student)]  # type: ignore[index, union-attr]
            if blocks[0] != blocks[1] or heads[0] != heads[1]:
                raise ValueError(f"teacher and student differ: blocks {blocks}, heads {heads}")
            self.alignment: Alignment = align(layout(teacher), layout(student))

    @contextmanager
    def guiding(self, images: Tensor) -> Iterator[None]:
        """Within: forwards of the student are guided (Copy) or watched (Distillation). `images` [B, 3, H, W] are the
        teacher's, normalised for it. Leave only after backward(): gradient checkpointing runs blocks again."""
        if self.teacher is None:
            yield
            return
        self.routes = self.handed_over(self.read(images))
        try:
            for block in self.transfer.blocks:
                site = self.sites[block]
                if self.transfer.method == "copy":
                    site.guide, site.guided = self.routes[block], self.alignment.student
                else:
                    site.record = True
            yield
        finally:
            self.routes = []
            for site in self.sites:
                site.clear()

    @torch.no_grad()
    def read(self, images: Tensor) -> list[Route]:
        """The teacher's routes, all its tokens, from the source that the transfer names."""
        assert self.teacher is not None
        if self.transfer.source == "other-image":
            if len(images) < 2:
                raise ValueError("the attention of another image needs a batch of at least 2 images")
            images = images.roll(1, 0)
        routes = read_routes(self.teacher, images)
        if self.transfer.source == "uniform":
            routes = [Route(torch.zeros_like(r.q), torch.zeros_like(r.k), None, r.scale) for r in routes]
        return routes

    def handed_over(self, routes: Sequence[Route]) -> list[Route]:
        """The routes among the tokens that the student has too."""
        keep = self.alignment.teacher
        return list(routes) if keep is None else [route.select(keep) for route in routes]

    def loss(self) -> Tensor | float:
        """Weight times the sum over transferred blocks of `cross_entropy`; 0 unless the transfer distils.

        The sum over blocks, the means within one and the form (cross-entropy, not KL) are those of Li et al. 2024.
        """
        if self.transfer.method != "distill":
            return 0.0
        assert self.transfer.weight is not None
        losses = [cross_entropy(self.routes[block], self.own(block)) for block in self.transfer.blocks]
        return self.transfer.weight * torch.stack(losses).sum()

    def own(self, block: int) -> Route:
        """The student's own route of the last forward, among the tokens that the teacher has too."""
        route = self.sites[block].seen
        assert route is not None, "no forward of the student inside guiding()"
        keep = self.alignment.student
        return route if keep is None else route.select(keep)

    def dropped(self, routes: Sequence[Route]) -> list[float]:
        """Per transferred block, the attention mass on teacher tokens that the student has not."""
        return [dropped_mass(routes[block], self.alignment.teacher_extra) for block in self.transfer.blocks]


def cross_entropy(teacher: Route, student: Route) -> Tensor:
    """-sum_j P_teacher log P_student, mean over batch, heads and queries: a scalar."""
    return -(teacher.map() * student.logits().log_softmax(-1)).sum(-1).mean()


def kl_divergence(teacher: Route, student: Route) -> Tensor:
    """KL(P_teacher || P_student) in nats, mean over batch, heads and queries: cross-entropy less the teacher's entropy."""
    return cross_entropy(teacher, student) - cross_entropy(teacher, teacher)
