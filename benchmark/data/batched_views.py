"""timm's crop, flip and colour jitter for whole batches, on the device that trains.

For sets that are kept decoded, whose images have one size. An image's draws are those of timm's
transform of single images, by the same seed, and the arithmetic is Pillow's: float64 holds its
fixed-point sums, and pixels are rounded to bytes where it rounds them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from timm.data.transforms import MaybeToTensor, RandomResizedCropAndInterpolation
from torch import Tensor
from torch.utils.data import Dataset as Indexed
from torchvision.transforms import ColorJitter, InterpolationMode, Normalize, RandomHorizontalFlip
from torchvision.transforms.functional import pil_to_tensor

from benchmark.data.augmentation import seeded
from benchmark.data.image_sources import Source

CUBIC = -0.5  # Pillow's bicubic kernel; torch's has -.75
LUMA = (19595, 38470, 7471)  # of red, green and blue in Pillow's grey levels, in 1 / 65536
FIXED = 2**22  # Pillow's weights are multiples of 1 / FIXED
PIECE = 64  # images whose float64 values are held at a time
JITTERS = 3  # brightness, contrast and saturation, by torchvision's numbers


def serves(transform: Any, source: Source, device: str) -> bool:
    """Whether a GPU makes the views: the images are kept decoded, no crop is made smaller (Pillow has
    two orders of passes for that) and all of timm's transforms are known here."""
    crop, *others = _parts(transform)
    return (
        device.startswith("cuda")
        and source.decoded
        and isinstance(crop, RandomResizedCropAndInterpolation)
        and crop.interpolation in (InterpolationMode.BICUBIC, InterpolationMode.BILINEAR)
        and all(side <= out for side, out in zip(source.image(0)[0].size, crop.size, strict=True))
        and all(isinstance(each, RandomHorizontalFlip | ColorJitter | MaybeToTensor | Normalize) for each in others)
        and not any(isinstance(each, ColorJitter) and each.hue for each in others)
    )


class Draws(Indexed[tuple[Tensor, int]]):
    """What timm's transforms draw for an image, by (epoch, index): (values [columns] float32,
    training class). The values are index, top, left, height, width, flipped; with a colour jitter
    also the order of its operations and the factor of each."""

    def __init__(self, source: Source, transform: Any, stream: str) -> None:
        self.parts, self.stream = _parts(transform), stream
        self.labels = [source.classes[label] for label in source.reader.labels]
        self.blank = Image.new("L", source.image(0)[0].size)  # a crop is drawn for its size

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        crop, *others = self.parts
        with seeded(self.stream, *key):
            values: list[float] = [key[1], *crop.get_params(self.blank, crop.scale, crop.ratio)]
            flip = next((each for each in others if isinstance(each, RandomHorizontalFlip)), None)
            values.append(flip is not None and bool(torch.rand(1) < flip.p))
            for each in others:
                if isinstance(each, ColorJitter):
                    order, *factors = each.get_params(each.brightness, each.contrast, each.saturation, each.hue)
                    values += [number for number in order.tolist() if number < JITTERS]
                    values += [1.0 if factor is None else factor for factor in factors[:JITTERS]]
        return torch.tensor(values, dtype=torch.float32), self.labels[key[1]]


class BatchedViews:
    """Views of images [N, 3, H, W] uint8, by the values that `Draws` drew."""

    def __init__(self, images: Tensor, transform: Any) -> None:
        self.images, crop = images, _parts(transform)[0]
        self.size, self.kernel = crop.size, _cubic if crop.interpolation == InterpolationMode.BICUBIC else _linear
        self.luma = torch.tensor(LUMA, dtype=torch.float32, device=images.device)[:, None, None]

    def __call__(self, values: Tensor) -> Tensor:
        """Views [B, 3, img_size, img_size] in 0..1 for values [B, columns]."""
        return torch.cat([self._views(piece) for piece in values.split(PIECE)])

    def _views(self, values: Tensor) -> Tensor:
        index, top, left, height, width, flipped = values[:, :6].unbind(1)
        images = self.images[index.long()].double()
        across = _resampling(left, width, images.shape[-1], self.size[1], self.kernel)
        down = _resampling(top, height, images.shape[-2], self.size[0], self.kernel)
        views = _as_bytes(down @ _as_bytes(images @ across.mT)).float()
        views = torch.where(_wide(flipped) > 0, views.flip(-1), views)
        order, factors = values[:, 6 : 6 + JITTERS].long(), values[:, 6 + JITTERS :]
        for number in order.unbind(1):
            views = self._jittered(views, number, factors.gather(1, number[:, None]).squeeze(1))
        return views / 255

    def _jittered(self, views: Tensor, number: Tensor, factor: Tensor) -> Tensor:
        """Each image blended with what its operation starts from: black, its mean grey, its greys."""
        grey = ((views * self.luma).sum(1, keepdim=True) + 2**15).div(2**16).floor()
        total = grey.sum((1, 2, 3), keepdim=True, dtype=torch.float64)  # a GPU's mean would multiply by 1 / pixels
        mean = (total / grey[0].numel() + 0.5).floor().float()
        start = torch.where(_wide(number) == 0, 0.0, torch.where(_wide(number) == 1, mean, grey))
        return (start + _wide(factor) * (views - start)).floor().clamp(0, 255)


def on_device(source: Source, device: str) -> Tensor:
    """All images of a source, [N, 3, H, W] uint8."""
    return torch.stack([pil_to_tensor(source.image(index)[0]) for index in range(len(source))]).to(device)


def _parts(transform: Any) -> list[Any]:
    """The transforms by timm within a `training_transform`."""
    return list(transform.transforms[0].transforms)


def _resampling(start: Tensor, length: Tensor, size: int, out: int, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """Weights [B, 1, out, size] of Pillow's resize of a crop [B] of a side with `size` pixels. Those
    within the crop sum to 1, the others are 0."""
    scale = length.double()[:, None, None] / out
    pixels = torch.arange(size, device=start.device) - start.double()[:, None, None]
    centres = (torch.arange(out, device=start.device)[None, :, None] + 0.5) * scale
    weights = kernel((pixels + 0.5 - centres).abs()) * ((pixels >= 0) & (pixels < length[:, None, None]))
    return (weights / weights.sum(-1, keepdim=True) * FIXED).round().div(FIXED)[:, None]


def _cubic(x: Tensor) -> Tensor:
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * CUBIC
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


def _linear(x: Tensor) -> Tensor:
    return (1 - x).clamp(min=0)


def _as_bytes(values: Tensor) -> Tensor:
    return values.add_(0.5).floor_().clamp_(0, 255)


def _wide(values: Tensor) -> Tensor:
    """[B] as [B, 1, 1, 1]."""
    return values[:, None, None, None]
