"""What data sets of boxes and masks have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from pycocotools import mask as rle  # type: ignore[import-untyped]
from torch import Tensor

Target: TypeAlias = dict[str, Any]
"""The objects of an image: `boxes` [n, 4] in pixels of the input (left, top, right, bottom),
`labels` [n] from 1 on, `masks` [n, S, S] uint8; and what detections are told by: `image`, its number,
`size`, its height and width before it was resized, and `shown`, those of the part of the input that
it fills (the rest is padding)."""
Truth: TypeAlias = dict[str, Any]
"""True objects in COCO's format: `images`, `annotations`, and `categories` numbered from 1."""


def on_device(target: Target, device: str) -> Target:
    """The target with its tensors on a device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in target.items()}


def truth_of(targets: Sequence[Target], names: Sequence[str]) -> Truth:
    """Targets of images that were not resized, in COCO's format (cocodataset.org, data format).

    `names` are of the categories.
    """
    objects: list[dict[str, Any]] = []
    for target in targets:
        for box, label, mask in zip(target["boxes"], target["labels"], target["masks"], strict=True):
            left, top, right, bottom = box.tolist()
            objects.append({
                "id": len(objects) + 1, "image_id": target["image"], "category_id": int(label), "iscrowd": 0,
                "bbox": [left, top, right - left, bottom - top], "area": float(mask.sum()),
                "segmentation": rle.encode(np.asfortranarray(mask.numpy())),
            })  # fmt: skip
    images = [{"id": target["image"], "height": target["size"][0], "width": target["size"][1]} for target in targets]
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    return {"info": {}, "images": images, "annotations": objects, "categories": categories}
