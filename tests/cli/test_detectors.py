"""Detectors by the command: on the embedded task and on a folder in COCO's layout, from check to picture."""

import json
import os
import shutil
import signal
import time
from contextlib import suppress
from itertools import chain

import numpy as np
import pytest
import torch
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from benchmark.cli import main
from benchmark.data import DataLocation, load
from benchmark.spec.detection import Coco
from benchmark.storage.results import read_results
from benchmark.tools.detections import Seen, as_json, picture

from ..conftest import command, tiny_protocol
from ..data.test_coco import made

LONG = 30  # steps of a detector that is killed
STUDY = {"title": "Few", "asks": "Does it train?", "arms": [f"standard-{how}+task=*" for how in ("none", "copy", "distill")]}


def protocol_file(folder, task="digit_boxes", steps=6, batch=2, **changes):
    """A protocol whose detectors are tiny, with the embedded task or one in COCO's layout in its place."""
    content = tiny_protocol()
    detection = content["tasks"].pop("digit_boxes")
    detection["detector"] = {"width": 8, "anchor": 4, "proposals": 20, "sampled": 8, "detections": 5}
    detection["recipe"] |= {"steps": steps, "batch_size": batch}
    if task == "digit_boxes":
        detection["data"] |= {"val_images": 6, "test_images": 8}
    else:
        parts = {name: {"folder": f"{name}2017", "annotations": f"annotations/instances_{name}2017.json", "images": count}
                 for name, count in (("train", 8), ("test", 3))}  # fmt: skip
        detection["data"] = {"name": "coco", "num_classes": 10, "held_out": 2, **parts}
        detection["data"] |= {"jitter": [0.5, 1.5], "hflip": 0.5}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content | {"tasks": {task: detection}} | changes))
    (folder / "few.yaml").write_text(yaml.safe_dump(STUDY))
    return path


def words(folder, *more):
    chosen = [
        "--family",
        "deit",
        "--sizes",
        "base",
        "--seeds",
        "0",
        "--protocol",
        folder / "tiny.yaml",
        "--study",
        folder / "few.yaml",
    ]
    return ["run", *chosen, "--results", folder / "results", "--work", folder / "work", "--cluster", "debug", *more]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A request on a user's own data set in COCO's layout, whose detectors are trained."""
    folder = tmp_path_factory.mktemp("shapes")
    made(folder / "data" / "shapes")
    protocol_file(folder, "shapes")
    assert main([str(word) for word in words(folder, "--data", folder / "data")]) == 0
    return folder


TRAIN = "annotations/instances_train2017.json"
RUN = "deit/base/standard-copy+task=shapes-s0"


@pytest.mark.long
def test_a_folder_of_cocos_layout_from_check_to_results(shapes, bench):
    """All images are checked, and each arm has average precisions of boxes and masks, a curve and a place on the board."""
    code, out, err = bench("check", "--protocol", shapes / "tiny.yaml", "--data", shapes / "data", "--work", shapes / "work")
    assert code == 0, err
    assert out.splitlines() == [
        "protocol tiny needs no images",
        "the images are those of shapes of protocol tiny, and can be read",
    ]
    results, rejected = read_results(shapes / "results")
    found = {each.cell.arm: each for each in results if each.run.detector is not None}
    assert not rejected and found.keys() == {f"standard-{how}+task=shapes" for how in ("none", "copy", "distill")}
    for each in found.values():
        assert each.metrics.on == {"set": f"shapes/{TRAIN}".replace("train", "test"), "images": 3} and each.provenance.data
        assert len(each.curve) == 2 and each.run.backbone.run in {other.key for other in results}
    board = (shapes / "reports" / "tiny-few.csv").read_text().splitlines()
    assert {line.split(",")[3] for line in board[1:]} == set(found)
    page = (shapes / "reports" / "index.html").read_text()
    assert '"metric":"box AP"' in page.replace('": "', '":"')


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda folder: next((folder / "shapes/test2017").iterdir()).unlink(), "1 of 3 images are of no use: "),
        (lambda folder: (folder / "shapes" / TRAIN).write_text("{"), "no annotations in COCO's format"),
    ],
)  # fmt: skip
def test_a_task_that_cannot_be_used_is_told_in_one_line(harm, told, tmp_path, bench):
    made(tmp_path / "data" / "shapes")
    path = protocol_file(tmp_path, "shapes")
    harm(tmp_path / "data")
    for request in (["check", "--protocol", path, "--work", tmp_path / "work"], words(tmp_path)):
        code, out, err = bench(*request, "--data", tmp_path / "data")
        assert (code, out) == (2, "") and told in err and err.count("\n") == 1, err
    assert not [*tmp_path.glob("results/**/*.json"), *tmp_path.glob("work/runs/*")]


def test_a_task_whose_folder_is_not_there(tmp_path, bench):
    """A check names it and leaves it out; a run that needs it is refused."""
    (tmp_path / "data").mkdir()
    path = protocol_file(tmp_path, "shapes")
    code, out, err = bench("check", "--protocol", path, "--work", tmp_path / "work", "--data", tmp_path / "data")
    assert code == 0 and "no folder shapes in it or beside it: shapes of protocol tiny is not checked" in out, err
    code, _, err = bench(*words(tmp_path), "--data", tmp_path / "data")
    assert code == 2 and "no folder shapes in it or beside it" in err and err.count("\n") == 1


@pytest.mark.long
def test_inspect_shows_what_a_detector_finds(shapes, bench, tmp_path):
    """True objects are those of the file; detections those that were scored; the picture is in place."""
    out = tmp_path / "seen.png"
    given = ("inspect", RUN, "--work", shapes / "work", "--data", shapes / "data", "--images", "0,2", "--out", out)
    code, told, err = bench(*given, "--score", "0", "--json")
    assert code == 0, err
    found = json.loads(told)
    assert found["run"] == "tiny/deit/base/standard-copy+task=shapes-s0.json" and found["picture"] == str(out)
    with Image.open(out) as image:
        assert min(image.size) > 300
    content = json.loads((shapes / "data/shapes/annotations/instances_test2017.json").read_text())
    assert [each["number"] for each in found["images"]] == [0, 2]
    for each in found["images"]:
        own = [one for one in content["annotations"] if one["image_id"] == 100 + each["number"]]
        assert [one["bbox"] for one in each["true"]] == [one["bbox"] for one in own] and each["size"] == [48, 64]
        assert each["image"] == f"{each['number']:012}.png" and 0 < len(each["found"]) <= 5
        assert all(0 <= one["iou"] <= 1 and one["mask_pixels"] >= 0 for one in each["found"])
        scores = [one["score"] for one in each["found"]]
        assert scores == sorted(scores, reverse=True)
    code, told, err = bench(*given, "--score", "1")
    assert code == 0 and "nothing" in told and "detections with a score of at least 1" in told, err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ((RUN, "--images", "3"), "the test set's images are 0 to 2"),
        ((RUN, "--images", "1-2"), "numbers with commas between them, as in 0,3"),
        ((RUN, "--score", "2"), "'2': a number from 0 to 1"),
        ((RUN, "--block", "1"), "--blocks goes with --family"),
        ((RUN, "--out", "x.txt"), "valid endings"),
        (("deit/base/standard-copy-s0",), "no detector; --family deit --size base shows its teacher's attention"),
        (("--family", "deit", "--images", "1"), "--images goes with the RUN of a detector"),
        ((), "inspect takes --family NAME, or the RUN of a detector"),
        (("deit/base/standard-copy+task=shapes-s7",), "no run"),
    ],
)
def test_a_look_that_cannot_be_had_is_told_in_one_line(more, told, shapes, bench):
    code, _, err = bench("inspect", *more, "--work", shapes / "work")
    assert code == 2 and told in err and err.count("\n") == 1, err


def test_the_picture_shows_boxes_and_masks_where_they_are(tmp_path):
    """A mask's colour lies on its pixels alone, at the true side; a box that was found at the other."""
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[5:15, 10:20] = 1
    true = {"category": "cup", "bbox": [10.0, 5.0, 10.0, 10.0], "mask": mask, "crowd": False}
    seen = Seen(4, "a.jpg", torch.zeros(3, 20, 30), (20, 30), [true], [true | {"score": 0.75, "iou": 1.0}])
    assert as_json([seen])[0]["true"][0]["mask_pixels"] == 100
    figure = picture("cup", [seen])
    FigureCanvasAgg(figure).draw()
    left, right = figure.axes
    for axes in (left, right):
        layer = axes.images[1].get_array()
        assert (
            (layer[..., 3] > 0).sum() == 100 and layer[10, 15, 3] > 0 and axes.images[1].get_extent() == [-0.5, 29.5, 19.5, -0.5]
        )
        (box,) = axes.patches
        assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (9.5, 4.5, 10, 10)
    assert [text.get_text() for text in left.texts] == ["cup"] and [text.get_text() for text in right.texts] == ["cup 0.75"]


def test_a_detector_is_not_exported(shapes, bench):
    run = RUN.replace("copy", "distill")
    code, _, err = bench("export", run, "--work", shapes / "work")
    assert code == 2 and "its backbone is exported as that of its own run" in err and err.count("\n") == 1


def test_a_users_file_replaces_a_task_of_the_one_that_it_extends(shapes, tmp_path, bench):
    """With its own counts; a task whose files differ is not trained on."""
    content = yaml.safe_load((shapes / "tiny.yaml").read_text())
    task = content["tasks"]["shapes"]
    task["data"]["test"]["images"] = 4
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"extends": str(shapes / "tiny.yaml"), "tasks": {"shapes": task}}))
    code, _, err = bench("check", "--protocol", tmp_path / "own.yaml", "--data", shapes / "data", "--work", tmp_path)
    assert code == 2 and "3 images" in err and "4" in err, err


def numbers(folder):
    results, rejected = read_results(folder / "results")
    assert not rejected
    return {each.cell.arm: (each.metrics, each.val, each.curve) for each in results}


@pytest.mark.long
def test_killed_and_resumed_is_uninterrupted(tmp_path):
    """A detector that two processes train goes on from its checkpoint, number for number."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        protocol_file(folder, steps=LONG, batch=4, checkpoint_seconds=0)
        (folder / "few.yaml").write_text(yaml.safe_dump(STUDY | {"arms": ["standard-copy"]}))
    assert main([str(word) for word in words(whole)]) == 0  # the backbone
    shutil.copytree(whole / "work" / "runs", killed / "work" / "runs")
    for folder in (whole, killed):
        (folder / "few.yaml").write_text(yaml.safe_dump(STUDY | {"arms": ["standard-copy+task=*"]}))
    together = ["--cluster", "local", "--jobs", "1", "--processes", "2"]
    assert main([str(word) for word in words(whole, *together)]) == 0
    process = command(*words(killed, *together))
    while not (steps := at_work(killed)):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pid in {pid for _, pid in steps}:  # which else would train on until it misses its launcher
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    time.sleep(1.5)  # the other rank ends too
    assert main([str(word) for word in words(killed, *together)]) == 0
    assert numbers(killed) == numbers(whole) and "standard-copy+task=digit_boxes" in numbers(killed)
    assert "training from step" in "".join(path.read_text() for path in killed.glob("work/runs/*/run.log"))


def at_work(folder):
    """(step, process) of the detectors in training that have taken steps."""
    progress = [json.loads(path.read_text()) for path in folder.glob("work/runs/*/progress.json")]
    return [
        (each["step"], each["pid"])
        for each in progress
        if each["state"] == "running" and each["steps"] == LONG and 2 < each["step"] < LONG
    ]


def test_two_processes_read_each_image_once(tmp_path):
    """Their parts of a batch, and of an evaluation set, are one process's together."""
    made(tmp_path)
    parts = {name: {"folder": f"{name}2017", "annotations": f"annotations/instances_{name}2017.json", "images": count}
             for name, count in (("train", 8), ("test", 3))}  # fmt: skip
    settings = Coco.model_validate({"name": "coco", "num_classes": 10, "held_out": 2, **parts})
    places = [DataLocation(root=tmp_path), *(DataLocation(root=tmp_path, rank=rank, ranks=2) for rank in (0, 1))]
    whole, *halves = (
        sorted(target["image"] for _, targets in load(settings, place, 48, None).evaluate("test", 2) for target in targets)
        for place in places
    )
    assert whole == [100, 101, 102] and sorted(chain(*halves)) == whole and all(halves)
