"""`bench merge`: nothing is lost, equal runs are one, and contradictions are named."""

import json
import shutil

import pytest

from benchmark.storage.files import sealed, write_json
from benchmark.storage.result_file import read_result

from .. import made

CELLS = {("deit", "base", arm): [value, value + 1.0] for arm, value in (("standard-none", 50), ("standard-copy", 70))}
PLACE = "mini/deit/base/standard-copy-s0.json"


@pytest.fixture
def folders(tmp_path):
    """Two folders of the same four results."""
    made.write(tmp_path / "a", made.results(CELLS))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    return tmp_path / "a", tmp_path / "b", tmp_path / "c"


def edit(folder, change, path=PLACE):
    content = json.loads((folder / path).read_text())
    change(content)
    write_json(folder / path, sealed(content))


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.json")}


def test_both_parts_are_there_byte_for_byte(folders, bench):
    a, b, c = folders
    whole = files(a)
    (a / PLACE).unlink()
    (b / "mini/deit/base/standard-none-s1.json").unlink()
    code, out, err = bench("merge", a, b, "--out", c)
    assert (code, err) == (0, "") and "4 results" in out and "0 contradictions" in out
    assert files(c) == whole


def test_evaluations_of_one_run_are_joined_the_newer_wins(folders, bench):
    a, b, c = folders
    record = {"top1": 40.0, "top5": 90.0, "loss": 2.0, "on": {"set": "x"}, "code": "c"}
    edit(a, lambda content: content["evaluations"].update(noise=record | {"date": "2026-01-01"}))
    newer = record | {"date": "2026-02-01", "code": "d"}
    edit(b, lambda content: content["evaluations"].update(noise=newer, other=record | {"date": "2026-01-01"}))
    assert bench("merge", a, b, "--out", c)[0] == 0
    merged = read_result(c / PLACE)
    assert merged.evaluations["noise"].code == "d" and "other" in merged.evaluations
    edit(b, lambda content: content["evaluations"].update(noise=newer | {"top1": 99.0}))
    code, out, _ = bench("merge", a, b, "--out", c.with_name("d"))
    assert code == 1 and "contradiction: " in out and "other noise" in out
    assert read_result(c.with_name("d") / PLACE).evaluations["noise"].top1 == 40


def test_one_run_in_two_cells_with_two_outcomes_is_a_contradiction(tmp_path, bench):
    """DeiT's student without transfer is DINO's."""
    made.write(tmp_path / "a", made.results({("deit", "base", "standard-none"): [50.0]}))
    made.write(tmp_path / "b", made.results({("dino", "base", "standard-none"): [12.5]}))
    code, out, _ = bench("merge", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c")
    assert code == 1 and "mini/dino/base/standard-none-s0.json: one run, two outcomes, 50 " in out and "both are kept" in out
    assert len(files(tmp_path / "c")) == 2


def test_published_figures_come_along(folders, bench):
    a, b, c = folders
    (b / "published.yaml").write_text("figures: []\n")
    assert bench("merge", a, b, "--out", c)[0] == 0
    assert (c / "published.yaml").read_text() == "figures: []\n"


def test_contradictions_are_named_and_the_first_is_kept(folders, bench):
    a, b, c = folders
    edit(b, lambda content: content["metrics"].update(top1=12.5))
    code, out, _ = bench("merge", a, b, "--out", c)
    (line,) = [line for line in out.splitlines() if "contradiction: " in line]
    assert code == 1 and PLACE in line and f"one run, two outcomes, 70 ({a}) and 12.5 ({b})" in line
    assert files(c) == files(a)
    code, out, _ = bench("merge", b, a, "--out", c.with_name("d"))
    assert code == 1 and files(c.with_name("d")) == files(b)


def test_two_runs_in_one_cell_are_a_contradiction(folders, bench):
    """As of two versions of a protocol."""
    a, b, c = folders

    def change(content):
        from benchmark.storage.result_file import Result

        content["run"]["protocol"]["recipe"]["lr"] *= 2
        content["key"] = Result.model_validate(content).run.run.key

    edit(b, change)
    code, out, _ = bench("merge", a, b, "--out", c)
    assert code == 1 and f"contradiction: {PLACE}: two runs, " in out and files(c) == files(a)
    code, out, _ = bench("compare", a, b)
    assert code == 0 and f"left out of B: {PLACE}: stale" in out and "1 only in A" in out


def test_damaged_files_are_named_and_left_out(folders, bench):
    a, b, c = folders
    (a / PLACE).write_text("{")
    code, out, _ = bench("merge", a, b, "--out", c)
    assert code == 1 and f"left out: {a / PLACE}: not JSON" in out and files(c) == files(b)


def test_folders_that_cannot_be_merged(folders, bench, tmp_path):
    a, b, c = folders
    (tmp_path / "empty").mkdir()
    for words, told in (
        ((a, a, "--out", c), "given twice"),
        ((a, "nowhere", "--out", c), "no such folder"),
        ((a, "--out", b), "not empty"),
        ((tmp_path / "empty", "--out", c), "no results in"),
        ((a, b, "--out", a / "all"), "within a folder that is merged"),
    ):
        code, out, err = bench("merge", *words)
        assert code == 2 and not out and told in err and err.count("\n") == 1
    assert not c.exists()
