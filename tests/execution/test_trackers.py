"""Trackers, against fakes with the calls that ours makes: each run once, with its curve, settings and score; and whatever
they raise ends no training."""

import json
import sys

import pytest
import yaml

from benchmark.execution import trackers

from ..conftest import tiny_protocol

RECORD = """
import json, os
def record(*what):
    with open({path!r}, "a") as file:
        file.write(json.dumps(what) + "\\n")
"""
FAKES = {
    "wandb": '''
class Run:
    def __init__(self, given):
        self.id, self.summary = given["id"], self
        record("begin", self.id, given["name"], given["config"])
    def log(self, values, step):
        {trouble}
        record("log", self.id, values, step)
    def update(self, values):
        record("summary", self.id, values)
    def finish(self, exit_code):
        record("end", self.id)
def init(**given):
    assert given["resume"] == "allow" and given["reinit"] == "create_new" and os.path.isdir(given["dir"])
    return Run(given)
''',
    "trackio": '''
class Run:
    def __init__(self, given):
        self.id = given["name"]
        record("begin", self.id, given["name"], given["config"])
    def log(self, values, step=None):
        {trouble}
        record("summary" if step is None else "log", self.id, values, *([] if step is None else [step]))
    def finish(self):
        record("end", self.id)
def init(**given):
    return Run(given)
''',
    "mlflow": '''
from types import SimpleNamespace as N
class MlflowClient:
    names = {{}}
    def get_experiment_by_name(self, name):
        return None
    def create_experiment(self, name):
        return "1"
    def search_runs(self, experiments, query):
        return []
    def create_run(self, experiment, run_name, tags):
        record("begin", tags["key"], run_name, {{}})
        return N(info=N(run_id=tags["key"]))
    def log_param(self, id, name, value):
        assert not set("*?[]") & set(name)
    def log_metric(self, id, name, value, step=None):
        {trouble}
        record("log" if step is not None else "summary", id, {{name: value}}, *([] if step is None else [step]))
    def set_terminated(self, id, status):
        assert status == "FINISHED"
        record("end", id)
''',
}  # fmt: skip


@pytest.fixture
def tracked(tmp_path, monkeypatch, bench, unreported):
    """A run of a request with a tracker that is a fake; what this has recorded."""

    def call(name, trouble="pass"):
        folder, record = tmp_path / "fakes", tmp_path / f"{name}.jsonl"
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(RECORD.format(path=str(record)) + FAKES[name].format(trouble=trouble))
        (folder / name / "exceptions.py").write_text("class MlflowException(Exception): pass\n")
        monkeypatch.syspath_prepend(str(folder))
        for each in [each for each in sys.modules if each.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, each)
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_protocol()))
        (tmp_path / "few.yaml").write_text("title: Few\narms: [standard-copy]\n")
        words = ["--family", "dinov2_reg", "--sizes", "base", "--seeds", "0", "--cluster", "debug", "--tracker", name]
        words += ["--protocol", tmp_path / "tiny.yaml", "--study", tmp_path / "few.yaml"]
        answer = bench("run", *words, "--results", tmp_path / "results", "--work", tmp_path / "work")
        for each in [each for each in sys.modules if each.split(".")[0] == name]:
            del sys.modules[each]
        lines = record.read_text().splitlines() if record.exists() else []
        return answer, [json.loads(line) for line in lines]

    return call


@pytest.mark.parametrize("name", FAKES)
def test_each_run_is_sent_whole(name, tracked, tmp_path):
    (code, _, err), found = tracked(name)
    assert (code, err) == (0, "")
    results = [json.loads(path.read_text()) for path in (tmp_path / "results").rglob("*.json")]
    begun = {each[1]: each[2] for each in found if each[0] == "begin"}
    named = "tiny/dinov2_reg/base/{arm}-s0 {key}" if name == "trackio" else "dinov2_reg/base/{arm}-s0"
    names = {named.format(arm=each["run"]["arm"], key=each["key"]): each for each in results}
    assert sorted(begun.values()) == sorted(names) and len(results) == 3
    for id, cell in begun.items():
        result = names[cell]
        curve = {each[3]: each[2]["val_top1"] for each in found if each[:2] == ["log", id] and "val_top1" in each[2]}
        assert curve == {point["step"]: point["val_top1"] for point in result["curve"]}
        summary = {key: value for each in found if each[:2] == ["summary", id] for key, value in each[2].items()}
        assert summary["test_top1"] == result["metrics"]["top1"]
        assert [each[0] for each in found if each[1] == id][-1] == "end"
    settings = next(each[3] for each in found if each[0] == "begin" and "standard-copy" in each[2])
    assert name == "mlflow" or (settings["protocol.recipe.steps"], settings["transfer.method"]) == (4, "copy")


def test_what_a_tracker_raises_is_told_and_ends_no_training(tracked, tmp_path):
    (code, _, _), found = tracked("wandb", trouble="raise ConnectionError('no network')")
    assert code == 0 and len(list((tmp_path / "results").rglob("*.json"))) == 3
    assert {each[0] for each in found} == {"begin"}
    for path in (tmp_path / "work" / "runs").glob("*/run.log"):
        assert path.read_text().count("tracker wandb is left out from here on: no network") == 1


def test_trackers_that_are_unknown_or_not_installed(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    words = ("run", "--cluster", "debug", "--work", tmp_path / "w", "--results", tmp_path / "r", "--tracker")
    for name, told in (
        ("wandbb", "did you mean 'wandb'"),
        ("", "unknown tracker"),
        ("mlfow", "did you mean 'mlflow'"),
    ):
        code, out, err = bench(*words, name)
        assert (code, out) == (2, "") and told in err and err.count("\n") == 1
    code, _, err = bench(*words, "trackio")
    assert code == 2 and "--tracker trackio: it is not installed; pip install trackio" in err
