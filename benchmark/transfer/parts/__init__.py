"""Parts of the teacher's attention that can be transferred: one file each, named as in `part=NAME`.

A file defines `PART`, a `Part`: how it is taken, compared (Distillation) and put in place (Copy).
`COPIED = False` declares that Copy of it makes no sense, `NEEDS_ROUTE = False` that a teacher may
be read as maps, without q, k and v.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor

from families.core.attention import Map, OnRoute, Route

Tokens = Sequence[int] | None  # indices of the tokens that both models have; None: all of them


class Part(Protocol):
    """A part of attention; `fusible`: whether a loss may compute it together with the student's
    attention output."""

    fusible: bool

    def handed(self, route: Route | Map, handed: Route | Map, keep: Tokens) -> Any:
        """What stands for the part, among the teacher's tokens `keep`.

        `route` is the source's with all the teacher's tokens, `handed` the same among `keep` and
        without sinks.
        """
        ...

    def compared(self, loss: Any, given: Any, own: Route, v: Tensor, out: Tensor, keep: Tokens) -> Tensor:
        """The loss between `given` and the student's part among its tokens `keep`: a scalar."""
        ...

    def copied(self, given: Any, keep: Tokens) -> tuple[OnRoute | None, Callable[..., Tensor] | None]:
        """How a block with the part in place attends: by its whole route, or by its values alone
        (the other is None)."""
        ...


@dataclass(frozen=True)
class TensorPart:
    """A part that is one tensor [B, heads, tokens, head_dim]; all else of the student's attention
    is its own.

    Attributes:
        of: the tensor, of a route, its values, and a function that gives the attention output.
        attend: the attention output of a route and its values where `put` has replaced the tensor.
    """

    of: Callable[[Route, Tensor, Callable[[], Tensor]], Tensor]
    attend: Callable[[Route, Tensor, Callable[[Tensor], Tensor], float], Tensor]
    fusible: bool = False

    def handed(self, route: Route | Map, handed: Route | Map, keep: Tokens) -> Tensor:
        """The tensor, computed with all the teacher's tokens."""
        assert isinstance(route, Route) and route.v is not None
        v = route.v
        return _among(self.of(route, v, lambda: route.attend(v)), keep)

    def compared(self, loss: Any, given: Tensor, own: Route, v: Tensor, out: Tensor, keep: Tokens) -> Tensor:
        """The loss between both tensors."""
        found: Tensor = loss.loss(given, _among(self.of(own, v, lambda: out), keep))
        return found

    def copied(self, given: Tensor, keep: Tokens) -> tuple[OnRoute, None]:
        """The student's attention with the teacher's tensor in place."""

        def put(own: Tensor) -> Tensor:
            into = given.to(own.dtype)
            return into if keep is None else own.index_copy(-2, torch.as_tensor(keep, device=own.device), into)

        return lambda own, v, dropout_p: self.attend(own, v, put, dropout_p), None


def _among(tensor: Tensor, keep: Tokens) -> Tensor:
    return tensor if keep is None else tensor[..., list(keep), :]


def part_named(name: str) -> Part:
    """The part of this name."""
    found: Part = import_module(f"{__name__}.{name.replace('-', '_')}").PART
    return found
