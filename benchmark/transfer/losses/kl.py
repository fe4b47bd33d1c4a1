"""KL divergence of the student's map from the teacher's: cross-entropy less the teacher's entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmark.transfer.losses import ce
from families.core.attention import Map, Route

OF_DISTRIBUTIONS = True


def loss(teacher: Route | Map, student: Route) -> Tensor:
    """KL(P_teacher || P_student) in nats, mean over batch, heads and queries: a scalar."""
    entropy: Tensor = torch.special.entr(teacher.map()).sum(-1).mean()
    return ce.loss(teacher, student) - entropy
