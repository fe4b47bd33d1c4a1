"""Equal attention to every token: a null."""

from __future__ import annotations

from benchmark.transfer.teacher_reader import TeacherReader
from families.core.attention import Map, Route

OF_MAPS = True
NEEDS_TEACHER = False


def attention(route: Route | Map, block: int, reader: TeacherReader) -> Route | Map:
    """Uniform attention over the route's tokens."""
    return route.uniform()
