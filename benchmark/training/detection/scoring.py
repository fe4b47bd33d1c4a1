"""COCO's average precision of boxes and masks, by pycocotools."""

from __future__ import annotations

import math
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as rle  # type: ignore[import-untyped]
from pycocotools.coco import COCO  # type: ignore[import-untyped]
from pycocotools.cocoeval import COCOeval, Params  # type: ignore[import-untyped]
from torch import Tensor

from benchmark.data.boxes import Target, Truth
from benchmark.training.distributed import Ranks
from benchmark.training.inputs import Inputs, precision_of
from benchmark.training.subject import Subject
from benchmark.transfer.teacher_reader import TeacherAttention

KINDS = {"box": "bbox", "mask": "segm"}
NUMBERS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")  # the first six of COCOeval.stats
ON = 0.5  # a pixel is on from this probability on
TINY = 1e-6  # pixels, of a box without an area


class BoxTally:
    """One detector's detections on an evaluation set, whose true boxes and masks are `truth`."""

    def __init__(self, subject: Subject, truth: Truth) -> None:
        self.subject, self.truth = subject, truth
        self.found: list[dict[str, Any]] = []

    def add(self, inputs: Inputs, targets: Any, read: TeacherAttention) -> None:
        """Detect in a batch."""
        subject = self.subject
        subject.model.eval()
        with precision_of(subject.recipe, inputs.images.device), subject.transfer.guiding(read):
            detected = subject.model(inputs.by(subject.input), targets)
        for target, each in zip(targets, detected, strict=True):
            self.found += detections(target, {name: value.float().cpu() for name, value in each.items()})

    def score(self, ranks: Ranks) -> dict[str, Any]:
        """COCO's numbers over the detections of all ranks, in percent; None for sizes that no true
        object has."""
        found = [one for part in ranks.all_gather(self.found) for one in part]
        score: dict[str, Any] = ranks.broadcast(average_precision(self.truth, found) if ranks.first else None)
        return score


def detections(target: Target, found: dict[str, Tensor]) -> list[dict[str, Any]]:
    """A detector's output for one image in COCO's format, in pixels of the original image."""
    height, width = target["size"]
    shown_height, shown_width = target["shown"]
    factors = torch.tensor([width / shown_width, height / shown_height] * 2)
    boxes = found["boxes"] * factors
    return [
        {"image_id": target["image"], "category_id": int(label), "score": float(score), "bbox": _corner_and_size(box),
         "segmentation": encoded(pasted(mask, box, (height, width)))}
        for box, label, score, mask in zip(boxes, found["labels"], found["scores"], found["masks"][:, 0], strict=True)
    ]  # fmt: skip


def pasted(mask: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels of an image, [H, W] of bools, that a mask over a box lights: those whose centres it
    gives a probability of at least ON, by bilinear interpolation.

    Args:
        mask: [m, m], probabilities.
        box: left, top, right and bottom in pixels.
        size: height and width of the image.
    """
    whole, (height, width) = torch.zeros(size, dtype=torch.bool), size
    left, top, right, bottom = box.tolist()
    rows = range(height)[max(0, math.floor(top)) : max(0, math.ceil(bottom))]
    columns = range(width)[max(0, math.floor(left)) : max(0, math.ceil(right))]
    y = (torch.tensor(rows) + 0.5 - top) / max(bottom - top, TINY) * 2 - 1
    x = (torch.tensor(columns) + 0.5 - left) / max(right - left, TINY) * 2 - 1
    if rows and columns:
        places = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), -1)
        values = F.grid_sample(mask[None, None], places[None], padding_mode="border", align_corners=False)[0, 0]
        inside = (x.abs() <= 1)[None, :] & (y.abs() <= 1)[:, None]
        whole[rows.start : rows.stop, columns.start : columns.stop] = (values >= ON) & inside
    return whole


def _corner_and_size(box: Tensor) -> list[float]:
    left, top, right, bottom = box.tolist()
    return [left, top, right - left, bottom - top]


def encoded(mask: Tensor) -> dict[str, Any]:
    """A mask [H, W] of bools, run-length encoded."""
    found: dict[str, Any] = rle.encode(np.asfortranarray(mask.to(torch.uint8).numpy()))
    return found


def average_precision(truth: Truth, found: list[dict[str, Any]]) -> dict[str, float | None]:
    """COCO's average precision (cocodataset.org, detection evaluation) in percent, by `box_` and
    `mask_` with NUMBERS: over IoU .5 to .95, at .5, at .75, and of small, medium and large objects
    (None where there are none).

    Args:
        truth: annotations in COCO's format.
        found: detections in COCO's format.
    """
    scores: dict[str, float | None] = {}
    with redirect_stdout(StringIO()):
        true = COCO()
        true.dataset = truth
        true.createIndex()
        for kind, name in KINDS.items():
            stats = _stats(true, found, name) if found else _nothing(truth)
            percent = [None if value < 0 else 100 * float(value) for value in stats]
            scores |= {f"{kind}_{number}": value for number, value in zip(NUMBERS, percent, strict=True)}
    return scores


def _nothing(truth: Truth) -> list[float]:
    """The numbers without detections: 0, and -1 for sizes that no object has."""
    areas = [each["area"] for each in truth["annotations"] if not each["iscrowd"]]
    ranges = [Params().areaRng[number] for number in (0, 0, 0, 1, 2, 3)]
    return [0.0 if any(least <= area <= most for area in areas) else -1.0 for least, most in ranges]


def _stats(true: COCO, found: list[dict[str, Any]], name: str) -> Any:
    """The first of COCOeval's numbers. With a box, `loadRes` would take the size of a mask for that
    of its box."""
    own = found if name == "bbox" else [{key: each[key] for key in each if key != "bbox"} for each in found]
    evaluation = COCOeval(true, true.loadRes(own), name)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[: len(NUMBERS)]
