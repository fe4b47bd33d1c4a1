"""Real teachers' weights: timm's own loading for what timm hosts, verified conversions for authors' files. Always strict."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from families.spec import Layout, Official, Teacher, UserError


class WeightsError(UserError):
    """Weights that are missing, damaged or not those of the model; the message names the file or repository."""


def load_pretrained(teacher: Teacher, cache_name: str) -> nn.Module:
    """The teacher with its pre-trained weights and no head.

    Hub models are created with their own number of classes: with another one timm would load non-strictly and a wrong
    file would pass. Raises WeightsError when the weights cannot be had or do not fit.
    """
    if teacher.official is not None:
        model: nn.Module = timm.create_model(teacher.model, pretrained=False, **{**teacher.args, "num_classes": 0})
        load_official(model, teacher.official, _download(teacher.official, cache_name))
        return model
    try:
        model = timm.create_model(teacher.model, pretrained=True, **teacher.args)
    except Exception as error:
        raise WeightsError(f"weights of {teacher.model}: {_line(error)}; they come from the Hugging Face hub") from error
    model.reset_classifier(0)  # type: ignore[operator]
    return model


def load_official(model: nn.Module, official: Official, path: Path) -> None:
    """Load an authors' checkpoint into a headless timm model.

    Raises WeightsError naming the file for one that is unreadable, of another digest or layout, or whose keys or shapes
    are not exactly the model's.
    """
    if official.sha256 is not None and sha256(path.read_bytes()).hexdigest() != official.sha256:
        raise WeightsError(f"{path}: sha256 is not {official.sha256}; delete the file and fetch it again")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"{path}: not a readable checkpoint ({_line(error)})") from error
    try:
        model.load_state_dict(convert(checkpoint, official.layout))
    except (KeyError, TypeError, RuntimeError) as error:
        raise WeightsError(f"{path}: not the layout of {official.url}: {_line(error)}") from error


def convert(checkpoint: Mapping[str, Any], layout: Layout) -> dict[str, Tensor]:
    """An authors' checkpoint as a timm state dict. Raises TypeError or KeyError when it has none of the containers."""
    if not isinstance(checkpoint, Mapping):
        raise TypeError(f"a {type(checkpoint).__name__}, not a dictionary")
    container = next((name for name in layout.containers if isinstance(checkpoint.get(name), Mapping)), None)
    if container is None:
        raise KeyError(f"none of {', '.join(layout.containers)} among its keys {', '.join(map(str, list(checkpoint)[:5]))}")
    state = {}
    for key, value in checkpoint[container].items():
        if not key.startswith(layout.only):
            continue
        name = key.removeprefix(layout.only)
        for prefix in layout.strip:
            name = name.removeprefix(prefix)
        if not any(fnmatchcase(name, pattern) for pattern in layout.drop):
            state[name] = value
    return state


def _download(official: Official, cache_name: str) -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"{cache_name}-{official.url.rsplit('/', 1)[-1]}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(official.url, str(path), progress=False)
        except OSError as error:
            raise WeightsError(f"{official.url}: {_line(error)}; download it yourself to {path}") from error
    return path


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
