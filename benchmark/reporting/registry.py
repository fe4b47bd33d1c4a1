"""Folders as registries: each module of the folder is one table or one figure, found by its name
alone."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from types import ModuleType


@functools.cache
def modules(package: str) -> tuple[ModuleType, ...]:
    """The modules of a package in the order of their PLACE, equal ones by name."""
    folder = importlib.import_module(package).__path__
    found = [importlib.import_module(f"{package}.{each.name}") for each in pkgutil.iter_modules(folder)]
    return tuple(sorted(found, key=lambda module: (module.PLACE, module.__name__)))
