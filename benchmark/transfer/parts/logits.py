"""The map's logits, before the softmax. Copy of them is Copy of the map."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from benchmark.transfer.parts import Tokens
from benchmark.transfer.parts.map import AttentionMap
from families.core.attention import Map, Route

COPIED = False


class Logits(AttentionMap):
    """q k^T scale + bias."""

    fusible = False

    def compared(self, loss: Any, given: Route | Map, own: Route, v: Tensor, out: Tensor, keep: Tokens) -> Tensor:
        """The loss between both models' logits."""
        assert isinstance(given, Route)
        found: Tensor = loss.loss(given.logits(), (own if keep is None else own.select(keep)).logits())
        return found


PART = Logits()
