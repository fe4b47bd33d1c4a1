"""Cosine distance."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from benchmark.transfer.precision import at_least_float32

OF_DISTRIBUTIONS = False


def loss(teacher: Tensor, student: Tensor) -> Tensor:
    """1 - cosine of the vectors along the last dimension (a map's rows), mean over all of them: a
    scalar."""
    return 1 - F.cosine_similarity(*at_least_float32(student, teacher), dim=-1).mean()
