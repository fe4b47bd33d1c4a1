"""What docs/speed.md tells of a GPU: the cost of steps, how busy a training keeps the device, and where a step's time goes.

    python -m tests.gpu.measure [--parts steps,busy,profile] [--data DIR] [--folder DIR]
    python -m tests.gpu.measure --device cpu --tiny     # tries the script itself

`steps`: `bench speed` at 224 px, batch 128, bfloat16: ViT-B with 9 of 12 blocks, ViT-L with 21 of 24, and a student with a bias.
`busy`: DeiT base with random weights and its six arms, 200 steps by protocol imagenet's recipe on generated JPEGs of ImageNet's
size; with `--data`, DINOv2 small on the Fashion-MNIST of that folder by protocol fashion's. Utilisation is nvidia-smi's, sampled
five times a second while students train. `profile`: torch.profiler's table for steps of ViT-B; traces go into the folder.
About 15 minutes and 40 GB of GPU memory.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml
from torch.profiler import ProfilerActivity, profile

from benchmark.cli import main as bench
from benchmark.storage.results import read_results
from benchmark.tools.speed import METHODS, Bench, setting_of

from ..jpegs import make_folder
from ..real_sizes import ROOT, make_weights

STEPS = [["--family", "deit", "--size", "base", "--blocks", "9"], ["--family", "deit3", "--size", "large", "--blocks", "21"],
         ["--family", "beitv2", "--size", "base", "--blocks", "9", "--matched", "--no-yardstick"]]  # fmt: skip
PARTS = ("steps", "busy", "profile")
CLASSES, LOADERS = 10, 12


def steps(args):
    for words in STEPS[: 1 if args.tiny else None]:
        small = (
            ["--size", "small", "--batch", "2", "--rounds", "1"] if args.tiny else ["--batch", "128", "--precision", "bfloat16"]
        )
        assert bench(["speed", *words, *small, "--device", args.device]) == 0


def jpegs(args):
    """Arguments of a request on generated JPEGs."""
    count, batch, length = (16, 2, 2) if args.tiny else (2000, 128, 200)
    make_folder(args.folder / "jpegs", {"train": count, "validation": CLASSES}, CLASSES, sizes=(375, 500))
    make_weights("deit", "small" if args.tiny else "base", args.folder / "weights")
    content = {
        "extends": "imagenet",
        "data": {"num_classes": CLASSES, "train": {"split": "train", "images": count}, "held_out": CLASSES // 2, "shifted": {},
                 "test": {"split": "validation", "images": CLASSES}},
        "recipe": {"epochs": None, "steps": length, "batch_size": batch}, "recipes": {"finetune": None}, "seeds": [0],
        "curve_points": 1,
    }  # fmt: skip
    (args.folder / "jpegs.yaml").write_text(yaml.safe_dump(content))
    where = ["--data", args.folder / "jpegs", "--weights", args.folder / "weights"]
    return ["--protocol", args.folder / "jpegs.yaml", "--family", "deit", "--sizes", "small" if args.tiny else "base", *where]


def fashion(args):
    """Arguments of a request whose images lie decoded in memory."""
    make_weights("dinov2", "small", args.folder / "weights")
    small = ["recipe.steps=2", "recipe.batch_size=4"] if args.tiny else ["recipe.steps=400"]
    settings = [word for each in (*small, "recipe.epochs=null", "curve_points=1") for word in ("--set", each)]
    where = ["--data", args.data, "--weights", args.folder / "weights"]
    return ["--protocol", "fashion", "--family", "dinov2", "--sizes", "small", "--seeds", "0", *settings, *where]


def busy(args):
    for name, words in (("JPEGs", jpegs(args)), *([("memory", fashion(args))] if args.data else [])):
        folder = args.folder / name
        there = ["--work", folder / "work", "--results", folder / "results", "--reports", folder / "reports", "--jobs", "1"]
        command = ["run", *words, *there, "--device", args.device, "--workers", 0 if args.tiny else LOADERS]
        with (args.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen([sys.executable, "-m", "benchmark.cli", *map(str, command)], stdout=log, stderr=log,
                                       env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
        samples = []
        while process.poll() is None:
            time.sleep(0.2)
            if students_train(folder / "work") and shutil.which("nvidia-smi"):
                samples.append(utilisation())
        assert process.returncode == 0, (args.folder / f"{name}.log").read_text()
        found = read_results(folder / "results")[0]
        arms = ", ".join(f"{each.cell.arm} {each.cost.seconds:.0f} s" for each in found)
        told = f"busy {statistics.mean(samples):.0f} % of {len(samples)} samples" if samples else "no utilisation here"
        print(f"images from {name}: {told}; {arms}", flush=True)


def students_train(work):
    for path in work.glob("runs/*/progress.json"):
        try:
            found = json.loads(path.read_text())
        except (ValueError, OSError):
            continue
        if found["state"] == "running" and 0.1 * found["steps"] < found["step"] < 0.95 * found["steps"]:
            return True
    return False


def utilisation():
    words = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[0])


def profiled(args):
    size, batch, precision = ("small", 2, "float32") if args.tiny else ("base", 128, "bfloat16")
    plain = {"matched": False, "compile": False, "compile_teacher": False, "held": None, "threads": torch.get_num_threads()}
    precisions = {"precision": precision, "teacher_precision": precision}
    setting = setting_of("deit", size, batch, None, blocks=9, device=args.device, **plain, **precisions)
    for kind in METHODS:
        here = Bench(setting, [kind])
        here.step(kind)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if args.device.startswith("cuda") else [])]
        with profile(activities=activities) as seen:
            for _ in range(1 if args.tiny else 5):
                here.step(kind)
        by = "self_device_time_total" if args.device.startswith("cuda") else "self_cpu_time_total"
        print(kind, seen.key_averages().table(sort_by=by, row_limit=15, max_name_column_width=60), sep="\n", flush=True)
        seen.export_chrome_trace(str(args.folder / f"{kind}.json.gz"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=lambda words: words.split(","), default=PARTS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", type=Path, help="a folder with Fashion-MNIST")
    parser.add_argument("--folder", type=Path, help="default: a temporary one")
    parser.add_argument("--tiny", action="store_true", help="small models, few steps")
    args = parser.parse_args()
    args.folder = args.folder or Path(tempfile.mkdtemp())
    for part in args.parts:
        {"steps": steps, "busy": busy, "profile": profiled}[part](args)


if __name__ == "__main__":
    main()
