"""Images with boxes and masks in COCO's layout (Lin et al. 2014, arXiv 1405.0312).

An image is resized by its longer side to the input size and padded with black at the right and
below. In training its size is jittered, what is larger than the input is cropped, both at random
(large-scale jitter: Ghiasi et al. 2021, arXiv 2012.07177), and it may be mirrored: a pure function
of (stream, epoch, image). Crowds are not learnt; in evaluation COCO's rule for them holds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset as Indexed
from torchvision.ops import masks_to_boxes
from torchvision.transforms.functional import pil_to_tensor

from benchmark.data import Checked, DataLocation, part_of
from benchmark.data.augmentation import seeded
from benchmark.data.boxes import Target, Truth
from benchmark.data.coco_files import Annotated, is_learnt, segmentation_of
from benchmark.data.image_files import some
from benchmark.data.images import held_out_of, shuffled
from benchmark.data.loading import drawn, loader
from benchmark.spec.data_sets import EVALUATION_SETS
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.spec.detection import Coco as Settings
    from benchmark.spec.recipe import Normalisation, Recipe

BoxBatch = tuple[Tensor, list[Target]]
OBJECTS = ("boxes", "labels", "masks")  # tensors of a target


def load(settings: Settings, place: DataLocation, img_size: int, normalisation: Normalisation) -> CocoImages:
    """The data set of a task's `data` block. Raises UserError where files are not what it says;
    decodes nothing."""
    return CocoImages(settings, place, img_size)


def check(settings: Settings, place: DataLocation, progress: Callable[[str, int, int], None]) -> Checked:
    """Check all files, and decode all images and masks once. Raises UserError, one line."""
    digests, parts = {}, CocoImages(settings, place, 1).parts
    for name in ("train", "test"):
        found = parts[name][0]
        text = json.dumps(found.listing())
        digest = digests[name] = hashlib.sha256(text.encode()).hexdigest()[:16]
        done = place.work / "data" / f"{digest}.json" if place.work else None
        if done is not None and done.exists():
            continue
        complaints = found.complaints(place.workers, partial(progress, name))
        if complaints:
            raise UserError(
                f"{found.folder}: {len(complaints)} of {len(found.images)} images are of no use: {some(complaints, 3)}"
            )
        if done is not None:
            done.parent.mkdir(parents=True, exist_ok=True)
            done.write_text(json.dumps({"set": name, "images": len(found.images), "decoded": True}) + "\n", encoding="utf-8")
    return Checked(hashlib.sha256(json.dumps(sorted(digests.items())).encode()).hexdigest()[:16])


class CocoImages:
    """See the module's docstring. `parts`: by set, its images and the numbers of those that it has."""

    def __init__(self, settings: Settings, place: DataLocation, img_size: int) -> None:
        self.settings, self.place, self.img_size, self.num_classes = settings, place, img_size, settings.num_classes
        train, test = (Annotated(settings, part, place) for part in (settings.train, settings.test))
        rest, held_out = held_out_of(len(train.images), settings.held_out)
        self.parts = {
            "train": (train, rest[torch.from_numpy(train.learnt)[rest]]),
            "val": (train, held_out),
            "test": (test, torch.arange(len(test.images))),
        }
        self.loader = partial(loader, collate_fn=_collated)
        for name, (source, images) in self.parts.items():
            if not source.learnt[images.numpy()].any():
                raise UserError(f"{source.path}: no object to be found in {name}, which has {len(images)} images")

    def train(self, stream: str, recipe: Recipe, start: int) -> Iterator[BoxBatch]:
        """Batches from step `start` on, this rank's part. Raises UserError for a batch larger than
        the training set, and while iterating for an unreadable image."""
        source, images = self.parts["train"]
        if recipe.batch_size > len(images):
            raise UserError(f"recipe.batch_size {recipe.batch_size}: there are {len(images)} training images with a box")
        order = shuffled(stream, images, recipe.batch_size, part_of(self.place, recipe.batch_size), start)
        views = Views(source, self.img_size, stream, self.settings.jitter, self.settings.hflip)
        return self._moved(drawn(self.loader(views, self.place.workers, batch_sampler=order)))

    def sets(self) -> tuple[str, ...]:
        """Val and test."""
        return EVALUATION_SETS

    def truth(self, name: str) -> Truth:
        """The true objects of an evaluation set, with categories numbered from 1."""
        source, images = self.parts[name]
        objects: list[dict[str, Any]] = []
        for number in images.tolist():
            image = source.images[number]["id"]
            for each in source.objects(number):  # their own ids may be 0, which is no object's for pycocotools
                objects.append({
                    "id": len(objects) + 1, "image_id": image, "category_id": source.labels[each["category_id"]],
                    "bbox": each["bbox"], "area": _area(each), "iscrowd": each.get("iscrowd") or 0,
                    "segmentation": segmentation_of(each),
                })  # fmt: skip
        categories = [{"id": number, "name": each["name"]} for number, each in enumerate(source.categories, 1)]
        told = [source.images[number] for number in images.tolist()]
        return {"info": {}, "images": told, "annotations": objects, "categories": categories}

    def evaluate(self, name: str, batch_size: int) -> Iterator[BoxBatch]:
        """Batches of a set, this rank's, without their objects."""
        source, images = self.parts[name]
        mine = [
            [(0, index) for index in batch.tolist()] for batch in images.split(batch_size)[self.place.rank :: self.place.ranks]
        ]
        return self._moved(drawn(self.loader(Views(source, self.img_size), self.place.workers, batch_sampler=mine)))

    def _moved(self, batches: Iterator[Any]) -> Iterator[BoxBatch]:
        """Batches of `_collated` on the device, with pixels in 0..1."""
        device = self.place.device
        for (images, joint), told in batches:
            pixels = images.to(device, non_blocking=True).float() / 255
            if joint is None:
                yield pixels, told
                continue
            counts = [each["count"] for each in told]
            parts = {name: values.to(device, non_blocking=True).split(counts) for name, values in joint.items()}
            yield (
                pixels,
                [
                    {name: value for name, value in each.items() if name != "count"}
                    | {name: values[number] for name, values in parts.items()}
                    for number, each in enumerate(told)
                ],
            )


class Views(Indexed[tuple[Tensor, Target]]):
    """Resized images with their targets by (epoch, number); without a stream as in evaluation: not
    changed otherwise, and without objects."""

    def __init__(
        self,
        source: Annotated,
        img_size: int,
        stream: str | None = None,
        jitter: tuple[float, float] | None = None,
        hflip: float = 0.0,
    ) -> None:
        self.source, self.img_size, self.stream, self.jitter, self.hflip = source, img_size, stream, jitter, hflip

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Target]:
        number = key[1]
        image = self.source.image(number)
        target: Target = {"image": self.source.images[number]["id"], "size": (image.height, image.width)}
        if self.stream is None:
            pixels = resized(image, self.img_size / max(image.size))
            return placed(pixels, self.img_size), target | {"shown": tuple(pixels.shape[1:])}
        objects = [each for each in self.source.objects(number) if is_learnt(each)]
        masks = torch.stack([self.source.mask(number, each) for each in objects])
        labels = torch.tensor([self.source.labels[each["category_id"]] for each in objects])
        with seeded(self.stream, *key):
            factor = 1.0 if self.jitter is None else float(torch.empty(()).uniform_(*self.jitter))
            pixels = resized(image, factor * self.img_size / max(image.size))
            masks = F.interpolate(masks[None], size=pixels.shape[1:], mode="nearest-exact")[0]
            top, left = (int(torch.rand(()) * (max(0, side - self.img_size) + 1)) for side in pixels.shape[1:])
            if torch.rand(()) < self.hflip:
                pixels, masks = pixels.flip(-1), masks.flip(-1)
        target["shown"] = tuple(min(side, self.img_size) for side in pixels.shape[1:])
        pixels, masks = (placed(each[:, top:, left:], self.img_size) for each in (pixels, masks))
        seen = (masks > 0).flatten(1).any(1)
        masks, labels = masks[seen], labels[seen]
        boxes = masks_to_boxes(masks) + torch.tensor([0.0, 0.0, 1.0, 1.0]) if len(masks) else torch.zeros(0, 4)
        return pixels, target | {"boxes": boxes, "labels": labels, "masks": masks}


def resized(image: Image.Image, factor: float) -> Tensor:
    """An image [3, H, W], uint8, larger by the factor (antialiased, bilinear)."""
    size = [max(1, round(side * factor)) for side in image.size]
    pixels: Tensor = pil_to_tensor(image.resize((size[0], size[1]), Image.Resampling.BILINEAR))
    return pixels


def placed(values: Tensor, side: int) -> Tensor:
    """[C, H, W] as [C, side, side]: the rest is cut off, or padded with 0, at the right and below."""
    cut = values[:, :side, :side]
    return F.pad(cut, (0, side - cut.shape[2], 0, side - cut.shape[1]))


def _area(found: dict[str, Any]) -> float:
    area = found.get("area")
    return float(found["bbox"][2] * found["bbox"][3] if area is None else area)


def _collated(samples: list[tuple[Tensor, Target]]) -> tuple[tuple[Tensor, dict[str, Tensor] | None], list[Target]]:
    """Images [B, 3, S, S], the objects of all of them in one tensor a field (a file of shared memory
    each), and the rest of each target with the number of its objects."""
    images, targets = torch.stack([pixels for pixels, _ in samples]), [target for _, target in samples]
    if "masks" not in targets[0]:
        return (images, None), targets
    joint = {name: torch.cat([target[name] for target in targets]) for name in OBJECTS}
    rest = [{name: value for name, value in target.items() if name not in OBJECTS} for target in targets]
    return (images, joint), [each | {"count": len(target["labels"])} for each, target in zip(rest, targets, strict=True)]
