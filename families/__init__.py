"""The registry: one declarative file a family, and this folder is the list. Importing it loads neither torch nor timm."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from families.spec import Family, UnknownName

if TYPE_CHECKING:
    from families.core.adapter import Adapter

_FOLDER = Path(__file__).parent
_DECLARES = re.compile(r"^FAMILY\b", re.MULTILINE)


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """The families there are: the names of this folder's files that declare a FAMILY, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.py") if _DECLARES.search(path.read_text(encoding="utf-8"))))


def spec(name: str) -> Family:
    """What the family's file declares. Raises UnknownName, which names the nearest family, for a word that is none."""
    if name not in names():
        raise UnknownName("family", name, names())
    family: Family = import_module(f"families.{name}").FAMILY
    return family


def load(name: str) -> Adapter:
    """The family's adapter: its models, their attention maps and its native components (imports torch and timm)."""
    family = spec(name)
    from families.core.adapter import Adapter

    return Adapter(name, family)
