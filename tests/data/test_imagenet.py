"""Protocol imagenet through the command, on generated JPEGs: its data, recipe and transfer, at a size that a test can train."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from torchvision.transforms import functional as tv

import families
from benchmark.cli import main
from benchmark.data.images import held_out_of
from benchmark.spec.definitions import run_of
from benchmark.spec.protocol import load_protocol
from benchmark.spec.run import Cell
from benchmark.spec.teacher_source import Pretrained
from benchmark.storage.results import read_results
from benchmark.training.models import timm_args
from families.core.weights import file_digest

from ..conftest import ROOT, command
from ..jpegs import make_folder, wnids
from ..real_sizes import make_weights

CLASSES, BATCHES = 12, 16  # batches of an epoch
SUBSET = (1, 4, 5, 10)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    names = wnids(CLASSES)
    make_folder(root, {"train": 76, "validation": 36}, CLASSES)
    make_folder(root, {"imagenet-a": 24, "imagenet-r": 20}, CLASSES, 1, {names[i]: i for i in SUBSET})
    make_folder(root, {"imagenet-v2": 24}, CLASSES, 2, {str(i): i for i in range(CLASSES)})
    return root


def protocol_file(folder, **changes):
    """Protocol imagenet with few small images and small models, whose teachers it trains itself; all of its recipe is on."""
    small = {"embed_dim": 48, "depth": 4}
    few = {"path": "imagenet-a", "images": 24, "classes": 4}
    content = {
        "extends": "imagenet",
        "data": {
            "num_classes": CLASSES,
            "train": {"split": "train", "images": 76},
            "test": {"split": "validation", "images": 36},
            "held_out": 12,
            "shifted": {
                "imagenet_a": few,
                "imagenet_r": few | {"path": "imagenet-r", "images": 20},
                "imagenet_v2": {"path": "imagenet-v2", "images": 24, "classes": CLASSES, "named_by": "index"},
            },
        },
        "scale": {"img_size": 32, "patch_size": 8, "head_dim": 0.25, "sizes": dict.fromkeys(("small", "base", "large"), small)},
        "teacher": {"floor": 0, "recipe": {"epochs": 1, "batch_size": 16, "lr": 1e-3, "warmup": 0.1, "weight_decay": 0.05}},
        "recipe": {"epochs": 3, "batch_size": 4, "precision": "float32", "layer_decay": 0.9, "ema": 0.9, "drop_path": 0.2},
        "recipes": {"finetune": None},
        "transfer": {"blocks": -1, "teacher_drop_path": True},
        "seeds": [0],
        "curve_points": 6,
        "checkpoint_seconds": 1e9,
        "evaluation_batch": 10,
    } | changes
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    (folder / "few.yaml").write_text("title: Few\narms: [standard-copy, standard-distill]\n")
    return path


def words(folder, images, *more, cluster="local"):
    chosen = ["--family", "dinov2_reg", "--sizes", "base", "--protocol", folder / "small.yaml", "--study", folder / "few.yaml"]
    where = ["--data", images, "--results", folder / "results", "--work", folder / "work", "--device", "cpu", "--jobs", "1"]
    return ["run", *chosen, *where, "--cluster", cluster, *more]


def finish(process, code=0):
    out = process.communicate(timeout=300)[0]
    assert process.returncode == code, out
    return out


def results_of(folder):
    results, rejected = read_results(folder / "results")
    assert not rejected
    return {result.cell.arm: result for result in results}


def numbers(folder):
    return {arm: (found.metrics, found.val, found.curve) for arm, found in results_of(folder).items()}


def test_images_are_checked_by_themselves_and_then_remembered(images, tmp_path, bench, monkeypatch):
    given = ("check", "--protocol", protocol_file(tmp_path), "--data", images, "--work", tmp_path / "work")
    code, out, err = bench(*given)
    assert code == 0 and "the images are those of protocol small, and can be read" in out, err
    monkeypatch.setattr("benchmark.data.image_checks._decode_all", None)
    assert bench(*given)[0] == 0, "they are decoded once"


@pytest.fixture(scope="module")
def alone(images, tmp_path_factory):
    """A request trained by one process."""
    folder = tmp_path_factory.mktemp("alone")
    protocol_file(folder)
    assert main([str(word) for word in words(folder, images, "--tensorboard", cluster="debug")]) == 0
    return folder


def with_teacher(folder, source, **changes):
    """A folder in which only the teacher is trained already, as `source` has it."""
    folder.mkdir(exist_ok=True)
    protocol_file(folder, **changes)
    (key,) = (found.key for arm, found in results_of(source).items() if arm == "teacher")
    shutil.copytree(source / "work" / "runs" / key, folder / "work" / "runs" / key)


def agree(folder, alone):
    """The same runs, the same loss curves to 1e-4."""
    found, expected = results_of(folder), results_of(alone)
    assert found.keys() == expected.keys() and len(found) == 4
    for arm, result in found.items():
        assert result.key == expected[arm].key
        assert len(result.curve) == len(expected[arm].curve) >= 4
        for point, other in zip(result.curve, expected[arm].curve, strict=True):
            assert point.loss == pytest.approx(other.loss, rel=1e-4), arm
        assert result.metrics.loss == pytest.approx(expected[arm].metrics.loss, rel=1e-3)


@pytest.mark.long
def test_two_processes_train_what_one_does_and_a_kill_loses_nothing(images, alone, tmp_path):
    """The same loss curves by gloo, with augmentation, mixup, cutmix and stochastic depth on; killed in the middle of an epoch
    and resumed, number for number those of an uninterrupted request of two processes."""
    shared, killed = tmp_path / "shared", tmp_path / "killed"
    with_teacher(shared, alone)
    with_teacher(killed, alone, checkpoint_seconds=0)
    finish(command(*words(shared, images, "--processes", "2")))
    agree(shared, alone)
    assert [results_of(shared)[arm].cost.ranks for arm in ("standard-none", "standard-copy", "standard-distill")] == [2] * 3

    def saved():
        """The steps of the checkpoints."""
        found = []
        for path in killed.glob("work/runs/*/checkpoint.pt"):
            with suppress(FileNotFoundError):  # its run has just ended
                found.append(torch.load(path, weights_only=True)["progress"]["step"])
        return found

    def caught():
        """Start, kill everything in the middle of a student's epoch, and tell the steps of the checkpoints."""
        process = command(*words(killed, images, "--processes", "2"))
        for _ in range(2000):
            if students_steps(killed) and any(step > 3 and step % BATCHES for step in saved()):
                break
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        for pid in workers(killed):  # which else would train on until they miss their launcher
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        time.sleep(1.5)  # the other rank ends too
        return [step for step in saved() if step > 1 and step % BATCHES]

    assert any(caught() for _ in range(3)), "killed at the end of an epoch each time"
    finish(command(*words(killed, images, "--processes", "2")))
    assert numbers(killed) == numbers(shared)
    logs = "".join(path.read_text() for path in killed.glob("work/runs/*/run.log"))
    assert any(f"training from step {step}" in logs for step in range(2, 3 * BATCHES) if step % BATCHES)


def workers(folder):
    """The first processes of those that train now."""
    found = [json.loads(path.read_text()) for path in folder.glob("work/runs/*/progress.json")]
    return {each["pid"] for each in found if each["state"] == "running"}


def students_steps(folder):
    """Where the students are that train now."""
    found = [json.loads(path.read_text()) for path in folder.glob("work/runs/*/progress.json")]
    return [each["step"] for each in found if each["state"] == "running" and each["steps"] == 3 * BATCHES]


@pytest.mark.long
def test_a_dead_rank_fails_one_run_alone(images, alone, tmp_path):
    """The other rank does not wait for it for ever; the runs beside it go on in the same command, from where they were."""
    with_teacher(tmp_path, alone, checkpoint_seconds=0)
    process = command(*words(tmp_path, images, "--processes", "2"))
    rank = None
    while rank is None:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
        running = max(students_steps(tmp_path), default=0) > 3
        rank = next(iter(ranks_of(tmp_path / "work", 1)), None) if running else None
    os.kill(rank, signal.SIGKILL)
    out = finish(process, code=1)
    assert len([line for line in out.splitlines() if line.startswith("failed: ")]) == 1, out
    found, expected = results_of(tmp_path), results_of(alone)
    assert len(found) == 3, out
    for arm, result in found.items():
        assert result.curve[-1].loss == pytest.approx(expected[arm].curve[-1].loss, rel=1e-4)
    log = "".join(path.read_text() for path in tmp_path.glob("work/runs/*/run.log"))
    assert len([step for step in re.findall(r"training from step (\d+)", log) if int(step) > 0]) >= 2


@pytest.mark.long
def test_a_loss_that_is_not_finite_fails_its_run_in_every_process(images, alone, tmp_path):
    content = yaml.safe_load(protocol_file(tmp_path).read_text())
    content["recipes"]["copy"] = {
        **load_protocol("imagenet")[1].recipe.model_dump(mode="json"),
        **content["recipe"],
        "steps": None,
        "lr": 1e30,
    }
    with_teacher(tmp_path, alone)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content | {"extends": "imagenet"}))
    out = finish(command(*words(tmp_path, images, "--processes", "2")), code=1)
    (line,) = (line for line in out.splitlines() if line.startswith("failed: "))
    assert "standard-copy" in line and "the loss is nan" in line
    found, expected = results_of(tmp_path), results_of(alone)
    assert sorted(found) == ["standard-distill", "standard-none", "teacher"]
    assert found["standard-distill"].curve[-1].loss == pytest.approx(expected["standard-distill"].curve[-1].loss, rel=1e-4)


def ranks_of(work, rank):
    """Process ids of a rank, by submitit's variables in their environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, variables = ((folder / name).read_text(encoding="utf-8") for name in ("cmdline", "environ"))
        except (OSError, ValueError):
            continue
        if str(work) in command and f"SUBMITIT_LOCAL_GLOBALID={rank}" in variables.split("\0"):
            yield int(folder.name)


@pytest.mark.long
def test_two_nodes_by_torchrun_and_parts_of_a_batch(images, alone, tmp_path):
    """What torchrun starts, here as two nodes of one process each, with two images at a time: the same loss curves."""
    with_teacher(tmp_path, alone)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    given = words(tmp_path, images, "--micro-batch", "1", cluster="debug")
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(node), "--nproc-per-node", "1",
             "--master-addr", "127.0.0.1", "--master-port", str(port), "-m", "benchmark.cli", *map(str, given)],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for node in (0, 1)
    ]  # fmt: skip
    outputs = [finish(process) for process in processes]
    assert "trained 3 runs" in outputs[0] and "trained" not in outputs[1]
    agree(tmp_path, alone)


@pytest.mark.long
def test_shifted_sets_are_scored_over_their_own_classes(images, alone):
    """By hand: PIL's pictures resized and cropped, the kept weights, the highest of the four classes' outputs; all classes for
    the set that has them all, whose folders are numbers."""
    protocol = load_protocol(str(alone / "small.yaml"))[1]
    run = run_of(protocol, Cell("small", "dinov2_reg", "base", "standard-distill", 0))
    model = families.load("dinov2_reg").student("base", seed=0, **timm_args(run)).eval()
    (result,) = (found for found in results_of(alone).values() if found.key == run.key)
    model.load_state_dict(torch.load(alone / "work" / "runs" / run.key / "weights.pt", weights_only=True))
    names = wnids(CLASSES)
    found = {"test": result.metrics, **result.evaluations}
    for name, folder in {"imagenet_a": "imagenet-a", "imagenet_r": "imagenet-r", "imagenet_v2": "imagenet-v2",
                         "test": "validation"}.items():  # fmt: skip
        allowed = list(SUBSET) if name in ("imagenet_a", "imagenet_r") else list(range(CLASSES))
        right = count = 0
        loss = 0.0
        for path in sorted((images / folder).glob("*/*")):
            label = int(path.parent.name) if name == "imagenet_v2" else names.index(path.parent.name)
            with Image.open(path) as image:
                small = tv.center_crop(tv.resize(image.convert("RGB"), int(32 / 0.875), tv.InterpolationMode.BICUBIC), [32, 32])
            x = tv.normalize(tv.to_tensor(small), protocol.normalisation.mean, protocol.normalisation.std)
            with torch.no_grad():
                logits = model(x[None])[0]
            chosen = max(allowed, key=lambda each: float(logits[each]))
            right, count = right + (chosen == label), count + 1
            loss -= float(logits[allowed].log_softmax(0)[allowed.index(label)])
        assert found[name].top1 == pytest.approx(100 * right / count), name
        assert found[name].loss == pytest.approx(loss / count, rel=1e-4), name
    rest, held_out = held_out_of(76, 12)
    assert len(rest) == 64 and not set(rest.tolist()) & set(held_out.tolist())


@pytest.mark.long
def test_what_a_run_leaves_on_its_way(alone):
    """A line of JSON for each point, TensorBoard's events, and in the result a digest of the images."""
    for run in (alone / "work" / "runs").iterdir():
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        steps = [line["step"] for line in lines if line["val_top1"] is not None]
        assert steps == sorted(set(steps)) and len(steps) in (4, 6)
        assert all(line["loss"] > 0 and line["images_per_second"] > 0 and line["peak_memory_mb"] > 0 for line in lines)
        assert lines[0]["lr"] > lines[-1]["lr"]
        assert list((run / "tensorboard").glob("events*"))
    digests = {result.provenance.data for result in results_of(alone).values()}
    assert len(digests) == 1 and None not in digests


@pytest.mark.long
def test_a_missing_set_is_no_hindrance_and_comes_later(images, alone, bench, tmp_path):
    """Training goes without it, under the same keys; evaluate adds it, and any other folder of these classes."""
    protocol_file(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    for name in ("train", "validation", "imagenet-r"):
        (data / name).symlink_to(images / name)
    make_folder(data, {"imagenet-v2": 20}, CLASSES, 2, {str(i): i for i in range(CLASSES)})  # not the 24 of the protocol
    (tmp_path / "few.yaml").write_text("title: Few\narms: [standard-distill]\n")
    (key,) = (found.key for arm, found in results_of(alone).items() if arm == "teacher")
    shutil.copytree(alone / "work" / "runs" / key, tmp_path / "work" / "runs" / key)
    code, out, err = bench(*words(tmp_path, data, cluster="debug"))
    assert code == 0, err
    assert "shifted set imagenet_a: no imagenet-a in" in out and "20 images, but the protocol says 24" in out
    found, whole = results_of(tmp_path), results_of(alone)
    for arm in ("standard-distill", "standard-none"):
        assert found[arm].key == whole[arm].key and found[arm].evaluations.keys() == {"imagenet_r"}
        assert found[arm].provenance.data == whole[arm].provenance.data
    digests = {result.evaluations["imagenet_r"].data for result in found.values()}
    assert len(digests) == 1 and digests == {whole["standard-none"].evaluations["imagenet_r"].data}
    given = [word if word != "run" else "evaluate" for word in words(tmp_path, data, cluster="debug")]
    code, _, err = bench(*given, "--sets", "imagenet_a")
    assert code == 2 and "no imagenet-a in" in err and len(err.splitlines()) == 1
    code, out, err = bench(*words(tmp_path, data, cluster="debug"))
    assert code == 0 and "evaluations are not made: no imagenet_a here" in out and "0 to train on" in out, err
    (data / "imagenet-a").symlink_to(images / "imagenet-a")
    (data / "Sketch").symlink_to(images / "imagenet-r")
    code, out, err = bench(*given, "--sets", f"imagenet_a,{data / 'Sketch'}:4")
    assert code == 0 and "0 to train and" in out, err
    for arm, result in results_of(tmp_path).items():
        assert result.evaluations["imagenet_a"].top1 == whole[arm].evaluations["imagenet_a"].top1
        assert result.evaluations["sketch"].top1 == result.evaluations["imagenet_r"].top1
    for word, said in (("5", "4 classes, but the protocol says 5"), ("x", "not a whole number")):
        code, _, err = bench(*given, "--sets", f"{data / 'Sketch'}:{word}")
        assert code == 2 and said in err and len(err.splitlines()) == 1
    code, _, err = bench(*given, "--sets", f"{data / 'none'}:4")
    assert code == 2 and "no such folder or tar" in err


# ---- requests that are wrong, before anything is trained


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": {"split": "train", "images": 75}}, "76 images, but the protocol says 75"),
        ({"num_classes": 11}, "12 classes, but the protocol says 11"),
        ({"test": {"split": "tset", "images": 36}}, "no split 'tset'"),
    ],
)
def test_a_wrong_folder_is_said_before_the_first_step(bench, images, tmp_path, change, said):
    content = yaml.safe_load(protocol_file(tmp_path).read_text())
    content["data"] |= change
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content))
    code, _, err = bench(*words(tmp_path, images))
    assert code == 2 and said in err and len(err.splitlines()) == 1
    assert not list(tmp_path.glob("work/runs/*/progress.json"))


def test_an_unreadable_image_is_said_before_the_first_step(bench, images, tmp_path):
    make_folder(tmp_path / "data", {"train": 76, "validation": 36}, CLASSES)
    broken = next((tmp_path / "data" / "train").glob("*/*"))
    broken.write_bytes(broken.read_bytes()[:300])
    content = yaml.safe_load(protocol_file(tmp_path).read_text())
    content["data"]["shifted"] = {}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content))
    code, _, err = bench(*words(tmp_path, tmp_path / "data"))
    assert code == 2 and str(broken) in err and len(err.splitlines()) == 1
    assert not list(tmp_path.glob("work/runs/*/progress.json"))


def test_other_wrong_requests(bench, images, tmp_path):
    protocol_file(tmp_path)
    for more, said in (
        (("--processes", "3"), "is not a multiple of twice the 3 processes"),
        (("--micro-batch", "0"), "--micro-batch 0: at least 1"),
        (("--data", tmp_path / "nowhere"), "no such folder"),
    ):
        code, _, err = bench(*words(tmp_path, images, *more))
        assert code == 2 and said in err and len(err.splitlines()) == 1, err
    given = [each for each in words(tmp_path, images) if each not in ("--data", images)]
    code, _, err = bench(*given)
    assert code == 2 and "--data" in err
    assert bench(*given, "--dry-run")[0] == 0


# ---- pre-trained teachers


@pytest.fixture(scope="module")
def hosted(images, tmp_path_factory):
    """DeiT tiny's architecture at its real size: a folder with its weights, a protocol of one step, and what came of it."""
    folder = tmp_path_factory.mktemp("hosted")
    make_weights("deit", "tiny_in1k", folder / "weights")
    content = yaml.safe_load(protocol_file(folder).read_text())
    kept = {key: content[key] for key in ("extends", "data", "seeds")} | {"evaluation_batch": 12, "curve_points": 1}
    kept["data"]["shifted"] = {}
    kept["recipe"] = {"epochs": None, "steps": 1, "batch_size": 2, "precision": "float32"}
    kept["recipes"] = {"finetune": None}
    (folder / "small.yaml").write_text(yaml.safe_dump(kept))
    (folder / "few.yaml").write_text("title: Few\narms: [standard-copy, finetune]\n")
    given = words(folder, images, "--weights", folder / "weights", "--sizes", "tiny_in1k", "--family", "deit", cluster="debug")
    assert main([str(word) for word in given]) == 0
    return folder, given


@pytest.mark.long
def test_a_result_tells_which_weights_it_loaded(hosted):
    folder, _ = hosted
    results = results_of(folder)
    assert sorted(results) == ["finetune", "standard-copy", "standard-none"]
    digest = file_digest(folder / "weights" / "deit-tiny_in1k.safetensors")
    for arm in ("finetune", "standard-copy"):
        teacher = results[arm].teacher
        source = "deit-tiny_in1k.safetensors, put there by hand in place of hub:timm/deit_tiny_patch16_224.fb_in1k"
        assert (teacher.source, teacher.sha256, teacher.top1) == (source, digest, None)
        assert results[arm].run.teacher == Pretrained(weights="deit_tiny_patch16_224.fb_in1k")
    assert results["standard-none"].teacher is None


@pytest.mark.long
def test_other_weights_do_not_mix_with_results_of_the_first(bench, hosted, tmp_path):
    folder, given = hosted
    make_weights("deit", "tiny_in1k", tmp_path / "weights", seed=1)
    code, _, err = bench(*given, "--weights", tmp_path / "weights", "--seeds", "0,1")
    assert code == 2 and "is not the file that made" in err and str(folder / "results") in err


@pytest.mark.long
def test_other_images_do_not_mix_with_results_of_the_first(bench, hosted, images, tmp_path):
    folder, given = hosted
    shutil.copytree(images, tmp_path / "data")
    changed = next((tmp_path / "data" / "train").glob("*/*"))
    Image.open(changed).resize((40, 40)).save(changed)
    code, _, err = bench(*given, "--data", tmp_path / "data", "--seeds", "0,1")
    assert code == 2 and "are not those that made" in err and str(folder / "results") in err


@pytest.mark.long
def test_wrong_weights_are_said_before_the_first_step(bench, hosted, tmp_path):
    _, given = hosted
    (tmp_path / "weights").mkdir()
    wrong = tmp_path / "weights" / "deit-tiny_in1k.pth"
    for content, said in ((b"<!DOCTYPE html><html>404</html>", "web page"), (b"", "empty")):
        wrong.write_bytes(content)
        code, _, err = bench(*given, "--weights", tmp_path / "weights", "--seeds", "0,1", "--results", tmp_path / "results")
        assert code == 2 and str(wrong) in err and said in err and len(err.splitlines()) == 1
    assert not list((tmp_path / "results").rglob("*.json"))


@pytest.mark.long
def test_missing_weights_offline_are_explained(bench, hosted, tmp_path, monkeypatch):
    from huggingface_hub import constants

    _, given = hosted
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    where = ("--weights", tmp_path / "weights", "--seeds", "0,1", "--results", tmp_path / "results")
    code, _, err = bench(*given, *where)
    assert code == 2 and "bench fetch --family deit --sizes tiny_in1k" in err and len(err.splitlines()) == 1
    code, out, _ = bench("fetch", "--family", "deit", "--sizes", "tiny_in1k", "--weights", tmp_path / "weights")
    assert code == 1 and "bench fetch --family deit --sizes tiny_in1k" in " ".join(out.split())


@pytest.mark.long
def test_fetch_lists_what_is_there(bench, hosted):
    folder, _ = hosted
    code, out, _ = bench("fetch", "--family", "deit", "--sizes", "tiny_in1k", "--weights", folder / "weights")
    assert (
        code == 0
        and "deit-tiny_in1k.safetensors" in out
        and file_digest(folder / "weights" / "deit-tiny_in1k.safetensors")[:12] in out
    )
