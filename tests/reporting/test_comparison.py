"""`bench compare`: what differs, and by how much."""

import json
import shutil

import pytest

from benchmark.storage.files import sealed, write_json

from .. import made

VERDICTS = {("main", "standard-copy"): ["success", "inconclusive"]}
VALUES = {"standard-none": [50.0, 51.0, 50.5], "standard-copy": [70.0, 71.0, 70.5]}


@pytest.fixture
def folders(tmp_path):
    made.write(tmp_path / "a", made.results({("deit", "base", arm): values for arm, values in VALUES.items()}))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    return tmp_path / "a", tmp_path / "b"


def test_equal_folders(folders, bench):
    code, out, err = bench("compare", *folders)
    assert (code, err) == (0, "") and "6 cells equal, 0 with other numbers" in out and "0 verdicts differ" in out
    found = json.loads(bench("compare", *folders, "--json")[1])
    assert found == {"equal": 6, "differing": [], "only_a": [], "only_b": [], "verdicts": [], "left_out": [[], []]}


def test_other_numbers_missing_cells_and_verdicts(folders, bench):
    a, b = folders
    for seed, (value, area) in enumerate(((20.0, 1), (21.0, 1), (20.5, 1))):
        path = b / f"mini/deit/base/standard-copy-s{seed}.json"
        content = json.loads(path.read_text())
        content["metrics"]["top1"] = value
        for point in content["curve"]:
            point["val_top1"] = value * area
        write_json(path, sealed(content))
    (b / "mini/deit/base/standard-none-s2.json").unlink()
    code, out, _ = bench("compare", a, b)
    assert code == 0 and "only in A: mini/deit/base/standard-none-s2" in out
    assert "2 cells equal, 3 with other numbers, 1 only in A, 0 only in B" in out
    found = json.loads(bench("compare", a, b, "--json")[1])
    assert [(each["a"]["value"], each["b"]["value"]) for each in found["differing"]] == [(70, 20), (71, 21), (70.5, 20.5)]
    assert found["only_a"] == ["mini/deit/base/standard-none-s2"]
    assert any("standard-copy " in row and "-50.000" in row for row in out.splitlines())
    assert {(row["study"], row["arm"]): row["verdict"] for row in found["verdicts"]} == VERDICTS


def test_folders_that_cannot_be_compared(folders, bench):
    (folders[0].parent / "empty").mkdir()
    for words, told in (
        ((folders[0], "nowhere"), "no such folder"),
        ((folders[0], folders[0]), "given twice"),
        ((folders[0], folders[0].parent / "empty"), "no results that count"),
    ):
        code, out, err = bench("compare", *words)
        assert code == 2 and not out and told in err
