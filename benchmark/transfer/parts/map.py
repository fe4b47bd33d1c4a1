"""The attention map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmark.transfer.parts import Tokens
from families.core.attention import Map, OnRoute, Route


class AttentionMap:
    """softmax(q k^T scale + bias), as a route or a map."""

    fusible = True

    def handed(self, route: Route | Map, handed: Route | Map, keep: Tokens) -> Route | Map:
        """The map among the tokens that both have."""
        return handed

    def compared(self, loss: Any, given: Route | Map, own: Route, v: Tensor, out: Tensor, keep: Tokens) -> Tensor:
        """The loss between both maps."""
        mine = own if keep is None else own.select(keep)
        found: Tensor = loss.loss(given, mine) if loss.OF_DISTRIBUTIONS else loss.loss(given.map().clone(), mine.map())
        return found

    def copied(self, given: Route | Map, keep: Tokens) -> tuple[OnRoute | None, Callable[..., Tensor] | None]:
        """The teacher's map times the student's values; tokens that the teacher lacks keep their
        own attention."""
        return (None, given.attend) if keep is None else (_among(given, keep), None)


def _among(route: Route | Map, tokens: Sequence[int]) -> OnRoute:
    def on_route(own: Route, v: Tensor, dropout_p: float) -> Tensor:
        index = torch.as_tensor(tokens, device=v.device)
        guided = route.attend(v.index_select(-2, index), dropout_p)
        return own.attend(v, dropout_p).index_copy(-2, index, guided)

    return on_route


PART = AttentionMap()
NEEDS_ROUTE = False
