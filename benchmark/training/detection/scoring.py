"""COCO's average precision of boxes and masks, by pycocotools."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle  # type: ignore[import-untyped]
from pycocotools.coco import COCO  # type: ignore[import-untyped]
from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped]
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from benchmark.data.boxes import Target, Truth
from benchmark.training.distributed import Ranks
from benchmark.training.inputs import Inputs, precision_of
from benchmark.training.subject import Subject
from benchmark.transfer.teacher_reader import TeacherAttention

KINDS = {"box": "bbox", "mask": "segm"}
NUMBERS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")  # the first six of COCOeval.stats
ON = 0.5  # a pixel is on from this probability on


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
            detected = subject.model(inputs.by(subject.input))
        for target, each in zip(targets, detected, strict=True):
            self.found += detections(target, {name: value.float().cpu() for name, value in each.items()})

    def score(self, ranks: Ranks) -> dict[str, Any]:
        """COCO's numbers over the detections of all ranks, in percent; None for sizes that no true
        object has."""
        return average_precision(self.truth, [one for part in ranks.all_gather(self.found) for one in part])


def detections(target: Target, found: dict[str, Tensor]) -> list[dict[str, Any]]:
    """A detector's output for one image in COCO's format, in pixels of the original image."""
    height, width = target["size"]
    boxes = found["boxes"] / target["scale"]
    boxes[:, 0::2] = boxes[:, 0::2].clamp(0, width)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(0, height)
    masks = paste_masks_in_image(found["masks"], boxes, (height, width)) >= ON
    return [
        {"image_id": target["image"], "category_id": int(label), "score": float(score), "bbox": _corner_and_size(box),
         "segmentation": encoded(mask)}
        for box, label, score, mask in zip(boxes, found["labels"], found["scores"], masks[:, 0], strict=True)
    ]  # fmt: skip


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
        given = true.loadRes(found) if found else None
        for kind, name in KINDS.items():
            stats = np.zeros(len(NUMBERS)) if given is None else _stats(true, given, name)
            percent = [None if value < 0 else 100 * float(value) for value in stats]
            scores |= {f"{kind}_{number}": value for number, value in zip(NUMBERS, percent, strict=True)}
    return scores


def _stats(true: COCO, given: COCO, name: str) -> Any:
    evaluation = COCOeval(true, given, name)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[: len(NUMBERS)]
