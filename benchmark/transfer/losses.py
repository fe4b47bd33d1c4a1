"""Distillation's losses by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from families.core.attention import Map, Route


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
