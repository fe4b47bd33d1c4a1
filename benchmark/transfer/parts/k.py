"""Keys."""

from benchmark.transfer.parts import TensorPart
from families.core.attention import Route

PART = TensorPart(
    of=lambda route, v, attended: route.k,
    attend=lambda own, v, put, dropout_p: Route(own.q, put(own.k), own.bias, own.scale).attend(v, dropout_p),
)
