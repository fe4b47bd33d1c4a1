"""The one attention mechanism behind all adapters: read each block's route, or put another route in its place.

timm's attention classes differ (ViT, BEiT, EVA), but all of them end in `F.scaled_dot_product_attention`. `open_attention`
turns every `block.attn` into a subclass of its own class whose forward runs with that one call intercepted. There q and k
are final (biases, norms and rotary embeddings applied) and the mask is the whole additive bias, whatever the class. The
interception is entered inside the module's own forward, so that the recomputation of gradient checkpointing enters it
too; keep a guide in place until `backward()` has returned. State-dict keys stay timm's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ATTEND = F.scaled_dot_product_attention


@dataclass(frozen=True)
class Route:
    """All that a block's attention map softmax(q k^T scale + bias) is made of, without the map.

    Attributes:
        q, k: [B, heads, tokens, head_dim], as they enter the product.
        bias: additive, broadcastable to [B, heads, tokens, tokens], or None.
        scale: factor on q k^T.
    """

    q: Tensor
    k: Tensor
    bias: Tensor | None
    scale: float

    def logits(self) -> Tensor:
        """[B, heads, tokens, tokens] before the softmax, in float32 at least, whatever the route's own precision."""
        dtype = torch.promote_types(self.q.dtype, torch.float32)
        with torch.autocast(self.q.device.type, enabled=False):
            logits = (self.q.to(dtype) @ self.k.to(dtype).transpose(-2, -1)) * self.scale
            return logits if self.bias is None else logits + self.bias.to(dtype)

    def map(self) -> Tensor:
        """[B, heads, tokens, tokens], rows sum to 1."""
        return self.logits().softmax(-1)

    def select(self, tokens: Sequence[int]) -> Route:
        """The route among `tokens` alone: equal to dropping the other rows and columns of the map and renormalising."""
        index = torch.as_tensor(tokens, device=self.q.device)
        bias = self.bias
        if bias is not None:
            bias = bias.index_select(-2, index).index_select(-1, index)
        return Route(self.q.index_select(-2, index), self.k.index_select(-2, index), bias, self.scale)

    def attend(self, v: Tensor, dropout_p: float = 0.0) -> Tensor:
        """Map @ v without holding the map: v and the result are [B, heads, tokens, any head_dim]."""
        bias = None if self.bias is None else self.bias.to(v.dtype)
        return ATTEND(self.q.to(v.dtype), self.k.to(v.dtype), v, attn_mask=bias, dropout_p=dropout_p, scale=self.scale)


@dataclass(frozen=True)
class Alignment:
    """Which tokens teacher and student have in common: `teacher` and `student` index them, None where it is all of them.

    `teacher_extra` and `student_extra` are what the other side has not.
    """

    teacher: tuple[int, ...] | None
    student: tuple[int, ...] | None
    teacher_extra: tuple[int, ...]
    student_extra: tuple[int, ...]


def layout(model: nn.Module) -> list[str]:
    """The names of a timm model's tokens in order: cls, dist, reg0.., then patch0,0 patch0,1 .. by row and column."""
    prefix = [name for name in ("cls", "dist") if getattr(model, f"{name}_token", None) is not None]
    registers = int(model.num_prefix_tokens) - len(prefix)  # type: ignore[arg-type]
    rows, columns = model.patch_embed.grid_size  # type: ignore[union-attr, misc]
    patches = [f"patch{row},{column}" for row in range(rows) for column in range(columns)]
    return prefix + [f"reg{i}" for i in range(registers)] + patches


def align(teacher: Sequence[str], student: Sequence[str]) -> Alignment:
    """The one rule for differing token layouts: each side drops what the other has not.

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


def dropped_mass(route: Route, extra: Sequence[int]) -> float:
    """Mean attention that the kept tokens pay to the `extra` ones: what dropping them renormalises away (0..1)."""
    kept = [i for i in range(route.k.shape[-2]) if i not in set(extra)]
    return float(route.map()[..., kept, :][..., list(extra)].sum(-1).mean())


class Site:
    """What happens at one block's attention. `guide` replaces the map of `guided` tokens (all when None); `seen` keeps
    the block's own route of the last forward while `record` is set."""

    def __init__(self) -> None:
        self.record = False
        self.seen: Route | None = None
        self.guide: Route | None = None
        self.guided: tuple[int, ...] | None = None

    def clear(self) -> None:
        """Forget routes and guides."""
        self.__init__()  # type: ignore[misc]

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        """Stands in for scaled_dot_product_attention. Raises ValueError for causal or grouped-query attention."""
        if is_causal or enable_gqa:
            raise ValueError("causal and grouped-query attention have no route")
        own = Route(q, k, attn_mask, q.shape[-1] ** -0.5 if scale is None else scale)
        if self.record:
            self.seen = own
        if self.guide is None:
            return own.attend(v, dropout_p)
        if self.guided is None:
            return self.guide.attend(v, dropout_p)
        index = torch.as_tensor(self.guided, device=v.device)
        guided = self.guide.attend(v.index_select(-2, index), dropout_p)
        return own.attend(v, dropout_p).index_copy(-2, index, guided)


class _Intercept(TorchFunctionMode):
    def __init__(self, attend: Callable[..., Tensor]) -> None:
        super().__init__()
        self.attend = attend

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (self.attend if func is ATTEND else func)(*args, **(kwargs or {}))


class _Open:
    site: Site

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        with _Intercept(self.site.attend):
            out: Tensor = super().forward(*args, **kwargs)  # type: ignore[misc]
        return out


_OPENED: dict[type, type] = {}


def open_attention(model: nn.Module) -> list[Site]:
    """Open every block's attention of a timm model and return its sites, first block first (idempotent).

    Until a site is used, the model computes what it did. Raises ValueError for a model without `blocks[i].attn`.
    """
    sites = []
    for number, block in enumerate(getattr(model, "blocks", [])):
        attn = getattr(block, "attn", None)
        if attn is None:
            raise ValueError(f"block {number} of {type(model).__name__} has no attention to open")
        if not isinstance(attn, _Open):
            closed = type(attn)
            _OPENED.setdefault(closed, type(f"Open{closed.__name__}", (_Open, closed), {}))
            attn.__class__ = _OPENED[closed]
            attn.fused_attn = True
            attn.site = Site()
        sites.append(attn.site)
    if not sites:
        raise ValueError(f"{type(model).__name__} has no blocks with attention")
    return sites


@contextmanager
def recording(sites: Sequence[Site]) -> Iterator[None]:
    """Within: every forward leaves each site's own route in `seen`. Afterwards the sites are cleared."""
    try:
        for site in sites:
            site.record = True
        yield
    finally:
        for site in sites:
            site.clear()


def read_routes(model: nn.Module, x: Tensor) -> list[Route]:
    """One Route a block of a timm model for input `x` [B, 3, H, W], already normalised; gradients flow where enabled."""
    sites = open_attention(model)
    with recording(sites):
        model.forward_features(x)  # type: ignore[operator]
        routes = [site.seen for site in sites]
    if any(route is None for route in routes):
        raise ValueError(f"attention of block {routes.index(None)} never reached scaled_dot_product_attention")
    return [route for route in routes if route is not None]
