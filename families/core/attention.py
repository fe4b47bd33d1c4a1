"""The attention mechanism behind all adapters: read each block's route, or replace it.

timm's attention classes differ (ViT, BEiT, EVA), but all of them end in
`F.scaled_dot_product_attention`. `open_attention` turns every `block.attn` into a subclass of its
own class whose forward runs with that one call intercepted. There q and k are final (biases, norms
and rotary embeddings applied) and the mask is the whole additive bias, whatever the class. The
interception is entered inside the module's own forward, so that the recomputation of gradient
checkpointing enters it too; keep handlers in place until `backward()` has returned. State-dict keys
stay timm's.

A block whose map comes from elsewhere needs no q and k of its own: `Site.on_values` skips them
where timm's class is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention, AttentionRope
from timm.models.beit import Attention as BeitAttention
from timm.models.eva import EvaAttention
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ATTEND = F.scaled_dot_product_attention


@dataclass(frozen=True)
class Route:
    """The inputs of a block's attention map softmax(q k^T scale + bias), without the map.

    Attributes:
        q, k: [B, heads, tokens, head_dim], as they enter the product.
        bias: additive, broadcastable to [B, heads, tokens, tokens], or None.
        scale: factor on q k^T.
        v: the block's values, [B, heads, tokens, head_dim]; None unless asked for.
    """

    q: Tensor
    k: Tensor
    bias: Tensor | None
    scale: float
    v: Tensor | None = None

    def __len__(self) -> int:
        return len(self.q)

    def logits(self) -> Tensor:
        """[B, heads, tokens, tokens] before the softmax, in float32 at least, whatever the route's
        own precision."""
        dtype = torch.promote_types(self.q.dtype, torch.float32)
        with torch.autocast(self.q.device.type, enabled=False):
            logits = (self.q.to(dtype) * self.scale) @ self.k.to(dtype).transpose(-2, -1)
            return logits if self.bias is None else logits + self.bias.to(dtype)

    def map(self) -> Tensor:
        """[B, heads, tokens, tokens], rows sum to 1."""
        return self.logits().softmax(-1)

    def select(self, tokens: Sequence[int]) -> Route:
        """The route among `tokens` alone: equal to dropping the other rows and columns of the map
        and renormalising."""
        index = torch.as_tensor(tokens, device=self.q.device)
        bias = self.bias
        if bias is not None:
            bias = bias.index_select(-2, index).index_select(-1, index)
        v = None if self.v is None else self.v.index_select(-2, index)
        return Route(self.q.index_select(-2, index), self.k.index_select(-2, index), bias, self.scale, v)

    def rows(self, images: slice, queries: slice) -> Tensor:
        """The map's part [images, heads, queries, tokens], without building the rest."""
        bias = None if self.bias is None else part(self.bias, images, queries)
        return Route(self.q[images, :, queries], self.k[images], bias, self.scale).map()

    def other_image(self) -> Route:
        """For each image the route of its neighbour in the batch."""
        bias = self.bias
        if bias is not None and bias.dim() == 4:
            bias = bias.roll(1, 0)
        v = None if self.v is None else self.v.roll(1, 0)
        return Route(self.q.roll(1, 0), self.k.roll(1, 0), bias, self.scale, v)

    def uniform(self) -> Route:
        """Equal attention to every token."""
        return Route(torch.zeros_like(self.q), torch.zeros_like(self.k), None, self.scale)

    def held(self) -> Map:
        """The route with its map built, once for all who use it."""
        return Map(self.map())

    def attend(self, v: Tensor, dropout_p: float = 0.0) -> Tensor:
        """Map @ v without holding the map: v and the result are [B, heads, tokens, any head_dim]."""
        bias = None if self.bias is None else self.bias.to(v.dtype)
        return ATTEND(self.q.to(v.dtype), self.k.to(v.dtype), v, attn_mask=bias, dropout_p=dropout_p, scale=self.scale)


@dataclass(frozen=True)
class Map:
    """A route of which only the map was kept; it offers what Route does, and no gradient reaches it.

    Attributes:
        weights: [B, heads, tokens, tokens], rows sum to 1.
    """

    weights: Tensor

    def __len__(self) -> int:
        return len(self.weights)

    def map(self) -> Tensor:
        """[B, heads, tokens, tokens], rows sum to 1."""
        return self.weights

    def select(self, tokens: Sequence[int]) -> Map:
        """The map among `tokens` alone, renormalised."""
        index = torch.as_tensor(tokens, device=self.weights.device)
        kept = self.weights.index_select(-2, index).index_select(-1, index)
        return Map(kept / kept.sum(-1, keepdim=True))

    def rows(self, images: slice, queries: slice) -> Tensor:
        """The map's part [images, heads, queries, tokens]."""
        return self.weights[images, :, queries]

    def other_image(self) -> Map:
        """For each image the map of its neighbour in the batch."""
        return Map(self.weights.roll(1, 0))

    def uniform(self) -> Map:
        """Equal attention to every token."""
        return Map(torch.full_like(self.weights, 1 / self.weights.shape[-1]))

    def attend(self, v: Tensor, dropout_p: float = 0.0) -> Tensor:
        """Map @ v: v and the result are [B, heads, tokens, any head_dim]."""
        weights = self.weights.to(v.dtype)
        out: Tensor = _Weighted.apply(v, F.dropout(weights, dropout_p) if dropout_p else weights)
        return out


class _Weighted(torch.autograd.Function):
    """weights @ v with a gradient for v alone; the weights may come from inference mode."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, weights: Tensor) -> Tensor:
        ctx.weights = weights
        return weights @ v

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.weights.transpose(-2, -1) @ grads[0], None


def part(bias: Tensor, images: slice, queries: slice) -> Tensor:
    """The part of an additive bias (broadcastable to [B, heads, tokens, tokens]) for some images
    and queries."""
    if bias.dim() == 4 and bias.shape[0] > 1:
        bias = bias[images]
    return bias[..., queries, :] if bias.shape[-2] > 1 else bias


@dataclass(frozen=True)
class Alignment:
    """Which tokens teacher and student have in common: `teacher` and `student` index them, None
    where it is all of them.

    `teacher_extra` and `student_extra` are the tokens that the other side lacks.
    """

    teacher: tuple[int, ...] | None
    student: tuple[int, ...] | None
    teacher_extra: tuple[int, ...]
    student_extra: tuple[int, ...]


def layout(model: nn.Module) -> list[str]:
    """The names of a timm model's tokens in order: cls, dist, reg0.., then patch0,0 patch0,1 .. by
    row and column. Raises ValueError for a model that does not tell them."""
    if not hasattr(model, "num_prefix_tokens") or not hasattr(getattr(model, "patch_embed", None), "grid_size"):
        raise ValueError(f"{type(model).__name__} does not tell its tokens: it lacks num_prefix_tokens or patch_embed.grid_size")
    prefix = [name for name in ("cls", "dist") if getattr(model, f"{name}_token", None) is not None]
    registers = int(model.num_prefix_tokens) - len(prefix)  # type: ignore[arg-type]
    rows, columns = model.patch_embed.grid_size  # type: ignore[union-attr, misc]
    patches = [f"patch{row},{column}" for row in range(rows) for column in range(columns)]
    return prefix + [f"reg{i}" for i in range(registers)] + patches


def align(teacher: Sequence[str], student: Sequence[str]) -> Alignment:
    """The one rule for differing token layouts: each side drops the tokens that the other lacks.

    Raises ValueError when the patch grids differ, since no dropping aligns them.
    """
    patches = [[name for name in side if name.startswith("patch")] for side in (teacher, student)]
    if patches[0] != patches[1]:
        raise ValueError(
            f"teacher has {len(patches[0])} patches to {patches[0][-1]} and student {len(patches[1])} to {patches[1][-1]}:"
            " their grids must be equal"
        )
    common = [name for name in student if name in set(teacher)]
    extra = [tuple(i for i, name in enumerate(side) if name not in common) for side in (teacher, student)]
    kept = [tuple(side.index(name) for name in common) for side in (list(teacher), list(student))]
    whole = [kept[i] == tuple(range(len(side))) for i, side in enumerate((teacher, student))]
    return Alignment(None if whole[0] else kept[0], None if whole[1] else kept[1], extra[0], extra[1])


def dropped_mass(route: Route | Map, extra: Sequence[int]) -> float:
    """Mean attention (0..1) that the kept tokens pay to the `extra` ones, which are dropped."""
    weights = route.map()
    kept = [i for i in range(weights.shape[-1]) if i not in set(extra)]
    return float(weights[..., kept, :][..., list(extra)].sum(-1).mean())


OnRoute = Callable[[Route, Tensor, float], Tensor]
OnValues = Callable[[Tensor, float], Tensor]


class Site:
    """What happens at one block's attention.

    Attributes:
        on_route: called with (the block's own route, v, dropout), gives the attention's output;
            None: the block's own.
        on_values: called with (v, dropout) instead; the block's q, k and bias are then not computed
            where timm's class is known.
        calls: of `attend` in the block's last forward.
        window: added to the bias of the block's own map, [tokens, tokens]; None without.
    """

    def __init__(self) -> None:
        self.on_route: OnRoute | None = None
        self.on_values: OnValues | None = None
        self.calls = 0
        self.window: Tensor | None = None

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        """Stands in for scaled_dot_product_attention. Raises ValueError for causal or grouped ones."""
        if is_causal or enable_gqa:
            raise ValueError("causal and grouped-query attention have no route")
        self.calls += 1
        if self.on_values is not None:
            return self.on_values(v, dropout_p)
        if self.window is not None:
            window = self.window = self.window.to(q)  # kept where it is needed: it is large
            attn_mask = window if attn_mask is None else window + attn_mask
        own = Route(q, k, attn_mask, q.shape[-1] ** -0.5 if scale is None else scale)
        return own.attend(v, dropout_p) if self.on_route is None else self.on_route(own, v, dropout_p)


class _Intercept(TorchFunctionMode):
    def __init__(self, attend: Callable[..., Tensor]) -> None:
        super().__init__()
        self.attend = attend

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (self.attend if func is ATTEND else func)(*args, **(kwargs or {}))


class _Open:
    site: Site
    skips_q_and_k = False

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        site = self.site
        if site.on_values is not None and self.skips_q_and_k and getattr(self, "num_kv_groups", 1) == 1:
            return _values_only(self, x, site.on_values)
        site.calls = 0
        with _Intercept(site.attend):
            out: Tensor = super().forward(x, *args, **kwargs)  # type: ignore[misc]
        if site.on_route is not None and site.calls != 1:  # such as differential attention, whose map is made of two
            raise ValueError(f"{type(self).__name__} calls scaled_dot_product_attention {site.calls} times: not one map")
        return out


SKIPPING = (Attention, AttentionRope, BeitAttention, EvaAttention)  # the classes whose forward `_values_only` follows


def _values_only(attn: Any, x: Tensor, on_values: OnValues) -> Tensor:
    """The forward of timm's class without its q, k and bias: v's share of the projection, then what
    follows the map."""
    if attn.qkv is None:
        v = attn.v_proj(x)
    else:
        width = attn.qkv.weight.shape[0] // 3
        bias = getattr(attn, "v_bias", None)
        if bias is None and attn.qkv.bias is not None:
            bias = attn.qkv.bias[2 * width :]
        v = F.linear(x, attn.qkv.weight[2 * width :], bias)
    v = v.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
    out = on_values(v, attn.attn_drop.p if attn.training else 0.0).transpose(1, 2).flatten(2)
    if getattr(attn, "norm", None) is not None:
        out = attn.norm(out)
    if getattr(attn, "gate", None) is not None:
        out = out * attn.gate(x).sigmoid()
    return attn.proj_drop(attn.proj(out))  # type: ignore[no-any-return]


_OPENED: dict[type, type] = {}


def open_attention(model: nn.Module) -> list[Site]:
    """Open every block's attention of a timm model and return its sites, first block first
    (idempotent).

    Until a site is used, nothing changes. Raises ValueError for a model without `blocks[i].attn`.
    """
    sites = []
    for number, block in enumerate(getattr(model, "blocks", [])):
        attn = getattr(block, "attn", None)
        if attn is None:
            raise ValueError(f"block {number} of {type(model).__name__} has no attention to open")
        if not isinstance(attn, _Open):
            closed = type(attn)
            skips = {"skips_q_and_k": closed in SKIPPING}
            _OPENED.setdefault(closed, type(f"Open{closed.__name__}", (_Open, closed), skips))
            attn.__class__ = _OPENED[closed]
            attn.fused_attn = True
            attn.site = Site()
        sites.append(attn.site)
    if not sites:
        raise ValueError(f"{type(model).__name__} has no blocks with attention")
    return sites


@contextmanager
def handling(
    sites: Sequence[Site], on_route: Mapping[int, OnRoute] | None = None, on_values: Mapping[int, OnValues] | None = None
) -> Iterator[None]:
    """Within: the blocks named attend by the given handlers; afterwards no site has any."""
    try:
        for block, handler in (on_route or {}).items():
            sites[block].on_route = handler
        for block, values in (on_values or {}).items():
            sites[block].on_values = values
        yield
    finally:
        for site in sites:
            site.on_route = site.on_values = None


@contextmanager
def recording(sites: Sequence[Site], blocks: Sequence[int]) -> Iterator[dict[int, Route]]:
    """Within: every forward leaves the route of each of `blocks` in the dictionary."""
    seen: dict[int, Route] = {}

    def keep(block: int) -> OnRoute:
        def on_route(own: Route, v: Tensor, dropout_p: float) -> Tensor:
            seen[block] = own
            return own.attend(v, dropout_p)

        return on_route

    with handling(sites, {block: keep(block) for block in blocks}):
        yield seen


class _Read(Exception):
    """All routes that were asked for are there: what follows in the model would be read by nobody."""


def read_routes(
    model: nn.Module, x: Tensor, blocks: Sequence[int] | None = None, held: bool = False, values: bool = False
) -> list[Any]:
    """A Route for each of `blocks` (all when None, ascending) of a timm model, with its `values`
    too, or a Map when `held`.

    The model stops at the last of these blocks once q and k are known. A held map serves the
    model's own attention too. `x` is [B, 3, H, W], normalised; gradients flow where enabled. Raises
    ValueError when a block's attention was not reached, or is not among all tokens of an image.
    """
    sites = open_attention(model)
    wanted = range(len(sites)) if blocks is None else blocks
    seen: dict[int, Route | Map] = {}
    whole = (len(x), len(layout(model)))

    def keep(block: int) -> OnRoute:
        def on_route(own: Route, v: Tensor, dropout_p: float) -> Tensor:
            for each in (own.q, own.k):
                if each.dim() != 4 or (each.shape[0], each.shape[2]) != whole:
                    raise ValueError(
                        f"block {block} attends in {tuple(each.shape)}, not among all {whole[1]} tokens of each image"
                    )
            route = seen[block] = own.held() if held else replace(own, v=v) if values else own
            if block == wanted[-1]:
                raise _Read
            return route.attend(v, dropout_p)

        return on_route

    with handling(sites, {block: keep(block) for block in wanted}), suppress(_Read):
        model.forward_features(x)  # type: ignore[operator]
    missing = [block for block in wanted if block not in seen]
    if missing:
        raise ValueError(f"attention of block {missing[0]} never reached scaled_dot_product_attention")
    return [seen[block] for block in wanted]
