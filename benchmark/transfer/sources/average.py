"""The teacher's map averaged over the images of val: a null that keeps where the teacher looks on
the whole."""

from __future__ import annotations

from benchmark.transfer.teacher_reader import TeacherReader
from families.core.attention import Map, Route

OF_MAPS = True
AVERAGED = True


def attention(route: Route | Map, block: int, reader: TeacherReader) -> Map:
    """The average map of a block, for every image of the batch."""
    weights = reader.average[block].weights
    return Map(weights.expand(len(route), *weights.shape[1:]))
