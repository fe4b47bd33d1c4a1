"""One training: resumed exactly wherever it was stopped, and never a result from a failure."""

import itertools
import json
import math
import threading

import pytest
import torch
import yaml

from benchmark import data
from benchmark.data import DataLocation
from benchmark.spec.plan import Item, make_plan, together
from benchmark.spec.protocol import Protocol
from benchmark.spec.records import validated
from benchmark.spec.study import Study
from benchmark.storage.work_folder import RunFolder
from benchmark.training import checkpoint, models
from benchmark.training.co_trainer import CoTrainer
from benchmark.training.evaluation import evaluate
from benchmark.training.group import TrainingCallbacks, TrainingContext
from benchmark.training.models import reader_of
from benchmark.training.preemption import Preempted
from benchmark.training.run_trainer import RunTrainer
from benchmark.training.state_files import weights_digest
from families.core.adapter import normalised

from ..conftest import CHECKPOINT, WEIGHTS, tiny_protocol

STEPS = 7


def plan_of(family, arms, **recipe):
    content = tiny_protocol()
    content["recipe"] |= {"steps": STEPS} | recipe
    protocol = validated(Protocol, content, "tiny")
    return make_plan("tiny", protocol, "study", Study(title="-", arms=arms), [(family, "base")], [0])


class Killed(BaseException):
    """As a kill would, it ends everything at once."""


def training_of(item: Item, folder, teacher=None, code="code", reader=None, files=None, device="cpu"):
    folder.mkdir(exist_ok=True)
    transfers = item.run.transfer.needs_teacher
    if transfers and reader is None:
        reader = reader_of(item.run, {"run": teacher}, device)
    return RunTrainer(item.run, RunFolder(folder), reader if transfers else None, device, 2, code, files)


def train_all(trainings, stop_at=None, stepped=None, device="cpu", meter=None):
    """Train runs together: payloads and failures by folder name. With `stop_at`, save after every step and stop there."""
    payloads, failures = {}, {}

    def step(training, loss):
        if training.state.step == stop_at:
            raise Killed
        if stepped is not None:
            stepped(training, loss)

    watcher = TrainingCallbacks(
        step,
        lambda training, payload: payloads.update({training.folder.path.name: payload}),
        lambda training, error: failures.update({training.folder.path.name: error}),
    )
    context = TrainingContext(checkpoint_seconds=0 if stop_at else 1e9, place=DataLocation(device=device), meter=meter)
    CoTrainer(trainings, watcher, context).train()
    return payloads, failures


def fit(item: Item, folder, teacher=None, stop_at=None, device="cpu", files=None):
    """Train an item by itself; with `stop_at` it breaks off there."""
    training = training_of(item, folder, teacher, files=files, device=device)
    try:
        payloads, failures = train_all([training], stop_at, device=device)
    except Killed:
        training.wait_for_write()
        return None
    assert not failures, failures
    return payloads[folder.name]


def item_of(plan, arm):
    return next(item for item in plan.items.values() if item.cells[0].arm == arm)


QUIET = TrainingCallbacks(
    lambda training, loss: None, lambda training, payload: None, lambda training, error: pytest.fail(str(error))
)


def digits(run):
    return data.load(run.settings.data, DataLocation(), 24, run.protocol.normalisation)


def score_of(training, name):
    ((_, score),) = evaluate(CoTrainer([training], QUIET, TrainingContext()), [training], name)
    return score


def test_gradients_of_one_run_are_held_at_a_time(tmp_path):
    items = [item_of(plan_of("dinov2", [arm]), arm) for arm in ("standard-none", "matched-none")]
    trainings = [training_of(item, tmp_path / str(number)) for number, item in enumerate(items)]
    held = []

    def watched(number, learn):
        def learned(*given):
            held.append([any(each.grad is not None for each in other.model.parameters()) for other in trainings])
            loss = learn(*given)
            held.append([any(each.grad is not None for each in other.model.parameters()) for other in trainings])
            return loss

        return learned

    for number, training in enumerate(trainings):
        training.learn = watched(number, training.learn)
    train_all(trainings)
    assert held == STEPS * [[False, False], [True, False], [False, False], [False, True]]


@pytest.mark.parametrize("step", [0, 3])
def test_a_step_that_was_not_counted_is_in_no_checkpoint(step, tmp_path):
    """Told to leave in the middle of a step, after one of two runs has taken it."""
    first, second = (item_of(plan_of("dinov2", [arm]), arm) for arm in ("standard-none", "matched-none"))
    whole = fit(first, tmp_path / "whole")
    trainings = [training_of(first, tmp_path / "run"), training_of(second, tmp_path / "other")]
    learn = trainings[1].learn

    def told(*given):
        if trainings[1].state.step == step:
            raise Preempted
        return learn(*given)

    trainings[1].learn = told
    with pytest.raises(Preempted):
        train_all(trainings, stop_at=99)  # checkpoints after each step
    trainings[0].wait_for_write()
    again = fit(first, tmp_path / "run")
    assert {name: again[name] for name in ("metrics", "curve")} == {name: whole[name] for name in ("metrics", "curve")}


def numbers(payload):
    return {name: payload[name] for name in ("metrics", "val", "curve")}


@pytest.mark.parametrize("arm", ["matched-none", "standard-copy", "matched-distill"])
@pytest.mark.parametrize("family", ["dinov2_reg", "beitv2"])
def test_a_stopped_training_goes_on_exactly(family, arm, tmp_path):
    plan = plan_of(family, ["standard-copy", "matched-distill", "matched-none"])
    teacher_item = next(item for item in plan.items.values() if item.run.role == "teacher")
    fit(teacher_item, tmp_path / "teacher")
    item = next(item for item in plan.items.values() if item.cells[0].arm == arm)
    teacher = None if not item.requires else tmp_path / "teacher" / WEIGHTS
    whole = fit(item, tmp_path / "whole", teacher)
    for stop in (2, 4, STEPS):
        folder = tmp_path / f"stopped-{stop}"
        assert fit(item, folder, teacher, stop_at=stop) is None
        saved = torch.load(folder / CHECKPOINT, weights_only=True)
        assert 0 < saved["progress"]["step"] < stop  # a write may take more than a step
        resumed = fit(item, folder, teacher)
        assert numbers(resumed) == numbers(whole)
        assert weights_digest(folder / WEIGHTS) == weights_digest(tmp_path / "whole" / WEIGHTS)


def test_checkpoints_are_written_while_the_training_goes_on(tmp_path, monkeypatch):
    """One at a time, each with the state of the step at which it was taken. One that cannot be written fails its run alone."""
    plan = plan_of("deit", ["standard-none", "standard-none+start=mimetic"])
    trainings = [training_of(item, tmp_path / f"run-{number}") for number, item in enumerate(plan.items.values())]
    goes_on, begun, write = threading.Event(), [], checkpoint._replace
    weights = {}

    def slow(path, content):
        begun.append(path.parent.name)
        assert goes_on.wait(60)
        if path.parent.name == "run-1":
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    def stepped(training, loss):
        step = training.state.step
        weights[training.folder.path.name, step] = {name: value.clone() for name, value in training.model.state_dict().items()}
        if step == 4 and training is trainings[1]:
            assert begun == ["run-0"] and not trainings[0].folder.checkpoint.exists()
            goes_on.set()
            trainings[0].writing.result()
            saved = torch.load(trainings[0].folder.checkpoint, weights_only=True)
            assert saved["progress"]["step"] == 1
            assert all(torch.equal(saved["model"][name], value) for name, value in weights["run-0", 1].items())

    monkeypatch.setattr(checkpoint, "_replace", slow)
    payloads, failures = train_all(trainings, stop_at=99, stepped=stepped)
    assert payloads.keys() == {"run-0"} and begun[:2] == ["run-0", "run-1"]
    assert isinstance(failures["run-1"], OSError) and "No space left" in str(failures["run-1"])


def test_a_checkpoint_of_other_code_is_not_resumed(tmp_path):
    """A result claims one code; a run that changed its code in the middle would have two."""
    (item,) = plan_of("deit", ["standard-none"]).items.values()
    assert fit(item, tmp_path / "run", stop_at=5) is None
    step = torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)["progress"]["step"]
    for code, first in (("other code", 1), ("code", step + 1)):
        steps = []
        training = training_of(item, tmp_path / "run", code=code)
        train_all([training], stepped=lambda training, loss, steps=steps: steps.append(training.state.step))
        assert steps == list(range(first, STEPS + 1))


def test_gradient_checkpointing_and_bfloat16_train(tmp_path):
    """As settings of the recipe: checkpointing changes no number to speak of, bfloat16 keeps the loss finite."""
    results = {}
    for name, recipe in {
        "plain": {},
        "checkpointed": {"grad_checkpointing": True},
        "bfloat16": {"precision": "bfloat16"},
        "clipped": {"clip_grad": 1e-3},
    }.items():
        plan = plan_of("dinov2_reg", ["matched-distill"], **recipe)
        teacher, student = item_of(plan, "teacher"), item_of(plan, "matched-distill")
        if not (tmp_path / "teacher").exists():
            fit(teacher, tmp_path / "teacher")
        results[name] = fit(student, tmp_path / name, tmp_path / "teacher" / WEIGHTS)
    plain, checkpointed = (results[name]["curve"][-1]["loss"] for name in ("plain", "checkpointed"))
    assert checkpointed == pytest.approx(plain, rel=1e-5)
    assert results["bfloat16"]["curve"][-1]["loss"] == pytest.approx(plain, rel=0.05)
    assert results["bfloat16"]["curve"][-1]["loss"] != plain
    assert results["clipped"]["curve"][-1]["loss"] != plain


def test_what_copy_reads_it_needs_at_test_time(tmp_path):
    """A copied student evaluated without its teacher is another model."""
    plan = plan_of("deit", ["standard-copy"], steps=30)
    teacher, student = item_of(plan, "teacher"), item_of(plan, "standard-copy")
    fit(teacher, tmp_path / "teacher")
    training = training_of(student, tmp_path / "student", tmp_path / "teacher" / WEIGHTS)
    train_all([training])
    guided = score_of(training, "test")
    training.student.transfer.reader = None
    assert score_of(training, "test") != guided


def test_one_way_of_evaluating_a_distilled_student(tmp_path):
    """The test set, of which attention is compared, is scored as val and the shifted sets are."""
    plan = plan_of("deit", ["standard-distill"], precision="bfloat16")
    fit(item_of(plan, "teacher"), tmp_path / "teacher")
    training = training_of(item_of(plan, "standard-distill"), tmp_path / "student", tmp_path / "teacher" / WEIGHTS)
    group = CoTrainer([training], QUIET, TrainingContext())
    ((_, plain),), ((_, compared),) = (evaluate(group, [training], "test", attention=each) for each in (False, True))
    assert compared["attention_kl"] is not None and plain == {key: compared[key] for key in plain}


class One:
    def __init__(self, batches):
        self.batches = batches

    def classes(self, name):
        return None

    def evaluate(self, name, size):
        return iter(self.batches)


def test_one_precision_in_training_and_evaluation(tmp_path, monkeypatch):
    """In bfloat16 the copied maps are the same whether the student trains on an image or is evaluated on it."""
    plan = plan_of("deit", ["standard-copy"], precision="bfloat16")
    teacher, student = item_of(plan, "teacher"), item_of(plan, "standard-copy")
    fit(teacher, tmp_path / "teacher")
    training = training_of(student, tmp_path / "student", tmp_path / "teacher" / WEIGHTS)
    seen, bond = [], training.student.transfer
    training.model.head.register_forward_hook(
        lambda module, args, output: seen.append((output.detach(), [route.weights.clone() for route in bond.maps.values()]))
    )
    images, labels = next(digits(student.run).evaluate("test", 16))
    training.student.optimizer.step = lambda: None
    alone = CoTrainer([training], QUIET, TrainingContext())
    alone._step([training], itertools.repeat((images, labels)))
    monkeypatch.setattr(alone, "dataset", One([(images, labels)]))
    evaluate(alone, [training], "test")
    (trained, taught), (evaluated, shown) = seen
    assert torch.equal(trained, evaluated)
    for one, other in zip(taught, shown, strict=True):
        assert torch.equal(one, other)
    exact = training.student.transfer.reader.read(normalised(images, student.run.protocol.normalisation))
    assert not torch.equal(exact[0].weights, taught[0])


def test_every_image_is_counted_once(tmp_path):
    """Batches that do not divide the set: top-1 and loss equal those of one whole batch."""
    plan = plan_of("deit", ["standard-none"])
    (item,) = plan.items.values()
    training = training_of(item, tmp_path / "a")
    whole = score_of(training, "test")
    group = CoTrainer([training], QUIET, TrainingContext())
    group.evaluation_batch = 33
    ((_, parts),) = evaluate(group, [training], "test")
    assert parts["top1"] == whole["top1"] and parts["loss"] == pytest.approx(whole["loss"])
    with torch.no_grad():
        images, labels = next(digits(item.run).evaluate("test", 1000))
        logits = training.model.eval()((images - 0.19) / 0.33)
    assert whole["top1"] == pytest.approx(100 * (logits.argmax(1) == labels).float().mean().item())
    assert whole["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)


def test_fixed_tables_are_not_trained(tmp_path):
    plan = plan_of("mae", ["matched-none"], lr=0.1)
    (item,) = plan.items.values()
    training = training_of(item, tmp_path / "run")
    before = training.model.pos_embed.clone(), training.model.cls_token.clone()
    train_all([training])
    assert torch.equal(training.model.pos_embed, before[0])
    assert not torch.equal(training.model.cls_token, before[1])


@pytest.mark.parametrize("family", ["deit3", "beitv2", "dinov2_reg"])
def test_one_rule_of_weight_decay(family, tmp_path):
    """Whatever class builds the student: weights of two and more dimensions decay, but no token, position or bias table."""
    item = item_of(plan_of(family, ["matched-none"]), "matched-none")
    training = training_of(item, tmp_path)
    decay = {id(p): group["weight_decay"] for group in training.student.optimizer.param_groups for p in group["params"]}
    for name, parameter in training.model.named_parameters():
        spared = parameter.ndim < 2 or "token" in name or "pos_embed" in name or "table" in name
        assert decay[id(parameter)] == (0.0 if spared else 0.05), name


# ---- runs that train together


@pytest.mark.parametrize("family", ["dinov2_reg", "beitv2"])
def test_runs_that_train_together_equal_those_trained_alone(family, tmp_path):
    """All arms and another budget beside each other, stopped and resumed at unequal steps, one failing on the way: every
    number and weight is that of the run made alone."""
    arms = ["standard-copy", "standard-distill", "matched-copy", "matched-distill", "standard-copy+source=other-image"]
    plan = plan_of(family, [*arms, "standard-copy+budget=x2"])
    teacher = item_of(plan, "teacher")
    fit(teacher, tmp_path / "teacher")
    weights = tmp_path / "teacher" / WEIGHTS
    (students,) = together(item for item in plan.items.values() if item is not teacher)
    assert len(students) == 9
    alone, shared = {}, tmp_path / "shared"
    for item in students:
        alone[item.key] = fit(item, tmp_path / item.key, weights)
    shared.mkdir()
    reader = reader_of(students[0].run, {"run": weights}, "cpu")

    def trainings(items):
        return [training_of(item, shared / item.key, reader=reader) for item in items]

    for some, stop in ((students, 5), (students[2:4], 7)):
        stopped = trainings(some)
        with pytest.raises(Killed):
            train_all(stopped, stop_at=stop)
        for training in stopped:
            training.wait_for_write()
    saved = [shared / item.key / CHECKPOINT for item in students]
    assert len({torch.load(path, weights_only=True)["progress"]["step"] for path in saved if path.exists()}) > 1
    bad = next(item for item in students if item.cells[0].arm == "standard-copy")

    def fail(training, loss):
        if training.run.key == bad.key and training.state.step == 6:
            raise RuntimeError("out of luck")

    payloads, failures = train_all(trainings(students), stepped=fail)
    assert list(failures) == [bad.key] and str(failures[bad.key]) == "out of luck"
    assert sorted(payloads) == sorted(item.key for item in students if item is not bad)
    for key, payload in payloads.items():
        assert numbers(payload) == numbers(alone[key])
        assert weights_digest(shared / key / WEIGHTS) == weights_digest(tmp_path / key / WEIGHTS)
        assert payload["cost"]["together"] == 9 and alone[key]["cost"]["together"] == 1


def test_the_teacher_and_the_batch_are_paid_once(tmp_path, monkeypatch):
    plan = plan_of("deit3", ["standard-copy", "standard-distill", "matched-copy", "matched-distill"])
    teacher, *students = plan.items.values()
    fit(teacher, tmp_path / "teacher")
    reader = reader_of(students[0].run, {"run": tmp_path / "teacher" / WEIGHTS}, "cpu")
    reads, composed = [], []
    real_read, shown = reader.read, digits(students[0].run)
    real_compose = shown.compose
    monkeypatch.setattr(reader, "read", lambda x, draws: reads.append(len(x)) or real_read(x))
    monkeypatch.setattr(shown, "compose", lambda split, *a, **k: composed.append(split) or real_compose(split, *a, **k))
    trainings = [training_of(item, tmp_path / item.key, reader=reader) for item in students]
    payloads, _ = train_all(trainings)
    assert len(payloads) == 6
    assert reads.count(16) == STEPS == composed.count("train")
    assert len(reads) == STEPS + 2 + 3  # val twice, test and two shifted sets, each one batch


def test_a_teacher_that_raises_fails_its_students_alone(tmp_path, monkeypatch):
    plan = plan_of("deit3", ["standard-copy", "standard-distill"])
    teacher, *students = plan.items.values()
    fit(teacher, tmp_path / "teacher")
    reader = reader_of(students[0].run, {"run": tmp_path / "teacher" / WEIGHTS}, "cpu")
    monkeypatch.setattr(reader, "_routes", lambda images, held: 1 / 0)
    payloads, failures = train_all([training_of(item, tmp_path / item.cells[0].arm, reader=reader) for item in students])
    assert sorted(failures) == ["standard-copy", "standard-distill"] and list(payloads) == ["standard-none"]


def test_a_teacher_without_weights_fails_its_students_alone(bench, tmp_path, monkeypatch, unreported):
    protocol = tmp_path / "tiny.yaml"
    protocol.write_text(yaml.safe_dump(tiny_protocol()))
    monkeypatch.setattr(models, "reader_of", lambda *given: 1 / 0)
    code, out, _ = run_debug(bench, protocol, tmp_path)
    assert code == 1 and "ZeroDivisionError" in out
    written = sorted(path.stem for path in (tmp_path / "results").rglob("*.json"))
    assert written == ["matched-none-s0", "standard-none-s0", "teacher-s0"]


def test_runs_of_other_batches_do_not_train_together(tmp_path):
    (one,), (other,) = (plan_of("deit", ["standard-none"], batch_size=size).items.values() for size in (8, 16))
    assert len(together([one, other])) == 2
    with pytest.raises(ValueError, match="same data, order and batch"):
        CoTrainer([training_of(one, tmp_path / "one"), training_of(other, tmp_path / "other")], QUIET, TrainingContext())


# ---- failures, through the command


def run_debug(bench, protocol, tmp_path, *more):
    folders = ("--results", tmp_path / "results", "--work", tmp_path / "work")
    words = ("--family", "deit", "--sizes", "base", "--protocol", protocol, "--seeds", "0", "--cluster", "debug")
    return bench("run", *words, *folders, *more)


def test_a_teacher_below_its_floor_fails_its_students_and_no_other(bench, tmp_path, unreported):
    protocol = tmp_path / "tiny.yaml"
    content = tiny_protocol()
    content["teacher"]["floor"] = 99.9
    protocol.write_text(yaml.safe_dump(content))
    code, out, _ = run_debug(bench, protocol, tmp_path)
    assert code == 1
    assert "below the protocol's floor of 99.9" in out and "its teacher failed" in out
    written = sorted(path.stem for path in (tmp_path / "results").rglob("*.json"))
    assert written == ["matched-none-s0", "standard-none-s0"]


def test_a_raised_floor_rejects_a_finished_teacher(bench, tmp_path, unreported):
    protocol, content = tmp_path / "tiny.yaml", tiny_protocol()
    protocol.write_text(yaml.safe_dump(content))
    assert run_debug(bench, protocol, tmp_path)[0] == 0
    content["teacher"]["floor"] = 99.9
    protocol.write_text(yaml.safe_dump(content))
    code, out, _ = run_debug(bench, protocol, tmp_path, "--seeds", "0,1")
    assert code == 1 and "below the protocol's floor of 99.9" in out and "its teacher failed" in out
    assert not list((tmp_path / "results").rglob("standard-copy-s1.json"))
    assert list((tmp_path / "results").rglob("standard-none-s1.json"))


def test_a_loss_that_is_not_finite_is_no_result(bench, tmp_path, monkeypatch, unreported):
    """It fails, says why, leaves its traceback in the work folder, and the same command tries it again."""
    protocol = tmp_path / "tiny.yaml"
    protocol.write_text(yaml.safe_dump(tiny_protocol()))
    honest = RunTrainer.begin

    def poisoned(self):
        if self.run.transfer.method == "copy" and self.state.step == 2:
            with torch.no_grad():
                next(self.model.parameters()).fill_(math.nan)
        return honest(self)

    monkeypatch.setattr(RunTrainer, "begin", poisoned)
    code, out, _ = run_debug(bench, protocol, tmp_path)
    assert code == 1 and "the loss is nan at step 3" in out
    assert not list((tmp_path / "results").rglob("*copy*"))
    assert len(list((tmp_path / "results").rglob("*.json"))) == 5
    (error,) = (tmp_path / "work" / "runs").glob("*/error.txt")
    assert "Traceback" in error.read_text()
    monkeypatch.setattr(RunTrainer, "begin", honest)
    code, out, _ = run_debug(bench, protocol, tmp_path)
    assert code == 0 and "trained 1 runs" in out
    assert len(list((tmp_path / "results").rglob("*.json"))) == 7
    assert not list((tmp_path / "work" / "runs").glob("*/error.txt"))
    assert not list((tmp_path / "work" / "runs").glob(f"*/{CHECKPOINT}"))


def test_finished_runs_are_returned_not_trained(bench, tmp_path, monkeypatch):
    """From the results; from the work folder when the results are gone; and a lost teacher is trained again, saying so."""
    protocol = tmp_path / "tiny.yaml"
    protocol.write_text(yaml.safe_dump(tiny_protocol()))
    assert run_debug(bench, protocol, tmp_path)[0] == 0
    first = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.json")}
    table = (tmp_path / "reports" / "leaderboard.md").read_text()
    monkeypatch.setattr(CoTrainer, "train", None)
    code, out, _ = run_debug(bench, protocol, tmp_path)
    assert code == 0 and "0 to train" in out
    for path in first:
        path.unlink()
    code, out, _ = run_debug(bench, protocol, tmp_path)
    assert code == 0 and "4 restored from" in out
    assert {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.json")} == first
    assert (tmp_path / "reports" / "leaderboard.md").read_text() == table
    monkeypatch.undo()
    for path in (tmp_path / "work" / "runs").glob(f"*/{WEIGHTS}"):
        path.unlink()
    next((tmp_path / "results").rglob("standard-copy-s0.json")).unlink()
    next((tmp_path / "results").rglob("matched-copy-s0.json")).unlink()
    for path in (tmp_path / "work" / "runs").glob("*/payload.json"):
        if json.loads(path.read_text())["metrics"] == json.loads(first_of(first, "standard-copy-s0"))["metrics"]:
            path.unlink()
    code, out, _ = run_debug(bench, protocol, tmp_path)
    assert code == 0 and "has a result but no weights here, so it is trained again" in out
    again = {path: json.loads(path.read_bytes())["metrics"] for path in (tmp_path / "results").rglob("*.json")}
    assert again == {path: json.loads(content)["metrics"] for path, content in first.items()}


def first_of(contents, stem):
    return next(content for path, content in contents.items() if path.stem == stem)
