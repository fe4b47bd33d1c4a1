"""Every teacher at its real size: one training step of each arm through the command, on a CPU.

    python -m tests.real_sizes [--family deit3] [--sizes base] [--arms standard-copy,matched-distill] [--folder DIR]
    python -m tests.real_sizes --family deit --sizes base --arms standard-copy+task=coco --pixels 512

For each teacher a file of random weights is written in its official layout, loaded as `bench run` loads real ones, and one
step of every arm is trained and evaluated on generated JPEGs; that of a detector on generated images in COCO's layout. Prints
a line a teacher; the exit code tells if any failed. Needs up to 15 GB of disk and 12 GB of memory for the large models, and
some minutes for each of these.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import timm
import torch
import yaml
from safetensors.torch import save_file

import families
from benchmark.spec.protocol import load_protocol
from benchmark.spec.teachers import teachers_of
from benchmark.storage.results import read_results

from .conftest import perturbed
from .data.test_coco import made
from .families.test_weights import LAYOUTS
from .jpegs import make_folder, wnids

CLASSES = 6
ARMS = ("standard-none", "standard-copy", "standard-distill", "matched-none", "matched-copy", "matched-distill", "finetune")
ROOT = Path(__file__).parent.parent


def make_data(folder, arms, pixels):
    """The images, and a protocol of one step on them that is otherwise `imagenet`, with the detection of `coco_small`."""
    names = wnids(CLASSES)
    make_folder(folder / "images", {"train": 12, "validation": 6}, CLASSES, sizes=(180, 300))
    make_folder(folder / "images", {"imagenet-a": 4}, CLASSES, names={names[1]: 1, names[4]: 4}, sizes=(180, 300))
    data = {
        "num_classes": CLASSES,
        "train": {"split": "train", "images": 12},
        "test": {"split": "validation", "images": 6},
        "held_out": 4,
        "shifted": {"imagenet_a": {"path": "imagenet-a", "images": 4, "classes": 2}},
    }
    short = {"epochs": None, "steps": 1, "batch_size": 2}
    made(folder / "coco")
    detection = load_protocol("coco_small")[1].tasks["coco"].model_dump(mode="json")
    detection["data"] |= {"num_classes": 10, "held_out": 2}
    detection["data"]["train"]["images"], detection["data"]["test"]["images"] = 8, 3
    detection["data"]["test"] |= {"folder": "test2017", "annotations": "annotations/instances_test2017.json"}
    detection |= {"img_size": pixels, "evaluation_batch": 1, "curve_points": 1}
    detection["recipe"] |= short | {"precision": "float32"}
    content = {
        "extends": "imagenet", "data": data, "tasks": {"coco": detection},
        "recipe": short | {"precision": "float32"}, "seeds": [0],
        "recipes": {"finetune": {**short, "lr": 1e-3, "warmup": 0, "weight_decay": 0.05, "layer_decay": 0.75, "drop_path": 0.1}},
        "curve_points": 1, "checkpoint_seconds": 1e9, "together": 1, "evaluation_batch": 3,
    }  # fmt: skip
    (folder / "one_step.yaml").write_text(yaml.safe_dump(content))
    (folder / "each_arm.yaml").write_text(yaml.safe_dump({"title": "Each arm", "arms": list(arms)}))


def make_weights(family, size, folder, seed=0):
    """Random weights of a teacher as its authors or timm publish them."""
    folder.mkdir(parents=True, exist_ok=True)
    teacher = families.spec(family).teacher(size)
    torch.manual_seed(seed)
    if teacher.official is None:
        model = perturbed(timm.create_model(teacher.model, pretrained=False), std=0.05)
        save_file(model.state_dict(), folder / f"{family}-{size}.safetensors")
    else:
        model = perturbed(timm.create_model(teacher.model, pretrained=False, **{**teacher.args, "num_classes": 0}), std=0.05)
        torch.save(LAYOUTS[family](model.state_dict()), folder / f"{family}-{size}.pth")


def run(family, size, folder):
    """(exit code, output, seconds) of the command."""
    words = [
        "run",
        "--family",
        family,
        "--sizes",
        size,
        "--study",
        folder / "each_arm.yaml",
        "--protocol",
        folder / "one_step.yaml",
    ]
    words += ["--data", folder / "images", "--weights", folder / "weights", "--device", "cpu", "--jobs", "1"]
    words += ["--results", folder / "results", "--work", folder / "work"]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "benchmark.cli", *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", default="all")
    parser.add_argument("--sizes")
    parser.add_argument("--arms", type=lambda words: words.split(","), default=ARMS, help="default: all")
    parser.add_argument("--pixels", type=int, default=448, help="of a detector's images (default: 448)")
    parser.add_argument("--folder", type=Path, help="default: a temporary one")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    make_data(folder, args.arms, args.pixels)
    failed = False
    for family, size in teachers_of(args.family, args.sizes):
        make_weights(family, size, folder / "weights")
        code, output, seconds = run(family, size, folder)
        results = read_results(folder / "results")[0]
        mine = {each.cell.arm: each for each in results if (each.cell.family, each.cell.size) == (family, size)}
        whole = code == 0 and set(args.arms) <= set(mine)  # and those that they are compared with
        failed |= not whole
        memory = max((each.cost.peak_memory_mb for each in mine.values()), default=0)
        print(
            f"{family} {size}: {len(mine)} arms, {'done' if whole else 'FAILED'}, {seconds:.0f} s, {memory / 1024:.1f} GiB",
            flush=True,
        )
        if not whole:
            print(output, flush=True)
        shutil.rmtree(folder / "weights")
        shutil.rmtree(folder / "work")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
