"""Values."""

from benchmark.transfer.parts import TensorPart

PART = TensorPart(
    of=lambda route, v, attended: v,
    attend=lambda own, v, put, dropout_p: own.attend(put(v), dropout_p),
)
