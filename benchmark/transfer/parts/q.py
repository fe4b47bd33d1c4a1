"""Queries."""

from benchmark.transfer.parts import TensorPart
from families.core.attention import Route

PART = TensorPart(
    of=lambda route, v, attended: route.q,
    attend=lambda own, v, put, dropout_p: Route(put(own.q), own.k, own.bias, own.scale).attend(v, dropout_p),
)
