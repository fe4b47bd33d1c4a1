"""Result files of schema 1, written out here as they were, become those of schema 2."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest

from benchmark.analysis.sorting import sort_results
from benchmark.cli import main
from benchmark.spec.arm import trained_arm
from benchmark.spec.data_sets import CuedDigits
from benchmark.spec.definitions import Definitions
from benchmark.spec.run import Cell
from benchmark.storage.result_file import read_result
from benchmark.storage.results import read_results

from .. import made

SCORE = {"top5": 99.0, "loss": 1.0}
TRAINED = ["teacher", "finetune", "standard-none", "standard-distill", "standard-copy+source=average",
           "standard-copy+source=other-image", "standard-copy+source=uniform"]  # fmt: skip
EVALUATED = ["standard-distill+ensemble=finetuned", "standard-none+match=end"]


def old_key(arm):
    return f"{abs(hash(arm)):016x}"[:16]


def old_content(arm, top1):
    """What schema 1 held: evaluation sets in the run, shifted scores among the metrics, old keys."""
    cell = Cell("mini", "deit", "base", arm, 0)
    content = made.content_of(replace(cell, arm=trained_arm(arm)), top1)
    data = {"name": "cued_digits", "val_images": 1000, "test_images": 2000, "noise_std": 0.2}
    run = content["run"] | {"arm": arm}
    run["protocol"] = run["protocol"] | {"data": data, "evaluation_batch": 500}
    teacher = {} if arm in ("teacher", "standard-none") else {"run": old_key("teacher")}
    if "ensemble=" in arm:
        run["role"], teacher = "ensemble", teacher | {"student": old_key("standard-distill"), "ensemble": old_key("finetune")}
    if "match=" in arm:
        run["role"] = "match"
        teacher = {"run": old_key("teacher"), "student": old_key("standard-none")}
        run["transfer"] = run["transfer"] | {"method": "match", "blocks": [0, 1, 2, 3]}
    shift = {name: SCORE | {"top1": top1 - 10} for name in ("noise", "unseen_colours")}
    metrics = SCORE | {"top1": top1, "shift": shift, "attention_kl": [0.5] * 4 if "match=" in arm else None, "dropped_mass": None}
    told = {"source": f"run {old_key('teacher')}", "sha256": None, "revision": None, "top1": 97.0, "how": "-"}
    new = {"schema": 1, "key": old_key(arm), "run": run | {"teacher": teacher or None}, "metrics": metrics}
    kept = {name: content[name] for name in ("curve", "cost", "provenance")}
    return kept | new | {"val": SCORE | {"top1": top1}, "teacher": told if teacher else None}


@pytest.fixture
def old(tmp_path):
    folder = tmp_path / "results" / "mini" / "deit" / "base"
    folder.mkdir(parents=True)
    for number, arm in enumerate([*TRAINED, *EVALUATED]):
        (folder / f"{arm}-s0.json").write_text(json.dumps(old_content(arm, 50.0 + number)))
    return folder


def test_schema_1_is_named_with_the_command_that_converts_it(old):
    path = old / "standard-none-s0.json"
    assert read_result(path).reason == "schema 1, not 2: rewrite this folder's files by bench check --convert RESULTS"


@pytest.fixture
def first_edition(monkeypatch):
    """Protocol mini's runs if the embedded task were still in the edition that schema 1 knew."""
    real = CuedDigits.training
    monkeypatch.setattr(CuedDigits, "training", lambda *a, **k: real(*a, **k).model_copy(update={"edition": 1}))
    return {"mini": Definitions(made.PROTOCOLS["mini"])}


def test_the_first_editions_results_are_stale(old, tmp_path):
    assert main(["check", "--convert", str(tmp_path / "results")]) == 0
    found = sort_results(*read_results(tmp_path / "results"), made.DEFINED)
    assert len(found.stale) == len(TRAINED) and not found.current


def test_what_was_measured_is_kept_under_new_keys(old, tmp_path, capsys, first_edition):
    assert main(["check", "--convert", str(tmp_path / "results")]) == 0
    assert "7 result files rewritten, 2 merged into those of their students" in capsys.readouterr().out
    results, rejected = read_results(tmp_path / "results")
    sorted_ = sort_results(results, rejected, first_edition)
    assert not sorted_.stale and not sorted_.rejected
    found = {result.cell.arm: result for result in sorted_.current}
    assert found.keys() == {*TRAINED, *EVALUATED}
    for number, arm in enumerate([*TRAINED, *EVALUATED]):
        assert found[arm].metrics.top1 == 50.0 + number
        assert found[arm].key == first_edition["mini"].key_of(found[arm].cell)
        if arm in TRAINED or "ensemble=" in arm:
            shifted = {name: score.top1 for name, score in found[arm].shifted.items()}
            assert shifted == dict.fromkeys(("noise", "unseen_colours"), 40.0 + number)
        if arm in TRAINED:
            assert found[arm].val.top1 == 50.0 + number
    assert found["standard-none+match=end"].metrics.attention_kl == [0.5] * 4
    assert found["standard-distill"].teacher.source == f"run {found['teacher'].key}"
    assert found["standard-copy+source=uniform"].teacher is None
    before = {path: path.read_text() for path in old.glob("*.json")}
    assert main(["check", "--convert", str(tmp_path / "results")]) == 0
    assert {path: path.read_text() for path in old.glob("*.json")} == before


def test_an_interrupted_conversion_goes_on(old, tmp_path, monkeypatch, capsys):
    """Whenever it is killed: what others need is written last, and the same command again does the rest."""
    from benchmark.tools import convert

    whole = None
    for many in range(1, 9):
        for path in old.glob("*.json"):
            path.unlink()
        for number, arm in enumerate([*TRAINED, *EVALUATED]):
            (old / f"{arm}-s0.json").write_text(json.dumps(old_content(arm, 50.0 + number)))
        left = iter(range(many))
        with monkeypatch.context() as patch, suppress(StopIteration):
            real = convert.write_json
            patch.setattr(convert, "write_json", lambda *given, real=real, left=left, **more: (next(left), real(*given, **more)))
            main(["check", "--convert", str(tmp_path / "results")])
        assert main(["check", "--convert", str(tmp_path / "results")]) == 0, capsys.readouterr().out
        found = {path.name: path.read_text() for path in old.glob("*.json")}
        whole = whole or found
        assert found == whole and len(found) == len(TRAINED)


def test_what_cannot_be_converted_is_left_and_named(old, tmp_path, capsys):
    """Without the teacher's result nothing is known of what its students' runs are called now."""
    (old / "teacher-s0.json").unlink()
    (old / "standard-cpy-s0.json").write_text(json.dumps({"schema": 1, "run": {"arm": "standard-cpy"}}))
    broken = json.loads((old / "standard-none-s0.json").read_text())
    broken["metrics"]["top1"] = 101
    (old / "standard-none-s0.json").write_text(json.dumps(broken))
    before = {path.name: path.read_text() for path in old.glob("*.json")}
    assert main(["check", "--convert", str(tmp_path / "results")]) == 1
    told = capsys.readouterr().out
    assert "1 result files rewritten, 0 merged" in told  # that of uniform attention, which has no teacher
    assert told.count("the result of run") == 4 and "metrics.top1" in told
    assert told.count("left as it is") == 8
    after = {path.name: path.read_text() for path in old.glob("*.json")}
    assert [name for name in before if before[name] != after[name]] == ["standard-copy+source=uniform-s0.json"]
    code = main(["check", "--convert", str(tmp_path / "nowhere")])
    assert code == 2 and "no such folder" in capsys.readouterr().err
