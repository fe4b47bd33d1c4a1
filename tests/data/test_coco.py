"""Data sets in COCO's layout: true to their files, and one line for whatever is wrong with them."""

import json
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from torchvision.transforms.functional import to_pil_image

from benchmark import data
from benchmark.data import DataLocation
from benchmark.data.coco import placed, resized
from benchmark.data.digit_boxes import DigitBoxes
from benchmark.spec.detection import Coco, in_folder
from benchmark.spec.recipe import Recipe
from benchmark.training.detection.scoring import average_precision
from families.spec import UserError

RECIPE = Recipe(steps=4, batch_size=2, lr=1e-3, warmup=0, weight_decay=0)
SIDE = 48


def settings(**changes):
    parts = {name: {"folder": f"{name}2017", "annotations": f"annotations/instances_{name}2017.json", "images": count}
             for name, count in (("train", 8), ("test", 3))}  # fmt: skip
    return Coco.model_validate({"name": "coco", "num_classes": 10, "held_out": 2, **parts} | changes)


def made(folder):
    """Digit boxes as COCO has its images: wider than high, category numbers with gaps, and masks of each kind."""
    source = DigitBoxes(_Digits(), DataLocation(), SIDE)
    for name, count in (("train", 8), ("test", 3)):
        (folder / f"{name}2017").mkdir(parents=True)
        images, targets = source.compose(name, count, torch.Generator().manual_seed(len(name)))
        content = {"images": [], "annotations": [], "categories": [{"id": 3 * n + 1, "name": f"digit {n}"} for n in range(10)]}
        for number, (image, target) in enumerate(zip(images, targets, strict=True)):
            wide = torch.cat([image, torch.zeros(3, SIDE, 16)], 2)
            file = f"{number:012}.png"
            to_pil_image(wide).save(folder / f"{name}2017" / file)
            content["images"].append({"id": 100 + number, "file_name": file, "height": SIDE, "width": SIDE + 16})
            for label, mask, box in zip(target["labels"], target["masks"], target["boxes"], strict=True):
                left, top, right, bottom = box.tolist()
                whole = np.asfortranarray(np.pad(mask.numpy(), ((0, 0), (0, 16))))
                content["annotations"].append({
                    "id": len(content["annotations"]) + 1, "image_id": 100 + number, "category_id": 3 * int(label - 1) + 1,
                    "bbox": [left, top, right - left, bottom - top], "area": float(mask.sum()), "iscrowd": 0,
                    "segmentation": SEGMENTATIONS[len(content["annotations"]) % 3](whole, box.tolist()),
                })  # fmt: skip
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / f"annotations/instances_{name}2017.json").write_text(json.dumps(content))
    return folder


def polygon(mask, box):
    left, top, right, bottom = box
    return [[left, top, right, top, right, bottom, left, bottom]]


def compressed(mask, box):
    found = rle.encode(mask)
    return {"size": found["size"], "counts": found["counts"].decode()}


def uncompressed(mask, box):
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": counts if not flat[0] else [0, *counts]}


SEGMENTATIONS = (polygon, compressed, uncompressed)


class _Digits:
    num_classes = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made(tmp_path_factory.mktemp("coco"))


def test_files_are_read_as_they_are(folder):
    """Evaluation images, resized and padded; true objects with categories from 1 on; train and val share no image."""
    dataset = data.load(settings(), DataLocation(root=folder), 32, None)
    batches = list(dataset.evaluate("test", 2))
    assert [len(images) for images, _ in batches] == [2, 1]
    images, targets = batches[0]
    original = Image.open(folder / "test2017" / f"{0:012}.png")
    assert targets[0] == {"image": 100, "size": (48, 64), "shown": (24, 32)}
    wanted = resized(original, 0.5)
    assert wanted.shape == (3, 24, 32) and torch.equal(images[0], placed(wanted, 32) / 255) and not images[0][:, 24:].any()
    truth = dataset.truth("test")
    assert {each["category_id"] for each in truth["annotations"]} <= set(range(1, 11)) and len(truth["images"]) == 3
    names = {each["id"]: each["name"] for each in truth["categories"]}
    assert names == {n + 1: f"digit {n}" for n in range(10)}
    seen = {each["id"] for each in dataset.truth("val")["images"]}
    learnt = {target["image"] for images, targets in _some(dataset, 12) for target in targets}
    assert len(seen) == 2 and len(learnt) == 6 and not seen & learnt


def _some(dataset, count, stream="a"):
    batches = dataset.train(stream, RECIPE, 0)
    return [next(batches) for _ in range(count)]


def test_training_images_are_a_function_of_stream_epoch_and_image(folder):
    """Whatever the loaders and the step that one begins at; boxes lie around masks, and these on the digits."""
    jittered = settings(jitter=(0.5, 2.0), hflip=0.5)
    dataset = data.load(jittered, DataLocation(root=folder), SIDE, None)
    batches = _some(dataset, 9)
    again = dataset.train("a", RECIPE, 7)
    others = data.load(jittered, DataLocation(root=folder, workers=2), SIDE, None).train("a", RECIPE, 0)
    late = next(again)
    assert torch.equal(batches[7][0], late[0]) and torch.equal(batches[7][1][0]["masks"], late[1][0]["masks"])
    assert torch.equal(batches[0][0], next(others)[0])
    shown = set()
    for images, targets in batches:
        for image, target in zip(images, targets, strict=True):
            shown.add(target["shown"])
            assert not image[:, target["shown"][0] :].any() and not image[:, :, target["shown"][1] :].any()
            assert image.shape == (3, SIDE, SIDE) and target["masks"].shape[1:] == (SIDE, SIDE)
            for (left, top, right, bottom), mask in zip(target["boxes"].int().tolist(), target["masks"], strict=True):
                assert mask.sum() == mask[top:bottom, left:right].sum() > 0
                assert image[:, mask.bool()].amax(0).float().mean() > 0.1
    assert len(shown) > 6 and min(width for _, width in shown) >= 24 and max(shown) == (SIDE, SIDE)


def test_masks_of_all_three_kinds_are_the_same(folder):
    """Polygons, and runs written both ways; those of a whole box."""
    from benchmark.data.coco_files import Annotated

    source = Annotated(settings(), settings().train, DataLocation(root=folder))
    kinds = set()
    for number in range(len(source.images)):
        for each in source.objects(number):
            kind = (
                type(each["segmentation"]).__name__ + type(each["segmentation"]["counts"]).__name__
                if isinstance(each["segmentation"], dict)
                else "polygon"
            )
            kinds.add(kind)
            mask = source.mask(number, each)
            assert mask.shape == (48, 64)
            if kind == "polygon":
                assert int(mask.sum()) == each["bbox"][2] * each["bbox"][3]
            else:
                assert int(mask.sum()) == each["area"]
    assert len(kinds) == 3


def test_compressed_runs_are_those_of_pycocotools():
    """Of masks of every kind; and no beginning of such a text is taken for one of the same mask."""
    from benchmark.data.coco_files import runs_of

    draw = np.random.default_rng(0)
    for height, width, share in ((48, 64, 0.5), (300, 200, 0.01), (7, 5, 0.9), (1, 1, 1.0), (1000, 900, 0.0)):
        mask = (draw.random((height, width)) < share).astype(np.uint8)
        text = rle.encode(np.asfortranarray(mask))["counts"].decode()
        assert runs_of(text) == uncompressed(mask, None)["counts"]
        for end in range(min(len(text), 40)):
            with suppress(ValueError):
                assert sum(runs_of(text[:end])) != height * width or runs_of(text[:end])[-1] == 0


def changed(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


TRAIN = "annotations/instances_train2017.json"


def first(**values):
    """Change the first annotation of the training file."""
    return lambda at: changed(at / TRAIN, lambda content: content["annotations"][0].update(values))


def without(section, *keys):
    """Leave out a section of it, its last record, or a key of its first one."""

    def change(content):
        if not keys:
            content.pop(section)
        elif keys == ("last",):
            content[section].pop()
        else:
            content[section][0].pop(*keys)

    return lambda at: changed(at / TRAIN, change)


def of_image(**values):
    """Change the first image of the training file."""
    return lambda at: changed(at / TRAIN, lambda content: content["images"][0].update(values))


def everywhere(**values):
    """Change all annotations of the training file."""
    return lambda at: changed(at / TRAIN, lambda content: [each.update(values) for each in content["annotations"]])


def bomb():
    """A PNG that says it has 20,000 x 20,000 pixels."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    parts = (struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BAD = {
    "no number": (first(bbox=[1, 2, float("nan"), 4]), "its bbox is not [left, top, width, height]"),
    "truth as a number": (first(bbox=[1, 2, True, 4]), "its bbox is not [left, top, width, height]"),
    "a negative width": (first(bbox=[1, 2, -3, 4]), "its bbox is not [left, top, width, height]"),
    "a word as an id": (of_image(id="a"), "its id is not a whole number: 'a'"),
    "a list as an image": (first(image_id=[1]), "its image_id is not a whole number"),
    "a category of text": (first(category_id="1"), "its category_id is not a whole number"),
    "a width of text": (of_image(width="64"), "its width is not a number of pixels"),
    "no height": (of_image(height=None), "its height is not a number of pixels"),
    "half a pixel": (of_image(height=48.5), "its height is not a number of pixels"),
    "a path out of the folder": (of_image(file_name="../a.png"), "its file_name is not a path in the folder"),
    "a number as a file": (of_image(file_name=5), "its file_name is not a path in the folder"),
    "a crowd of text": (first(iscrowd="0"), "its iscrowd is not 0 or 1"),
    "a negative area": (first(area=-1), "its area is not a number of pixels"),
    "a segmentation of text": (first(segmentation="zzz"), "its segmentation is not polygons or"),
    "crowds alone": (everywhere(iscrowd=1), "no object to be found in train"),
    "no annotations": (lambda at: (at / TRAIN).unlink(), "no annotations in COCO's format: No such file"),
    "no folder": (lambda at: (at / "train2017").rename(at / "elsewhere"), "no such folder of images"),
    "truncated json": (lambda at: (at / TRAIN).write_text('{"images": ['), "no annotations in COCO's format"),
    "a list": (lambda at: (at / TRAIN).write_text("[]"), "there is no list of images"),
    "no categories": (without("categories"), "there is no list of categories"),
    "a category less": (without("categories", "last"), "9 categories, but the protocol says 10"),
    "an image less": (without("images", "last"), "7 images, but the protocol says 8"),
    "without a box": (without("annotations", "bbox"), "one of its annotations has no bbox"),
    "a box outside": (
        first(bbox=[60, 3, 20, 5]),
        "lies outside its image of 64 x 48 pixels",
    ),
    "three numbers": (first(bbox=[1, 2, 3]), "its bbox is not [left, top"),
    "another category": (first(category_id=2), "of category 2, which"),
    "another image": (first(image_id=9), "of image 9, which is not"),
    "the same id": (first(id=2), "two of its annotations have the same"),
    "a missing image": (lambda at: (at / "train2017" / f"{3:012}.png").unlink(), "1 of 8 images are of no use"),
    "a cut image": (
        lambda at: (at / "train2017" / f"{3:012}.png").write_bytes((at / "train2017" / f"{3:012}.png").read_bytes()[:200]),
        "1 of 8 images are of no use",
    ),
    "another size": (
        lambda at: Image.new("RGB", (20, 20)).save(at / "train2017" / f"{3:012}.png"),
        "20 x 20 pixels, but",
    ),
    "a huge number": (first(bbox=[1, 2, 10**400, 4]), "its bbox is not [left, top"),
    "a huge area": (first(area=10**400), "its area is not a number of pixels"),
    "a huge id": (first(id=10**400), "its id is not a whole number"),
    "half a point": (first(segmentation=[[1, 2, 3, 4, 5]]), "its segmentation is not polygons"),
    "a point of no number": (first(segmentation=[[1, 2, 3, 4, 5, float("nan")]]), "its segmentation is not polygons"),
    "a point of nothing": (first(segmentation=[[1, 2, 3, 4, 5, None]]), "its segmentation is not polygons"),
    "a polygon far outside": (first(segmentation=[[1e9, 0, 0, 1e9, 1e9, 1e9]]), "a polygon lies far outside its image"),
    "a polygon at minus infinity": (first(segmentation=[[1, 2, 3, 4, 5, -1e300]]), "its segmentation is not polygons"),
    "runs without counts": (first(segmentation={"size": [48, 64]}), "its segmentation is not polygons"),
    **{
        f"compressed runs {name}": (first(segmentation={"size": [48, 64], "counts": counts}), "1 of 8 images are of no use")
        for name, counts in {
            "cut short": "PP1", "of one letter": "x", "of nothing": "", "of zeros": "0" * 100_000, "of blanks": "  ",
            "of other letters": "\u0660\u0663", "below zero": "PPPN", "without end": "o" * 50,
        }.items()
    },
    "runs below zero": (first(segmentation={"size": [48, 64], "counts": [-1, 3073]}), "1 of 8 images are of no use"),
    "a bomb": (
        lambda at: (at / "train2017" / f"{3:012}.png").write_bytes(bomb()),
        "1 of 8 images are of no use",
    ),
    "a bad run length": (
        first(segmentation={"size": [48, 64], "counts": [1, 2]}),
        "1 of 8 images are of no use",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_one_line(kind, tmp_path):
    change, told = BAD[kind]
    folder = made(tmp_path / "coco")
    assert data.check(settings(), DataLocation(root=folder), lambda *_: None).digest
    change(folder)
    with pytest.raises(UserError) as error:
        data.check(settings(), DataLocation(root=folder), lambda *_: None)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_objects_may_have_no_mask_and_any_id(tmp_path):
    """The box stands for a mask; ids from 0 on, which pycocotools takes for no object, do not matter."""
    made(tmp_path)

    def change(content):
        for number, each in enumerate(content["annotations"]):
            each.update({"id": number} | ({"segmentation": None} if number % 3 else {"area": None, "iscrowd": None}))
            if number % 3 == 1:
                del each["segmentation"]

    for name in ("train", "test"):
        changed(tmp_path / f"annotations/instances_{name}2017.json", change)
    assert data.check(settings(), DataLocation(root=tmp_path), lambda *_: None).digest
    dataset = data.load(settings(), DataLocation(root=tmp_path), SIDE, None)
    truth = dataset.truth("test")
    found = [
        {name: each[name] for name in ("image_id", "category_id", "bbox")}
        | {"score": 1.0, "segmentation": rle.merge(rle.frPyObjects(each["segmentation"], 48, 64))
           if isinstance(each["segmentation"], list) else each["segmentation"]}
        for each in truth["annotations"]
    ]  # fmt: skip
    scores = average_precision(truth, found)
    assert scores["box_ap"] == pytest.approx(100) and scores["mask_ap"] > 99
    for _, targets in _some(dataset, 6):
        for target in targets:
            assert target["masks"].flatten(1).any(1).all() and len(target["masks"]) == len(target["boxes"])


def test_two_tasks_with_files_of_the_same_names_are_two_data_sets():
    """The folder is part of what is trained on, and of what is measured on."""
    one, two = (Coco.model_validate(in_folder(name, {"data": settings().model_dump()})["data"]) for name in ("a", "b"))
    assert one.training() != two.training() and one.described("test") != two.described("test")
    kept = in_folder("c", {"data": one.model_dump()})["data"]
    assert Coco.model_validate(kept).folder == "a", "one that the file names stays"
