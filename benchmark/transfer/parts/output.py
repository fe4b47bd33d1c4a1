"""Attention output: map times values, before the projection."""

from benchmark.transfer.parts import TensorPart

PART = TensorPart(
    of=lambda route, v, attended: attended(),
    attend=lambda own, v, put, dropout_p: put(own.attend(v, dropout_p)),
)
