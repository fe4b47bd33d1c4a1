"""Parts of attention that can be transferred in place of the map: q, k, v and output."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from families.core.attention import OnRoute, Route


def with_part(part: str, given: Tensor, tokens: Sequence[int] | None) -> OnRoute:
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


TENSORS: dict[str, Callable[[Route, Tensor], Tensor]] = {  # parts of [B, heads, tokens, head_dim]
    "q": lambda route, v: route.q,
    "k": lambda route, v: route.k,
    "v": lambda route, v: v,
    "output": lambda route, v: route.attend(v),
}
