"""The precision that losses compute in."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors in float32, or in the first one's precision if that is higher."""
    dtype = torch.promote_types(one.dtype, torch.float32)
    return one.to(dtype), other.to(dtype)
