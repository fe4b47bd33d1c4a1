"""The attention of the teacher's architecture with random weights: a null. Its reader reads that
model."""

from benchmark.transfer.sources.teacher import attention

__all__ = ["attention"]
