"""The teacher's attention to another image of the batch: a null."""

from __future__ import annotations

from benchmark.transfer.teacher_reader import TeacherReader
from families.core.attention import Map, Route

WHOLE_BATCH = True


def attention(route: Route | Map, block: int, reader: TeacherReader) -> Route | Map:
    """For each image the route of its neighbour in the batch. Raises ValueError for a batch of one
    image."""
    if len(route) < 2:
        raise ValueError("the attention of another image needs a batch of at least 2 images")
    return route.other_image()
