"""Images and annotations in COCO's layout: read and checked, with one line for whatever is wrong."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as rle  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.data import Dataset as Indexed

from benchmark.data import DataLocation
from benchmark.data.image_checks import DECODED_AT_ONCE
from benchmark.data.image_files import ensure_equal, ensure_regular, root_of, some
from benchmark.data.loading import loader
from families.spec import UserError, one_line, quoted

if TYPE_CHECKING:
    from benchmark.spec.detection import AnnotatedImages
    from benchmark.spec.detection import Coco as Settings

Record = dict[str, Any]
Kind = Callable[[Any], bool]
OBJECT = ("id", "category_id", "bbox", "area", "iscrowd", "segmentation")  # what is kept of an annotation
SLACK = 1.0  # pixels that a box may lie outside its image; COCO's own boxes do by rounding


MOST_PIXELS, MOST_ID, MOST_AREA = 10**6, 2**63, 10**12  # pixels of a side


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MOST_ID


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -MOST_AREA <= value <= MOST_AREA


def _inside(value: Any) -> bool:
    """Whether it is a path within a folder."""
    return isinstance(value, str) and bool(value) and not Path(value).is_absolute() and ".." not in Path(value).parts


def _box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_number, value)) and min(value[2:]) >= 0


def _segmentation(value: Any) -> bool:
    """Whether it is a list of polygons, of pairs of numbers each, or a run-length encoding."""
    if isinstance(value, list):
        return all(isinstance(each, list) and len(each) % 2 == 0 and all(map(_number, each)) for each in value)
    return isinstance(value, dict) and (not value or isinstance(value.get("counts"), list | str))


WHOLE: tuple[Kind, str] = (_whole, "a whole number")
SIDE: tuple[Kind, str] = (lambda value: _whole(value) and 0 < value <= MOST_PIXELS, "a number of pixels")
NEEDED: dict[str, dict[str, tuple[Kind, str]]] = {
    "images": {"id": WHOLE, "file_name": (_inside, "a path in the folder of images"), "height": SIDE, "width": SIDE},
    "annotations": {
        "id": WHOLE, "image_id": WHOLE, "category_id": WHOLE, "bbox": (_box, "[left, top, width, height]"),
    },
    "categories": {"id": WHOLE, "name": (lambda value: isinstance(value, str), "text")},
}  # fmt: skip
OPTIONAL: dict[str, tuple[Kind, str]] = {
    "area": (lambda value: _number(value) and value >= 0, "a number of pixels"),
    "iscrowd": (lambda value: _whole(value) and value in (0, 1), "0 or 1"),
    "segmentation": (_segmentation, "polygons or a run-length encoding"),
}


class Annotated:
    """The images of a part of a data set with their objects, in the order of their ids.

    Objects are numbered from 1 by the sorted ids of their categories. Raises UserError, one line,
    for files that are not what the protocol says.
    """

    def __init__(self, settings: Settings, part: AnnotatedImages, place: DataLocation) -> None:
        root = root_of(place)
        self.folder, self.path = root / part.folder, root / part.annotations
        content = _read(self.path)
        kept = NEEDED["images"]
        self.images = [{name: each[name] for name in kept} for each in sorted(content["images"], key=lambda each: each["id"])]
        self.categories = sorted(content["categories"], key=lambda each: each["id"])
        self.labels = {each["id"]: number for number, each in enumerate(self.categories, 1)}
        ensure_equal(str(self.path), "categories", len(self.categories), settings.num_classes)
        ensure_equal(str(self.path), "images", len(self.images), part.images)
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder of images")
        objects: list[list[Record]] = [[] for _ in self.images]
        places = {each["id"]: number for number, each in enumerate(self.images)}
        for each in content["annotations"]:
            self._ensure_valid(each, places)
            objects[places[each["image_id"]]].append({name: each[name] for name in OBJECT if name in each})
        packed = [pickle.dumps(each) for each in objects]  # loaders would copy lists, as they count references
        self.packed = np.frombuffer(b"".join(packed), dtype=np.uint8)
        self.ends = np.cumsum([len(each) for each in packed])
        self.learnt = np.array([any(map(is_learnt, each)) for each in objects])

    def objects(self, number: int) -> list[Record]:
        """The annotations of an image."""
        start = self.ends[number - 1] if number else 0
        found: list[Record] = pickle.loads(self.packed[start : self.ends[number]].tobytes())
        return found

    def _ensure_valid(self, found: Record, places: Mapping[int, int]) -> None:
        where = f"{self.path}: annotation {found['id']}"
        if found["image_id"] not in places:
            raise UserError(f"{where}: of image {found['image_id']}, which is not listed")
        if found["category_id"] not in self.labels:
            raise UserError(f"{where}: of category {found['category_id']}, which is not listed")
        left, top, width, height = box = found["bbox"]
        told = self.images[places[found["image_id"]]]
        across, down = told["width"], told["height"]
        if left < -SLACK or top < -SLACK or left + width > across + SLACK or top + height > down + SLACK:
            raise UserError(f"{where}: its box {box} lies outside its image of {across} x {down} pixels")
        given = found.get("segmentation")
        for polygon in given if isinstance(given, list) else ():
            for side, values in ((across, polygon[::2]), (down, polygon[1::2])):
                if values and (min(values) < -side or max(values) > 2 * side):
                    raise UserError(f"{where}: a polygon lies far outside its image of {across} x {down} pixels")

    def image(self, number: int) -> Image.Image:
        """An image, RGB. Raises UserError for one that cannot be read, or of another size than told."""
        told = self.images[number]
        path = self.folder / told["file_name"]
        try:
            ensure_regular(path)
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
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
        given = segmentation_of(found)
        try:
            if isinstance(given, list):
                given = rle.merge(rle.frPyObjects(given, height, width))
            else:  # pycocotools would read beyond the end of what is cut short
                runs = given["counts"] if isinstance(given["counts"], list) else runs_of(given["counts"])
                if not all(_whole(run) and run >= 0 for run in runs) or sum(runs) != height * width:
                    raise ValueError(f"its runs are not numbers of pixels that sum to {height * width}")
                if isinstance(given["counts"], list):
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

    def complaints(self, workers: int, progress: Callable[[int, int], None]) -> list[str]:
        """What is wrong with each image and its masks, decoded in full by so many processes."""
        found, done = [], 0
        for batch in loader(Complaints(self), workers, batch_size=DECODED_AT_ONCE, collate_fn=list):
            found += [each for each in batch if each]
            done += len(batch)
            progress(done, len(self.images))
        return found


class Complaints(Indexed[str]):
    """The error of each image or of its masks; empty where all can be decoded."""

    def __init__(self, source: Annotated) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source.images)

    def __getitem__(self, number: int) -> str:
        try:
            self.source.image(number)
            for each in self.source.objects(number):
                self.source.mask(number, each)
        except UserError as error:
            return str(error)
        return ""


def is_learnt(found: Record) -> bool:
    """Whether an object is learnt from: no crowd, and with an area."""
    return not found.get("iscrowd") and found["bbox"][2] > 0 and found["bbox"][3] > 0


def runs_of(text: str) -> list[int]:
    """The runs of COCO's compressed run-length encoding (rleFrString of pycocotools): numbers of five
    bits a letter, lowest first, from the fourth on as differences to the one two before. Raises
    ValueError for a text that is none."""
    runs, value, shift = list[int](), 0, 0
    for letter in text:
        code = ord(letter) - ord("0")
        if not 0 <= code < 64 or shift > 60:
            raise ValueError("no compressed run-length encoding")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (code & 16) and 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its run-length encoding is cut short")
    return runs


def segmentation_of(found: Record) -> Any:
    """The segmentation of an object, without polygons of less than three points; where it has none,
    its box as a polygon."""
    given = found.get("segmentation")
    if isinstance(given, list):
        given = [each for each in given if len(each) >= 6]
    if given:
        return given
    left, top, width, height = found["bbox"]
    return [[left, top, left + width, top, left + width, top + height, left, top + height]]


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _read(path: Path) -> Record:
    try:
        ensure_regular(path)
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise UserError(f"{path}: no annotations in COCO's format: {told}") from None
    for section, kinds in NEEDED.items():
        records = content.get(section) if isinstance(content, dict) else None
        if not isinstance(records, list):
            raise UserError(f"{path}: no annotations in COCO's format: there is no list of {section}")
        for record in records:
            _ensure_fields(f"{path}: one of its {section}", record, kinds, OPTIONAL if section == "annotations" else {})
        ids = [record["id"] for record in records]
        if len(set(ids)) < len(ids):
            raise UserError(f"{path}: two of its {section} have the same id")
    found: Record = content
    return found


def _ensure_fields(where: str, record: Any, needed: Mapping[str, Any], optional: Mapping[str, Any]) -> None:
    missing = [name for name in needed if not isinstance(record, dict) or name not in record]
    if missing:
        raise UserError(f"{where} has no {some(missing)}")
    if _whole(record["id"]):
        where = f"{where}, {record['id']}"
    for name, (fits, told) in {**needed, **optional}.items():
        if name in record and not fits(record[name]) and not (name in optional and record[name] is None):
            raise UserError(f"{where}: its {name} is not {told}: {quoted(str(record[name]))}")
