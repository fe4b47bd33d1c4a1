"""The sets that `bench evaluate --sets` names: of the protocol, or PATH:CLASSES."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.spec import bounds
from families.spec import UserError, quoted

if TYPE_CHECKING:
    from benchmark.spec.data_sets import ShiftedSet
    from benchmark.spec.protocol import Protocol

ALL = "all"


def named_sets(protocol: Protocol, text: str | None) -> list[str]:
    """The names of sets, `features` and `teacher_features` in a text; `all`: the protocol's shifted
    sets."""
    names = list[str]()
    for word in (ALL if text is None else text).split(","):
        names += protocol.data.shifted_sets if word == ALL else [_name(word) if _is_path(word) else word.strip()]
    return list(dict.fromkeys(names))


def absolute(text: str) -> str:
    """The text with its paths absolute, to be found from any folder later."""
    words = (word.strip() for word in text.split(","))
    return ",".join(str(Path(word).absolute()) if _is_path(word) else word for word in words)


def with_sets(protocol: Protocol, text: str) -> Protocol:
    """The protocol with the sets that a text gives as PATH:CLASSES: image folders or tars of the
    protocol's classes. Raises UserError."""
    from benchmark.spec.data_sets import Images
    from benchmark.spec.records import validated

    paths = [word.strip() for word in text.split(",") if _is_path(word)]
    if not paths:
        return protocol
    if not isinstance(protocol.data, Images):
        raise UserError(f"--sets {quoted(paths[0])}: this protocol's images are made on the spot, and go with no folder")
    given = {_name(word): _set(word).model_dump() for word in paths}
    data = protocol.data.model_dump()
    data["shifted"] = given | data["shifted"]  # a name of the protocol's stays the protocol's
    if len(data["shifted"]) < len({*paths}) + len(protocol.data.shifted):
        raise UserError(f"--sets {quoted(text)}: the name of a folder is that of another set")
    return protocol.model_copy(update={"data": validated(Images, data, "--sets")})


def _is_path(word: str) -> bool:
    return ":" in word


def _name(word: str) -> str:
    folder = Path(word.rpartition(":")[0]).name.removesuffix(".tar")
    name = re.sub(r"[^a-z0-9_-]+", "_", folder.lower())
    if not re.search(r"[a-z0-9]", name):
        raise UserError(f"--sets {quoted(word)}: the folder's name, by which tables call the set, has no ASCII letter or digit")
    return name


def _set(word: str) -> ShiftedSet:
    """The set at PATH:CLASSES, with its images counted. Raises UserError."""
    from benchmark.data.image_checks import listed
    from benchmark.spec.data_sets import ShiftedSet

    path, _, classes = word.rpartition(":")
    folder = Path(path).absolute()
    if not folder.exists():
        raise UserError(f"--sets {quoted(word)}: no such folder or tar")
    number = bounds.CLASSES.read("--sets PATH:CLASSES", classes)
    images, digest = listed(folder)
    return ShiftedSet(path=str(folder), images=images, classes=number, digest=digest)
