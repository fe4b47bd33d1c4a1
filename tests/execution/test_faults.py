"""Faults without a scheduler: what is damaged is never believed, what is full goes on once there is space, and the final
numbers are those of an undisturbed run. (Faults of jobs on Slurm: tests/slurm/test_faults.py.)"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
import yaml

from benchmark.execution.code_copy import frozen
from benchmark.storage.files import Damaged, _host, read_sealed, sealed, write_json
from benchmark.storage.work_folder import Workspace
from benchmark.training.state_files import load_state, weights_digest, weights_of
from families.spec import WeightsError

from ..conftest import CHECKPOINT, ROOT, WEIGHTS, Forked, command, tiny_protocol
from ..training.test_train import STEPS, fit, item_of, numbers, plan_of
from .test_launch import finish

MOST = 200  # characters of what is said of a fault, beside the folder's own path
pytestmark = pytest.mark.usefixtures("unreported")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A request's words, and what it gives undisturbed: `work` and `results` to copy, and the numbers by file."""
    from benchmark.cli import main

    root = tmp_path_factory.mktemp("undisturbed")
    content = tiny_protocol(checkpoint_seconds=0)
    (root / "tiny.yaml").write_text(yaml.safe_dump(content))
    (root / "few.yaml").write_text("title: Few\narms: [standard-copy]\n")
    words = ["run", "--family", "dinov2_reg", "--sizes", "base", "--protocol", root / "tiny.yaml", "--study", root / "few.yaml"]
    words = [str(word) for word in [*words, "--seeds", "0"]]
    folders = ["--results", str(root / "results"), "--work", str(root / "work")]
    assert main([*words, "--cluster", "debug", *folders]) == 0
    return root, words, found(root / "results")


def found(results):
    """By file what a run measured, of everything below a results folder."""
    files = {path.name: json.loads(path.read_text()) for path in results.rglob("*.json")}
    return {name: {part: each[part] for part in ("key", "metrics", "val", "curve", "teacher")} for name, each in files.items()}


def run_of(work, arm):
    """The folder of the run that serves an arm."""
    (path,) = [path for path in (work / "runs").glob("*/run.log") if f" {arm} s0 " in path.read_text()]
    return path.parent


def leftovers(*folders):
    return [path for folder in folders for path in folder.rglob("*.tmp*")]


@pytest.fixture
def again(site, bench, tmp_path):
    """The same request once more, in the test's own folders."""

    def call(*more, results=tmp_path / "results", work=tmp_path / "work"):
        return bench(*site[1], "--cluster", "debug", "--results", results, "--work", work, *more)

    return call


@pytest.fixture
def half(site, again, tmp_path):
    """A copy in which the student is still to be trained, and its teacher is finished."""
    shutil.copytree(site[0] / "work", tmp_path / "work")
    shutil.copytree(site[0] / "results", tmp_path / "results")
    shutil.copy(site[0] / "tiny.yaml", tmp_path / "tiny.yaml")
    (tmp_path / "results/tiny/dinov2_reg/base/standard-copy-s0.json").unlink()
    shutil.rmtree(run_of(tmp_path / "work", "standard-copy"))
    return tmp_path


# ---- weights and checkpoints


def flipped(content, offset):
    """The content with one bit of a byte changed."""
    return content[:offset] + bytes([content[offset] ^ 1 << offset % 8]) + content[offset + 1 :]


def offsets(content, seed=0):
    """20 places in a file at random, and 10 in its directory at the end."""
    draw = random.Random(seed)
    return [draw.randrange(len(content)) for _ in range(20)] + [
        draw.randrange(len(content) - 2000, len(content)) for _ in range(10)
    ]


def test_a_flipped_bit_of_weights_is_seen_or_changes_nothing(site, tmp_path):
    shutil.copytree(run_of(site[0] / "work", "teacher"), tmp_path / "runs" / "key")
    path = tmp_path / "runs" / "key" / WEIGHTS
    whole, digest = path.read_bytes(), weights_digest(path)
    assert weights_of(Workspace(tmp_path), "key") == path
    refused = 0
    for offset in offsets(whole):
        path.write_bytes(flipped(whole, offset))
        try:
            weights_of(Workspace(tmp_path), "key")
        except WeightsError as error:
            told = str(error).removeprefix(str(path))
            assert told != str(error) and "\n" not in told and len(told) <= MOST and "bench run trains its run again" in told
            refused += 1
        else:  # between the parts of the file, or in its dates
            assert weights_digest(path) == digest, offset
    assert refused >= 15


FOREIGN = {
    "half": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "dict": {"a": torch.ones(3)},
    "list": [1, 2, 3],
    "text": {"head.weight": "not a tensor"},
    "other": {"head.weight": torch.zeros(10, 48)},
    "tera": {"head.weight": torch.zeros(1).expand(10**12)},
    "sparse": {"head.weight": torch.eye(3).to_sparse()},
}


def damage(path, how):
    if callable(how):
        path.write_bytes(how(path.read_bytes()))
    else:
        torch.save(how, path)


@pytest.mark.parametrize("how", FOREIGN.values(), ids=FOREIGN)
def test_weights_that_are_not_ours_are_refused_with_the_remedy(how, half, again, site):
    """One line, the student fails and nothing is written for it; the remedy that the line names leads to the same numbers."""
    path = run_of(half / "work", "teacher") / WEIGHTS
    damage(path, how)
    begun = time.monotonic()
    code, out, err = again()
    lines = [line for line in out.splitlines() if line.startswith("failed: ")]
    assert code == 1 and len(lines) == 1 and "standard-copy" in lines[0] and "Traceback" not in out + err
    assert f"{path}: " in lines[0] and "delete it, and bench run trains its run again" in lines[0]
    assert len(lines[0].replace(str(path), "")) <= MOST + 80 and time.monotonic() - begun < 20
    assert "standard-copy-s0.json" not in found(half / "results")
    path.unlink()
    assert again()[0] == 0 and found(half / "results") == site[2]


def test_weights_of_another_run_are_known_by_their_digest(half, again, tmp_path):
    """A whole file of the right shapes, which only the teacher's own record tells from its weights."""
    path = run_of(half / "work", "teacher") / WEIGHTS
    state = torch.load(path, weights_only=True)
    torch.save({name: value + 0.01 for name, value in state.items()}, path)
    code, out, _ = again()
    assert code == 1 and "not the weights that run" in out
    with pytest.raises(WeightsError, match=r"not the weights of this run's model .Missing key"):
        torch.save({"head.weight": torch.zeros(1)}, tmp_path / "other.pt")
        load_state(torch.nn.Linear(2, 2), tmp_path / "other.pt")


@pytest.mark.long
def test_a_flipped_bit_of_a_checkpoint_changes_no_number(tmp_path, capsys):
    item = item_of(plan_of("deit", ["standard-none"]), "standard-none")
    whole = fit(item, tmp_path / "whole")
    assert fit(item, tmp_path / "run", stop_at=STEPS - 1) is None
    kept = (tmp_path / "run" / CHECKPOINT).read_bytes()
    aside = 0
    for offset in offsets(kept, seed=1):
        (tmp_path / "run" / CHECKPOINT).write_bytes(flipped(kept, offset))
        assert numbers(fit(item, tmp_path / "run")) == numbers(whole), offset
        told = capsys.readouterr().err.replace(str(tmp_path), "")
        assert not told or (told.endswith("set aside, and the run starts anew\n") and told.count("\n") == 1 and len(told) <= MOST)
        aside += bool(told)
    assert aside >= 15


OTHERS = {
    "dict": {"a": 1},
    "list": [1, 2],
    "other": {"run": "another", "code": "code", "model": {}, "optimizer": {}, "progress": {}, "average": None, "masked": None},
    "tensor": torch.ones(2),
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_a_checkpoint_that_is_not_ours_is_set_aside(content, tmp_path, capsys):
    item = item_of(plan_of("deit", ["standard-none"]), "standard-none")
    whole = fit(item, tmp_path / "whole")
    (tmp_path / "run").mkdir()
    torch.save(content, tmp_path / "run" / CHECKPOINT)
    assert numbers(fit(item, tmp_path / "run")) == numbers(whole)
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"{tmp_path / 'run' / CHECKPOINT}: not a checkpoint of run {item.key}; set aside" in told
    assert (tmp_path / "run" / f"{CHECKPOINT}.set-aside").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"progress": {"step": 3}},
        {"progress": {"step": "3", "seconds": 0.0, "loss_sum": 0.0, "loss_count": 0, "curve": []}},
        {"progress": {"step": 3, "seconds": 0.0, "loss_sum": 0.0, "loss_count": 0, "curve": [], "epoch": 1}},
        {"progress": None},
        {"model": {}},
        {"model": None},
        {"optimizer": {}},
        {"optimizer": None},
        {"optimizer": {"state": {}, "param_groups": []}},
        {"average": {}},
    ],
    ids=str,
)
def test_a_checkpoint_of_this_run_with_another_inside_is_set_aside(change, tmp_path, capsys):
    item = item_of(plan_of("deit", ["standard-none"]), "standard-none")
    whole = fit(item, tmp_path / "whole")
    assert fit(item, tmp_path / "run", stop_at=STEPS - 1) is None
    path = tmp_path / "run" / CHECKPOINT
    torch.save(torch.load(path, weights_only=True) | change, path)
    assert numbers(fit(item, tmp_path / "run")) == numbers(whole)
    told = capsys.readouterr().err.replace(str(path), "")
    assert told.count("\n") == 1 and told.endswith("set aside, and the run starts anew\n") and len(told) <= MOST


def test_a_checkpoint_of_other_code_is_begun_anew_whatever_it_holds(tmp_path, capsys):
    item = item_of(plan_of("deit", ["standard-none"]), "standard-none")
    whole = fit(item, tmp_path / "whole")
    assert fit(item, tmp_path / "run", stop_at=STEPS - 1) is None
    path = tmp_path / "run" / CHECKPOINT
    torch.save(torch.load(path, weights_only=True) | {"code": "other", "progress": {"epoch": 1}, "model": {}}, path)
    assert numbers(fit(item, tmp_path / "run")) == numbers(whole)
    assert not capsys.readouterr().err


def test_another_runs_checkpoint_is_set_aside(tmp_path, capsys):
    """Of another seed: it would fit in every shape."""
    item = item_of(plan_of("deit", ["standard-none"]), "standard-none")
    other = item_of(plan_of("deit", ["standard-none"], lr=1e-4), "standard-none")
    whole = fit(item, tmp_path / "whole")
    assert fit(other, tmp_path / "other", stop_at=5) is None
    (tmp_path / "run").mkdir()
    shutil.copy(tmp_path / "other" / CHECKPOINT, tmp_path / "run" / CHECKPOINT)
    assert numbers(fit(item, tmp_path / "run")) == numbers(whole)
    assert "not a checkpoint of run" in capsys.readouterr().err


# ---- payloads, progress, logs


def test_a_seal_tells_every_change(tmp_path):
    path = tmp_path / "sealed.json"
    write_json(path, sealed({"top1": 97.25, "curve": [{"step": 1}]}))
    whole = path.read_bytes()
    assert read_sealed(path) == {"top1": 97.25, "curve": [{"step": 1}]}
    for offset in range(len(whole) - 1):  # but for the last line break
        path.write_bytes(flipped(whole, offset))
        try:
            assert read_sealed(path) == {"top1": 97.25, "curve": [{"step": 1}]}, "a blank for another"
        except Damaged as error:
            assert str(path) in str(error)
    assert read_sealed(tmp_path / "none.json") is None


@pytest.mark.parametrize("how", ["digit", "half", "empty", "list", "deep"])
def test_a_damaged_payload_is_trained_again(how, half, again, site, capsys):
    """Its numbers would otherwise become a result without any sign."""
    shutil.rmtree(half / "results")
    path = run_of(half / "work", "standard-none") / "payload.json"
    text = path.read_text()
    changed = {
        "digit": text.replace('"top1": ', '"top1": 1', 1), "half": text[: len(text) // 2], "empty": "", "list": "[1]",
        "deep": "[" * 10_000,
    }  # fmt: skip
    path.write_text(changed[how])
    code, _, err = again()
    assert code == 0 and err.count("\n") == 1 and "payload.json.set-aside is damaged" in err
    assert found(half / "results") == site[2]


def other_runs(half):
    shutil.copy(run_of(half / "work", "teacher") / "payload.json", run_of(half / "work", "standard-none"))


def out_of_range(half):
    path = run_of(half / "work", "standard-none") / "payload.json"
    content = read_sealed(path)
    write_json(path, sealed(content | {"val": content["val"] | {"top1": 101.0}}))


def without_metrics(half):
    path = run_of(half / "work", "standard-none") / "payload.json"
    write_json(path, sealed({name: value for name, value in read_sealed(path).items() if name != "metrics"}))


def in_words(half):
    path = run_of(half / "work", "standard-none") / "payload.json"
    content = read_sealed(path)
    write_json(path, sealed(content | {"metrics": content["metrics"] | {"top1": "55.5"}}))


@pytest.mark.parametrize("change", [other_runs, out_of_range, without_metrics, in_words], ids=lambda change: change.__name__)
def test_a_sealed_payload_that_is_not_this_runs_is_trained_again(change, half, again, site):
    """The seal is whole, but the numbers are another run's, or are none."""
    shutil.rmtree(half / "results")
    change(half)
    code, _, err = again()
    assert code == 0 and err.count("\n") == 1 and "payload.json.set-aside is damaged" in err
    assert found(half / "results") == site[2]


def test_export_and_inspect_give_no_other_weights(half, bench):
    """Whole weights of another run, in this run's place."""
    teacher = run_of(half / "work", "teacher") / WEIGHTS
    student = run_of(half / "work", "standard-none") / WEIGHTS
    state = torch.load(student, weights_only=True)
    torch.save({name: value + 0.01 for name, value in state.items()}, student)
    one_line(bench("export", "standard-none-s0", "--work", half / "work"), f"{student}: not the weights that run")
    state = torch.load(teacher, weights_only=True)
    torch.save({name: value + 0.01 for name, value in state.items()}, teacher)
    words = ("inspect", "--family", "dinov2_reg", "--size", "base", "--protocol", half / "tiny.yaml", "--work", half / "work")
    one_line(bench(*words), f"{teacher}: not the weights that run")
    assert not (half / "work" / "export").exists() and not (half / "work" / "inspect").exists()


ODD = {"empty": b"", "binary": bytes(range(256)), "list": b"[1, 2]", "deep": b"[" * 10_000, "types": b'{"state": 7, "step": -1}'}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_odd_progress_error_and_log_files_stop_nothing(content, half, again, bench, site):
    folder = half / "work" / "runs"
    for run in folder.iterdir():
        for name in ("progress.json", "error.txt", "run.log", "log.jsonl"):
            (run / name).write_bytes(content)
    words = ("--work", half / "work")
    for verb in (("status", *words), ("status", "--json", *words), ("logs", "standard-none-s0", *words)):
        code, _, err = bench(*verb)
        assert code == 0 and not err
    assert again("--dry-run")[0] == 0
    code, _, err = again()
    assert code == 0 and not err and found(half / "results") == site[2]


def test_pipes_in_place_of_files_are_not_waited_for(half, again, bench, site):
    for run in (half / "work" / "runs").iterdir():
        for name in ("progress.json", "error.txt"):
            (run / name).unlink(missing_ok=True)
            os.mkfifo(run / name)
    assert bench("status", "--work", half / "work")[0] == 0
    assert again()[0] == 0 and found(half / "results") == site[2]


MADE = {"folder": Path.mkdir, "pipe": os.mkfifo, "loop": lambda path: path.symlink_to(path.name)}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_no_file_where_one_is_to_be_written(make, half, again, site, tmp_path):
    """Progress, error and logs of a run that is to be trained: what is in their place is set aside, or left alone."""
    folder = Workspace(half / "work").run(site[2]["standard-copy-s0.json"]["key"]).path
    folder.mkdir()
    for name in ("progress.json", "error.txt", "run.log", "log.jsonl"):
        make(folder / name)
    code, _, err = again()
    assert code == 0 and "Traceback" not in err and err.count("\n") == 2, err
    assert found(half / "results") == site[2]


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_lock_that_cannot_be_one(make, half, again, bench, site):
    """A run's: it fails, and says why. That of the records: one line, exit code 2."""
    folder = Workspace(half / "work").run(site[2]["standard-copy-s0.json"]["key"]).path
    folder.mkdir()
    make(folder / "lock")
    code, out, err = again()
    assert code == 1 and err.count("\n") == 1 and "passed over" in err
    (line,) = [line for line in out.splitlines() if line.startswith("failed: ")]
    assert f"{folder}: cannot be locked" in line
    (folder / "lock").rmdir() if make is Path.mkdir else (folder / "lock").unlink()
    (half / "work" / "jobs" / "lock").unlink()
    make(half / "work" / "jobs" / "lock")
    one_line(again(), "jobs: cannot be locked")
    one_line(bench("cancel", "--work", half / "work"), "jobs: cannot be locked")


# ---- records of what was submitted


RECORDS = {
    "empty": lambda text: "",
    "half": lambda text: text[: len(text) // 2],
    "list": lambda text: "[]",
    "deep": lambda text: "[" * 10_000,
    "types": lambda text: text.replace('"submitted": true', '"submitted": "perhaps"'),
    "name": lambda text: text.replace('"name": "', '"name": "../'),
    "other": lambda text: json.dumps(json.loads(text) | {"name": "1-2"}),
    **{
        f"request {value}": lambda text, value=value: json.dumps(
            json.loads(text) | {"request": json.loads(text)["request"] | value}
        )
        for value in ({"sets": 3}, {"set": 3}, {"seeds": 0}, {"sizes": ["base"]}, {"results": 5})
    },
}


@pytest.mark.parametrize("how", RECORDS.values(), ids=RECORDS)
def test_a_damaged_record_is_named_and_left_out(how, half, again, bench, site):
    (path,) = (half / "work" / "jobs").glob("*/submission.json")
    other = path.parent.with_name("77-1234")
    other.mkdir()
    (other / path.name).write_text(json.dumps(json.loads(path.read_text()) | {"name": "77-1234"}))
    path.write_text(how(path.read_text()))
    words = ("--work", half / "work")
    for verb in (("status", *words), ("status", "--json", *words), ("logs", "standard-none-s0", *words), ("cancel", *words)):
        code, out, err = bench(*verb)
        assert code == 0 and err.count("\n") == 1 and f"{path}: left out" in err and len(err.replace(str(path), "")) <= MOST
        assert "--json" not in verb or json.loads(out)
    assert again("--dry-run")[0] == 0
    assert again()[0] == 0 and found(half / "results") == site[2]


def test_a_record_of_another_version_counts(half, bench):
    (path,) = (half / "work" / "jobs").glob("*/submission.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"priority": 3}))
    code, _, err = bench("status", "--work", half / "work")
    assert code == 0 and not err


def test_a_changed_code_copy_is_made_anew(tmp_path, capsys):
    copy = frozen(tmp_path)
    assert frozen(tmp_path) == copy and not capsys.readouterr().err
    for change in (lambda: (copy / "benchmark" / "cli" / "run.py").write_text(""), (copy / "frozen.json").unlink):
        change()
        assert frozen(tmp_path) == copy
        assert "is not the code that it was copied from" in capsys.readouterr().err
        assert (copy / "benchmark" / "cli" / "run.py").read_bytes() == (ROOT / "benchmark" / "cli" / "run.py").read_bytes()
    assert len(list(tmp_path.glob("*.changed-*"))) == 2


def test_a_stray_measurement_is_named_and_left_out(half, again):
    folder = half / "work" / "speed" / "tiny"
    folder.mkdir(parents=True)
    setting = {"family": "diet", "size": "base"}
    for content in ({"a": 1}, {"setting": 3}, {"setting": {"a": 1}}, {"setting": setting, "provenance": {}}, [1]):
        path = folder / "deit-base-standard-cpu.json"
        path.write_text(json.dumps(content))
        code, _, err = again("--dry-run")
        assert (code, err) == (0, f"bench: {path}: left out, no measurement that bench speed wrote\n"), content


def test_a_pipe_as_the_origin_of_weights_is_not_waited_for(tmp_path):
    from families.core.weights import told_origin

    os.mkfifo(tmp_path / "a.pth.origin.txt")
    assert told_origin(tmp_path / "a.pth") is None


def test_a_full_disk_leaves_a_readme_as_it_is(disk, site, bench, tmp_path):
    folder = disk(tmp_path / "small", "1m")
    readme, text = folder / "README.md", "a" * 4000 + "\n<!-- leaderboard -->\nold\n<!-- /leaderboard -->\nend\n"
    readme.write_text(text)
    fill(folder)
    words = ("report", "--results", site[0] / "results", "--protocol", site[0] / "tiny.yaml", "--reports", tmp_path / "reports")
    one_line(bench(*words, "--readme", readme), str(readme), "No space left on device")
    assert readme.read_text() == text and not leftovers(folder)


def test_a_long_or_hostile_log_is_told_or_escaped(half, bench):
    folder = run_of(half / "work", "standard-none")
    (folder / "run.log").write_text("a\x1b[31mred\tb\n")
    code, out, _ = bench("logs", "standard-none-s0", "--work", half / "work")
    assert code == 0 and "a\\x1b[31mred\tb\n" in out and "\x1b" not in out
    with (folder / "run.log").open("wb") as file:
        file.truncate(150 * 2**20)
    code, out, _ = bench("logs", "standard-none-s0", "--work", half / "work")
    assert code == 0 and "run.log: not a file of up to 100 MB" in out


# ---- stray files in results


def test_stray_files_in_results_are_named(site, bench, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(site[0] / "results", results)
    folder = results / "tiny" / "dinov2_reg" / "base"
    (folder / "deep.json").write_text("[" * 10_000 + "]" * 10_000)
    (folder / "deeper.json").write_text('{"a":' * 10_000 + "1" + "}" * 10_000)
    os.mkfifo(folder / "pipe.json")
    (folder / "zero.json").symlink_to("/dev/zero")
    (folder / "loop.json").symlink_to("loop.json")
    (folder / "folder.json").mkdir()
    with (folder / "large.json").open("wb") as file:
        file.truncate(200 * 2**20)
    (folder / "digits.json").write_text('{"schema": ' + "9" * 5000 + "}")
    (folder / "binary.json").write_bytes(bytes(range(256)))
    huge = json.loads((folder / "standard-copy-s0.json").read_text())
    huge["metrics"]["attention_kl"] = [1e308] * 500
    (folder / "standard-copy-s0.json").write_text(json.dumps(huge))
    begun = time.monotonic()
    code, out, _ = bench("report", "--results", results, "--protocol", site[0] / "tiny.yaml", "--study", site[0] / "few.yaml")
    assert code == 0 and time.monotonic() - begun < 30
    lines = [line for line in out.splitlines() if line.startswith("left out: ")]
    assert len(lines) == 10 and all(len(line) <= MOST for line in lines), lines
    for name, why in {"pipe": "not a regular file", "zero": "not a regular file", "large": "more than 10 MB"}.items():
        assert any(f"{name}.json" in line and why in line for line in lines), lines


# ---- kills


AT = ("checkpoint.pt", "weights.pt", "payload.json", "standard-copy-s0.json")


def killed_at(at, words):
    """The command, killed before it puts a file of that name, which is not empty, in its place."""
    from benchmark.cli import main

    replace = os.replace

    def killed(source, target):
        if Path(target).name == at and Path(source).stat().st_size:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = killed
    return main(words)


@pytest.mark.long
@pytest.mark.parametrize("at", AT)
def test_kill_9_before_a_file_is_in_its_place(at, site, again, tmp_path):
    """What was half written is no file of anybody's, and is removed."""
    folders = ["--results", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    process = Forked(killed_at, at, [*site[1], "--cluster", "debug", *folders])
    out = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, out
    assert leftovers(tmp_path)
    code, _, err = again()
    assert code == 0 and not err and found(tmp_path / "results") == site[2]
    assert not leftovers(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("seconds", [0, 0.15])
def test_a_launcher_killed_at_once(seconds, site, tmp_path):
    """As its first file appears, or a moment later: its workers end with it, and the same command again completes all."""
    words = [*site[1], "--jobs", "2", "--results", tmp_path / "results", "--work", tmp_path / "work"]
    process = command(*words)
    while not (tmp_path / "work" / "jobs").exists():
        assert process.poll() is None
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for record in filter(Path.is_dir, (tmp_path / "work" / "jobs").iterdir()):  # as if it was killed while it wrote
        (record / f".submission.json.{_host()}-{process.pid}-00000000.tmp").touch()
    finish(words)
    assert found(tmp_path / "results") == site[2] and not leftovers(tmp_path)


# ---- full and read-only folders


@pytest.fixture
def disk(tmp_path):
    """Mount a small file system at a folder: its size in bytes, and more mount options; mounted again it changes."""
    if os.geteuid() != 0:
        pytest.skip("a small file system can be mounted by root alone")
    mounted = set()

    def mount(folder, size, *more):
        folder.mkdir(exist_ok=True)
        options = ",".join(["remount"] * (folder in mounted) + [f"size={size}", *more])
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.add(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder, left=0):
    """Take all space but so many bytes."""
    with (folder / "fill").open("wb", buffering=0) as file:
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
        file.write(bytes(max(0, free - left)))


def one_line(answer, *parts):
    code, _, err = answer
    assert code == 2 and err.startswith("bench: ") and err.count("\n") == 1, (code, err)
    assert all(part in err for part in parts), err


@pytest.mark.parametrize("option", ["work", "results", "reports"])
def test_a_full_folder_is_refused_and_goes_on_once_there_is_space(option, disk, site, again, tmp_path, monkeypatch):
    if option == "reports":
        monkeypatch.undo()  # they are written
    fill(disk(tmp_path / option, "5m"))
    one_line(again("--reports", tmp_path / "reports"), f"--{option} {tmp_path / option}", "No space left on device")
    (tmp_path / option / "fill").unlink()
    assert again("--reports", tmp_path / "reports")[0] == 0 and found(tmp_path / "results") == site[2]


@pytest.mark.parametrize("option", ["work", "results", "reports"])
def test_a_read_only_folder_is_refused(option, disk, site, again, tmp_path, monkeypatch):
    if option == "reports":
        monkeypatch.undo()
    disk(tmp_path / option, "4m", "ro")
    one_line(again("--reports", tmp_path / "reports"), f"--{option} {tmp_path / option}", "Read-only file system")
    disk(tmp_path / option, "40m", "rw")
    assert again("--reports", tmp_path / "reports")[0] == 0 and found(tmp_path / "results") == site[2]


@pytest.mark.parametrize("left", [100_000, 300_000, 700_000, 1_200_000, 2_500_000])
def test_a_work_folder_that_fills_up_on_the_way(left, disk, site, again, tmp_path):
    """Whatever fits no more: a run fails and says why, or the request ends in one line; nothing half written stays."""
    fill(disk(tmp_path / "work", "8m"), left)
    code, out, err = again()
    said = [line for line in (out + err).splitlines() if "No space left on device" in line]
    assert code in (1, 2) and said and "Traceback" not in out + err
    assert all(len(line.replace(str(tmp_path), "")) <= MOST + 80 for line in said), said
    assert not leftovers(tmp_path / "work", tmp_path / "results")
    whole = found(tmp_path / "results") if (tmp_path / "results").exists() else {}
    assert whole.items() <= site[2].items()
    (tmp_path / "work" / "fill").unlink()
    code, _, err = again()
    assert code == 0 and not err and found(tmp_path / "results") == site[2]


def test_results_that_fill_up_on_the_way(disk, site, again, tmp_path, monkeypatch):
    """Trained, but without space for the result: the run fails, its numbers are kept, and are written without training."""
    from benchmark.execution import unit_trainer

    results, deliver = disk(tmp_path / "results", "1m"), unit_trainer._deliver

    def deliver_late(*given):
        if not (results / "fill").exists():
            fill(results)
        deliver(*given)

    with monkeypatch.context() as late:
        late.setattr(unit_trainer, "_deliver", deliver_late)
        code, out, _ = again()
    assert code == 1 and "No space left on device" in out and not leftovers(results) and not found(results)
    (results / "fill").unlink()
    code, out, _ = again()
    assert code == 0 and "restored" in out and found(results) == site[2]


# ---- what died


def test_runs_of_a_dead_worker_go_on_together_first(tmp_path):
    """Alone only what a worker died over twice: the reason may have been anything the first time."""
    from benchmark.execution.backends.local import Local
    from benchmark.execution.launcher import Launch
    from benchmark.execution.progress_writer import mark_failed
    from benchmark.execution.setup import Setup
    from benchmark.execution.submitter import Submitter
    from benchmark.execution.worker import DIED
    from benchmark.storage.results import Results

    plan = plan_of("dinov2_reg", ["standard-copy", "matched-copy", "standard-none"])
    from benchmark.spec.protocol import Protocol
    from benchmark.spec.records import validated

    protocol = validated(Protocol, tiny_protocol(), "tiny")
    workspace = Workspace(tmp_path / "work")
    submitter = Submitter(Launch(plan, protocol, workspace, Results(tmp_path / "results"), Local(), Setup()))
    students = plan.stages[1]
    for item in students:
        workspace.run(item.key).path.mkdir(parents=True)
    for deaths, units in ((1, [4]), (2, [1, 1, 1, 1])):
        for item in students:
            mark_failed(workspace, item, "1-1", DIED, died=True)
            assert workspace.progress(item.key).deaths == deaths
        assert sorted(len(unit) for share in submitter.shares(students) for unit in share) == units
    mark_failed(workspace, students[0], "1-1", "ValueError: its own fault")
    assert workspace.progress(students[0].key).deaths == 2, "an error is no death"


def test_the_last_sign_of_life(tmp_path):
    """Running, then silent, then lost: told by when the worker last wrote."""
    from benchmark.execution.monitor import Monitor, Wanted, as_json
    from benchmark.execution.run_state import LOST_SECONDS

    plan = plan_of("deit", ["standard-none"])
    (item,) = plan.items.values()
    from benchmark.execution.submissions import Array, Job, Submission, Submissions
    from benchmark.storage.results import Results

    workspace = Workspace(tmp_path / "work")
    jobs = Submissions(workspace)
    submission = Submission("1-1", "local", arrays=[Array("1-1", [Job({item.key: "x"})], submitted=True)])
    jobs.save(submission)
    progress = {"state": "running", "step": 3, "steps": 9, "launcher": "1-1"}
    with jobs.present(submission):
        for silent, kind in ((5, "running"), (300, "running"), (LOST_SECONDS + 60, "lost")):
            write_json(workspace.run(item.key).progress, progress | {"updated": time.time() - silent})
            overview = Monitor(workspace, [Wanted(plan, Results(tmp_path / "results"))])
            told = as_json(overview.look())["runs"][0]
            assert told["state"] == kind and abs(told["silent_seconds"] - silent) <= 2
            assert (told["reason"] or "") == ("" if kind == "running" else told["reason"])
            assert (kind == "lost") == ("no sign of life for 31 min; bench cancel" in str(told["reason"]))
            from rich.console import Console

            from benchmark.execution.monitor import show

            console = Console(width=300, record=True)
            show(overview, console)
            assert ("last sign of life 5 min ago" in console.export_text()) == (silent == 300)
