"""`bench speed` as users call it: it measures what runs do, and plans are estimated by it. No test judges a time."""

import json

import pytest
import torch
import yaml
from PIL import Image

from benchmark.storage.measurements import protocol_setting
from benchmark.tools import speed
from benchmark.tools.speed import Bench
from families.core.adapter import Adapter

from ..conftest import perturbed, tiny_protocol


@pytest.mark.long
def test_speed_and_the_estimate_by_it(bench, tiny, tmp_path):
    work, results = ("--work", tmp_path / "work"), ("--results", tmp_path / "results")
    request = ("run", "--family", "deit3", "--sizes", "base", "--protocol", tiny, "--seeds", "0", "--dry-run", *work, *results)
    code, out, _ = bench(*request)
    assert code == 0 and "no measured estimate" in out
    words = ("--family", "deit3", "--size", "base", "--protocol", tiny, "--rounds", "3", *work)
    code, out, err = bench("speed", *words, "--json")
    assert code == 0, err
    found = json.loads(out)
    for kind in ("plain", "copy", "distill", "explicit_copy", "explicit_distill"):
        row = found[kind]
        assert row["quartiles"][0] <= row["seconds"] <= row["quartiles"][1]
        assert row["peak_memory_mb"] > 0
        assert row["seconds"] == pytest.approx(sum(row["phases"].values()), rel=0.5)
    assert found["plain"]["ratio"] == 1
    assert found["copy"]["ratio"] == pytest.approx(found["copy"]["seconds"] / found["plain"]["seconds"], rel=0.01)
    assert found["second_copy"]["seconds"] < found["copy"]["seconds"]
    assert found["formulation"] == "maps" and found["tokens"] == 10 and found["rounds"] == 3
    assert found["setting"]["batch"] == 16 and found["setting"]["threads"] == 1
    assert found["data"]["workers_needed"]["plain"] > 0
    assert found["provenance"]["code"]
    (path,) = (tmp_path / "work").glob("speed/tiny/*.json")
    for row in ("plain", "second_copy", "second_distill", "teacher"):
        found[row]["seconds"] = round(3600 * found[row]["seconds"], 3)
    path.write_text(json.dumps(found))
    code, out, _ = bench(*request, "--jobs", "1", "--json")
    estimated = json.loads(out)["estimate"]
    assert estimated["runs"] == estimated["covered"] == 7 and estimated["same_code"]
    # A teacher of 6 steps and six students of 4, who pay their teacher once.
    each = {row: found[row]["seconds"] for row in ("plain", "second_copy", "second_distill", "teacher")}
    students = 2 * (each["plain"] + each["second_copy"] + each["second_distill"])
    assert 3600 * estimated["hours"] == pytest.approx(6 * each["plain"] + 4 * (students + each["teacher"]), rel=1e-6)
    assert estimated["process_hours"] == pytest.approx(estimated["hours"])
    found["provenance"]["code"] = "other"
    path.write_text(json.dumps(found))
    code, out, _ = bench(*request)
    assert code == 0 and "estimated for 7 of 7 runs" in out and "measured with other code" in out
    found["setting"]["batch"] = 17
    path.write_text(json.dumps(found))
    assert "no measured estimate" in bench(*request)[1]


def test_a_dry_run_tells_what_finished_runs_took(bench, tiny, tmp_path, unreported):
    where = ("--results", tmp_path / "results", "--work", tmp_path / "work")
    words = ("run", "--family", "deit3", "--sizes", "base", "--protocol", tiny, *where)
    assert bench(*words, "--seeds", "0", "--cluster", "debug")[0] == 0
    code, out, _ = bench(*words, "--seeds", "0,1", "--dry-run", "--json")
    found = json.loads(out)
    assert code == 0 and found["todo"] == 7 and found["bill"]["disk_gb"] > 0
    results = [json.loads(path.read_text()) for path in (tmp_path / "results").glob("tiny/deit3/base/*-s0.json")]
    seconds = [result["cost"]["seconds"] for result in results]
    assert len(seconds) == 7
    # The other seed's students and its teacher have as many steps.
    assert found["experience"] == {
        "runs": 7, "covered": 7, "device_hours": pytest.approx(sum(seconds) / 3600), "devices": ["cpu"],
    }  # fmt: skip
    assert "of cpu for 7 of 7 runs" in bench(*words, "--seeds", "0,1", "--dry-run")[1]
    longer = tiny_protocol()
    longer["recipe"]["steps"] *= 3  # other steps, the same cost of each
    tiny.write_text(yaml.safe_dump(longer))
    found = json.loads(bench(*words, "--seeds", "0", "--dry-run", "--json")[1])
    assert found["experience"]["covered"] == 0, "results of another protocol are no runs of this plan"


def test_every_kind_of_step_is_the_arm_it_is_called(monkeypatch):
    """The steps agree with the written-out ones: same model, same images, same loss."""
    for name in ("teacher", "student"):
        fresh = getattr(Adapter, name)
        monkeypatch.setattr(Adapter, name, lambda *a, fresh=fresh, **k: perturbed(fresh(*a, **k)))
    protocol = speed.Protocol.model_validate(tiny_protocol())
    bench = Bench(protocol_setting(protocol, "beitv2", "base", True, "cpu"), speed.METHODS + speed.YARDSTICKS)
    losses = {}
    monkeypatch.setattr(bench.student.optimizer, "step", lambda: None)
    monkeypatch.setattr(bench.explicit_optimizer, "step", lambda: None)
    real = torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda self: losses.update({kind: float(self.detach())}) or real(self))
    for kind in bench.kinds:
        phases = bench.step(kind)
        assert list(phases) == ["teacher", "forward", "backward", "update"]
    assert losses["copy"] == pytest.approx(losses["explicit_copy"], abs=1e-5)
    assert losses["distill"] == pytest.approx(losses["explicit_distill"], abs=1e-4)
    assert len({round(losses[kind], 4) for kind in speed.METHODS}) == 3


def test_a_student_without_the_teachers_tokens_has_no_yardstick(bench, tiny, tmp_path, monkeypatch):
    words = ("--family", "dinov2_reg", "--protocol", tiny, "--rounds", "1", "--work", tmp_path / "work")
    monkeypatch.setattr(speed, "_in_own_process", lambda setting, kind: 1.0)
    code, out, _ = bench("speed", *words)
    assert code == 0 and "distill beside another arm" in out and "written out" not in out


def test_the_loader_is_measured_on_real_images(tmp_path):
    for number in range(4):
        path = tmp_path / "images" / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((320, 240), 60).convert("RGB").save(path)
    found = speed.measure_images(tmp_path / "images", 64, seconds=0.3)
    assert 0 < found["images_per_second_per_worker"] < found["decode_images_per_second"]
    needed = speed.limits({kind: {"images_per_second": 100.0} for kind in speed.METHODS}, found)
    assert needed["copy"] == pytest.approx(100 / found["images_per_second_per_worker"], rel=0.01)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--family", "dit"], "did you mean 'deit'"),
        (["--family", "deit", "--size", "bse"], "did you mean 'base'"),
        (["--family", "deit", "--blocks", "13"], "--blocks 13: from 1 to 12"),
        (["--family", "deit", "--img-size", "100"], "img_size 100: no multiple of 16"),
        (["--family", "deit", "--rounds", "0"], "--rounds 0: at least 1"),
        (["--family", "deit", "--precision", "float16"], "did you mean 'bfloat16'"),
        (["--family", "deit", "--formulation", "map"], "did you mean 'maps'"),
        (["--family", "deit", "--protocol", "mini", "--batch", "4"], "--batch goes without --protocol"),
        pytest.param(["--family", "deit", "--batch", "1000000"], "a step of plain cannot be taken here", marks=pytest.mark.long),
        (["--family", "deit", "--batch", "100000000"], "--batch 100000000: at most 1048576"),
        (["--family", "deit", "--device", "cuba"], "--device 'cuba'"),
        (["--family", "deit", "--images", "nowhere"], "--images nowhere"),
    ],
)
def test_wrong_requests(words, told, bench):
    code, _, err = bench("speed", *words)
    assert code == 2 and told in err and len(err.strip().splitlines()) == 1
