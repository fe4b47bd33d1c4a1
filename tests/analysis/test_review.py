"""`bench submit`: results as they were made pass; each way to damage or doctor one is an objection."""

import json
import shutil

import pytest
import yaml

from benchmark.storage import provenance
from benchmark.storage.files import sealed, write_json

from ..conftest import ROOT, tiny_protocol

STUDENT = "standard-copy-s0.json"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Two seeds of three runs, made by clean code, and their protocol."""
    from benchmark.cli import main

    root, made = tmp_path_factory.mktemp("site"), dict(provenance.code_version())
    (root / "tiny.yaml").write_text(yaml.safe_dump(tiny_protocol()))
    (root / "few.yaml").write_text("title: Few\narms: [standard-copy]\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "code_version", lambda: made | {"dirty": False})
        words = [
            "run",
            "--family",
            "dinov2_reg",
            "--sizes",
            "base",
            "--protocol",
            root / "tiny.yaml",
            "--study",
            root / "few.yaml",
        ]
        words += [
            "--seeds",
            "0,1",
            "--cluster",
            "debug",
            "--results",
            root / "results",
            "--work",
            root / "work",
            "--by",
            "A group",
        ]
        assert main([str(word) for word in words]) == 0
    return root


@pytest.fixture
def submit(site, bench, tmp_path):
    """The results folder of a test's own, and the command on it."""
    shutil.copytree(site / "results", tmp_path / "results")
    (tmp_path / "none").mkdir()

    def call(*more):
        if "--against" not in more:  # by default all results of this repository
            more = (*more, "--against", tmp_path / "none")
        return bench("submit", tmp_path / "results", "--protocol", site / "tiny.yaml", *more)

    return tmp_path / "results/tiny/dinov2_reg/base", call


def doctor(path, change, seal=True):
    content = json.loads(path.read_text())
    change(content)
    write_json(path, sealed(content) if seal else content)


def test_results_as_they_were_made_pass(submit, bench, site, tmp_path):
    """Also beside the results of this repository, against which they are held by default."""
    code, out, err = bench("submit", tmp_path / "results", "--protocol", site / "tiny.yaml")
    assert (code, err) == (0, "") and "6 results" in out and ", against results" in out and "no objections" in out
    assert "note: by A group: 6 results" in out and "objection" not in out.replace("no objections", "")


def put(*keys, value):
    """Change a value, given the old one if `value` is a function."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value(content[keys[-1]]) if callable(value) else value

    return change


def more(points):
    return lambda old: old + points


DOCTORED = {
    "top-1, sealed anew, of part of an image": (put("metrics", "top1", value=more(3.1)), "no whole number of 80 images"),
    "top-1 above top-5": (put("metrics", "top5", value=0.0), "top-5 0 is below top-1"),
    "top-1 far from val": (lambda c: [put("metrics", k, value=100.0)(c) for k in ("top1", "top5")], "top-1 is 100 on test, but"),
    "val": (put("val", "top1", value=more(5.0)), "its curve ends at"),
    "a curve that goes back": (put("curve", value=lambda old: [old[1], old[0]]), "the steps of its curve do not rise"),
    "a curve that goes too far": (put("curve", 1, "step", value=50), "the steps of its curve do not rise"),
    "an evaluation": (put("evaluations", "noise", "top1", value=more(-0.3)), "noise: top1"),
    "speed": (put("cost", "images_per_second", value=lambda old: old * 2), "images/s are not its steps and batch"),
    "dates": (put("provenance", "finished", value="2031-01-01T00:00:00+00:00"), "before it started or in the future"),
    "no date": (put("provenance", "finished", value="yesterday"), "finished at yesterday"),
    "a date without a zone": (put("provenance", "finished", value="2031-01-01T00:00:00"), "in the future"),
    "an evaluation's date": (put("evaluations", "noise", "date", value="2031-01-01T00:00:00+00:00"), "noise: made at 2031"),
    "no time": (put("cost", "seconds", value=0.0), "images/s are not its steps and batch"),
    "dirty code": (put("provenance", "dirty", value=True), "made by code with uncommitted changes"),
    "unknown code": (put("provenance", "code", value="0" * 64), "whose code is another one"),
    "an unknown commit": (
        lambda c: c["provenance"].update(code="0" * 64, commit="0" * 40),
        "made by commit 00000000, which this checkout does not have",
    ),
    "a package": (
        lambda c: c["provenance"].update(code="0" * 64, commit=None, dirty=None),
        "made by an installed package whose code (00000000) is not that",
    ),
    "its teacher": (put("teacher", "top1", value=more(1.25)), "says that its teacher has"),
    "another seed's curve": (None, "its curve is that of"),
    "other images": (put("provenance", "data", value="abc"), "from other images (abc) than"),
}


@pytest.mark.parametrize("how", DOCTORED)
def test_a_doctored_result_is_an_objection(how, submit):
    folder, call = submit
    change, told = DOCTORED[how]
    if change is None:
        curve = json.loads((folder / "standard-copy-s1.json").read_text())["curve"]
        change = put("curve", value=lambda old: curve)
    doctor(folder / STUDENT, change)
    code, out, _ = call(*(["--against", ROOT / "results"] if how == "other images" else []))
    assert code == 1 and any(STUDENT in line and told in line for line in out.splitlines() if "objection: " in line), out


def test_an_edited_result_is_refused_and_marked_in_the_report(submit, bench, site, tmp_path):
    folder, call = submit
    doctor(folder / STUDENT, put("metrics", "top1", value=more(3.0)), seal=False)
    code, out, _ = call()
    assert code == 1 and f"{STUDENT}: edited, or damaged: its content is not what its sha256 says" in out
    words = ("--results", tmp_path / "results", "--protocol", site / "tiny.yaml", "--reports", tmp_path / "reports")
    code, out, _ = bench("report", *words)
    assert code == 0 and f"left out: tiny/dinov2_reg/base/{STUDENT}: edited" in out
    assert f"{STUDENT}: edited" in (tmp_path / "reports" / "leaderboard.md").read_text()


def test_files_that_do_not_count_are_objections(submit, site, bench):
    folder, call = submit
    doctor(folder / STUDENT, put("run", "protocol", "recipe", "lr", value=more(0.1)))
    (folder / "teacher-s1.json").write_text("{")
    (folder / "teacher-s0.json").unlink()
    code, out, _ = call()
    assert code == 1 and f"{STUDENT}: its key" in out and "teacher-s1.json: not JSON" in out
    assert "standard-copy-s1.json: its teacher, run" in out
    code, out, _ = bench("submit", folder.parent.parent.parent)
    assert code == 1 and "results of protocol tiny, which is not known" in out


def test_results_that_are_there_already_with_other_numbers(submit, tmp_path):
    folder, call = submit
    shutil.copytree(tmp_path / "results", tmp_path / "there")
    assert call("--against", tmp_path / "there")[0] == 0
    doctor(tmp_path / "there/tiny/dinov2_reg/base" / STUDENT, put("metrics", "top1", value=more(1.25)))
    code, out, _ = call("--against", tmp_path / "there")
    assert code == 1 and f"{STUDENT}: that run is there already, with" in out and "(other metrics)" in out
    shutil.copy(folder / STUDENT, tmp_path / "there/tiny/dinov2_reg/base" / STUDENT)
    doctor(tmp_path / "there/tiny/dinov2_reg/base" / STUDENT, put("evaluations", "noise", "top1", value=more(1.25)))
    code, out, _ = call("--against", tmp_path / "there")
    assert code == 1 and "(other noise)" in out
    (folder / "teacher-s0.json").unlink()
    (folder / "teacher-s1.json").unlink()
    assert "has no result" in call()[1]
    assert "has no result" not in call("--against", tmp_path / "there")[1]


def test_the_digest_of_a_commit_is_that_of_its_files():
    head = provenance._git("rev-parse", "HEAD")
    found = provenance.code_digest_of(head)
    clean = provenance._git("status", "--porcelain", "--", *provenance.CODE) == ""
    assert found is not None and (found == provenance.code_digest(ROOT)) == clean
    assert provenance.code_digest_of("0" * 40) is None and provenance.code_digest_of("HEAD") is None
