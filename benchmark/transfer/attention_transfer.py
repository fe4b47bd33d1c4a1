"""Attention Copy and Attention Distillation: the teacher's attention in a student's step and loss.

A `TeacherReader` runs the teacher once a batch; an `AttentionTransfer` ties one student to what was
read. There are two exact formulations, chosen by `holds_maps`: maps that are built once and held,
or no map held at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.spec.run import Transfer
from benchmark.transfer.losses import kl, loss_named
from benchmark.transfer.pairing import heads_weights, mixed, teachers_blocks
from benchmark.transfer.parts import part_named
from benchmark.transfer.sources import source_named
from benchmark.transfer.teacher_reader import NoReader, Reader, TeacherAttention, TeacherReader
from families.core.attention import Alignment, Map, OnRoute, Route, align, dropped_mass, handling, layout, open_attention


class AttentionTransfer:
    """A student tied to its teacher. With method "none" it does nothing to the student, whose maps
    can be compared with those of a teacher.

    Args:
        transfer: what is transferred, and how.
        student: timm model.
        teacher: the model, or a reader of it that several students share; None without.

    Raises ValueError if the two differ in patch grid, or in blocks or heads unless the transfer is
    between sizes.
    """

    def __init__(self, transfer: Transfer, student: nn.Module, teacher: nn.Module | Reader | None) -> None:
        self.transfer, self.student = transfer, student
        self.sites = open_attention(student)
        self.part, self.source = part_named(transfer.part), source_named(transfer.source)
        self.maps: dict[int, Route | Map] = {}
        self.given: dict[int, Any] = {}
        self.losses: dict[int, Tensor] = {}
        self.pairs = {block: block for block in transfer.blocks}
        if isinstance(teacher, nn.Module):
            blocks = sorted({*teachers_blocks(transfer, _depth(teacher), _depth(student)).values()})
            teacher = TeacherReader(teacher, blocks, values=transfer.needs_route)
        if teacher is None and transfer.method != "none" and not transfer.needs_teacher:
            teacher = NoReader(student, transfer.blocks)
        self.reader = teacher
        if teacher is not None:
            if not transfer.resized:
                _ensure_alike(teacher.teacher, student)
            self.pairs = teachers_blocks(transfer, _depth(teacher.teacher), _depth(student))
            self.heads = heads_weights(transfer, _heads(teacher.teacher), _heads(student))
            tokens = layout(teacher.teacher)
            self.alignment: Alignment = align(tokens, layout(student))
            self.sinks = [i for i, name in enumerate(tokens) if not name.startswith("patch")]

    def read(self, images: Tensor) -> TeacherAttention:
        """The teacher's attention for `images` [B, 3, H, W]; empty without transfer."""
        return {} if self.reader is None else self.reader.read(images)

    @contextmanager
    def guiding(self, given: Tensor | TeacherAttention) -> Iterator[None]:
        """Within: forwards of the student are guided (Copy) or compared with the teacher
        (Distillation).

        `given` is a batch of images for the teacher, or its attention. Leave only after backward():
        gradient checkpointing runs blocks again.
        """
        if self.reader is None:
            yield
            return
        self._hand_over(self.read(given) if isinstance(given, Tensor) else given)
        on_route: dict[int, OnRoute] = {}
        on_values: dict[int, Callable[..., Tensor]] = {}
        for block, part in self.given.items():
            if self.transfer.distils:
                on_route[block] = self._distilled(block, part)
            elif self.transfer.copies:
                by_route, by_values = self.part.copied(part, self.alignment.student)
                on_route |= {} if by_route is None else {block: by_route}
                on_values |= {} if by_values is None else {block: by_values}
        try:
            with handling(self.sites, on_route, on_values):
                yield
        finally:
            self.maps, self.given, self.losses = {}, {}, {}

    @property
    def compares(self) -> bool:
        """Whether the student has maps of its own to compare with the teacher's."""
        return self.reader is not None and not self.transfer.copies

    @property
    def drops_tokens(self) -> bool:
        """Whether the teacher has tokens that the student lacks."""
        return self.reader is not None and bool(self.alignment.teacher_extra)

    @contextmanager
    def comparing(self, attention: TeacherAttention) -> Iterator[dict[int, Route]]:
        """`guiding` for evaluation: within, forwards leave the own routes of a student that
        `compares` for `divergence`."""
        own: dict[int, Route] = {}
        with self.guiding(attention):
            for block in self.transfer.blocks if self.compares else ():
                self.sites[block].on_route = _noted(own, block, self.sites[block].on_route or _attending)
            yield own

    def loss(self) -> Tensor | float:
        """Weight times the sum of the loss over transferred blocks; 0 unless the transfer distils.

        The sum over blocks, the means within one and the usual form (cross-entropy, not KL) are
        those of Li et al. 2024.
        """
        if not self.transfer.distils:
            return 0.0
        assert self.transfer.weight is not None
        missing = [block for block in self.transfer.blocks if block not in self.losses]
        assert not missing, "no forward of the student inside guiding()"
        return self.transfer.weight * torch.stack([self.losses[block] for block in self.transfer.blocks]).sum()

    def divergence(self, own: Mapping[int, Route]) -> list[float]:
        """KL of the student's own map from the teacher's, in nats, by transferred block; inside
        `comparing`."""
        keep = self.alignment.student
        common = {block: own[block] if keep is None else own[block].select(keep) for block in self.transfer.blocks}
        return [float(kl.loss(self.maps[block], route)) for block, route in common.items()]

    def dropped(self, attention: TeacherAttention) -> list[float]:
        """The attention mass on teacher tokens that the student lacks, by transferred block."""
        return [dropped_mass(attention[self.pairs[block]], self.alignment.teacher_extra) for block in self.transfer.blocks]

    def handed_over(self, attention: TeacherAttention) -> dict[int, Route | Map]:
        """The source's map by transferred block, among the tokens that the student has too."""
        return {block: self._aligned(self._from_source(block, attention)) for block in self.transfer.blocks}

    def _hand_over(self, attention: TeacherAttention) -> None:
        for block in self.transfer.blocks:
            route = self._from_source(block, attention)
            self.maps[block] = self._aligned(route)
            self.given[block] = self.part.handed(route, self.maps[block], self.alignment.teacher)

    def _from_source(self, block: int, attention: TeacherAttention) -> Route | Map:
        found: Route | Map = self.source.attention(attention[self.pairs[block]], self.pairs[block], self.reader)
        return found if self.heads is None else mixed(found, self.heads)  # type: ignore[return-value]  # Mixed offers the same

    def _aligned(self, route: Route | Map) -> Route | Map:
        keep, sinks = self.alignment.teacher, self.transfer.sinks
        if sinks != "keep":
            return _without_sinks(route, self.sinks, keep, sinks == "redistribute")
        return route if keep is None else route.select(keep)

    def _distilled(self, block: int, given: Any) -> OnRoute:
        loss, keep = loss_named(str(self.transfer.loss)), self.alignment.student
        fused = getattr(loss, "fused", None) if self.part.fusible and self.transfer.sinks != "drop" and keep is None else None

        def on_route(own: Route, v: Tensor, dropout_p: float) -> Tensor:
            if fused is not None and not dropout_p:
                out, self.losses[block] = fused(own, v, given)
            else:
                out = own.attend(v, dropout_p)
                self.losses[block] = self.part.compared(loss, given, own, v, out, keep)
            attended: Tensor = out
            return attended

        return on_route


def _ensure_alike(teacher: nn.Module, student: nn.Module) -> None:
    models = (teacher, student)
    blocks, heads = ([of(model) for model in models] for of in (_depth, _heads))
    if blocks[0] != blocks[1] or heads[0] != heads[1]:
        raise ValueError(f"teacher and student differ: blocks {blocks}, heads {heads}")


def _depth(model: nn.Module) -> int:
    return len(list(model.blocks))  # type: ignore[arg-type]


def _heads(model: nn.Module) -> int:
    return int(model.blocks[0].attn.num_heads)  # type: ignore[index, union-attr, arg-type]


def _attending(own: Route, v: Tensor, dropout_p: float) -> Tensor:
    return own.attend(v, dropout_p)


def _noted(seen: dict[int, Route], block: int, inner: OnRoute) -> OnRoute:
    def on_route(own: Route, v: Tensor, dropout_p: float) -> Tensor:
        seen[block] = own
        return inner(own, v, dropout_p)

    return on_route


def _without_sinks(route: Route | Map, sinks: Sequence[int], keep: Sequence[int] | None, redistribute: bool) -> Map:
    """The map among the tokens `keep` without the attention to `sinks`.

    That attention is redistributed in proportion, or lost: rows then sum to less than 1.
    """
    weights = route.map().clone()
    weights[..., list(sinks)] = 0
    if redistribute:
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    return Map(weights if keep is None else weights[..., list(keep), :][..., list(keep)])
