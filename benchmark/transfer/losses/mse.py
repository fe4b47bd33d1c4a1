"""Mean squared error."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from benchmark.transfer.precision import at_least_float32

OF_DISTRIBUTIONS = False


def loss(teacher: Tensor, student: Tensor) -> Tensor:
    """Squared difference, mean over all elements: a scalar, in float32 at least."""
    return F.mse_loss(*at_least_float32(student, teacher))
