"""A family's models and attention: the API that users and tools call."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import timm
import torch
from torch import Tensor, nn

from families.core.attention import read_routes
from families.core.fetch import fetch
from families.core.initialise import initialise
from families.core.weights import load_pretrained
from families.core.weights_folder import find_weights
from families.spec import HEADS_INPUT, STANDARD, Component, Family, Host, Initial, Partial, Ref, WeightsError

HEAD = "avg"  # of protocol imagenet


class Adapter:
    """One family: pre-trained teachers, standard and matched students, normalisation and attention
    maps.

    Attributes:
        name: the family's name, its file's.
        spec: the family's declaration.
        native: native component -> description; pass all or some names as `student(native=...)`.
    """

    def __init__(self, name: str, spec: Family) -> None:
        self.name, self.spec = name, spec
        self.native = {component.name: component.description for component in spec.native}

    def teacher(
        self,
        size: str,
        pretrained: bool = True,
        weights: Path | str | None = None,
        seed: int | str = 0,
        img_size: int | None = None,
        **timm_overrides: Any,
    ) -> nn.Module:
        """The frozen teacher in eval mode, without a head unless `num_classes` is given.

        `weights` is a file or a weights folder (see `find_weights`); by default the file is fetched
        once, into attention-transfer-bench in torch's hub folder. At another `img_size`, in pixels
        a side, its position tables are resampled as its authors do. With `pretrained=False` weights
        are random and `timm_overrides` (patch_size, embed_dim, depth, num_heads, ...) give the same
        architecture at any size. Raises UnknownName for an unknown size, UserError for an img_size
        that the weights cannot have, WeightsError for missing or wrong weights, ValueError for
        overrides of a pre-trained model.
        """
        if not pretrained:
            pixels = {} if img_size is None else {"img_size": img_size}
            model = self.architecture(size, seed, **{"num_classes": 0, **pixels, **timm_overrides})
        elif timm_overrides:
            raise ValueError(f"pretrained weights have one geometry; pass pretrained=False to override {list(timm_overrides)}")
        else:
            teacher = self.spec.teacher(size).at(img_size)
            model = load_pretrained(teacher, self._weights(size, weights), self.spec.positions)
        return model.eval().requires_grad_(False)

    def _weights(self, size: str, weights: Path | str | None) -> Path:
        teacher, name = self.spec.teacher(size), f"{self.name}-{size}"
        if weights is None:
            return fetch(teacher, name, Path(torch.hub.get_dir()) / "attention-transfer-bench")
        path = Path(weights)
        found = path if path.is_file() else find_weights(path, self.name, size)
        if found is None:
            raise WeightsError(
                f"{path}: no weights of {name}; run `bench fetch --family {self.name} --sizes {size} --weights {path}`,"
                f" or put the file at {path / name}.<its suffix>"
            )
        return found

    def architecture(self, size: str, seed: int | str = 0, **timm_overrides: Any) -> nn.Module:
        """The teacher's architecture with random, trainable weights; native components start at the
        family's values.

        Its seed differs from the students', or a student would start with its teacher's initial
        weights.
        """
        teacher = self.spec.teacher(size)
        components = self.spec.components(size)
        args = {**teacher.args, "img_size": teacher.img_size, **timm_overrides}
        for component in components.values():  # such as: no class token, so no head on it
            args |= {key: value for key, value in component.args.items() if key in HEADS_INPUT}
        return _build(teacher.model, args, components, f"teacher:{seed}")

    def student(self, size: str, num_classes: int, seed: int = 0, native: Iterable[str] = (), **timm_overrides: Any) -> nn.Module:
        """A randomly initialised student of the teacher's geometry: standard, or matched with
        `native=adapter.native`. It is the one that protocol imagenet trains with this seed, at its
        start.

        `timm_overrides` as for `teacher`; `global_pool` chooses the head's input (timm: "token" or
        "avg"). With another protocol's geometry, classes and head it is that protocol's.
        """
        components = self.spec.components(size, native)
        args = {**self.spec.teacher(size).geometry, "global_pool": HEAD, **timm_overrides}
        return build_student(self.spec.host, components, seed, num_classes=num_classes, **args)

    def normalise(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] with values in 0..1 -> the family's own normalisation."""
        return normalised(images, self.spec)

    def attention_maps(self, model: nn.Module, x: Tensor) -> list[Tensor]:
        """One map [B, heads, tokens, tokens] a block for normalised input [B, 3, H, W]; rows sum to 1."""
        with torch.no_grad():
            return [route.map() for route in read_routes(model, x)]


class Normalisation(Protocol):
    """Mean and standard deviation of the red, green and blue channels of images in 0..1: a family's
    or a protocol's."""

    @property
    def mean(self) -> tuple[float, float, float]: ...  # noqa: D102

    @property
    def std(self) -> tuple[float, float, float]: ...  # noqa: D102


def normalised(images: Tensor, by: Normalisation) -> Tensor:
    """Images [..., 3, H, W] in 0..1, less the mean and over the standard deviation of each channel."""
    mean, std = (_channels(tuple(values), images.device, images.dtype) for values in (by.mean, by.std))
    return (images - mean) / std


@functools.lru_cache(maxsize=64)
def _channels(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """[3, 1, 1], copied to a device once."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device, dtype=dtype).view(3, 1, 1)


def build_student(host: Host, components: Mapping[str, Component], seed: int, **timm_args: Any) -> nn.Module:
    """The student of a seed, with `components`, which `host` supports; without any it is timm's
    plain ViT."""
    host = host if components else STANDARD
    args = {**host.standard, **timm_args}
    for component in components.values():
        args |= component.args
    return _build(host.model, args, components, f"student:{seed}")


def _build(model: str, args: Mapping[str, Any], components: Mapping[str, Component], seed: str) -> nn.Module:
    resolved = {key: _resolve(value) for key, value in args.items()}
    initial: dict[str, Initial] = {}
    for component in components.values():
        initial |= component.initial  # type: ignore[arg-type]
    if ":" in model:
        return initialise(_named(model)(**resolved), seed, initial)
    return initialise(timm.create_model(model, pretrained=False, **resolved), seed, initial)


def _resolve(value: Any) -> Any:
    if isinstance(value, Partial):
        return functools.partial(_named(value.path), **value.args)
    return _named(value.path) if isinstance(value, Ref) else value


def _named(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)
