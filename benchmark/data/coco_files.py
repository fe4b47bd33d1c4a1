"""Images and annotations in COCO's layout: read and checked, with one line for whatever is wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as rle  # type: ignore[import-untyped]
from torch import Tensor

from benchmark.data import DataLocation
from benchmark.data.image_files import ensure_equal, ensure_regular, root_of, some
from families.spec import UserError, one_line

if TYPE_CHECKING:
    from benchmark.spec.detection import AnnotatedImages
    from benchmark.spec.detection import Coco as Settings

Record = dict[str, Any]
NEEDED = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
SLACK = 1.0  # pixels that a box may lie outside its image; COCO's own boxes do by rounding


class Annotated:
    """The images of a part of a data set with their objects, in the order of their ids.

    Objects are numbered from 1 by the sorted ids of their categories. Raises UserError, one line,
    for files that are not what the protocol says.
    """

    def __init__(self, settings: Settings, part: AnnotatedImages, place: DataLocation) -> None:
        root = root_of(place)
        self.folder, self.path = root / part.folder, root / part.annotations
        content = _read(self.path)
        self.images = sorted(content["images"], key=lambda each: each["id"])
        self.categories = sorted(content["categories"], key=lambda each: each["id"])
        self.labels = {each["id"]: number for number, each in enumerate(self.categories, 1)}
        ensure_equal(str(self.path), "categories", len(self.categories), settings.num_classes)
        ensure_equal(str(self.path), "images", len(self.images), part.images)
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder of images")
        self.objects: dict[int, list[Record]] = {each["id"]: [] for each in self.images}
        sizes = {each["id"]: (each["width"], each["height"]) for each in self.images}
        for each in content["annotations"]:
            self._ensure_valid(each, sizes)
            self.objects[each["image_id"]].append(each)

    def _ensure_valid(self, found: Record, sizes: dict[int, tuple[float, float]]) -> None:
        where = f"{self.path}: annotation {found['id']}"
        if found["image_id"] not in sizes:
            raise UserError(f"{where}: of image {found['image_id']}, which is not listed")
        if found["category_id"] not in self.labels:
            raise UserError(f"{where}: of category {found['category_id']}, which is not listed")
        box = found["bbox"]
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(each, int | float) for each in box):
            raise UserError(f"{where}: its bbox is not [left, top, width, height]")
        left, top, width, height = box
        across, down = sizes[found["image_id"]]
        if (
            width < 0
            or height < 0
            or left < -SLACK
            or top < -SLACK
            or left + width > across + SLACK
            or top + height > down + SLACK
        ):
            raise UserError(f"{where}: its box {box} lies outside its image of {across} x {down} pixels")

    def image(self, number: int) -> Image.Image:
        """An image, RGB. Raises UserError for one that cannot be read, or of another size than told."""
        told = self.images[number]
        path = self.folder / told["file_name"]
        try:
            ensure_regular(path)
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"{path}: {one_line(error)}") from None
        if image.size != (told["width"], told["height"]):
            raise UserError(
                f"{path}: {image.width} x {image.height} pixels, but {self.path} says {told['width']} x {told['height']}"
            )
        return image

    def mask(self, number: int, found: Record) -> Tensor:
        """The mask of an object, [H, W] uint8; its box where it has no segmentation."""
        told = self.images[number]
        height, width = told["height"], told["width"]
        given = found.get("segmentation")
        if not given:
            left, top, across, down = found["bbox"]
            mask = torch.zeros(height, width, dtype=torch.uint8)
            mask[max(0, round(top)) : round(top + down), max(0, round(left)) : round(left + across)] = 1
            return mask
        try:
            if isinstance(given, list):
                given = rle.merge(rle.frPyObjects(given, height, width))
            elif isinstance(given["counts"], list):
                if sum(given["counts"]) != height * width:
                    raise ValueError(f"its runs are of {sum(given['counts'])} pixels, not {height * width}")
                given = rle.frPyObjects(given, height, width)
            mask = rle.decode(given)
        except Exception as error:
            raise UserError(
                f"{self.path}: annotation {found['id']}: its segmentation cannot be read ({one_line(error)})"
            ) from None
        if mask.shape != (height, width):
            raise UserError(f"{self.path}: annotation {found['id']}: its mask has {mask.shape[1]} x {mask.shape[0]} pixels")
        return torch.from_numpy(np.ascontiguousarray(mask))

    def listing(self) -> list[Any]:
        """What the digest is of: sizes of the files, and the sha256 of the annotations."""
        sizes = [(each["file_name"], _bytes(self.folder / each["file_name"])) for each in self.images]
        return [hashlib.sha256(self.path.read_bytes()).hexdigest(), sizes]

    def complaints(self, progress: Callable[[int, int], None]) -> list[str]:
        """What is wrong with each image and mask, decoded in full."""
        found = []
        for number, told in enumerate(self.images):
            try:
                self.image(number)
                for each in self.objects[told["id"]]:
                    self.mask(number, each)
            except UserError as error:
                found.append(str(error))
            progress(number + 1, len(self.images))
        return found


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _read(path: Path) -> Record:
    try:
        ensure_regular(path)
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise UserError(f"{path}: no annotations in COCO's format: {told}") from None
    for section, names in NEEDED.items():
        records = content.get(section) if isinstance(content, dict) else None
        if not isinstance(records, list):
            raise UserError(f"{path}: no annotations in COCO's format: there is no list of {section}")
        for record in records:
            missing = [name for name in names if not isinstance(record, dict) or name not in record]
            if missing:
                raise UserError(f"{path}: one of its {section} has no {some(missing)}")
        ids = [record["id"] for record in records]
        if len(set(map(str, ids))) < len(ids):
            raise UserError(f"{path}: two of its {section} have the same id")
    found: Record = content
    return found
