"""Slurm without a Slurm: a site's settings, what a job gets, what is made of Slurm's answers, and leaving in the middle."""

import json
import os
import re
import signal
import socket
import time

import pytest
import torch
import yaml

from benchmark.execution.backends.backend import Live, SchedulerError
from benchmark.execution.monitor import Monitor, Wanted
from benchmark.execution.preemption import SignalledPreemption
from benchmark.execution.slurm import commands as slurm_commands
from benchmark.execution.slurm.config import ClusterConfig, load_config
from benchmark.execution.submissions import Array, Job, Submission, Submissions
from benchmark.execution.worker import Worker
from benchmark.spec.plan import make_plan
from benchmark.spec.protocol import load_protocol
from benchmark.spec.study import load_study
from benchmark.storage.results import Results
from benchmark.storage.work_folder import Workspace
from benchmark.training.co_trainer import CoTrainer
from benchmark.training.group import TrainingCallbacks, TrainingContext
from benchmark.training.preemption import Preempted, Preemption
from benchmark.training.state_files import weights_digest

from ..conftest import CHECKPOINT, ROOT, WEIGHTS, command, tiny_protocol
from ..training.test_train import STEPS, fit, numbers, plan_of, training_of


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Put shell scripts first on PATH, by name, in place of Slurm's programs; without any there is no Slurm."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(**scripts):
        for name, script in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)

    return write


@pytest.fixture
def on_slurm(tiny, folders, bench, tmp_path):
    """`bench run --cluster slurm` of two runs, with these settings in a file."""
    (tmp_path / "few.yaml").write_text("title: Few\narms: [standard-none, matched-none]\n")

    def call(settings=None, *more):
        words = ["--family", "mae", "--sizes", "base", "--seeds", "0", "--protocol", tiny, "--study", tmp_path / "few.yaml"]
        if settings is not None:
            (tmp_path / "cluster.yaml").write_text(settings)
            words += ["--cluster-config", tmp_path / "cluster.yaml"]
        return bench("run", *words, *folders, "--cluster", "slurm", *more)

    return call


def refused(answer, *parts):
    """A request that was wrong: exit code 2, one line."""
    code, _, err = answer
    assert code == 2 and err.startswith("bench: ") and err.count("\n") == 1, (code, err)
    for part in parts:
        assert part in err, err


# ---- settings


@pytest.mark.parametrize(
    ("settings", "told"),
    {
        "partitoin: main": "unknown key 'partitoin'; did you mean 'partition'? valid: partition, account,",
        "minutes: long": "minutes: Input should be a valid integer",
        "minutes: 0": "minutes: Input should be greater than or equal to 1",
        "setup: module load cuda": "setup: Input should be a valid tuple",
        "environment: {A: [1]}": "environment.A: Input should be a valid string",
        "environment: {1-A: x}": "environment: '1-A' is no name of a variable",
        "gpus: 2\nprocesses: 4": "gpus: 2 and processes: 4: each process has one GPU",
        "sbatch: {job-name: mine}": "sbatch: job-name is set by the launcher",
        "sbatch: {array: 1-3}": "sbatch: array is set by the launcher",
        "sbatch: [hold]": "sbatch: Input should be a valid dictionary",
        "- partition": "content: Input should be a valid dictionary",
        "partition: [": "not readable as YAML",
    }.items(),
)
def test_wrong_settings(settings, told, on_slurm):
    refused(on_slurm(settings), "cluster.yaml: ", told)


def test_settings_that_go_nowhere(on_slurm, bench, tmp_path):
    refused(on_slurm(None, "--cluster-config", tmp_path / "none.yaml"), f"{tmp_path / 'none.yaml'}: no such file")
    refused(bench("run", "--cluster-config", "x.yaml"), "--cluster-config goes with --cluster slurm")
    refused(bench("run", "--cluster", "slrum"), "did you mean 'slurm'?")
    refused(on_slurm("processes: 3"), "a batch of 16", "twice the 3 processes")


def test_an_empty_file_is_the_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert load_config(tmp_path / "empty.yaml") == ClusterConfig()


def test_the_users_own_file(monkeypatch, tmp_path, on_slurm, programs):
    """It is used where no other is given, --jobs and --processes come before it, and its mistakes name it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert load_config(None) == ClusterConfig()
    mine = tmp_path / "config" / "bench" / "cluster.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("partition: mine\nparallel: 3\nnodes: 2\n")
    assert load_config(None) == ClusterConfig(partition="mine", parallel=3, nodes=2)
    text = submitted_text(programs, tmp_path, on_slurm, None, "--jobs", "5", "--processes", "4")
    assert "--partition=mine" in text and "--ntasks-per-node=4" in text and "--nodes=2" in text
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("work/jobs/*/submission.json"))
    assert record["arrays"][0]["jobs"][0]["id"] == "77"
    mine.write_text("gpus: 2\n")
    refused(on_slurm(None, "--processes", "4"), "--processes", "gpus: 2 and processes: 4")
    mine.write_text("partitoin: mine\n")
    refused(on_slurm(None), str(mine), "did you mean 'partition'?")


ANSWERS = {
    "scontrol": "echo 'MaxArraySize            = 1001'",
    "squeue": "exit 0",
    "sacct": "exit 0",
    "srun": "exit 1",
    "scancel": "exit 0",
}


def submitted_text(programs, tmp_path, on_slurm, settings, *more):
    """The batch script that sbatch is given."""
    programs(**ANSWERS, sbatch=f'/bin/cat "$1" > {tmp_path}/given.sh\necho "Submitted batch job 77"')
    code, out, err = on_slurm(settings, *more)
    assert code == 0, (out, err)
    return (tmp_path / "given.sh").read_text()


def test_the_batch_script(programs, tmp_path, on_slurm):
    text = submitted_text(
        programs,
        tmp_path,
        on_slurm,
        """
        partition: main
        account: us
        qos: high
        constraint: a100|h100
        nodes: 2
        gpus: 4
        cpus: 8
        memory_gb: 1.5
        minutes: 90
        notice_seconds: 45
        environment: {GREETING: "it's a b", COUNT: 7}
        setup: [module load cuda, ulimit -n 4096]
        sbatch: {comment: two words, exclusive: true, nice: 5, hold: false}
        """,
    )
    options = set(re.findall(r"^#SBATCH --(.*)$", text, re.MULTILINE))
    assert {
        "partition=main", "account=us", "qos=high", "constraint='a100|h100'", "nodes=2", "gpus-per-node=4", "ntasks-per-node=4",
        "cpus-per-task=8", "mem=1536MB", "time=90", "signal=USR2@45", "requeue", "comment='two words'", "exclusive", "nice=5",
        "open-mode=append",
    } <= options, options  # fmt: skip
    assert "hold" not in text
    lines = text.splitlines()
    first = lines.index("module load cuda")
    assert lines[first + 1] == "ulimit -n 4096"
    (variables,) = (tmp_path / "work" / "jobs").glob("*/environment.sh")
    assert lines[first + 2] == f". {variables}" and "GREETING" not in text
    assert variables.read_text().splitlines() == ["export GREETING='it'\"'\"'s a b'", "export COUNT=7"]
    assert variables.stat().st_mode & 0o777 == 0o600, "they may be secrets"
    code = next((tmp_path / "work" / "code").iterdir())
    assert f"export PYTHONPATH={code}" in text and "export PYTHONSAFEPATH=1" in text
    assert re.search(r"^srun .*--kill-on-bad-exit=1 .*submitit", text, re.MULTILINE)
    assert (code / "benchmark" / "execution" / "worker.py").read_bytes() == (
        ROOT / "benchmark" / "execution" / "worker.py"
    ).read_bytes()


def test_arrays_and_dependencies(monkeypatch, programs, tmp_path):
    """As submitit writes them for several jobs at once."""
    import submitit
    from submitit.slurm.slurm import _make_sbatch_string

    programs(srun="exit 1")
    executor = submitit.AutoExecutor(folder=tmp_path, cluster="slurm")
    executor.update_parameters(**ClusterConfig(parallel=4).parameters("bench-x", tmp_path, ["12_0", "12_1", "15"], tmp_path))
    text = _make_sbatch_string("true", tmp_path, map_count=9, **executor._executor.parameters)
    for line in ("array=0-8%4", "dependency=afterany:12_0:12_1:15", "job-name=bench-x", "cpus-per-task=1", "requeue"):
        assert f"#SBATCH --{line}\n" in text, text
    assert "gpus" not in text and "--mem" not in text and "partition" not in text, "what is not said is the site's to say"
    assert "slurm_dependency" not in ClusterConfig().parameters("bench-x", tmp_path, [], tmp_path)


def test_an_array_that_is_too_long_is_cut(programs, tmp_path, on_slurm):
    """The parts follow each other, or more jobs than `parallel` would run at a time."""
    (tmp_path / "number").write_text("70\n")
    count = f"read n < {tmp_path}/number; echo $((n + 1)) > {tmp_path}/number"
    told = f'/bin/cat "$1" > {tmp_path}/$n.sh; echo "Submitted batch job $n"'
    programs(**ANSWERS | {"scontrol": "echo 'MaxArraySize = 3'"}, sbatch=f"{count}; {told}")
    code, out, err = on_slurm("parallel: 1", "--seeds", "0,1,2,3,4")
    assert code == 0, (out, err)
    assert "submitted 10 runs as 5 jobs (Slurm's 70, 71, 72), at most 1 at a time" in out
    scripts = [(tmp_path / f"{number}.sh").read_text() for number in (70, 71, 72)]
    assert [re.findall(r"--array=(.*)", text) for text in scripts] == [["0-1%1"], ["0-1%1"], []]
    waits = [re.findall(r"--dependency=(.*)", text) for text in scripts]
    assert waits == [[], ["afterany:70_0:70_1"], ["afterany:70_0:70_1:71_0:71_1"]]
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("work/jobs/*/submission.json"))
    ids = [job["id"] for array in record["arrays"] for job in array["jobs"]]
    assert ids == ["70_0", "70_1", "71_0", "71_1", "72"] and all(array["submitted"] for array in record["arrays"])


def test_without_slurm(programs, on_slurm, bench, tmp_path):
    refused(on_slurm("{}"), "is this a node of a Slurm cluster?")
    refused(bench("status", "--work", tmp_path / "work"), "nothing was submitted")


@pytest.mark.parametrize("absent", ["scontrol", "srun", "sbatch"])
def test_without_a_part_of_slurm(absent, programs, on_slurm):
    programs(**{name: answer for name, answer in {**ANSWERS, "sbatch": "echo Submitted batch job 77"}.items() if name != absent})
    refused(on_slurm("{}"), absent)


def test_an_unusual_answer_of_sbatch(programs, on_slurm):
    programs(**ANSWERS, sbatch="echo 'sbatch: error: Batch job submission failed: I do not like you' >&2; exit 1")
    code, _, err = on_slurm("{}")
    assert code == 2 and "Traceback" not in err
    assert "bench: Slurm refuses: sbatch: error: Batch job submission failed: I do not like you" in err.splitlines()
    programs(sbatch="echo hello")
    refused(on_slurm("{}"), "hello")


# ---- what becomes of jobs


def submission(jobs, number=1, **changes):
    """A command's record, by job id the runs of it."""
    listed = [Job({key: f"tiny/mae/base/arm-s{key}" for key in keys}, id) for id, keys in jobs.items()]
    return Submission(f"12-{number}", "slurm", arrays=[Array(f"bench-12-{number}-0", listed, submitted=True)], **changes)


SQUEUE = """
case "$*" in *--jobs=7*) echo '7_0|RUNNING|None'; echo '7_3|PENDING|Priority'; echo '7_4|PENDING|None';; esac
"""
SACCT = """
echo 'JobID|State|NodeList'
echo '7_0|RUNNING|a'
echo '7_1|OUT_OF_MEMORY|a'
echo '7_1.batch|COMPLETED|a'
echo '7_5|CANCELLED by 1000|None assigned'
echo '7_[3-4]|PENDING|None assigned'
echo '7_6|RUNNING|a'
"""


def test_standings(programs, tmp_path):
    """Live, over, and forgotten by Slurm; and once all is over it is asked no more."""
    jobs = Submissions(Workspace(tmp_path))
    jobs.save(submission({f"7_{n}": [str(n)] for n in range(7)}))
    programs(squeue=SQUEUE, sacct=SACCT)
    found = jobs.settle()
    assert {key: at.live for key, at in found.items() if at.live} == {
        "0": Live("RUNNING"), "3": Live("PENDING", "Priority"), "4": Live("PENDING"),
    }  # fmt: skip
    assert {key: at.job.ended for key, at in found.items() if not at.live} == {
        "1": "OUT_OF_MEMORY", "2": None, "5": "CANCELLED by 1000", "6": None,
    }, "accounting comes late: a job that runs there and is over is over"  # fmt: skip
    assert not jobs.submissions()[0].closed
    programs(squeue="exit 0")
    jobs.settle()
    assert jobs.submissions()[0].closed
    programs(squeue="exit 1", sacct="exit 1")
    assert jobs.standings()["1"].job.ended == "OUT_OF_MEMORY"


def test_who_has_a_run_now(programs, tmp_path):
    """Of several that had it: whose job is live, else who had it last."""
    jobs = Submissions(Workspace(tmp_path))
    for number, id in ((3, "9"), (20, "8"), (100, "6")):
        jobs.save(submission({id: ["a", "b"] if id == "9" else ["a"]}, number))
    programs(squeue="exit 0", sacct="exit 0")
    assert {key: at.job.id for key, at in jobs.standings().items()} == {"a": "6", "b": "9"}
    programs(squeue="echo '8|PENDING|Resources'")
    assert {key: at.job.id for key, at in jobs.standings().items()} == {"a": "8", "b": "9"}


def test_slurm_that_does_not_answer(programs, tmp_path, bench, on_slurm):
    """Nobody knows then whether a job is over: no command takes it for that."""
    text = submitted_text(programs, tmp_path, on_slurm, "{}")
    assert "srun" in text
    before = next(tmp_path.glob("work/jobs/*/submission.json")).read_bytes()
    programs(squeue="echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1")
    with pytest.raises(SchedulerError, match="Unable to contact"):
        Submissions(Workspace(tmp_path / "work")).standings()
    for verb in ("status", "cancel"):
        refused(bench(verb, "--work", tmp_path / "work"), "squeue does not answer", "Unable to contact slurm controller")
    refused(on_slurm("{}"), "squeue does not answer")
    assert [path.read_bytes() for path in tmp_path.glob("work/jobs/*/submission.json")] == [before]
    programs(squeue="echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert not any(at.live for at in Submissions(Workspace(tmp_path / "work")).standings().values())


def test_why_a_run_is_not_finished(programs, tmp_path, bench, on_slurm):
    """How its job ended, in Slurm's words, with the last line that it said itself."""
    submitted_text(programs, tmp_path, on_slurm, "{}")
    programs(sacct="echo 'JobID|State|NodeList'; echo '77|OUT_OF_MEMORY|a'")
    (record,) = tmp_path.glob("work/jobs/*/submission.json")
    (record.parent / "77_0_log.err").write_text("Loading\nKilled\nslurmstepd: error: Detected 1 oom_kill event\n\n")
    answer = status(bench, tmp_path)
    told = "job 77 ended before it began: OUT_OF_MEMORY (Killed)"
    assert [(run["state"], run["reason"], run["job"]) for run in answer["runs"]] == [("failed", told, "77")] * 2
    _, out, _ = bench("status", "--work", tmp_path / "work")
    assert f": {told}\n" in out
    _, out, _ = bench("logs", "matched-none-s0", "--work", tmp_path / "work")
    assert "no line yet" in out and "job 77" in out and "77_*_log.err" in out


def test_a_half_submitted_array_is_cancelled_by_name(programs, tmp_path):
    jobs = Submissions(Workspace(tmp_path))
    torn = submission({None: ["a"]})
    torn.arrays[0].submitted = False
    jobs.save(torn)
    programs(squeue="exit 0", scancel=f'echo "$@" >> {tmp_path}/cancelled')
    assert jobs.settle()["a"].live is None
    jobs.settle()
    assert (tmp_path / "cancelled").read_text() == "--jobname=bench-12-1-0\n"
    assert jobs.submissions()[0].closed


def test_many_jobs_are_asked_about_in_parts(programs, tmp_path):
    programs(squeue=f'echo "$*" >> {tmp_path}/asked\nexit 0')
    assert slurm_commands.live(f"{n}_{m}" for n in range(1200) for m in range(2)) == {}
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.count(",") + 1 for line in asked] == [500, 500, 200]


# ---- status and cancel, of commands on one machine


def status(bench, tmp_path, *more):
    code, out, err = bench("status", "--work", tmp_path / "work", "--json", *more)
    assert code == 0, err
    return json.loads(out)


def test_status_of_nothing(bench, tmp_path):
    refused(bench("status", "--work", tmp_path / "work"), f"nothing was submitted from --work {tmp_path / 'work'} yet")
    assert not (tmp_path / "work").exists()


def test_status_here(bench, tiny, folders, tmp_path, monkeypatch, unreported):
    """Finished, failed, missing, and stale once the protocol has changed; as a table and for programs."""
    from benchmark.training import models

    words = ["--family", "mae", "--sizes", "base", "--protocol", tiny]
    with monkeypatch.context() as broken:
        broken.setattr(models, "reader_of", lambda *given: 1 / 0)
        assert bench("run", *words, "--seeds", "0", *folders, "--cluster", "debug")[0] == 1
    found = status(bench, tmp_path)
    assert list(found) == ["counts", "runs"]
    assert found["counts"] == {"finished": 3, "running": 0, "lost": 0, "queued": 0, "failed": 4, "stale": 0, "missing": 0}
    by_cell = {cell: run for run in found["runs"] for cell in run["cells"]}
    failed, good = by_cell["tiny/mae/base/matched-copy-s0.json"], by_cell["tiny/mae/base/teacher-s0.json"]
    assert failed == {
        "key": failed["key"], "cells": ["tiny/mae/base/matched-copy-s0.json"], "state": "failed",
        "reason": "ZeroDivisionError: division by zero", "job": None, "step": 0, "steps": 4,
        "silent_seconds": None,
    }  # fmt: skip
    assert (good["state"], good["reason"], good["steps"]) == ("finished", None, 6)
    assert {path.name for path in (tmp_path / "work" / "runs").iterdir()} == {run["key"] for run in found["runs"]}

    assert status(bench, tmp_path, "--family", "mae")["runs"] == found["runs"], "what is named of what was asked for"
    other = status(bench, tmp_path, *words, "--seeds", "1", "--results", tmp_path / "results")
    assert other["counts"]["missing"] == 7, "or else what is named"
    refused(bench("status", "--work", tmp_path / "work", "--family", "deti3"), "did you mean 'deit3'?")
    _, out, _ = bench("status", "--work", tmp_path / "work")
    assert "7 runs" in out and re.search(r"tiny .* mae base .* 3 .* 4 ", out)
    assert f"failed: tiny/mae/base/matched-copy-s0 ({failed['key']}): ZeroDivisionError: division by zero\n" in out
    _, out, _ = bench("logs", "matched-copy-s0", "--work", tmp_path / "work", "--follow")
    assert "Traceback" in out and out.rstrip().endswith("ZeroDivisionError: division by zero")
    refused(bench("logs", "matched", "--work", tmp_path / "work"), "no run 'matched'")

    content = yaml.safe_load(tiny.read_text())
    content["recipe"]["steps"] = 5
    tiny.write_text(yaml.safe_dump(content))
    found = status(bench, tmp_path)
    assert found["counts"] == {"finished": 1, "running": 0, "lost": 0, "queued": 0, "failed": 0, "stale": 2, "missing": 4}
    assert {run["reason"] for run in found["runs"] if run["state"] == "stale"} == {
        "its result is of another protocol, or no valid one"
    }
    next(tmp_path.glob("results/*/*/*/teacher-s0.json")).write_text("{")
    assert status(bench, tmp_path)["counts"]["finished"] == 1, "its numbers are still in the work folder"

    tiny.unlink()
    code, _, err = bench("status", "--work", tmp_path / "work")
    assert code == 2 and "tiny.yaml" in err and "Traceback" not in err


@pytest.mark.long
def test_cancel_and_resume_here(bench, tmp_path, unreported):
    """A command in the background ends by `bench cancel`; the same one goes on from its checkpoint."""
    content = tiny_protocol(checkpoint_seconds=0.2)
    content["recipe"]["steps"] = 400
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "few.yaml").write_text("title: Few\narms: [matched-none]\n")
    words = ["run", "--family", "mae", "--sizes", "base", "--seeds", "0", "--protocol", "tiny.yaml", "--study", "few.yaml"]
    where = ["--results", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    process = command(*words, *where, "--jobs", "1", cwd=tmp_path)
    while not list(tmp_path.glob(f"work/runs/*/{CHECKPOINT}")):
        assert process.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.05)
    (run,) = status(bench, tmp_path)["runs"]
    assert (run["state"], run["job"]) == ("running", None) and 0 < run["step"] < 400
    _, out, _ = bench("status", "--work", tmp_path / "work")
    assert re.search(r"running: tiny/mae/base/matched-none-s0 \(\w+\): \d+/400 ", out)
    _, out, _ = bench("cancel", "--work", tmp_path / "work")
    assert "cancelled 1 jobs with 1 runs" in out
    assert process.wait(timeout=30) != 0
    (run,) = status(bench, tmp_path)["runs"]
    assert run["state"] == "failed" and re.fullmatch(r"the command that had it ended at step \d+/400", run["reason"])
    assert "nothing is queued or running" in bench("cancel", "--work", tmp_path / "work")[1]
    paths = ["--protocol", tmp_path / "tiny.yaml", "--study", tmp_path / "few.yaml"]
    code, out, err = bench(*words[:7], *paths, *where, "--cluster", "debug")
    assert code == 0, (out, err)
    (log,) = tmp_path.glob("work/runs/*/run.log")
    begun = [int(step) for step in re.findall(r"training from step (\d+)", log.read_text())]
    assert begun[0] == 0 and len(begun) == 2 and begun[1] > 0
    assert status(bench, tmp_path)["counts"]["finished"] == 1


def test_a_command_elsewhere_is_not_ours_to_end(bench, tmp_path):
    jobs = Submissions(Workspace(tmp_path))
    other = Submission("12-1", "local", host=f"not-{socket.gethostname()}", pid=os.getpid())
    other.arrays = [Array("12-1", [Job({"a": "tiny/mae/base/arm-s0"})], submitted=True)]
    jobs.save(other)
    with jobs.present(other):
        refused(bench("cancel", "--work", tmp_path), f"not-{socket.gethostname()}", "type this there")
    assert "nothing is queued or running" in bench("cancel", "--work", tmp_path)[1]


# ---- leaving


@pytest.fixture
def handlers():
    """The process's own answers to signals, put back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_signals_are_heeded_where_submitit_has_answers(handlers):
    notice = SignalledPreemption()
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    notice.heed()
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL, "on one machine signals mean what they always do"
    answered = []
    signal.signal(signal.SIGUSR2, lambda number, frame: answered.append(number))
    notice.heed()
    os.kill(os.getpid(), signal.SIGTERM)
    assert notice.taken() and not notice.taken() and not notice.leave
    os.kill(os.getpid(), signal.SIGUSR2)
    assert notice.leave and not answered
    notice.answer()
    assert answered == [signal.SIGUSR2]


def test_what_is_queued_again_has_heard_nothing(tmp_path):
    """The task that a job starts again with has a notice of its own, not one that tells it to leave at once."""
    from benchmark.execution.setup import WorkerTask

    told = SignalledPreemption(leave=True, answer=lambda: print)
    task = WorkerTask([], None, None, None, None, "launcher", None, preemption=told)
    again = Worker().checkpoint(task)
    assert not again.args[0].preemption.leave and task.preemption.leave


def left(item, folder, notice, stepped=lambda training, loss: None, prepared=lambda group: None):
    """Train an item until it leaves; gives the step of the checkpoint."""
    watcher = TrainingCallbacks(
        stepped, lambda training, found: pytest.fail("it ended"), lambda training, error: pytest.fail(str(error))
    )
    group = CoTrainer([training_of(item, folder)], watcher, TrainingContext(checkpoint_seconds=1e9, preemption=notice))
    prepared(group)
    with pytest.raises(Preempted):
        group.train()
    return torch.load(folder / CHECKPOINT, weights_only=True)["progress"]


@pytest.fixture
def item():
    """A run with averaged weights, which evaluation swaps with its own."""
    (item,) = plan_of("mae", ["matched-none"], ema=0.9).items.values()
    return item


@pytest.mark.parametrize("step", [1, 4, STEPS])
def test_leaving_after_a_step(step, item, tmp_path):
    whole, notice = fit(item, tmp_path / "whole"), Preemption()

    def stepped(training, loss):
        notice.leave = training.state.step == step

    assert left(item, tmp_path / "run", notice, stepped)["step"] == step
    assert numbers(fit(item, tmp_path / "run")) == numbers(whole)
    assert weights_digest(tmp_path / "run" / WEIGHTS) == weights_digest(tmp_path / "whole" / WEIGHTS)


@pytest.mark.parametrize(("which", "step", "points"), [(0, 4, 0), (1, STEPS, 1), (2, STEPS, 2), (4, STEPS, 2)])
def test_leaving_during_an_evaluation(which, step, points, item, tmp_path, monkeypatch):
    """Of the learning curve, with a point that is due then, or of the test sets: nothing of it is lost or counted twice."""
    whole, notice = fit(item, tmp_path / "whole"), Preemption()

    def prepared(group):
        honest, begun = group.dataset.evaluate, []

        def evaluate(name, size):
            begun.append(name)
            for number, batch in enumerate(honest(name, 16)):
                notice.leave = len(begun) == which + 1 and number == 1
                yield batch

        monkeypatch.setattr(group.dataset, "evaluate", evaluate)

    state = left(item, tmp_path / "run", notice, prepared=prepared)
    monkeypatch.undo()
    assert state["step"] == step and len(state["curve"]) == points
    assert numbers(fit(item, tmp_path / "run")) == numbers(whole)
    assert weights_digest(tmp_path / "run" / WEIGHTS) == weights_digest(tmp_path / "whole" / WEIGHTS)


def test_a_warning_only_saves(item, tmp_path):
    """SIGTERM: checkpoints at once, and the training goes on."""
    notice, saved = Preemption(), []

    def stepped(training, loss):
        saved.append(training.folder.checkpoint.exists())
        notice.save = notice.save or training.state.step == 3

    ended = []
    watcher = TrainingCallbacks(
        stepped, lambda training, found: ended.append(found), lambda training, error: pytest.fail(str(error))
    )
    CoTrainer([training_of(item, tmp_path / "run")], watcher, TrainingContext(checkpoint_seconds=1e9, preemption=notice)).train()
    assert saved == [False] * 3 + [True] * (STEPS - 3) and len(ended) == 1
    assert torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)["progress"]["step"] == 3


@pytest.mark.parametrize(
    "broken",
    [lambda whole: b"", lambda whole: whole[: len(whole) // 2], lambda whole: whole[:-1], lambda whole: b"\0" * len(whole)],
    ids=["empty", "half", "all but a byte", "zeros"],
)
def test_a_broken_checkpoint_starts_anew(broken, item, tmp_path, capsys):
    whole = fit(item, tmp_path / "whole")
    assert fit(item, tmp_path / "run", stop_at=5) is None
    path = tmp_path / "run" / CHECKPOINT
    before = path.read_bytes()
    path.write_bytes(broken(before))
    assert numbers(fit(item, tmp_path / "run")) == numbers(whole)
    said = capsys.readouterr().err
    assert (
        said.startswith(f"bench: {path}: ") and said.endswith("; set aside, and the run starts anew\n") and said.count("\n") == 1
    )
    assert (tmp_path / "run" / f"{CHECKPOINT}.set-aside").read_bytes() == broken(before)


def test_a_run_is_finished_where_its_result_is(bench, tiny, tmp_path, unreported):
    """Two requests for the same runs with results of their own; what one has, the other has not."""
    where = ("--results", tmp_path / "here", "--work", tmp_path / "work")
    chosen = ("--family", "deit", "--sizes", "base", "--protocol", tiny, "--seeds", "0")
    assert bench("run", *chosen, *where, "--cluster", "debug")[0] == 0
    name, protocol = load_protocol(str(tiny))
    plan = make_plan(name, protocol, "main", load_study("main")[1], [("deit", "base")], [0])
    wanted = [Wanted(plan, Results(tmp_path / folder)) for folder in ("here", "there")]
    overview = Monitor(Workspace(tmp_path / "elsewhere"), wanted)
    states = [each.state.kind for each in overview.look()]
    assert states == ["finished"] * len(plan.items) + ["missing"] * len(plan.items)
