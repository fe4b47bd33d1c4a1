"""Paths of a data set's images by source and split."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.data import DataLocation
from benchmark.spec.torchvision_sets import PREFIX
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.spec.data_sets import Images as Settings
    from benchmark.spec.data_sets import Split

SOURCES = ("", PREFIX, "hfds", "wds")
SYNONYMS = (("train", "training"), ("val", "valid", "validation", "eval", "evaluation"))  # timm's, of a split's folder


def ensure_regular(path: str | Path) -> None:
    """Raise OSError for anything but a regular file: opening a pipe could block for ever."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise OSError("no regular file")


def kind_of(settings: Settings) -> str:
    """The source's kind, one of SOURCES if it is valid."""
    return settings.source.partition("/")[0].lower()


def where_of(settings: Settings, split: Split) -> str:
    """A split's name for messages."""
    return f"{settings.source}, split {split.split}"


def splits_of(settings: Settings) -> dict[str, Split]:
    """The declared splits: train, val (unless it is held out of train) and test."""
    val = {} if settings.val is None else {"val": settings.val}
    return {"train": settings.train, **val, "test": settings.test}


def root_of(place: DataLocation) -> Path:
    """The data folder. Raises UserError where none is given or there."""
    if place.root is None:
        raise UserError("this protocol's images lie in a folder: name it by --data DIR")
    if not place.root.is_dir():
        raise UserError(f"--data {place.root}: no such folder")
    return place.root


def _split_path(root: Path, split: str) -> Path:
    words = list(dict.fromkeys([split, *next((group for group in SYNONYMS if split in group), ())]))
    for path in (root / f"{word}{ending}" for word in words for ending in ("", ".tar")):
        if path.exists():
            return path
    there = some(sorted(path.name for path in root.iterdir())) or "nothing"
    raise UserError(f"{root}: no split {split!r}: looked for {', '.join(words)}, a folder or a .tar; there is: {there}")


def _below_or_beside(root: Path, name: str, path: str) -> Path:
    for parent in (root, root.absolute().parent):
        if (parent / path).exists():
            return parent / path
    raise UserError(f"shifted set {name}: no {path} in {root} or beside it")


def ensure_equal(where: str, what: str, found: int, declared: int) -> None:
    """Raise UserError for another number than the protocol declares."""
    if found != declared:
        raise UserError(f"{where}: {found} {what}, but the protocol says {declared}")


def some(words: Sequence[str], most: int = 5) -> str:
    """The first words, for messages."""
    return ", ".join(words[:most]) + (", ..." if len(words) > most else "")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def one_line_errors(where: str) -> Iterator[None]:
    """Turn an error of timm, datasets or webdataset into a UserError of one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{where}: not readable by timm: {_line(error)[:300]}") from error
