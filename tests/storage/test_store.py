"""Result files: whole or not there; what is invalid is named and left out; what is out of date is shown as stale."""

import json
import os
import re

import pytest
import torch

import families
from benchmark.analysis.sorting import sort_results
from benchmark.data import DataLocation, load
from benchmark.spec.definitions import Definitions
from benchmark.spec.protocol import Protocol
from benchmark.spec.records import validated
from benchmark.storage.files import sealed, write_json
from benchmark.storage.result_file import Rejected, read_result
from benchmark.storage.results import Results, read_results
from benchmark.storage.work_folder import NO_PROGRESS, Workspace
from families.spec import UserError

from ..conftest import tiny_protocol

DEFAULTS = {"teacher_precision": None, "compile_teacher": False, "teacher_drop_path": False, "part": "map", "sinks": "keep"}
DEFAULTS |= {"pairing": "usual", "resized": False}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A results folder with one family's students, really trained (a few steps)."""
    import yaml

    from benchmark.cli import main

    root = tmp_path_factory.mktemp("measured")
    protocol = root / "tiny.yaml"
    protocol.write_text(yaml.safe_dump(tiny_protocol()))
    words = ["run", "--family", "dinov2_reg", "--sizes", "base", "--protocol", protocol, "--seeds", "0,1", "--cluster", "debug"]
    assert main([str(word) for word in [*words, "--results", root / "results", "--work", root / "work"]]) == 0
    return root


@pytest.fixture
def results(measured, tmp_path):
    """A copy of it to break."""
    import shutil

    shutil.copytree(measured / "results", tmp_path / "results")
    return tmp_path / "results"


def one(results, name="standard-copy-s0"):
    return results / "tiny" / "dinov2_reg" / "base" / f"{name}.json"


def test_schema_2(results):
    """What outside tools rely on."""
    content = json.loads(one(results, "standard-distill-s1").read_text())
    assert content["schema"] == 2
    run = content["run"]
    assert [run[name] for name in ("family", "size", "arm", "seed")] == ["dinov2_reg", "base", "standard-distill", 1]
    assert run["protocol"]["name"] == "tiny" and run["student"]["components"] == {}
    given = {"method": "distill", "blocks": [0, 1], "loss": "ce", "weight": 1.0, "source": "teacher"}
    assert run["transfer"] == given | DEFAULTS
    metrics = content["metrics"]
    assert 0 <= metrics["top1"] <= metrics["top5"] <= 100
    assert metrics["on"] == {"set": "test", "images": 80, "hues": 1}
    assert content["val"]["on"] == {"set": "val", "images": 60, "hues": 1}
    assert set(content["evaluations"]) == {"unseen_colours", "noise"}
    noise = content["evaluations"]["noise"]
    assert set(noise) == {"top1", "top5", "loss", "on", "date", "code"} and noise["on"]["noise_std"] == 0.2
    assert not {"val_images", "test_images", "noise_std"} & set(run["protocol"]["data"])
    assert len(metrics["attention_kl"]) == 2 and min(metrics["attention_kl"]) > 0
    assert len(content["curve"]) == 2 and content["curve"][-1]["step"] == 4
    teacher = json.loads(one(results, "teacher-s1").read_text())
    assert content["teacher"]["source"] == f"run {teacher['key']}"
    assert content["teacher"]["top1"] == teacher["metrics"]["top1"]
    assert len(content["teacher"]["sha256"]) == 64
    assert content["cost"]["images_per_second"] > 0
    provenance = content["provenance"]
    assert set(provenance["versions"]) == {
        "attention-transfer-bench",
        "python",
        "torch",
        "torchvision",
        "timm",
        "numpy",
        "scikit-learn",
        "pillow",
        "pycocotools",
    }
    assert len(provenance["code"]) == 64 and provenance["threads"] == 1 and provenance["cpu"] and provenance["gpu"] is None


def test_dropped_mass_is_recorded_where_tokens_are_dropped(measured, results):
    """Registers: the standard student lacks them, the matched one has them. The number is that of the teacher's own
    maps, computed here without fused attention."""
    content = json.loads(one(results, "standard-copy-s0").read_text())
    weights = measured / "work" / "runs" / content["teacher"]["source"].removeprefix("run ") / "weights.pt"
    geometry = content["run"]["student"]["geometry"]
    teacher = families.load("dinov2_reg").teacher("base", pretrained=False, num_classes=10, global_pool="token", **geometry)
    teacher.load_state_dict(torch.load(weights, weights_only=True))
    maps = []
    for block in teacher.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, args, output: maps.append(args[0]))
    protocol = validated(Protocol, tiny_protocol(), "tiny")
    images = next(load(protocol.data, DataLocation(), 24, protocol.normalisation).evaluate("test", 1000))[0]
    with torch.no_grad():
        teacher((images - 0.19) / 0.33)
    kept = [0, *range(5, 14)]
    expected = [each[:, :, kept][..., 1:5].sum(-1).mean().item() for each in maps]
    assert content["metrics"]["dropped_mass"] == pytest.approx(expected, abs=1e-5)
    assert json.loads(one(results, "matched-copy-s0").read_text())["metrics"]["dropped_mass"] is None
    assert json.loads(one(results, "standard-copy-s0").read_text())["metrics"]["attention_kl"] is None


def resealed(text):
    return json.dumps(sealed(json.loads(text)))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[: len(text) // 2], "not JSON"),
        (lambda text: "", "not JSON"),
        (lambda text: "[1, 2]", "schema 'none'"),
        (lambda text: text.replace('"schema": 2', '"schema": 3'), "schema 3, not 2"),
        (lambda text: text.replace('"schema": 2', '"schema": 1'), "bench check --convert RESULTS"),
        (lambda text: re.sub(r'"top1": ([0-9.]+)', '"top1": 55.5', text), "edited, or damaged"),
        (lambda text: text.replace('"date": "2', '"date": "3'), "edited, or damaged"),
        (lambda text: re.sub(r'"top1": ([0-9.]+)', r'"top1": "\1"', text), "top1: Input should be a valid number"),
        (lambda text: text.replace('"seed": 0', '"seed": false'), "seed: Input should be a valid integer"),
        (lambda text: re.sub(r'"top1": [0-9.]+', '"top1": 101', text), "top1"),
        (lambda text: re.sub(r'"top1": [0-9.]+', '"top1": NaN', text), "top1"),
        (lambda text: resealed(text.replace('"weight_decay": 0.05', '"weight_decay": 0.1')), "is not that of its run"),
        (lambda text: resealed(text.replace('"family": "dinov2_reg"', '"family": "dinov2"')), "its labels belong to"),
        (lambda text: text.replace('"seconds"', '"secs"'), "cost"),
    ],
)
def test_an_invalid_file_is_named_and_left_out(results, damage, reason):
    path = one(results)
    path.write_text(damage(path.read_text()))
    rejected = read_result(path)
    assert isinstance(rejected, Rejected) and reason in rejected.reason
    good, bad = read_results(results)
    assert len(good) == 13 and [item.path for item in bad] == [path]


def test_report_counts_the_others(measured, results, bench):
    one(results).write_text("{")
    code, out, _ = bench("report", "--results", results, "--protocol", measured / "tiny.yaml")
    assert code == 0
    assert "left out: tiny/dinov2_reg/base/standard-copy-s0.json: not JSON" in out
    assert "dinov2_reg base" in out
    page = (results.parent / "reports" / "leaderboard.md").read_text()
    assert "standard-copy-s0.json: not JSON" in page


def test_a_changed_protocol_makes_results_stale(results):
    good = read_results(results)[0]
    same = {"tiny": Definitions(validated(Protocol, tiny_protocol(), "tiny"))}
    assert not sort_results(good, [], same).stale
    content = tiny_protocol()
    content["recipe"]["lr"] = 0.01
    changed = sort_results(good, [], {"tiny": Definitions(validated(Protocol, content, "tiny"))})
    assert {result.cell.arm for result in changed.current} == {"teacher"}
    assert len(changed.stale) == 12


def test_a_stale_result_is_trained_again_and_kept_aside(measured, results, tmp_path, bench, unreported):
    import yaml

    content = tiny_protocol()
    content["recipe"]["lr"] = 0.01
    protocol = tmp_path / "tiny.yaml"
    protocol.write_text(yaml.safe_dump(content))
    before = json.loads(one(results).read_text())
    words = ("run", "--family", "dinov2_reg", "--sizes", "base", "--protocol", protocol, "--seeds", "0", "--cluster", "debug")
    assert bench(*words, "--results", results, "--work", tmp_path / "work")[0] == 0
    after = json.loads(one(results).read_text())
    assert after["run"]["protocol"]["recipe"]["lr"] == 0.01 and after["key"] != before["key"]
    kept = list((tmp_path / "work" / "superseded").rglob("standard-copy-s0.json.*"))
    assert [json.loads(path.read_text()) for path in kept] == [before]


def test_writing_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    write_json(path, {"a": 1})

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    with pytest.raises(ValueError, match="Out of range|not JSON compliant"):
        write_json(path, {"a": float("nan")})


def test_files_of_a_kill_are_not_read_as_results(results):
    (results / "tiny" / "dinov2_reg" / "base" / ".standard-copy-s0.json.17.tmp").write_text("{")
    good, bad = read_results(results)
    assert len(good) == 14 and not bad


def test_a_folder_that_cannot_be_made(tmp_path):
    from benchmark.storage.files import ensure_writable

    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--results .*file/below: cannot be made or written"):
        ensure_writable("--results", tmp_path / "file" / "below")


def test_an_empty_work_folder_has_nothing(tmp_path):
    workspace = Workspace(tmp_path)
    assert workspace.payload("x") is None and workspace.progress("x") == NO_PROGRESS and workspace.error("x") is None
    assert Results(tmp_path).folder == tmp_path
