"""The registry: this folder holds one declarative file per family. Importing it loads neither torch
nor timm."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from families.spec import TIMM, Family, UnknownName

if TYPE_CHECKING:
    from families.core.adapter import Adapter

_FOLDER = Path(__file__).parent
_DECLARES = re.compile(r"^FAMILY\b", re.MULTILINE)


@cache
def names() -> tuple[str, ...]:
    """The families: sorted names of this folder's files that declare a FAMILY."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.py") if _DECLARES.search(path.read_text(encoding="utf-8"))))


def members(word: str) -> tuple[str, ...]:
    """The families of a set that family files name, as `papers`; empty if none names it."""
    return tuple(name for name in names() if word in spec(name).sets)


def spec(name: str) -> Family:
    """The family's declaration: of its file, or of `timm:NAME` as families.core.derive makes it (which
    imports torch and timm).

    Raises UnknownName, with the nearest name, for an unknown family; UserError for a model of timm
    that is unknown or no plain ViT.
    """
    if name.startswith(TIMM):
        from families.core.derive import derived

        return derived(name)
    if name not in names():
        raise UnknownName("family", name, names())
    return _declared(name)


@cache
def _declared(name: str) -> Family:
    family: Family = import_module(f"families.{name}").FAMILY
    return family


def load(name: str) -> Adapter:
    """The family's adapter: models, attention maps and native components. Imports torch and timm."""
    family = spec(name)
    from families.core.adapter import Adapter

    return Adapter(name, family)
