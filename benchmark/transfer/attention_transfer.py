"""Attention Copy and Attention Distillation: how a teacher's routes enter a student's step and its loss.

A `Reader` runs the teacher once for a batch, whoever learns from it; a `Bond` ties one student to what was read. Two exact
formulations, chosen by `holds_maps`: maps built once and held, or no map held at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.spec.run import Transfer
from benchmark.transfer.fused_distillation import attend_and_compare
from benchmark.transfer.losses import DISTRIBUTIONS, LOSSES, kl_divergence
from benchmark.transfer.parts import TENSORS, with_part
from benchmark.transfer.teacher_reader import TeacherAttention, TeacherReader
from families.core.attention import Alignment, Map, OnRoute, Route, align, dropped_mass, handling, layout, open_attention


class AttentionTransfer:
    """A student tied to its teacher as `transfer` says; with methods "none" and "match" it does nothing to the student.

    Args:
        transfer: what is transferred, and how.
        student: timm model.
        teacher: the model, or a Reader of it that other bonds share; None without transfer.

    Raises ValueError when the two differ in blocks, heads or patch grid.
    """

    def __init__(self, transfer: Transfer, student: nn.Module, teacher: nn.Module | TeacherReader | None) -> None:
        self.transfer, self.student = transfer, student
        self.sites = open_attention(student)
        self.handed: dict[int, Route | Map] = {}
        self.parts: dict[int, Tensor] = {}
        self.losses: dict[int, Tensor] = {}
        if teacher is not None and not isinstance(teacher, TeacherReader):
            teacher = TeacherReader(teacher, transfer.blocks, values=transfer.part != "map")
        self.reader = teacher
        if teacher is not None:
            models = (teacher.teacher, student)
            blocks = [len(list(model.blocks)) for model in models]  # type: ignore[arg-type]
            heads = [model.blocks[0].attn.num_heads for model in models]  # type: ignore[index, union-attr]
            if blocks[0] != blocks[1] or heads[0] != heads[1]:
                raise ValueError(f"teacher and student differ: blocks {blocks}, heads {heads}")
            self.alignment: Alignment = align(layout(teacher.teacher), layout(student))
            self.sinks = [i for i, name in enumerate(layout(teacher.teacher)) if not name.startswith("patch")]

    def read(self, images: Tensor) -> TeacherAttention:
        """What the teacher hands over for `images` [B, 3, H, W]; empty without transfer."""
        return {} if self.reader is None else self.reader.read(images)

    @contextmanager
    def guiding(self, given: Tensor | TeacherAttention) -> Iterator[None]:
        """Within: forwards of the student are guided (Copy) or compared with the teacher (Distillation).

        `given` is a batch of images for the teacher, or what was read of it. Leave only after backward(): gradient
        checkpointing runs blocks again.
        """
        if self.reader is None:
            yield
            return
        reading = self.read(given) if isinstance(given, Tensor) else given
        self.handed, self.parts = self.handed_over(reading), self.parts_of(reading)
        on_route: dict[int, OnRoute] = {}
        on_values = {}
        for block, route in self.handed.items() if self.transfer.method != "match" else ():
            if self.transfer.method == "distill":
                on_route[block] = self._distilled(block, route)
            elif self.transfer.part != "map":
                on_route[block] = with_part(self.transfer.part, self.parts[block], self.alignment.student)
            elif self.alignment.student is None:
                on_values[block] = route.attend
            else:
                on_route[block] = _copied_among(route, self.alignment.student)
        try:
            with handling(self.sites, on_route, on_values):
                yield
        finally:
            self.handed, self.parts, self.losses = {}, {}, {}

    @property
    def compares(self) -> bool:
        """Whether the student has maps of its own to be compared with the teacher's."""
        return self.transfer.method in ("distill", "match")

    @contextmanager
    def comparing(self, reading: TeacherAttention) -> Iterator[dict[int, Route]]:
        """`guiding` for evaluation: within, forwards leave the own routes of a student that `compares` for `divergence`."""
        own: dict[int, Route] = {}
        with self.guiding(reading):
            for block in self.transfer.blocks if self.compares else ():
                self.sites[block].on_route = _noted(own, block, self.sites[block].on_route or _attending)
            yield own

    def handed_over(self, reading: Mapping[int, Route | Map]) -> dict[int, Route | Map]:
        """By transferred block what the student gets: from the source that the transfer names, its own tokens alone."""
        if len(self.transfer.blocks) and self.transfer.source == "other-image":
            first = next(iter(reading.values()))
            if len(first.weights if isinstance(first, Map) else first.q) < 2:
                raise ValueError("the attention of another image needs a batch of at least 2 images")
        keep, handed = self.alignment.teacher, dict[int, Route | Map]()
        for block in self.transfer.blocks:
            route = self._from_source(block, reading[block])
            if self.transfer.sinks != "keep":
                handed[block] = _without_sinks(route, self.sinks, keep, self.transfer.sinks == "redistribute")
            else:
                handed[block] = route if keep is None else route.select(keep)
        return handed

    def _from_source(self, block: int, route: Route | Map) -> Route | Map:
        if self.transfer.source == "other-image":
            return route.other_image()
        if self.transfer.source == "uniform":
            return route.uniform()
        if self.transfer.source == "average":
            assert self.reader is not None
            weights = self.reader.average[block].weights
            return Map(weights.expand(len(route.weights if isinstance(route, Map) else route.q), *weights.shape[1:]))
        return route

    def parts_of(self, reading: Mapping[int, Any]) -> dict[int, Tensor]:
        """By transferred block the tensor that stands for the map, [B, heads, the student's tokens, head_dim], where the transfer
        is of q, k, v or output; that one holds what all the teacher's tokens have given. Empty for another part."""
        if self.transfer.part not in TENSORS:
            return {}
        found, keep = {}, self.alignment.teacher
        for block in self.transfer.blocks:
            route = self._from_source(block, reading[block])
            assert isinstance(route, Route) and route.v is not None
            tensor = TENSORS[self.transfer.part](route, route.v)
            found[block] = tensor if keep is None else tensor[..., list(keep), :]
        return found

    def loss(self) -> Tensor | float:
        """Weight times the sum over transferred blocks of `LOSSES`; 0 unless the transfer distils.

        The sum over blocks, the means within one and the usual form (cross-entropy, not KL) are those of Li et al. 2024.
        """
        if self.transfer.method != "distill":
            return 0.0
        assert self.transfer.weight is not None
        missing = [block for block in self.transfer.blocks if block not in self.losses]
        assert not missing, "no forward of the student inside guiding()"
        return self.transfer.weight * torch.stack([self.losses[block] for block in self.transfer.blocks]).sum()

    def divergence(self, own: Mapping[int, Route]) -> list[float]:
        """KL of the student's own map from the teacher's, by transferred block, inside `comparing`."""
        return [float(kl_divergence(self.handed[block], self._common(own[block]))) for block in self.transfer.blocks]

    def dropped(self, reading: TeacherAttention) -> list[float]:
        """Per transferred block, the attention mass on teacher tokens that the student has not."""
        return [dropped_mass(reading[block], self.alignment.teacher_extra) for block in self.transfer.blocks]

    def _common(self, route: Route) -> Route:
        keep = self.alignment.student
        return route if keep is None else route.select(keep)

    def _distilled(self, block: int, teacher: Route | Map) -> OnRoute:
        given = self.transfer
        usual = (given.part, given.loss, given.sinks) in (("map", "ce", "keep"), ("map", "ce", "redistribute"))

        def on_route(own: Route, v: Tensor, dropout_p: float) -> Tensor:
            if usual and not dropout_p and self.alignment.student is None:
                out, self.losses[block] = attend_and_compare(own, v, teacher)
                return out
            out = own.attend(v, dropout_p)
            self.losses[block] = self._compared(block, teacher, own, v, out)
            return out

        return on_route

    def _compared(self, block: int, teacher: Route | Map, own: Route, v: Tensor, out: Tensor) -> Tensor:
        """The loss between the teacher's part and the student's, among the tokens that both have."""
        part, loss, keep = self.transfer.part, LOSSES[str(self.transfer.loss)], self.alignment.student
        if part in TENSORS:
            tensor = out if part == "output" else TENSORS[part](own, v)
            return loss(self.parts[block], tensor if keep is None else tensor[..., list(keep), :])
        if part == "logits":
            assert isinstance(teacher, Route)
            return loss(teacher.logits(), self._common(own).logits())
        if self.transfer.loss in DISTRIBUTIONS:
            return loss(teacher, self._common(own))
        return loss(teacher.map().clone(), self._common(own).map())


def _attending(own: Route, v: Tensor, dropout_p: float) -> Tensor:
    return own.attend(v, dropout_p)


def _noted(seen: dict[int, Route], block: int, inner: OnRoute) -> OnRoute:
    def on_route(own: Route, v: Tensor, dropout_p: float) -> Tensor:
        seen[block] = own
        return inner(own, v, dropout_p)

    return on_route


def _copied_among(route: Route | Map, tokens: Sequence[int]) -> OnRoute:
    """The teacher's map among `tokens`; the student's other tokens keep their own attention."""

    def on_route(own: Route, v: Tensor, dropout_p: float) -> Tensor:
        index = torch.as_tensor(tokens, device=v.device)
        guided = route.attend(v.index_select(-2, index), dropout_p)
        return own.attend(v, dropout_p).index_copy(-2, index, guided)

    return on_route


def _without_sinks(route: Route | Map, sinks: Sequence[int], keep: Sequence[int] | None, redistribute: bool) -> Map:
    """The map among the tokens `keep` without the attention that is paid to `sinks`; what they got is redistributed in
    proportion among the others, or lost: then rows sum to less than 1."""
    weights = route.map().clone()
    weights[..., list(sinks)] = 0
    if redistribute:
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    return Map(weights if keep is None else weights[..., list(keep), :][..., list(keep)])
