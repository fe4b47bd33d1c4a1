"""Evaluations come after: a finished run is measured on more sets, with other runs and by its features, without training."""

import json
import os
import re
import shutil
import signal
import time

import pytest
import torch
import yaml

from benchmark.cli import main
from benchmark.spec.definitions import Definitions
from benchmark.spec.protocol import Protocol
from benchmark.spec.records import validated
from benchmark.spec.run import Cell
from benchmark.storage.results import read_results
from benchmark.training.features import feature_scores
from benchmark.training.models import finished_model, frozen_teacher
from benchmark.training.state_files import read_state

from ..conftest import command, tiny_protocol
from ..training.test_train import digits

ARMS = ["standard-none", "standard-copy", "matched-distill"]
NAMED = ["standard-distill+ensemble=finetuned", "matched-none+match=end", "standard-none+match=start"]
STUDY = {"title": "Few", "arms": [*ARMS, "standard-copy+weights=finetuned", *NAMED]}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A request trained and evaluated undisturbed: work and results to copy."""
    root = tmp_path_factory.mktemp("evaluated")
    (root / "tiny.yaml").write_text(yaml.safe_dump(tiny_protocol(seeds=[0])))
    (root / "few.yaml").write_text(yaml.safe_dump(STUDY))
    assert main(words("run", root)) == 0
    return root


def words(verb, folder, *more, protocol="tiny.yaml", cluster="debug", asked=True):
    given = ["--family", "dinov2_reg", "--sizes", "base", "--study", folder / "few.yaml"] if asked else []
    where = ["--results", folder / "results", "--work", folder / "work", "--cluster", cluster]
    return [str(word) for word in [verb, *given, "--protocol", folder / protocol, *where, *more]]


@pytest.fixture
def again(site, tmp_path):
    """A copy of it to change."""
    shutil.copytree(site, tmp_path, dirs_exist_ok=True)
    return tmp_path


def results_of(folder):
    results, rejected = read_results(folder / "results")
    assert not rejected
    return {result.cell.arm: result for result in results}


def trainings(folder):
    """When each run's weights were written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("work/runs/*/weights.pt")}


def without(folder, *names):
    """Take evaluations out of the results and the work folder, as if their sets had been missing."""
    from benchmark.storage.files import write_json
    from benchmark.storage.result_file import written

    for result in results_of(folder).values():
        kept = {name: each for name, each in result.evaluations.items() if name not in names}
        write_json(folder / "results" / result.cell.path, written(result.model_copy(update={"evaluations": kept})))
    for path in folder.glob("work/runs/*/payload.json"):
        content = json.loads(path.read_text())
        if "metrics" not in content and set(names) & content["evaluations"].keys():
            shutil.rmtree(path.parent)


@pytest.mark.long
def test_a_set_that_a_result_lacks_is_evaluated_without_training(again, site, bench):
    """By the same request again, and by evaluate; the scores are those that training gave."""
    before, whole = trainings(again), results_of(site)
    for verb in ("run", "evaluate"):
        without(again, "noise")
        code, out, err = bench(*words(verb, again))
        assert code == 0 and "0 to train and 8 to evaluate" in out, err
        assert "trained 0 runs and made 8 evaluations" in out
        for arm, result in results_of(again).items():
            found, expected = result.evaluations["noise"], whole[arm].evaluations["noise"]
            assert (found.top1, found.top5, found.on) == (expected.top1, expected.top5, expected.on), arm
            assert found.loss == pytest.approx(expected.loss, rel=1e-5)
            assert result.metrics == whole[arm].metrics and result.key == whole[arm].key
    assert trainings(again) == before
    assert "0 to train on" in bench(*words("run", again))[1]


def test_another_test_set_is_measured_and_nothing_trained(again, bench):
    """Results on the old one are stale; their runs are the same ones."""
    content = tiny_protocol(seeds=[0])
    content["data"]["test_images"] = 50
    (again / "tiny.yaml").write_text(yaml.safe_dump(content))
    before, old = trainings(again), results_of(again)
    code, out, err = bench(*words("run", again))
    assert code == 0 and "0 to train and" in out, err
    for arm, result in results_of(again).items():
        assert result.metrics.on["images"] == 50 and result.key == old[arm].key and result.curve == old[arm].curve
        assert result.evaluations["noise"].on["images"] == 50
    assert trainings(again) == before and "left out" not in out
    content["data"]["val_images"] = 40  # which the curve is of: that needs training
    (again / "tiny.yaml").write_text(yaml.safe_dump(content))
    assert "8 to train" in bench(*words("run", again, "--dry-run"))[1]


@pytest.mark.long
def test_an_ensemble_on_other_sets_is_made_again(again, bench):
    """Also where the work folder has the old one under the same name."""
    content = tiny_protocol(seeds=[0])
    content["data"]["noise_std"] = 0.7
    (again / "tiny.yaml").write_text(yaml.safe_dump(content))
    before, old = trainings(again), results_of(again)["standard-distill"]
    code, out, err = bench(*words("run", again))
    assert code == 0 and "0 to train and 10 to evaluate" in out, err  # eight runs on noise, and two ensembles
    new = results_of(again)["standard-distill"]
    name = "ensemble=finetuned"
    assert new.evaluations[name].shift["noise"].on["noise_std"] == new.evaluations["noise"].on["noise_std"] == 0.7
    assert new.evaluations[name].shift["noise"].loss != old.evaluations[name].shift["noise"].loss
    assert new.evaluations[name].top1 == old.evaluations[name].top1 and trainings(again) == before
    assert "0 to train on" in bench(*words("run", again))[1]


def test_weights_that_are_gone(again, bench):
    """It says so, and trains again only if asked."""
    without(again, "noise")
    for path in again.glob("work/runs/*/weights.pt"):
        path.unlink()
    for verb in ("run", "evaluate"):
        code, out, err = bench(*words(verb, again))
        assert code == 0 and "8 evaluations are not made: their weights are not in" in out and "--retrain" in out, err
        assert "0 to train on" in out
    assert "noise" not in results_of(again)["standard-copy"].evaluations
    code, out, err = bench(*words("evaluate", again, "dinov2_reg/base/standard-copy-s0", "--retrain", asked=False))
    assert code == 0 and "2 to train and 1 to evaluate" in out, err  # the student's, and its teacher's for Copy
    found = results_of(again)
    assert "noise" in found["standard-copy"].evaluations and "noise" not in found["standard-none"].evaluations


@pytest.mark.long
def test_a_kill_in_the_middle(again, site, bench):
    """The same command again makes what is left; nothing is lost or made twice."""
    without(again, "noise", "unseen_colours", "ensemble=finetuned", "match=end")
    process = command(*words("evaluate", again, cluster="local"))
    end = time.monotonic() + 120
    while not list(again.glob("work/runs/*/payload.json")) or not any(
        "noise" in result.evaluations or "unseen_colours" in result.evaluations for result in results_of(again).values()
    ):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    assert main(words("evaluate", again)) == 0
    whole, found = results_of(site), results_of(again)
    for arm, result in found.items():
        assert result.evaluations.keys() == whole[arm].evaluations.keys()
        for name, each in result.evaluations.items():
            assert each.top1 == whole[arm].evaluations[name].top1, (arm, name)


def test_studies_of_evaluations_train_nothing_of_their_own(site):
    """An ensemble and a comparison of maps lie in their student's file."""
    found = results_of(site)
    assert not [arm for arm in found if "ensemble=" in arm or "match=" in arm]
    together = found["standard-distill"].evaluations["ensemble=finetuned"]
    assert together.beside == found["finetune"].key and together.shift.keys() == {"noise", "unseen_colours"}
    compared = found["matched-none"].evaluations["match=end"]
    assert compared.beside == found["teacher"].key and len(compared.attention_kl) == 2
    assert compared.top1 == found["matched-none"].metrics.top1


@pytest.mark.long
def test_features_are_those_of_the_kept_weights(again, bench):
    """Of the student, guided by its teacher where it copies, and of the teacher: by hand from their weights."""
    before = results_of(again)
    code, out, err = bench(*words("evaluate", again, "--features"))
    assert code == 0, err
    found = results_of(again)
    assert found.keys() == before.keys()
    for arm, result in before.items():  # each file is still that of its own run, with all that it had
        assert (found[arm].key, found[arm].metrics) == (result.key, result.metrics)
        assert result.evaluations.items() <= found[arm].evaluations.items()
    defined = Definitions(validated(Protocol, tiny_protocol(seeds=[0]), "tiny"))
    teacher, none = (found[arm] for arm in ("teacher", "standard-none"))
    work = again / "work" / "runs"
    run = defined.run_of(Cell("tiny", "dinov2_reg", "base", "standard-none", 0))
    model = finished_model(run, work / none.key / "weights.pt")

    def by_hand(model):
        sets = {}
        for name in ("train", "val", "test"):
            images, labels = next(digits(run).evaluate(name, 1000))
            with torch.no_grad():
                sets[name] = model.forward_features((images - 0.19) / 0.33)[:, 0], labels
        return feature_scores(sets, 10, "cpu")

    for name, score in by_hand(model).items():
        assert none.evaluations[name].top1 == pytest.approx(score["top1"], abs=1e-6), name
        assert none.evaluations[name].on == {"set": "test", "images": 80, "hues": 1, "training_images": 80}
    copied = defined.run_of(Cell("tiny", "dinov2_reg", "base", "standard-copy", 0))
    files = {"run": work / teacher.key / "weights.pt"}
    assert read_state(files["run"]).keys() == frozen_teacher(copied, files).state_dict().keys()
    for name, score in by_hand(frozen_teacher(copied, files)).items():
        assert teacher.evaluations[name].top1 == pytest.approx(score["top1"], abs=1e-6)
        assert found["standard-copy"].evaluations[f"teacher_{name}"].top1 == pytest.approx(score["top1"], abs=1e-6)
    assert "teacher_knn10" not in none.evaluations
    code, out, _ = bench(*words("run", again))
    assert code == 0 and "0 to train on" in out


@pytest.mark.long
def test_only_weights_that_are_read_are_needed(again, bench):
    """A teacher's features, and the maps of a student as it starts, need nothing of the student's."""
    kept = results_of(again)["teacher"].key
    for path in again.glob("work/runs/*/weights.pt"):
        if path.parent.name != kept:
            path.unlink()
    without(again, "match=start")
    before = trainings(again)
    code, out, err = bench(*words("run", again))
    assert code == 0 and "0 to train and 1 to evaluate" in out, err
    code, out, err = bench(*words("evaluate", again, "--features"))
    assert code == 0 and "0 to train and 5 to evaluate" in out, err  # of the teacher, and beside four students
    assert trainings(again) == before


def test_maps_of_other_blocks_are_compared_again(again, bench):
    content = tiny_protocol(seeds=[0])
    content["transfer"]["blocks"] = 1
    (again / "tiny.yaml").write_text(yaml.safe_dump(content))
    code, out, err = bench(*words("evaluate", again, "dinov2_reg/base/matched-none+match=end-s0", asked=False))
    assert code == 0 and "1 to evaluate" in out, err
    assert len(results_of(again)["matched-none"].evaluations["match=end"].attention_kl) == 1


def test_cells_that_share_a_run_share_its_evaluations(tmp_path, bench):
    """An evaluation that one family's cell has got is written into the other's, without being made again."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_protocol(seeds=[0])))
    (tmp_path / "few.yaml").write_text(yaml.safe_dump({"title": "Few", "arms": ["standard-none"]}))
    both = [word if word != "dinov2_reg" else "deit,dino" for word in words("run", tmp_path)]
    assert bench(*both)[0] == 0
    content = tiny_protocol(seeds=[0])
    content["data"]["noise_std"] = 0.5
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    code, out, err = bench(*words("evaluate", tmp_path, "dino/base/standard-none-s0", asked=False))
    assert code == 0 and "1 to evaluate" in out, err
    code, out, err = bench(*both)
    assert code == 0 and "0 to train on" in out, err
    scores = [json.loads(path.read_text())["evaluations"]["noise"] for path in tmp_path.glob("results/*/*/*/*.json")]
    assert len(scores) == 2 and scores[0] == scores[1] and scores[0]["on"]["noise_std"] == 0.5
    assert re.search(r"\.\d{3}\+00:00$", scores[0]["date"])  # of two within a second, the newer one is known


def test_a_run_without_transfer_is_reused_from_other_cells(tmp_path, bench):
    """That of another family, and that of the size which a larger teacher's student takes: nothing is trained again, and the
    new cell tells the same numbers."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_protocol(seeds=[0])))
    told = {}
    for family, size, arm in (("deit", "small", ""), ("dino", "small", ""), ("deit", "base", "+student=small")):
        (tmp_path / "few.yaml").write_text(yaml.safe_dump({"title": "Few", "arms": [f"standard-none{arm}"]}))
        given = {"dinov2_reg": family, "base": size}
        code, out, err = bench(*(given.get(word, word) for word in words("run", tmp_path)))
        assert code == 0 and f"{int(not told)} to train on" in out, out + err
        path = tmp_path / f"results/tiny/{family}/{size}/standard-none{arm}-s0.json"
        told[path] = {name: json.loads(path.read_text())[name] for name in ("metrics", "curve", "provenance", "cost", "key")}
        shutil.rmtree(tmp_path / "work")
    assert len(told) == 3 and all(each == told[path] for each in told.values())


def test_an_evaluation_beside_a_teacher_is_its_own_cells_alone(tmp_path, bench):
    """Two families share a student, whose maps are compared with each teacher's; a later command mixes nothing up."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_protocol(seeds=[0])))
    (tmp_path / "few.yaml").write_text(yaml.safe_dump({"title": "Few", "arms": ["standard-none", "standard-none+match=start"]}))
    both = [word if word != "dinov2_reg" else "deit3,dinov2" for word in words("run", tmp_path)]

    def compared():
        files = {name: tmp_path / f"results/tiny/{name}/base/standard-none-s0.json" for name in ("deit3", "dinov2")}
        found = {name: json.loads(path.read_text()) for name, path in files.items()}
        assert found["deit3"]["key"] == found["dinov2"]["key"]
        return {name: content["evaluations"]["match=start"] for name, content in found.items()}

    assert bench(*both)[0] == 0
    first = compared()
    assert (
        first["deit3"]["beside"] != first["dinov2"]["beside"]
        and first["deit3"]["attention_kl"] != first["dinov2"]["attention_kl"]
    )
    (tmp_path / "few.yaml").write_text(yaml.safe_dump({"title": "Few", "arms": ["standard-none"]}))
    code, out, err = bench(*both)
    assert code == 0 and "0 to train on" in out, err
    assert compared() == first


@pytest.mark.long
def test_single_runs(again, bench):
    without(again, "noise")
    code, out, err = bench(*words("evaluate", again, "dinov2_reg/base/matched-none-s0", asked=False, cluster="local"))
    assert code == 0 and "made 1 evaluations" in out, err
    assert [arm for arm, result in results_of(again).items() if "noise" in result.evaluations] == ["matched-none"]
    code, out, err = bench(*words("evaluate", again, "dinov2_reg/base/matched-none-s7", asked=False))
    assert code == 0 and "their runs are not finished: bench run trains them" in out, err
    assert bench(*words("evaluate", again, "dinov2_reg/base/matched-none+native=layer_scale,registers-s0", asked=False))[0] == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--sets", "nose"], "unknown evaluation set of this protocol: 'nose'; did you mean 'noise'"),
        (["--sets", "/nowhere/sketch:1000"], "made on the spot"),
        (["--sets", ""], "unknown evaluation set"),
        (["dinov2_reg/base"], "not a run, such as"),
        (["dinov2_reg/base/standard-copy"], "not a run, such as"),
        (["dinov2_reg/base/standard-cpy-s0"], "standard-cpy"),
        (["dinov9/base/standard-copy-s0"], "dinov9"),
        (["dinov2_reg/base/standard-copy-s0", "--seeds", "x"], "--seeds"),
    ],
)
def test_requests_that_are_wrong(site, bench, given, said):
    code, _, err = bench(*words("evaluate", site, *given, asked=False))
    assert code == 2 and said in err and len(err.splitlines()) == 1
