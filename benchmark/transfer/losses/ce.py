"""Cross-entropy of the student's map to the teacher's, the usual loss (Li et al. 2024, arXiv
2411.09702)."""

from __future__ import annotations

from torch import Tensor

from benchmark.transfer.fused_distillation import attend_and_compare
from families.core.attention import Map, Route

OF_DISTRIBUTIONS = True


def loss(teacher: Route | Map, student: Route) -> Tensor:
    """-sum_j P_teacher log P_student, mean over batch, heads and queries: a scalar."""
    expected: Tensor = teacher.map().clone() * student.logits().log_softmax(-1)  # cloned: it may come from inference mode
    return -expected.sum(-1).mean()


fused = attend_and_compare
