"""Where workers run: one file a backend, which assigns BACKEND; its name is the value of --cluster."""

from __future__ import annotations

import functools
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from families.spec import UnknownName

if TYPE_CHECKING:
    from benchmark.execution.backends.backend import Backend

DEFAULT = "local"


def names() -> list[str]:
    """The backends, the default first."""
    files = [path for folder in __path__ for path in Path(folder).glob("*.py")]
    found = {path.stem for path in files if "\nBACKEND = " in path.read_text("utf-8")}
    return sorted(found, key=lambda name: (name != DEFAULT, name))


@functools.cache
def load(name: str) -> type[Backend]:
    """The backend of that name. Raises UnknownName."""
    if name not in names():
        raise UnknownName("cluster", name, names())
    backend: type[Backend] = import_module(f"{__name__}.{name}").BACKEND
    return backend
