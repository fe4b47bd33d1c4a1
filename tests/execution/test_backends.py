"""A backend is one file of a folder, and nothing else knows its name."""

import ast
import json
import shutil
import sys
from pathlib import Path

import pytest

from benchmark.execution import backends
from families.spec import UnknownName

from ..conftest import ROOT


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of backends beside the shipped one."""
    (tmp_path / "backends").mkdir()
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path / "backends")])
    yield tmp_path / "backends"
    sys.modules.pop(f"{backends.__name__}.workstation", None)
    backends.load.cache_clear()


def test_the_default_comes_first():
    assert backends.names() == ["local", "debug", "slurm"]
    with pytest.raises(UnknownName, match="valid: local, debug, slurm"):
        backends.load("backend")


@pytest.mark.long
def test_a_new_backend_is_one_file(folder, bench, tiny, tmp_path):
    """A copy of a shipped one under another name trains, is looked after and recorded by that name."""
    shutil.copy(Path(backends.__file__).parent / "local.py", folder / "workstation.py")
    (tmp_path / "few.yaml").write_text("title: Few\narms: [standard-none]\n")
    request = ("--family", "deit", "--sizes", "base", "--seeds", "0", "--protocol", tiny, "--study", tmp_path / "few.yaml")
    work, results = ("--work", tmp_path / "work"), ("--results", tmp_path / "results")
    code, out, err = bench("run", *request, *work, *results, "--cluster", "workstation", "--jobs", "1")
    assert code == 0 and "1 to train on workstation" in out, out + err
    assert [path.stem for path in (tmp_path / "results").rglob("*.json")] == ["standard-none-s0"]
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "work").glob("jobs/*/submission.json"))
    assert record["cluster"] == "workstation" and record["arrays"][0]["submitted"]
    assert json.loads(bench("status", *work, "--json")[1])["counts"]["finished"] == 1
    (folder / "workstation.py").unlink()
    backends.load.cache_clear()
    assert json.loads(bench("status", *work, "--json")[1])["counts"]["finished"] == 1, "a backend that is gone"
    code, _, err = bench("run", *request, *work, *results, "--cluster", "workstation")
    assert code == 2 and "unknown cluster: 'workstation'" in err


def test_no_other_file_compares_their_names():
    for path in (ROOT / "benchmark").rglob("*.py"):
        if path.parent.name != "backends":
            compared = [
                constant.value
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Compare | ast.Dict | ast.MatchValue)
                for constant in ast.walk(node)
                if isinstance(constant, ast.Constant) and constant.value in backends.names()
            ]
            assert not compared, path
