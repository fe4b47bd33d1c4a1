"""Attention Copy and Attention Distillation: how a teacher's routes enter a student's step and its loss.

A `Reader` runs the teacher once for a batch, whoever learns from it; a `Bond` ties one student to what was read. Two exact
formulations, chosen by `holds_maps`: maps built once and held, or no map held at all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from benchmark.plan import Transfer
from families.attention import (
    Alignment,
    Map,
    OnRoute,
    Route,
    align,
    dropped_mass,
    handling,
    layout,
    open_attention,
    part,
    read_routes,
)

HELD_TOKENS = {"cpu": 1024}  # per device type, up to how many tokens maps are held (docs/speed.md); elsewhere they are not
PART_ELEMENTS = {"cpu": 2**21}  # size of the pieces in which unheld maps are passed through; others: PART_ELEMENTS_ELSEWHERE
PART_ELEMENTS_ELSEWHERE = 2**27
NEVER = -1
PACKED_ROWS = 1024  # batch x tokens for which a teacher's weights are laid out; one number, so that all batches agree

Reading = dict[int, Any]  # block -> Route | Map, all the teacher's tokens


def holds_maps(device: torch.device, tokens: int) -> bool:
    """Whether maps are held on this device for this many tokens: faster on a CPU, at B x heads x tokens^2 numbers a block."""
    return tokens <= HELD_TOKENS.get(device.type, 0)


class Reader:
    """A frozen teacher, read once a batch for all of its students.

    Args:
        teacher: timm model, in eval mode. It is changed in place: its attention is opened and, on a CPU, its weights are
            laid out (`prepack`).
        blocks: the blocks of which routes are wanted; the teacher runs no further than the last of them.
        precision: float32 or bfloat16, the teacher's own; None: that of whoever reads.
        compiled: run the teacher through torch.compile (seconds to minutes at the first batch).
        held: maps (True) or routes (False); None: what `holds_maps` says.
        drop_path: rate of stochastic depth in the teacher, where a read is given the students' draws.
        values: read whole routes with their values, for students that get another part than the map; no map is held then.

    Attributes:
        average: by block the mean map over images, [1, heads, tokens, tokens], once `learn_average` was called.
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

    def read(self, images: Tensor, draws: Tensor | None = None) -> Reading:
        """The teacher's route or map in each block, for `images` [B, 3, H, W], normalised for it; `draws` as StochasticDepth."""
        held = holds_maps(images.device, len(layout(self.teacher))) if self.held is None else self.held
        with torch.inference_mode(), self._own_precision(images.device.type), self.depth.dropping(draws):
            routes = self._routes(images, held)
        if not held:  # out of inference mode, so that autograd may keep them, and apart from the v beside them
            routes = [_cloned(route) for route in routes]
        return dict(zip(self.blocks, routes, strict=True))

    def _forward(self, images: Tensor, held: bool) -> list[Any]:
        return read_routes(self.teacher, images, self.blocks, held, self.values)

    def learn_average(self, batches: Iterable[Tensor], everyone: Callable[[Any], list[Any]] = lambda own: [own]) -> None:
        """Take the mean map over all images of `batches` [B, 3, H, W], normalised for the teacher; `everyone` gives what each
        process has found, where several have a part of the images (or none)."""
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


def _cloned(route: Route) -> Route:
    given = (route.q, route.k, route.bias, route.v)
    q, k, bias, v = (None if each is None else each.clone() for each in given)
    assert q is not None and k is not None
    return Route(q, k, bias, route.scale, v)


class StochasticDepth:
    """Stochastic depth (Huang et al. 2016, arXiv 1603.09382) of a timm model, of given random numbers: so it can be the same
    in two models, and for any number of processes.

    The rate grows linearly from 0 in the first block to `rate` in the last (timm's and DeiT's rule). A residual branch is kept
    for an image where its number is not below the rate, then divided by 1 - rate. Outside `dropping` nothing is dropped.
    """

    def __init__(self, model: nn.Module, rate: float) -> None:
        blocks = list(model.blocks) if rate else []  # type: ignore[arg-type]
        self.branches = []
        for number, block in enumerate(blocks):
            block.drop_path1, block.drop_path2 = (_Branch(rate * number / max(1, len(blocks) - 1)) for _ in range(2))
            self.branches += [block.drop_path1, block.drop_path2]

    @contextmanager
    def dropping(self, draws: Tensor | None) -> Iterator[None]:
        """Within: branches are dropped by `draws` [2 * depth, B], uniform in 0..1, a row a branch."""
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


class _Prepacked(nn.Linear):
    """A frozen linear layer whose weight is laid out for oneDNN beforehand, with the GELU after it where there is one."""

    packed: Tensor
    version: int
    gelu: bool

    def forward(self, input: Tensor) -> Tensor:
        as_laid_out = input.is_cpu and input.dtype == torch.float32 and self.weight._version == self.version
        if not as_laid_out or input.requires_grad or torch.is_autocast_enabled("cpu"):
            out = super().forward(input)
            return nn.functional.gelu(out) if self.gelu else out
        after: Any = ("gelu", [], "none") if self.gelu else ("none", [], "")
        packed: Tensor = torch.ops.mkldnn._linear_pointwise(input, self.packed, self.bias, *after)
        return packed

    def __deepcopy__(self, memo: dict[int, Any]) -> _Prepacked:
        twin = _Prepacked.__new__(_Prepacked)
        memo[id(self)] = twin
        twin.__dict__ = copy.deepcopy({key: value for key, value in self.__dict__.items() if key != "packed"}, memo)
        twin.version = NEVER  # what is laid out cannot be copied: the twin multiplies by its own weight
        return twin


def prepack(teacher: nn.Module) -> None:
    """Lay out the weights of a frozen float32 teacher for the CPU, in place; its state dict stays as it is. A weight that is
    changed later, other than through `.data`, is used as it then is.

    By the operator to which torch.compile lowers linear layers: torch has no public one that keeps the layout. Where it
    is not there (builds without oneDNN), nothing happens.
    """
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return
    for module in list(teacher.modules()):
        if type(module) is nn.Linear and module.weight.dtype == torch.float32 and not module.weight.requires_grad:
            module.__class__ = _Prepacked
            module.gelu, module.version = False, module.weight._version  # type: ignore[assignment]
            module.packed = torch.ops.mkldnn._reorder_linear_weight(module.weight.detach(), PACKED_ROWS)
    for module in list(teacher.modules()):
        exact = type(module) is Mlp and type(module.act) is nn.GELU and module.act.approximate == "none"
        if exact and isinstance(module.fc1, _Prepacked):
            module.fc1.gelu, module.act = True, nn.Identity()


class Bond:
    """A student tied to its teacher as `transfer` says; with methods "none" and "match" it does nothing to the student.

    Args:
        transfer: what is transferred, and how.
        student: timm model.
        teacher: the model, or a Reader of it that other bonds share; None without transfer.

    Raises ValueError when the two differ in blocks, heads or patch grid.
    """

    def __init__(self, transfer: Transfer, student: nn.Module, teacher: nn.Module | Reader | None) -> None:
        self.transfer, self.student = transfer, student
        self.sites = open_attention(student)
        self.handed: dict[int, Route | Map] = {}
        self.parts: dict[int, Tensor] = {}
        self.losses: dict[int, Tensor] = {}
        if teacher is not None and not isinstance(teacher, Reader):
            teacher = Reader(teacher, transfer.blocks, values=transfer.part != "map")
        self.reader = teacher
        if teacher is not None:
            models = (teacher.teacher, student)
            blocks = [len(list(model.blocks)) for model in models]  # type: ignore[arg-type]
            heads = [model.blocks[0].attn.num_heads for model in models]  # type: ignore[index, union-attr]
            if blocks[0] != blocks[1] or heads[0] != heads[1]:
                raise ValueError(f"teacher and student differ: blocks {blocks}, heads {heads}")
            self.alignment: Alignment = align(layout(teacher.teacher), layout(student))
            self.sinks = [i for i, name in enumerate(layout(teacher.teacher)) if not name.startswith("patch")]

    def read(self, images: Tensor) -> Reading:
        """What the teacher hands over for `images` [B, 3, H, W]; empty without transfer."""
        return {} if self.reader is None else self.reader.read(images)

    @contextmanager
    def guiding(self, given: Tensor | Reading) -> Iterator[None]:
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
                on_route[block] = _with_part(self.transfer.part, self.parts[block], self.alignment.student)
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
    def comparing(self, reading: Reading) -> Iterator[dict[int, Route]]:
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

    def dropped(self, reading: Reading) -> list[float]:
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


def _with_part(part: str, given: Tensor, tokens: Sequence[int] | None) -> OnRoute:
    """A student whose q, k, v or output is `given` among `tokens` (None: all); all else is its own."""

    def put(own: Tensor) -> Tensor:
        into = given.to(own.dtype)
        return into if tokens is None else own.index_copy(-2, torch.as_tensor(tokens, device=own.device), into)

    def on_route(own: Route, v: Tensor, dropout_p: float) -> Tensor:
        if part == "output":
            return put(own.attend(v, dropout_p))
        q, k, v = (put(tensor) if name == part else tensor for name, tensor in (("q", own.q), ("k", own.k), ("v", v)))
        return Route(q, k, own.bias, own.scale).attend(v, dropout_p)

    return on_route


def _without_sinks(route: Route | Map, sinks: Sequence[int], keep: Sequence[int] | None, redistribute: bool) -> Map:
    """The map among the tokens `keep` without the attention that is paid to `sinks`; what they got is redistributed in
    proportion among the others, or lost: then rows sum to less than 1."""
    weights = route.map().clone()
    weights[..., list(sinks)] = 0
    if redistribute:
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    return Map(weights if keep is None else weights[..., list(keep), :][..., list(keep)])


def cross_entropy(teacher: Route | Map, student: Route) -> Tensor:
    """-sum_j P_teacher log P_student, mean over batch, heads and queries: a scalar."""
    expected: Tensor = teacher.map().clone() * student.logits().log_softmax(-1)  # a clone, for it may come from inference mode
    return -expected.sum(-1).mean()


def kl_divergence(teacher: Route | Map, student: Route) -> Tensor:
    """KL(P_teacher || P_student) in nats, mean over batch, heads and queries: cross-entropy less the teacher's entropy."""
    entropy: Tensor = torch.special.entr(teacher.map()).sum(-1).mean()
    return cross_entropy(teacher, student) - entropy


def mean_squared(teacher: Tensor, student: Tensor) -> Tensor:
    """Squared difference, mean over all elements: a scalar, in float32 at least."""
    return F.mse_loss(*_precise(student, teacher))


def cosine_distance(teacher: Tensor, student: Tensor) -> Tensor:
    """1 - cosine of the vectors along the last dimension (a map's rows), mean over all of them: a scalar."""
    return 1 - F.cosine_similarity(*_precise(student, teacher), dim=-1).mean()


def _precise(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(one.dtype, torch.float32)
    return one.to(dtype), other.to(dtype)


LOSSES: dict[str, Callable[[Any, Any], Tensor]] = {
    "ce": cross_entropy,
    "kl": kl_divergence,
    "mse": mean_squared,
    "cosine": cosine_distance,
}
DISTRIBUTIONS = ("ce", "kl")  # losses of the rows of maps alone
TENSORS: dict[str, Callable[[Route, Tensor], Tensor]] = {  # parts of [B, heads, tokens, head_dim]
    "q": lambda route, v: route.q,
    "k": lambda route, v: route.k,
    "v": lambda route, v: v,
    "output": lambda route, v: route.attend(v),
}


def attend_and_compare(student: Route, v: Tensor, teacher: Route | Map) -> tuple[Tensor, Tensor]:
    """The student's attention output [B, heads, tokens, head_dim] and its cross-entropy to the teacher's map, a scalar.

    Both come from one set of the student's logits s, with a gradient of their own: where g is the gradient of the output
    and c that of a row's cross-entropy, ds = P_s (g v^T - (g . output)) + c (P_s - P_t), since a row of P_t sums to 1. With a
    Map from the teacher the student's map is held for the backward pass; with a Route no map is: both are passed through
    in parts, and computed again in the backward pass.
    """
    bias = student.bias
    if bias is not None:
        bias = bias.reshape((1,) * (4 - bias.dim()) + bias.shape)
    found: tuple[Tensor, Tensor] = _Distilled.apply(student.q, student.k, v, bias, student.scale, teacher)
    return found


class _Distilled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, teacher: Route | Map
    ) -> tuple[Tensor, Tensor]:
        ctx.scale, ctx.teacher, ctx.dtypes = scale, teacher, (q.dtype, k.dtype, v.dtype)
        dtype = torch.promote_types(q.dtype, torch.float32)
        held = isinstance(teacher, Map)
        with torch.autocast(q.device.type, enabled=False):
            # One dense copy each: q, k and v are views of one projection.
            q, k, v = (t.to(dtype).clone(memory_format=torch.contiguous_format) for t in (q, k, v))
            q.mul_(scale)
            parts = _parts(q, held)
            out, total, kept = None if len(parts) == 1 else torch.empty_like(v), q.new_zeros(()), []
            for images, queries in parts:
                logits = _logits(q, k, bias, images, queries)
                target = teacher.rows(images, queries).to(dtype)
                highest = logits.amax(-1)
                total -= torch.dot(target.reshape(-1), logits.reshape(-1))
                weights = logits.softmax(-1)
                total += (highest - weights.amax(-1).log()).sum()  # logsumexp of the logits
                product = weights @ v[images]
                if out is None:
                    out = product
                else:
                    out[images, :, queries] = product
                if held:
                    kept.append(weights)
            assert out is not None
            ctx.save_for_backward(q, k, v, bias, out, *kept)
            return out.to(ctx.dtypes[2]), total / q[..., 0].numel()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, out, *kept = ctx.saved_tensors
        with torch.autocast(q.device.type, enabled=False):
            grad, each = grads[0].to(q.dtype).contiguous(), grads[1].to(q.dtype) / q[..., 0].numel()
            level = (grad * out).sum(-1, keepdim=True) - each
            parts = _parts(q, bool(kept))
            dq = dk = dv = None
            if len(parts) > 1:
                dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
            dbias = None if bias is None or not ctx.needs_input_grad[3] else torch.zeros_like(bias)
            for images, queries in parts:
                weights = kept[0] if kept else _logits(q, k, bias, images, queries).softmax(-1)
                here = grad[images, :, queries]
                to_v = weights.transpose(-2, -1) @ here
                ds = here @ v[images].transpose(-2, -1)
                ds.sub_(level[images, :, queries]).mul_(weights)
                ds.addcmul_(ctx.teacher.rows(images, queries).to(q.dtype), each, value=-1)
                to_q, to_k = ds @ k[images], ds.transpose(-2, -1) @ q[images, :, queries]
                if dq is None or dk is None or dv is None:
                    dq, dk, dv = to_q, to_k, to_v
                else:
                    dq[images, :, queries] = to_q
                    dk[images] += to_k
                    dv[images] += to_v
                if dbias is not None:
                    into = part(dbias, images, queries)
                    into += ds.sum_to_size(into.shape)
            assert dq is not None and dk is not None and dv is not None
            dq.mul_(ctx.scale)
        kinds = ctx.dtypes
        return dq.to(kinds[0]), dk.to(kinds[1]), dv.to(kinds[2]), dbias, None, None


def _logits(q: Tensor, k: Tensor, bias: Tensor | None, images: slice, queries: slice) -> Tensor:
    logits = q[images, :, queries] @ k[images].transpose(-2, -1)  # q is scaled already
    return logits if bias is None else logits.add_(part(bias, images, queries))


def _parts(q: Tensor, whole: bool) -> list[tuple[slice, slice]]:
    """Slices of images and queries: all at once, or such that a part of the map keeps to the device's limit."""
    count, heads, tokens, _ = q.shape
    limit = PART_ELEMENTS.get(q.device.type, PART_ELEMENTS_ELSEWHERE)
    images = count if whole else max(1, limit // (heads * tokens * tokens))
    queries = tokens if whole else min(tokens, max(1, limit // (heads * tokens)))
    return [
        (slice(first, min(count, first + images)), slice(row, min(tokens, row + queries)))
        for first in range(0, count, images)
        for row in range(0, tokens, queries)
    ]
