"""Parts of the teacher's attention that can be transferred: one file each, named as in `part=NAME`.

A file defines `PART`, a Part of benchmark.transfer.part. `COPIED = False` says that Copy of it makes no sense.
"""

from __future__ import annotations

from importlib import import_module

from benchmark.transfer.part import Part


def part_named(name: str) -> Part:
    """The part of this name."""
    found: Part = import_module(f"benchmark.transfer.parts.{name.replace('-', '_')}").PART
    return found
