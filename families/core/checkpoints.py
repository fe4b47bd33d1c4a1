"""Read torch and safetensors files without trusting them."""

from __future__ import annotations

import argparse
import json
import math
import pickle
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from families.spec import WeightsError, one_line

_FOLDER = 0x10  # the attribute of a zip file's part that is a folder
_NO_CHECKPOINT = {
    b"<!doctype": "a web page, not a checkpoint",
    b"<html": "a web page, not a checkpoint",
    b"<?xml": "a web page, not a checkpoint",
    b"version https://git-lfs": "a Git LFS pointer, not the checkpoint it points to",
}
AGAIN = "delete it and fetch it again"


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """The content of a .safetensors or torch file: tensors and plain values. No code in it is run.

    Raises WeightsError for a file that is missing, empty, a web page, damaged, no dictionary, or
    needs code.
    """
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: a {type(content).__name__}, not a dictionary of tensors; get the file from its authors")
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file. The format has no checksum; a wrong length raises
    WeightsError."""
    refuse_at_sight(path)
    try:
        return load_file(path)
    except Exception as error:
        raise WeightsError(f"{path}: {_overstated(path) or unreadable(error, AGAIN)}") from error


def _overstated(path: Path) -> str | None:
    """The key of an unreadable .safetensors file that claims more numbers than fit; None if no key
    does."""
    room = 2 * path.stat().st_size  # the smallest numbers take half a byte
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), room)))
        claims = {key: math.prod(entry["shape"]) for key, entry in header.items() if key != "__metadata__"}
        key = next(key for key, claimed in claims.items() if claimed > room)
        return f"key {shown(key)} claims {claims[key]:.4g} numbers, more than the file holds; {AGAIN}"
    except Exception:  # a damaged header may hold anything
        return None


def read_torch(path: Path, remedy: str = AGAIN) -> Any:
    """The content of a torch file, on the CPU: tensors and plain values. No code in it is run.

    Every part's checksum is verified, which torch does not do (its old format has none);
    `check_plain` checks the tensors. Raises WeightsError, one line that ends with the remedy, for a
    file that is missing, empty, no regular file, a web page, damaged, or needs code.
    """
    refuse_at_sight(path, remedy)
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04":  # as torch tells its formats apart
                _check_parts(file)
            file.seek(0)
            with torch.serialization.safe_globals([argparse.Namespace]):  # authors keep their command line beside the weights
                return torch.load(file, "cpu", weights_only=True)
    except Exception as error:  # a damaged file can make zipfile, pickle and torch raise anything
        raise WeightsError(f"{path}: {unreadable(error, remedy)}") from error


def _check_parts(file: IO[bytes]) -> None:
    """Raise BadZipFile for a part with a wrong checksum, or parts that claim more bytes than the
    file has."""
    with zipfile.ZipFile(file) as parts:
        if sum(part.file_size for part in parts.infolist()) > file.seek(0, 2):
            raise zipfile.BadZipFile("its parts claim more bytes than it has")
        empty = (part.filename for part in parts.infolist() if part.external_attr & _FOLDER)  # torch reads nothing of a folder
        damaged = parts.testzip() or next(empty, None)
    if damaged is not None:
        raise zipfile.BadZipFile(f"its part {shown(damaged)} is damaged")


def check_plain(path: Path, content: Any, remedy: str = AGAIN) -> None:
    """Raise WeightsError for a tensor, however deep in `content`, that is not dense, not on the
    CPU, or claims more elements than it stores. The message is one line with file, key and remedy.
    Nothing is allocated."""
    for key, value in _tensors(content):
        what = _not_plain(value)
        if what is not None:
            raise WeightsError(f"{path}: key {shown(key)} {what}; {remedy}")


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested containers (which may contain themselves), with its key."""
    todo, seen = [("", content)], set()
    while todo:
        key, value = todo.pop()
        if isinstance(value, Tensor):
            yield key.removeprefix("."), value
        elif isinstance(value, Mapping | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
            todo += [(f"{key}.{word(name)}"[-80:], inner) for name, inner in pairs]


def _not_plain(value: Tensor) -> str | None:
    if value.layout != torch.strided or value.is_quantized or value.is_nested:
        return "holds a sparse, quantised or nested tensor, not a plain one"
    if value.device.type != "cpu":
        return f"holds a tensor on {value.device}, without its values"
    stored = value.untyped_storage().nbytes() // value.element_size()
    return f"claims {value.numel():.4g} elements and stores {stored}" if value.numel() > stored else None


def word(key: object) -> str:
    """A key as text; the type of one that is neither text nor number."""
    return str(key) if isinstance(key, str | int) else f"<{type(key).__name__}>"


def shown(key: str) -> str:
    """A key for messages: quoted, on one line, at most 80 characters."""
    return repr(key if len(key) <= 80 else f"{key[:77]}...")


def some(keys: Iterable[object]) -> str:
    """The first keys for messages, at most 80 characters."""
    return shown(", ".join(word(key) for key, _ in zip(keys, range(5), strict=False)))[1:-1]


def refuse_at_sight(path: Path, remedy: str = AGAIN) -> None:
    """Raise WeightsError for a missing file, or one that is plainly no checkpoint."""
    try:
        what = at_sight(path)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}") from error
    if what is not None:
        raise WeightsError(f"{path}: {what}; {remedy}")


def at_sight(path: Path) -> str | None:
    """The kind of a file that is no checkpoint by its type or first bytes; None for any other.
    Raises OSError."""
    if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe could block for ever
        return "a folder, not a file" if path.is_dir() else "no regular file"
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    if not start:
        return "an empty file"
    return next((what for sign, what in _NO_CHECKPOINT.items() if start.startswith(sign)), None)


def unreadable(error: Exception, remedy: str) -> str:
    """The message for a file that could not be read, with the remedy."""
    code = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if code:
        return f"asks for {code[1]}, which could run code, and is not loaded; get the file from its authors"
    told = "it holds more than tensors and plain values" if "weights_only" in str(error) else one_line(error)[:80]
    return f"not a readable checkpoint, perhaps cut off ({told}); {remedy}"
