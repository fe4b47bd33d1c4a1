"""Plug-ins that the spec names without importing them: the files of a folder, and the constants
that they declare.

A loss, a part or a source is one file of benchmark/transfer/losses, parts or sources. Importing it
would import torch.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


@cache
def names(folder: str) -> tuple[str, ...]:
    """The plug-ins in a folder of benchmark/, sorted, with dashes for underscores: one file each,
    `__init__` aside."""
    found = (path.stem for path in (ROOT / folder).glob("*.py") if path.stem != "__init__")
    return tuple(sorted(name.replace("_", "-") for name in found))


@cache
def constant(folder: str, name: str, label: str, default: Any) -> Any:
    """The literal that a plug-in's file assigns to `label` at its top level; `default` if it
    assigns none."""
    tree = ast.parse((ROOT / folder / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(each, ast.Name) and each.id == label for each in node.targets):
            return ast.literal_eval(node.value)
    return default
