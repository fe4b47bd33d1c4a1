"""The three functions of `benchmark` from Python, against files and the command; the notebook from top to bottom."""

import io
import json
import re
import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from nbclient import NotebookClient
from pandas.testing import assert_frame_equal

import benchmark
from benchmark.analysis.tidy import COLUMNS, tidy
from families.spec import UnknownName, UserError

from .conftest import ROOT, tiny_protocol

REQUEST = {"family": ["dinov2_reg"], "sizes": "base", "seeds": [0]}


@pytest.fixture
def site(tmp_path, unreported):
    """A protocol file, a study file, and the words of a request's folders."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_protocol()))
    (tmp_path / "few.yaml").write_text("title: Few\narms: [standard-copy]\n")
    folders = {"results": tmp_path / "results", "work": tmp_path / "work", "cluster": "debug"}
    return REQUEST | {"protocol": tmp_path / "tiny.yaml", "study": tmp_path / "few.yaml"} | folders


def test_run_trains_what_is_missing_and_returns_the_requests_scores(site, tmp_path, capsys):
    table = benchmark.run(**site)
    files = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results").rglob("*.json")}
    test = table[table["set"] == "test"].set_index("arm")
    assert sorted(f"{arm}-s0" for arm in test.index) == sorted(files)
    for arm, row in test.iterrows():
        written = files[f"{arm}-s0"]
        assert (row["top1"], row["loss"], row["key"]) == (written["metrics"]["top1"], written["metrics"]["loss"], written["key"])
        assert row["seconds"] == written["cost"]["seconds"] and row["val"] == written["val"]["top1"]
    shifted = table[table["set"] == "noise"].set_index("arm")
    assert shifted["top1"].to_dict() == {name[:-3]: each["evaluations"]["noise"]["top1"] for name, each in files.items()}
    copy = test.loc["standard-copy"]
    assert (copy["student"], copy["method"], copy["steps"]) == ("standard", "copy", 4)
    assert test.loc["teacher", ["student", "method"]].tolist() == ["teacher", "teacher"]
    assert copy["teacher_top1"] == test.loc["teacher", "top1"]
    capsys.readouterr()
    assert_frame_equal(benchmark.run(**site), table)
    assert "3 finished before" in capsys.readouterr().out

    benchmark.run(**site | {"seeds": np.arange(1, 2)})
    assert_frame_equal(benchmark.run(**site), table)  # of this request alone
    assert set(benchmark.results(tmp_path / "results", tmp_path / "tiny.yaml")["seed"]) == {0, 1}
    with pytest.warns(UserWarning, match="6 results of protocol tiny: give its file"):
        assert benchmark.results(tmp_path / "results").empty


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ({"recipe.steps": 3}, "recipe.steps=3"),
        ({"recipe.lr": 1e-05}, "recipe.lr=0.00001"),
        ({"recipe.lr": np.float64(1e-3), "recipe.steps": np.int64(3)}, "recipe.lr=0.001+recipe.steps=3"),
        ({"recipe.lr": 0.25, "recipe.steps": 2}, "recipe.lr=0.25+recipe.steps=2"),
        ({"recipe.ema": None}, "recipe.ema=null"),
    ],
)
def test_values_of_the_protocol(values, read, site, capsys):
    benchmark.run(**site, set=values, dry_run=True)
    assert f"tiny+{read}" in capsys.readouterr().out.replace("\n", "")


def test_a_wrong_request_is_an_exception_and_writes_nothing(site, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    for wrong in (
        {"family": "diet"},
        {"sizes": "huge"},
        {"seeds": -1},
        {"set": {"recipe.step": 3}},
        {"jobz": 3},
        {"jobs": 0},
        {"help": True},
    ):
        with pytest.raises(UserError):
            benchmark.run(**site | wrong)
    with pytest.raises(UserError, match="no such folder"):
        benchmark.results(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no such folder"):
        benchmark.leaderboard(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no leaderboard of study nulls by protocol mini .* there: none"):
        (tmp_path / "empty").mkdir()
        benchmark.leaderboard(tmp_path / "empty", study="nulls")
    with pytest.raises(UnknownName, match="family, teacher"):
        benchmark.leaderboard(ROOT / "results", by="size")
    (tmp_path / "empty").rmdir()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failed_run_is_an_exception_after_the_others(site, tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_protocol(teacher=tiny_protocol()["teacher"] | {"floor": 100})))
    with pytest.raises(RuntimeError, match="bench status --work .*work"):
        benchmark.run(**site)
    table = benchmark.results(tmp_path / "results", tmp_path / "tiny.yaml")
    assert table["arm"].unique().tolist() == ["standard-none"]


def test_leaderboards_are_those_of_the_reports(tmp_path):
    shutil.copytree(ROOT / "results" / "fashion_mini", tmp_path / "fashion_mini")
    for by, name in (("family", "fashion_mini-main-leaderboard"), ("teacher", "fashion_mini-nulls")):
        study = name.split("-")[1]
        found = benchmark.leaderboard(tmp_path, study=study, protocol="fashion_mini", by=by)
        written = pd.read_csv(ROOT / "reports" / f"{name}.csv")
        assert_frame_equal(pd.read_csv(io.StringIO(found.to_csv(index=False))), written, check_dtype=False, atol=1e-4, rtol=0)


def test_the_columns_are_documented():
    page = (ROOT / "docs" / "python.md").read_text()
    documented = re.findall(r"^\| `(\w+)`", page, re.M)
    assert sorted(documented) == sorted(COLUMNS) == sorted(tidy([]).columns)
    assert all(re.search(rf"\b{column}\b", tidy.__doc__) for column in COLUMNS)


@pytest.mark.long
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    """It trains the teacher and one student; the others are those that are committed."""
    monkeypatch.delenv("MPLBACKEND", raising=False)  # which the command sets for itself
    notebook = nbformat.read(ROOT / "docs" / "first_look.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "the repository keeps no outputs"
    for name in ("docs", "results"):
        (tmp_path / name).mkdir()
    (tmp_path / "results").rmdir()
    (tmp_path / "results").symlink_to(ROOT / "results")
    own = tmp_path / ".bench" / "notebook" / "results" / "mini" / "deit3" / "base"
    own.mkdir(parents=True)
    for path in (ROOT / "results" / "mini" / "deit3" / "base").glob("*-s0.json"):
        if path.stem not in ("teacher-s0", "standard-distill-s0"):
            shutil.copy(path, own)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path / "docs")}}).execute()
    shown = [output["data"]["text/plain"] for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert any("standard-distill" in text and "area" in text for text in shown)
    assert {"teacher-s0.json", "standard-distill-s0.json"} <= {path.name for path in own.iterdir()}
    assert any("Figure size" in text for text in shown) and any("torch.Size([1, 12, 197, 197])" in text for text in shown)
