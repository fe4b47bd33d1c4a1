"""Whose attention is transferred: one file each, named as in `source=NAME`.

A file defines `attention(route, block, reader)`: the Route or Map in place of the teacher's own for
the same image. It may declare `OF_MAPS = True` (it is a map alone, of no image), `WHOLE_BATCH =
True` (it depends on the other images of the batch), `AVERAGED = True` (average maps are learnt
first) and `NEEDS_TEACHER = False` (it depends on no teacher).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def source_named(name: str) -> Any:
    """The module of a source."""
    return import_module(f"benchmark.transfer.sources.{name.replace('-', '_')}")
