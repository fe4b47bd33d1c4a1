"""Distillation's losses: one file each, named as in `loss=NAME`.

A file defines `loss(teacher, student)`, a scalar tensor. Where `OF_DISTRIBUTIONS` is true it
compares maps: a Route or Map of the teacher and a Route of the student. Else it compares any two
tensors of one shape, as the other parts of attention need. `fused(student, v, teacher)` is
optional: the student's attention output and the loss, computed together.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def loss_named(name: str) -> Any:
    """The module of a loss."""
    return import_module(f"benchmark.transfer.losses.{name.replace('-', '_')}")
