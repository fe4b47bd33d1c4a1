"""Inspect a detector: its detections on test images beside the true objects, as data, as a table and
as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from pycocotools import mask as rle  # type: ignore[import-untyped]
from pycocotools.coco import COCO  # type: ignore[import-untyped]
from rich.console import Console
from torch import Tensor

from benchmark import data
from benchmark.data import DataLocation
from benchmark.reporting.drawing.style import COLOURS, STYLE
from benchmark.spec.evaluations import on_set
from benchmark.spec.run import Run
from benchmark.storage.files import ensure_writable
from benchmark.storage.work_folder import Workspace
from benchmark.training.detection.scoring import BoxTally
from benchmark.training.inputs import Inputs, precision_of
from benchmark.training.state_files import weights_of
from benchmark.training.subject import subject_of
from families.core.weights_folder import find_weights
from families.spec import UserError, one_line, quoted

SIDE, ALPHA = 3.4, 0.45  # inches of an image; of a mask over it
MOST_IMAGES = 16


@dataclass(frozen=True)
class Seen:
    """A test image, its true objects and what a detector finds there.

    Attributes:
        number: of the image in the test set, from 0 on.
        name: of its file; empty where it was made on the spot.
        pixels: [3, h, w] in 0..1, as the detector got them, without padding.
        size: height and width of the image before it was resized, in pixels.
        true, found: objects with `category` in words, `bbox` [left, top, width, height] in pixels
            and `mask` [height, width]; those found with `score`, and `iou` of the box with the
            nearest true one of its category.
    """

    number: int
    name: str
    pixels: Tensor
    size: tuple[int, int]
    true: list[dict[str, Any]]
    found: list[dict[str, Any]]


def check_images(run: Run, text: str | None) -> list[int]:
    """The numbers of --images, ascending; None: the first image. Raises UserError for those that the
    test set of the run lacks."""
    words = ("0" if text is None else text).split(",")
    if not all(word.isascii() and word.isdigit() and len(word) < 10 for word in words) or len(words) > MOST_IMAGES:
        raise UserError(f"--images {quoted(str(text))}: up to {MOST_IMAGES} numbers with commas between them, as in 0,3")
    numbers, count = sorted({int(word) for word in words}), int(run.settings.data.described("test")["images"])
    if numbers[-1] >= count:
        raise UserError(f"--images {numbers[-1]}: the test set's images are 0 to {count - 1}")
    return numbers


@torch.no_grad()
def look(run: Run, workspace: Workspace, weights: Path, place: DataLocation, numbers: Sequence[int], least: float) -> list[Seen]:
    """What the detector of a finished run finds on images of the test set.

    Args:
        run: of a detector.
        workspace: with its weights and, of a student by Copy, its teacher's.
        weights: the folder of pre-trained teachers.
        place: where the data lies.
        numbers: of the images, from 0 on, ascending.
        least: score from which on detections are kept.

    Raises UserError or WeightsError for weights that are not there or do not fit.
    """
    settings, evaluation = run.settings, on_set(run, "test")
    files = {name: weights_of(workspace, key) for name, key in evaluation.files.items()}
    if evaluation.read is not None and evaluation.read.pinned and "run" not in files:
        path = find_weights(weights, run.family, run.size)
        if path is None:
            raise UserError(f"no weights of {run.family} {run.size} in {weights}")
        files["weights"] = path
    dataset = data.load(settings.data, place, run.student.geometry.img_size, run.protocol.normalisation)
    subject = subject_of(evaluation, files, place.device)
    truth, seen = dataset.truth("test"), []
    true = COCO()
    true.dataset = truth
    with redirect_stdout(StringIO()):
        true.createIndex()
    words = {each["id"]: str(each["name"]) for each in truth["categories"]}
    for first, images, targets in _batches(dataset, settings.evaluation_batch, numbers[-1]):
        wanted = [number for number in numbers if first <= number < first + len(images)]
        if not wanted:
            continue
        tally, inputs = BoxTally(subject, truth), Inputs(images)
        with precision_of(subject.recipe, images.device):
            read = {} if subject.reader is None else subject.reader.read(inputs.by(subject.teacher_input))
        tally.add(inputs, targets, read)
        for number in wanted:
            target = targets[number - first]
            objects = true.imgToAnns[target["image"]]
            found = sorted(
                (each for each in tally.found if each["image_id"] == target["image"] and each["score"] >= least),
                key=lambda each: -float(each["score"]),
            )
            height, width = target["shown"]
            seen.append(Seen(
                number, str(true.imgs[target["image"]].get("file_name", "")),
                images[number - first, :, :height, :width].cpu(), target["size"],
                [_told(each, words) | {"mask": true.annToMask(each), "crowd": bool(each["iscrowd"])} for each in objects],
                [_told(each, words) | {"mask": rle.decode(each["segmentation"]), "score": each["score"],
                                       "iou": _nearest(each, objects)} for each in found],
            ))  # fmt: skip
    return seen


def _batches(dataset: data.Dataset, size: int, last: int) -> Iterator[tuple[int, Tensor, Any]]:
    """Batches of the test set as in evaluation, with the number of the first image, up to
    the image `last`."""
    first = 0
    for images, targets in dataset.evaluate("test", size):
        yield first, images, targets
        first += len(images)
        if first > last:
            return


def _told(each: Mapping[str, Any], words: Mapping[int, str]) -> dict[str, Any]:
    return {"category": words[each["category_id"]], "bbox": [float(value) for value in each["bbox"]]}


def _nearest(found: Mapping[str, Any], objects: Sequence[Mapping[str, Any]]) -> float:
    """The largest intersection over union of a box with a true one of its category; 0 without one."""
    boxes = [each["bbox"] for each in objects if each["category_id"] == found["category_id"] and not each["iscrowd"]]
    if not boxes:
        return 0.0
    return float(rle.iou(np.array([found["bbox"]], dtype=float), np.array(boxes, dtype=float), [0] * len(boxes)).max())


def as_json(seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """For programs: boxes [left, top, width, height] in pixels of the image before it was resized;
    masks as their number of pixels."""
    return [
        {
            "number": each.number,
            "image": each.name,
            "size": list(each.size),
            "true": [_plain(one) for one in each.true],
            "found": [_plain(one) for one in each.found],
        }
        for each in seen
    ]


def _plain(one: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in one.items() if name != "mask"} | {"mask_pixels": int(one["mask"].sum())}


def show(title: str, seen: Sequence[Seen], console: Console) -> None:
    """Print the detections, a row each."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, header_style="bold")
    for name in ("image", "true objects", "detected", "score", "box", "IoU"):
        table.add_column(name, justify="left" if name in ("image", "true objects", "detected", "box") else "right")
    for each in seen:
        true = ", ".join(one["category"] for one in each.true)
        rows = [(escape(one["category"]), f"{one['score']:.2f}", _box(one), f"{one['iou']:.2f}") for one in each.found]
        for number, row in enumerate(rows or [("nothing", "", "", "")]):
            table.add_row(*((f"{each.number} {escape(each.name)}", escape(true)) if number == 0 else ("", "")), *row)
        table.add_section()
    console.print(table)
    console.print(
        "box: left, top, width, height in pixels. IoU: intersection over union of the box with the nearest true one of its"
        " category.",
        style="dim", highlight=False,
    )  # fmt: skip


def _box(one: Mapping[str, Any]) -> str:
    return ", ".join(f"{value:.0f}" for value in one["bbox"])


def draw(title: str, seen: Sequence[Seen], path: Path) -> None:
    """Write the picture: a row an image, true objects at the left and detections at the right.
    Raises UserError if it cannot be written."""
    ensure_writable("--out", path.parent)
    with matplotlib.rc_context(STYLE):
        try:
            picture(title, seen).savefig(path, dpi=130)
        except OSError as error:
            raise UserError(f"--out {path}: {error.strerror or one_line(error)}") from None


def picture(title: str, seen: Sequence[Seen]) -> Figure:
    """See `draw`. A category has one colour in the whole picture."""
    categories = sorted({one["category"] for each in seen for one in (*each.true, *each.found)})
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(categories)}
    figure = Figure(figsize=(2 * SIDE + 0.2, (SIDE + 0.4) * len(seen) + 0.6), layout="constrained")
    figure.suptitle(title, size=10, weight="bold")
    for (left, right), each in zip(figure.subplots(len(seen), 2, squeeze=False), seen, strict=True):
        _panel(left, each, each.true, colours, f"image {each.number}: {len(each.true)} true objects")
        _panel(right, each, each.found, colours, f"{len(each.found)} detected, with scores")
    return figure


def _panel(axes: Axes, seen: Seen, objects: Sequence[Mapping[str, Any]], colours: Mapping[str, str], title: str) -> None:
    height, width = seen.size
    whole = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(seen.pixels.permute(1, 2, 0).clamp(0, 1).numpy(), extent=whole, interpolation="nearest")
    axes.set_title(title, size=8, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    for one in objects:
        colour = colours[one["category"]]
        layer = np.zeros((height, width, 4))
        layer[one["mask"] > 0] = to_rgba(colour, ALPHA)
        axes.imshow(layer, extent=whole, interpolation="nearest")
        left, top, across, down = one["bbox"]
        axes.add_patch(Rectangle((left - 0.5, top - 0.5), across, down, fill=False, edgecolor=colour, linewidth=1.4))
        told = one["category"] + (f" {one['score']:.2f}" if "score" in one else " (crowd)" if one.get("crowd") else "")
        axes.text(
            left - 0.5, top - 0.5, told, size=7, color="white", va="bottom" if top > height / 12 else "top",
            path_effects=[withStroke(linewidth=2, foreground=colour)],
        )  # fmt: skip
    axes.set_xlim(whole[:2])
    axes.set_ylim(whole[2:])
