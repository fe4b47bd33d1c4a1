"""Lay out a frozen teacher's linear layers for oneDNN, by private operators of torch."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from timm.layers import Mlp
from torch import Tensor, nn

NEVER = -1
PACKED_ROWS = 1024  # batch x tokens for which a teacher's weights are laid out; one number, so that all batches agree


class _Prepacked(nn.Linear):
    """A frozen linear layer whose weight is laid out for oneDNN beforehand, with the GELU after it
    where there is one."""

    packed: Tensor
    version: int
    gelu: bool

    def forward(self, input: Tensor) -> Tensor:
        as_laid_out = input.is_cpu and input.dtype == torch.float32 and self.weight._version == self.version
        if not as_laid_out or input.requires_grad or torch.is_autocast_enabled("cpu"):
            out = super().forward(input)
            return nn.functional.gelu(out) if self.gelu else out
        return _linear(input, self.packed, self.bias, self.gelu)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Prepacked:
        twin = _Prepacked.__new__(_Prepacked)
        memo[id(self)] = twin
        twin.__dict__ = copy.deepcopy({key: value for key, value in self.__dict__.items() if key != "packed"}, memo)
        twin.version = NEVER  # what is laid out cannot be copied: the twin multiplies by its own weight
        return twin


def _laid_out(weight: Tensor) -> Tensor:
    laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_ROWS)
    return laid_out


def _linear(input: Tensor, laid_out: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    after: Any = ("gelu", [], "none") if gelu else ("none", [], "")
    out: Tensor = torch.ops.mkldnn._linear_pointwise(input, laid_out, bias, *after)
    return out


@functools.cache
def _is_usable() -> bool:
    """Whether this torch has both operators, with these arguments, and they compute a linear layer
    without and with GELU."""
    if not torch.backends.mkldnn.is_available():
        return False
    x = torch.linspace(-2, 2, 2 * 3 * 16).view(2, 3, 16)  # no random number is drawn: that would change a training
    weight, bias = torch.linspace(-1, 1, 8 * 16).view(8, 16), torch.linspace(-1, 1, 8)
    plain = nn.functional.linear(x, weight, bias)
    try:
        laid_out = _laid_out(weight)
        found = [_linear(x, laid_out, bias, gelu) for gelu in (False, True)]
        return all(torch.allclose(*pair, atol=1e-4) for pair in zip(found, (plain, nn.functional.gelu(plain)), strict=True))
    except Exception:  # private operators: another torch may lack them, take other arguments or give something else
        return False


def prepack(teacher: nn.Module) -> None:
    """Lay out the weights of a frozen float32 teacher for the CPU, in place; its state dict stays
    as it is. A weight that is changed later, other than through `.data`, is used as it then is.

    By the operator to which torch.compile lowers linear layers: torch has no public one that keeps
    the layout. Where this torch lacks it, or has another one of that name, nothing happens.
    """
    if not _is_usable():
        return
    for module in list(teacher.modules()):
        if type(module) is nn.Linear and module.weight.dtype == torch.float32 and not module.weight.requires_grad:
            module.__class__ = _Prepacked
            module.gelu, module.version = False, module.weight._version  # type: ignore[assignment]
            module.packed = _laid_out(module.weight.detach())
    for module in list(teacher.modules()):
        exact = type(module) is Mlp and type(module.act) is nn.GELU and module.act.approximate == "none"
        if exact and isinstance(module.fc1, _Prepacked):
            module.fc1.gelu, module.act = True, nn.Identity()
