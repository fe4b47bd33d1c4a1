"""Pre-trained weights: found in a folder, checked and loaded strictly.

A file that timm hosts is loaded by timm, with its published number of classes: with another, timm
loads non-strictly and a wrong file would pass. timm also silently resamples patch and position
embeddings of another size, so shapes are compared first, and the file is loaded at its own size. An
authors' file is converted by its family's layout.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from families.core.checkpoints import (
    AGAIN,
    check_plain,
    read_checkpoint,
    refuse_at_sight,
    shown,
    some,
    unreadable,
    word,
)
from families.core.positions import resize
from families.core.weights_folder import ORIGIN, RECORD
from families.spec import HEADS_INPUT, Family, Layout, Official, Positions, Teacher, WeightsError, one_line

_TIMMS_CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # in timm's order


def file_digest(path: Path) -> str:
    """The file's sha256 in hex, cached while its size and date are unchanged."""
    stat = path.stat()
    return _digest(path.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_of(teacher: Teacher) -> str:
    """The origin of a teacher's weights: the authors' address, or `hub:` and timm's repository at
    the hub. Raises WeightsError where timm hosts none."""
    if teacher.official is not None:
        return teacher.official.url
    hub = timm.get_pretrained_cfg(teacher.model).hf_hub_id
    if hub is None:
        raise WeightsError(f"{teacher.model}: timm hosts no weights of it; give a file of them as --weights")
    return f"hub:{hub}"


def read_record(path: Path) -> dict[str, Any]:
    """The record of a fetched file; empty if there is none or the file has changed."""
    record = recorded(path.parent)
    return record if record and record["sha256"] == file_digest(path) else {}


def recorded(folder: Path) -> dict[str, Any]:
    """The record of a folder's last fetch, whatever became of the file; empty if there is none or
    it is damaged."""
    path = folder / RECORD
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return {}
    kinds = {"source": str, "sha256": str, "revision": str | None}
    whole = isinstance(record, dict) and all(isinstance(record.get(name), kind) for name, kind in kinds.items())
    return record if whole else {}


def record_of(teacher: Teacher, path: Path) -> dict[str, str | None]:
    """A run's record of its weights: source, revision and sha256.

    The fetch records source and revision. The source of a file put there by hand is what its
    `ORIGIN` says, and otherwise unknown; its revision is None.
    """
    record = read_record(path)
    by_hand = told_origin(path) or f"{path.name}, put there by hand in place of {source_of(teacher)}"
    return {"source": record.get("source", by_hand), "revision": record.get("revision"), "sha256": file_digest(path)}


def told_origin(path: Path) -> str | None:
    """The first line of a weights file's `ORIGIN`, without unprintable characters; None without one."""
    origin = path.with_name(path.name + ORIGIN)
    if not origin.is_file():  # a pipe would block
        return None
    try:
        with origin.open(encoding="utf-8", errors="replace") as file:
            line = file.readline(300)
    except OSError:
        return None
    return "".join(filter(str.isprintable, line)).strip() or None


def load_pretrained(teacher: Teacher, path: Path, positions: Positions = Family.positions) -> nn.Module:
    """The teacher with the file's weights, in eval mode and without a head, at its `img_size`:
    position tables of another size are resampled by the rule `positions`.

    Raises WeightsError that names file and key for anything but exactly this teacher's file.
    """
    args = {key: value for key, value in teacher.args.items() if key != "num_classes"}
    if teacher.official is None:
        model = _load_hosted(teacher, args, path)
    else:
        model = timm.create_model(teacher.model, pretrained=False, num_classes=0, **args)
        _check_geometry(teacher, model, path)
        load_official(model, teacher.official, path)
    return resize(model, teacher.img_size, positions).eval()


def load_official(model: nn.Module, official: Official, path: Path) -> None:
    """Load an authors' checkpoint into a headless timm model.

    Raises WeightsError that names the file if it is unreadable, or its digest, layout, keys, shapes
    or values are wrong.
    """
    refuse_at_sight(path)
    if official.sha256 is not None and file_digest(path) != official.sha256:
        raise WeightsError(f"{path}: sha256 is {file_digest(path)}, not {official.sha256}; delete the file and fetch it again")
    checkpoint = read_checkpoint(path)
    try:
        state = convert(checkpoint, official.layout)
        _check_tensors(path, state)
        model.load_state_dict(state)
        _check_finite(path, state)
    except (KeyError, TypeError, RuntimeError) as error:
        raise WeightsError(f"{path}: not the layout of {official.url}: {one_line(error)}") from error


def convert(checkpoint: Mapping[str, Any], layout: Layout) -> dict[str, Tensor]:
    """An authors' checkpoint as a timm state dict. Raises KeyError if it has none of the layout's
    containers."""
    container = next((name for name in layout.containers if isinstance(checkpoint.get(name), Mapping)), None)
    if container is None:
        raise KeyError(f"none of {', '.join(layout.containers)} among its keys {some(checkpoint)}")
    state = {}
    for key, value in checkpoint[container].items():
        if not word(key).startswith(layout.only):
            continue
        name = word(key).removeprefix(layout.only)
        for prefix in layout.strip:
            name = name.removeprefix(prefix)
        if not any(fnmatchcase(name, pattern) for pattern in layout.drop):
            state[name] = value
    return state


def _load_hosted(teacher: Teacher, args: Mapping[str, Any], path: Path) -> nn.Module:
    stored = {key: value for key, value in args.items() if key not in HEADS_INPUT}  # the file is of timm's own pooling
    with torch.device("meta"):
        native = timm.create_model(teacher.model, pretrained=False, **stored)
    _check_geometry(teacher, native, path)
    arrays = path.suffix == ".npz"
    (_check_arrays if arrays else _check_shapes)(path, native)
    overlay = {"file": str(path), "custom_load": arrays}
    try:
        model: nn.Module = timm.create_model(teacher.model, pretrained=True, pretrained_cfg_overlay=overlay, **stored)
        if stored != args:
            model = _pooled_otherwise(model, timm.create_model(teacher.model, pretrained=False, **args))
    except Exception as error:
        raise WeightsError(f"{path}: does not fit {teacher.model}: {one_line(error)}") from error
    model.reset_classifier(0)  # type: ignore[operator]
    return model


def _pooled_otherwise(loaded: nn.Module, empty: nn.Module) -> nn.Module:
    """The empty model with all weights of the loaded one. timm calls the last norm `norm` where it
    is before the pooling and `fc_norm` where it is after."""
    state, named = loaded.state_dict(), {"norm": "fc_norm", "fc_norm": "norm"}
    found = {}
    for name in empty.state_dict():
        first, dot, rest = name.partition(".")
        found[name] = state[name] if name in state else state[named.get(first, first) + dot + rest]
    empty.load_state_dict(found)
    return empty


def _check_geometry(teacher: Teacher, model: nn.Module, path: Path) -> None:
    """Raise WeightsError for another geometry than the family's: a model with other heads would
    take the same file."""
    built: Any = model
    found = {
        "num_heads": built.blocks[0].attn.num_heads,
        "embed_dim": built.embed_dim,
        "depth": len(built.blocks),
        "patch_size": built.patch_embed.patch_size[0],
    }
    for name, value in found.items():
        if value != teacher.geometry[name]:
            raise WeightsError(
                f"{path}: not loaded, since the family's file says {name} {teacher.geometry[name]} and timm's"
                f" {teacher.model} has {value}; give {name} in the teacher's args"
            )


def _check_shapes(path: Path, native: nn.Module) -> None:
    content = read_checkpoint(path)
    container = next((name for name in _TIMMS_CONTAINERS if isinstance(content.get(name), Mapping)), None)
    state = {word(key).removeprefix("module."): value for key, value in (content[container] if container else content).items()}
    anchor = "patch_embed.proj.weight"
    if anchor not in state:
        raise WeightsError(f"{path}: no key {anchor!r}, so not the file that timm hosts; its keys: {some(state)}")
    _check_tensors(path, state)
    for name, value in native.state_dict().items():
        if name in state and state[name].shape != value.shape:
            raise WeightsError(f"{path}: key {name!r} has shape {_shape(state[name])}, the model's has {_shape(value)}")
    _check_finite(path, state)


def _shape(value: Tensor) -> str:
    return str(tuple(value.shape))


def _check_tensors(path: Path, state: Mapping[str, Any]) -> None:
    for name, value in state.items():
        if not isinstance(value, Tensor):
            what = f"key {shown(name)} holds a {type(value).__name__}, not a tensor"
            raise WeightsError(f"{path}: {what}; get the file from its authors")
    check_plain(path, state)


def _check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        try:
            finite = bool(torch.isfinite(value).all())
        except RuntimeError as error:
            raise WeightsError(f"{path}: key {shown(name)} has values of {value.dtype}, which are not read") from error
        if not finite:
            raise WeightsError(f"{path}: key {shown(name)} has values that are not finite; {AGAIN}")


def _check_arrays(path: Path, native: nn.Module) -> None:
    """Raise WeightsError unless an .npz has exactly the model's number of values: timm would
    silently resize others."""
    refuse_at_sight(path)
    expected = sum(value.numel() for value in native.parameters())
    try:
        with zipfile.ZipFile(path) as arrays:
            claims = {part.filename: _claimed(arrays, part) for part in arrays.infolist()}
        found = sum(claims.values())
        if found == expected:
            with np.load(path, allow_pickle=False) as file:
                state = {name: torch.from_numpy(file[name]) for name in file.files}
    except Exception as error:
        raise WeightsError(f"{path}: {unreadable(error, AGAIN)}") from error
    if found != expected:
        raise WeightsError(f"{path}: {found} numbers in {len(claims)} arrays ({some(claims)}); the model has {expected}")
    _check_finite(path, state)


def _claimed(arrays: zipfile.ZipFile, part: zipfile.ZipInfo) -> int:
    """The number of values that an array of an .npz claims. Raises ValueError for other types, or
    more than fit."""
    with arrays.open(part) as file:
        header = getattr(np.lib.format, "read_array_header_{}_{}".format(*np.lib.format.read_magic(file)))
        shape, _, kind = header(file)
    numbers: int = math.prod(shape)
    if kind.kind not in "biuf" or numbers * kind.itemsize > part.file_size:
        raise ValueError(f"{shown(part.filename)} claims {numbers:.4g} of {kind} in {part.file_size} bytes")
    return numbers
