"""What `bench run`, `status`, `cancel` and `logs` do on a real Slurm: the numbers are those of one process, nothing is submitted
twice, and nothing that went wrong is hidden."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager

import pytest

from tests.conftest import ROOT

from .conftest import BENCH, Site, held, protocol, until_gone

NOT_A_NUMBER = 1e30  # a learning rate that no training survives
LONG = 500  # steps: for long enough to be caught after a checkpoint


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """The path of a study of some arms: one for all tests, so that `expected` measures it once."""
    folder = tmp_path_factory.mktemp("studies")

    def of(*arms):
        path = folder / f"{'-'.join(arms)}.yaml"
        path.write_text(f"title: Some\narms: {json.dumps(arms)}\n")
        return path

    return of


def failing():
    """A protocol whose teachers learn and whose students all fail."""
    content = protocol(teacher_steps=600)
    content["recipe"]["lr"] = NOT_A_NUMBER
    return content


def beside(site, cluster, *more):
    """The same request as a command on this machine, in the background."""
    return site.background([*BENCH, "run", *site.request, "--work", site.root / "work", "--cluster", cluster, *more])


def ended(process, code=0):
    """What a command in the background printed, once it has ended."""
    out = process.communicate(timeout=300)[0]
    assert process.returncode == code, out
    return out


@contextmanager
def blocked(lab):
    """Within, jobs are taken and none begins."""
    lab.command("scontrol", "update", "partition=main", "state=DOWN")
    try:
        yield
    finally:
        lab.command("scontrol", "update", "partition=main", "state=UP")


def records(site):
    """What was submitted, by command, the oldest first."""
    paths = sorted((site.root / "work" / "jobs").glob("*/submission.json"), key=lambda path: path.parent.name.partition("-")[2])
    return [json.loads(path.read_text()) for path in paths]


def jobs(site):
    """The jobs of all commands that have a number."""
    found = [job for record in records(site) for array in record["arrays"] for job in array["jobs"]]
    return [job for job in found if job["id"] is not None]


def submitted(site):
    """By run, how often it was given to Slurm."""
    return Counter(key for job in jobs(site) for key in job["runs"])


def begun(site):
    """By run, from which step each of its trainings began."""
    logs = (site.root / "work" / "runs").glob("*/run.log")
    return {path.parent.name: [int(n) for n in re.findall(r"training from step (\d+)", path.read_text())] for path in logs}


def results(site):
    return {path.stem: json.loads(path.read_text()) for path in (site.root / "results").glob("*/*/*/*.json")}


def of_slurm(lab, job, name):
    """A field of `scontrol show job`."""
    return re.search(rf"\b{name}=(\S*)", lab.command("scontrol", "show", "job", job))[1]


def told_in_a_line(out):
    assert out.startswith("bench: ") and out.count("\n") == 1 and "Traceback" not in out, out


def test_a_study_is_trained_in_parallel(lab, tmp_path, expected):
    site = Site(tmp_path, lab, protocol(), seeds="0,1", family="deit3")
    out = site.bench("run")
    assert "submitted 14 runs as 4 jobs" in out and "bench status" in out
    waiting = site.counts()
    assert sum(waiting.values()) == 14 and not set(waiting) - {"queued", "running", "finished"}
    site.until_over()
    assert site.counts() == {"finished": 14}
    assert site.numbers() == expected(site)
    out = site.bench("run")
    assert "0 to train" in out and "standard copy" in out, "once all is done it shows the leaderboard"


def test_finished_runs_are_evaluated(lab, tmp_path, study):
    """A job for each evaluation, which status and logs know; those of two commands do not meet."""
    site = Site(tmp_path, lab, protocol(), study=study("standard-copy"), family="deit3", runs_per_job=2)
    site.bench("run", "--wait")
    before, trained = results(site), begun(site)
    out = site.bench("evaluate", "--features")
    assert "0 to train and 4 to evaluate on slurm" in out and "submitted 4 evaluations as 3 jobs" in out, out
    site.until_over()
    assert site.counts() == {"finished": 7}
    after = results(site)
    for name, content in after.items():
        assert {"knn10", "knn20", "probe"} <= content["evaluations"].keys()
        assert content["metrics"] == before[name]["metrics"] and content["key"] == before[name]["key"]
    taught = after["standard-copy-s0"]["evaluations"]["teacher_probe"]
    assert (
        taught["top1"] == after["teacher-s0"]["evaluations"]["probe"]["top1"] and taught["beside"] == after["teacher-s0"]["key"]
    )
    assert begun(site).keys() > trained.keys() and all(begun(site)[key] == steps for key, steps in trained.items())
    assert "finished: knn10" in site.bench("logs", "deit3/base/standard-copy-s0 on features")
    assert "0 to train on slurm" in site.bench("evaluate", "--features")


def test_the_same_request_twice_at_once_is_submitted_once(lab, tmp_path, study, expected):
    site = Site(tmp_path, lab, protocol(), study=study("standard-copy"), family="deit3")
    outs = [ended(process) for process in [site.start("run"), site.start("run")]]
    site.until_over()
    assert sorted("submitted 3 runs" in out for out in outs) == [False, True], outs
    assert set(submitted(site).values()) == {1} and len(submitted(site)) == 3
    assert sorted(begun(site).values()) == [[0]] * 3
    assert site.counts() == {"finished": 3}
    assert len(site.numbers()) == 3 and site.numbers() == expected(site)


def test_two_requests_at_once_share_what_they_have_in_common(lab, tmp_path, study):
    """DeiT and DINO are one training on mini. Whoever comes second waits for the first one's jobs, and its cells are written
    then; without --wait they are when it is typed again."""
    arms = study("standard-copy")
    sites = [Site(tmp_path, lab, protocol(), study=arms, family=family) for family in ("deit", "dino")]
    processes = [sites[0].start("run", "--wait"), sites[1].start("run", "--wait")]
    outs = [ended(process) for process in processes]
    assert sorted("submitted 3 runs" in out for out in outs) == [False, True], outs
    assert set(submitted(sites[0]).values()) == {1}
    assert sorted(begun(sites[0]).values()) == [[0]] * 3
    for site, out in zip(sites, outs, strict=True):
        assert "standard copy" in out and "failed" not in out
        assert "3 finished before, 0 restored" in site.bench("run")
    found = {path.parent.parent.name: len(list(path.parent.glob("*.json"))) for path in tmp_path.glob("results/*/*/*/*.json")}
    assert found == {"deit": 3, "dino": 3}
    assert len(jobs(sites[0])) == 2


def test_a_run_of_another_request_is_found_when_it_is_over(lab, tmp_path, study):
    arms = study("matched-none")
    one, other = (Site(tmp_path, lab, protocol(), study=arms, family=family) for family in ("deit", "dino"))
    with blocked(lab):
        assert "submitted 1 runs" in one.bench("run")
        assert "1 runs are queued or running already" in other.bench("run")
    one.until_over()
    assert "1 finished before, 0 restored" in other.bench("run")  # by the result in the first one's cell
    assert len(list(tmp_path.glob("results/*/dino/base/matched-none-s0.json"))) == 1
    assert len(jobs(one)) == 1 and list(begun(one).values()) == [[0]]


def test_a_run_on_two_nodes(lab, tmp_path, study, expected):
    """Two tasks share each batch by DistributedDataParallel: the numbers are those of one, but for rounding."""
    site = Site(tmp_path, lab, protocol(), study=study("standard-copy"), family="deit3", nodes=2, processes=1)
    site.bench("run")
    site.until_over()
    assert site.counts() == {"finished": 3}, site.logs()
    assert {of_slurm(lab, job["id"], "NumNodes") for job in jobs(site)} == {"2"}
    for path in tmp_path.glob("work/runs/*/run.log"):
        assert "by 2 processes" in path.read_text()
    assert all(each["cost"]["ranks"] == 2 for each in results(site).values())
    alone, shared = expected(site), site.numbers()
    assert shared.keys() == alone.keys()
    for cell, one in shared.items():
        assert one["key"] == alone[cell]["key"]
        assert one["metrics"]["loss"] == pytest.approx(alone[cell]["metrics"]["loss"], rel=1e-3)
        for point, same in zip(one["curve"], alone[cell]["curve"], strict=True):
            assert point["step"] == same["step"] and point["loss"] == pytest.approx(same["loss"], rel=1e-4)


def test_what_is_queued_runs_the_code_that_submitted_it(lab, tmp_path, study, expected):
    """Edited meanwhile, the checkout trains nothing any more; the queued run does not notice, and says what code it was."""
    copy = tmp_path / "checkout"
    for name in ("benchmark", "families"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    site = Site(tmp_path / "site", lab, protocol(), study=study("matched-none"), family="deit3", code=copy)
    alone = expected(site)
    tell = "import json; from benchmark.storage.provenance import code_version; print(json.dumps(code_version()))"
    told = subprocess.run([sys.executable, "-c", tell], env=site.environment, cwd=tmp_path, capture_output=True, check=True)
    version = json.loads(told.stdout)
    assert version["commit"] is None and version["dirty"] is None, "the copy is no git checkout"
    with blocked(lab):
        site.bench("run")
        edited = copy / "benchmark" / "training" / "co_trainer.py"
        edited.write_text(edited.read_text().replace("import annotations\n", "import annotations\nraise RuntimeError\n", 1))
    site.until_over()
    assert site.numbers() == alone
    (result,) = results(site).values()
    assert version.items() <= result["provenance"].items()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout")
def test_a_result_names_the_commit_that_submitted_it(lab, tmp_path, study):
    def head():
        return subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    site = Site(tmp_path, lab, protocol(), study=study("matched-none"))
    site.bench("run")
    site.until_over()
    (result,) = results(site).values()
    assert result["provenance"]["commit"] == head() and result["provenance"]["dirty"] in (True, False)


def test_jobs_of_several_runs_one_at_a_time_teachers_first(lab, tmp_path, study):
    """Four pairs of students, three runs a job at least: two jobs of four, which would both fit on the nodes."""
    content = protocol()
    site = Site(
        tmp_path,
        lab,
        content,
        study=study("standard-copy"),
        family="deit3",
        seeds="0,1,2,3",
        parallel=1,
        runs_per_job=3,
    )
    most = 0

    def over():
        nonlocal most
        most = max(most, len(lab.command("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i").split()))
        return not lab.command("squeue", "--noheader").strip()

    assert "submitted 12 runs as 4 jobs" in site.bench("run")
    site.until(over, 300)
    assert most == 1
    first, second, *students = jobs(site)
    assert [len(job["runs"]) for job in (first, second, *students)] == [3, 1, 4, 4]
    taught = [*first["runs"].values(), *second["runs"].values()]
    assert sorted(taught) == [f"tiny/deit3/base/teacher-s{seed}" for seed in range(4)]
    for job in students:
        ends = [of_slurm(lab, teacher["id"], "EndTime") for teacher in (first, second)]
        assert of_slurm(lab, job["id"], "StartTime") >= max(ends)
    assert site.counts() == {"finished": 12} and sorted(begun(site).values()) == [[0]] * 12


def test_students_wait_for_a_teacher_that_another_command_submitted(lab, tmp_path, study):
    first = Site(tmp_path, lab, protocol(), study=study("standard-copy"), family="deit3")
    second = Site(tmp_path, lab, protocol(), study=study("matched-copy"), family="deit3")
    with blocked(lab):
        first.bench("run")
        out = second.bench("run")
        assert "submitted 2 runs as 1 jobs" in out and "1 runs are queued or running already" in out
        teacher, _, student = jobs(first)
        assert f"afterany:{teacher['id']}" in of_slurm(lab, student["id"], "Dependency")
    first.until_over()
    assert first.counts() == {"finished": 5} and sorted(begun(first).values()) == [[0]] * 5


def test_what_is_finished_never_reaches_slurm(lab, tmp_path, study):
    site = Site(tmp_path, lab, protocol(), study=study("matched-none"), seeds="0,1,2")
    ended(beside(site, "debug"))
    before = site.numbers()
    keys = {name: content["key"] for name, content in results(site).items()}
    shutil.rmtree(tmp_path / "work" / "runs" / keys["matched-none-s1"])  # gone altogether
    next(tmp_path.glob("results/*/*/*/matched-none-s1.json")).unlink()
    next(tmp_path.glob("results/*/*/*/matched-none-s2.json")).unlink()  # still in the work folder
    out = site.bench("run")
    assert "1 finished before, 1 restored" in out and "submitted 1 runs as 1 jobs" in out
    site.until_over()
    assert submitted(site) == {keys["matched-none-s1"]: 1}
    assert site.numbers() == before
    assert "submitted" not in site.bench("run") and len(jobs(site)) == 1


def test_cancel_and_go_on(lab, tmp_path, study):
    site = Site(tmp_path, lab, protocol(steps=LONG), study=study("matched-none"), family="deit3,mae", parallel=1)
    site.bench("run")
    with held(site, "matched-none-s0") as (pid,):
        site.until(lambda: site.counts() == {"running": 1, "queued": 1}, what="one that runs and one that waits")
        of = {"running": "", "queued": ""}
        for run in site.status()["runs"]:
            of[run["state"]] = run["cells"][0].split("/")[1]
        out = site.bench("cancel", "--family", of["queued"])
        assert "cancelled 1 jobs with 1 runs" in out
        site.until(lambda: site.counts() == {"running": 1, "failed": 1}, what="the end of the one that waited")
        assert "cancelled 1 jobs with 1 runs" in site.bench("cancel")
        until_gone(site, pid)
    site.until_over()
    site.until_told()
    reasons = {run["cells"][0].split("/")[1]: (run["state"], run["reason"]) for run in site.status()["runs"]}
    for family, where in ((of["queued"], "before it began"), (of["running"], rf"at step \d+/{LONG}")):
        state, reason = reasons[family]
        assert state == "failed" and re.fullmatch(rf"job \d+_\d ended {where}: CANCELLED.*", reason), reasons
    assert "nothing is queued or running" in site.bench("cancel")
    assert "submitted 2 runs as 2 jobs" in site.bench("run")
    site.until_over()
    assert site.counts() == {"finished": 2}
    first = sorted(begun(site).values(), key=len)
    assert first[0] == [0] and first[1][0] == 0 and len(first[1]) == 2 and first[1][1] > 0


def test_logs_of_what_waits_runs_fails_and_is_finished(lab, tmp_path, study):
    arms = study("standard-copy")
    site = Site(tmp_path, lab, failing(), study=arms, family="deit3,mae", runs_per_job=2)
    site.bench("run")
    follow = site.start("logs", "deit3/base/standard-copy-s0", "--follow")
    site.until(lambda: site.progress("teacher-s0").get("step"), what="a teacher's first step")
    teacher = site.start("logs", "deit3/base/teacher-s0", "--follow")
    out = site.bench("logs", "mae/base/standard-copy-s0")
    assert "no line yet" in out and "_log.err" in out
    out = ended(teacher)
    assert "training from step 0" in out and "finished: top-1" in out
    assert len(re.findall("finished: top-1", out)) == 1, "each line once"
    out = ended(follow)
    assert "no line yet" in out and "FloatingPointError: the loss is" in out
    site.until_over()
    assert "finished: top-1" in site.bench("logs", "mae/base/teacher-s0")
    out = site.bench("logs", "mae/base/standard-copy-s0")
    assert "Traceback" in out and re.search(r"job \d+(_\d)?.*_log\.err", out)
    key = next(run["key"] for run in site.status()["runs"] if run["cells"][0] == "tiny/mae/base/teacher-s0.json")
    assert "finished: top-1" in site.bench("logs", key)
    for word in ("standard-copy-s0", "nonsense"):
        told_in_a_line(site.bench("logs", word, code=2))


def test_following_the_log_of_a_cancelled_run_ends(lab, tmp_path, study):
    site = Site(tmp_path, lab, protocol(steps=LONG), study=study("matched-none"), family="mae")
    site.bench("run")
    follow = site.start("logs", "matched-none-s0", "--follow")
    with held(site, "matched-none-s0") as (pid,):
        site.bench("cancel")
        until_gone(site, pid)
    out = ended(follow)
    assert "training from step 0" in out and "finished" not in out


def test_wait_follows_to_the_leaderboard(lab, tmp_path, study):
    site = Site(tmp_path, lab, protocol(teacher_steps=900), study=study("standard-copy"), family="deit3")
    waits = site.start("run", "--wait")
    with held(site, "teacher-s0"):
        watch = site.start("status", "--watch")
        out = site.bench("status")
    assert re.search(r"running: tiny/deit3/base/teacher-s0 \(\w+\): \d+/900 .*left, job \d+\n", out), out
    assert "queued for: Dependency (2)" in out
    out = ended(waits)
    assert "submitted 3 runs as 2 jobs" in out and "trained 3 runs" in out
    assert re.search(r"\[1/3\] finished deit3 base teacher s0: top-1", out)
    assert "standard copy" in out.partition("trained 3 runs")[2], "the leaderboard comes at the end"
    out = ended(watch)
    assert "3 runs" in out and "running:" not in out.rpartition("finished")[2]


def test_wait_says_what_failed(lab, tmp_path, study):
    content = protocol()
    content["recipe"]["lr"] = NOT_A_NUMBER
    site = Site(tmp_path, lab, content, study=study("standard-none", "matched-none"), family="deit3")
    out = site.bench("run", "--wait", code=1)
    for arm in ("standard-none", "matched-none"):
        assert re.search(rf"failed: deit3 base {arm} s0 \(\w+\): FloatingPointError: the loss is", out), out
    assert "Traceback" not in out
    assert site.counts() == {"failed": 2}
    assert "failed: tiny/deit3/base/standard-none-s0" in site.bench("status")


def test_a_command_here_leaves_alone_what_is_queued(lab, tmp_path, study):
    """It trains what needs nothing that is queued, and says what it leaves."""
    site = Site(tmp_path, lab, protocol(), study=study("standard-copy"), family="deit3")
    with blocked(lab):
        site.bench("run")
        assert site.counts() == {"queued": 3}
        more = Site(tmp_path, lab, protocol(), study=study("standard-copy", "matched-copy"), family="deit3")
        out = ended(beside(more, "local"))
        assert "3 runs are queued or running already: left as they are" in out
        assert re.search("deit3 base matched-copy s0: left, since what it needs first is queued or running", out)
        assert sorted(results(more)) == ["matched-none-s0"] and len(jobs(site)) == 2
        assert more.counts() == {"finished": 1, "queued": 3, "missing": 1}
        assert "cancelled 2 jobs with 3 runs" in site.bench("cancel")


def test_what_a_command_here_trains_is_not_submitted(lab, tmp_path, study):
    site = Site(tmp_path, lab, protocol(steps=LONG), study=study("matched-none"), family="mae")
    here = beside(site, "local")
    with held(site, "matched-none-s0"):
        assert site.counts() == {"running": 1}
        out = site.bench("run")
    assert "submitted" not in out and "1 runs are queued or running already: left as they are" in out
    ended(here)
    assert site.counts() == {"finished": 1} and not jobs(site) and list(begun(site).values()) == [[0]]


def test_an_interrupted_submission_is_taken_back(lab, tmp_path, study, expected):
    """Killed after Slurm took the students' jobs and before their numbers were known: those jobs are cancelled, the teacher's,
    whose number is recorded, is not."""
    site = Site(tmp_path, lab, protocol(), study=study("standard-copy"), family="deit3")
    programs, accepted, path = tmp_path / "bin", tmp_path / "accepted", site.environment["PATH"]
    programs.mkdir()
    fake = programs / "sbatch"
    fake.write_text(
        "#!/bin/bash\n"
        f'out=$({shutil.which("sbatch", path=path)} "$@") || exit\n'
        f'echo "$out" >> {accepted}\n'
        f'if [ $(wc -l < {accepted}) -lt 2 ]; then echo "$out"; exit; fi\n'
        "while kill -0 $PPID; do sleep 0.1; done\n"
    )
    fake.chmod(0o755)
    site.environment["PATH"] = os.pathsep.join([str(programs), path])
    with blocked(lab):
        process = site.start("run")
        site.until(lambda: accepted.exists() and accepted.read_text().count("\n") == 2, what="the second array")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        site.environment["PATH"] = path
        torn = re.findall(r"job (\d+)", accepted.read_text())[1]
        out = site.bench("run")
        assert "submitted 2 runs as 1 jobs" in out and "1 runs are queued or running already" in out
        assert of_slurm(lab, torn, "JobState") == "CANCELLED"
    site.until_over()
    assert site.counts() == {"finished": 3} and sorted(begun(site).values()) == [[0]] * 3
    assert site.numbers() == expected(site)


def test_what_slurm_refuses_is_told_in_a_line(lab, tmp_path, study):
    site = Site(tmp_path, lab, protocol(), study=study("matched-none"), partition="nosuch")
    out = site.bench("run", code=2)
    assert "invalid partition specified: nosuch" in out
    told_in_a_line(out.partition("1 to train on slurm\n")[2])
    site.configure(constraint="nosuch")
    out = site.bench("run", code=2)
    assert "Invalid feature specification" in out and "Traceback" not in out
    assert not jobs(site) and not set(site.counts()) & {"queued", "running"}
    assert "nothing is queued or running" in site.bench("cancel")
    site.configure()
    assert "submitted 1 runs" in site.bench("run")
    site.until_over()
    assert site.counts() == {"finished": 1}


def test_a_sites_settings_reach_the_job(lab, tmp_path, study):
    """Setup lines come first; what they put down at the end has the variables, of which one has a space."""
    site = Site(
        tmp_path, lab, protocol(), study=study("matched-none"), minutes=17, cpus=2, memory_gb=3,
        environment={"GREETING": "a b", "NUMBER": 7}, sbatch={"comment": "hello", "nice": 5},
        setup=[f"trap 'echo \"$GREETING-$NUMBER\" > {tmp_path}/said' EXIT"],
    )  # fmt: skip
    site.bench("run")
    (job,) = jobs(site)
    told = {
        name: of_slurm(lab, job["id"], name) for name in ("Comment", "TimeLimit", "Requeue", "CPUs/Task", "MinMemoryNode", "Nice")
    }
    assert told == {
        "Comment": "hello", "TimeLimit": "00:17:00", "Requeue": "1", "CPUs/Task": "2", "MinMemoryNode": "3G", "Nice": "5",
    }  # fmt: skip
    site.until_over()
    assert (tmp_path / "said").read_text() == "a b-7\n"
    assert site.counts() == {"finished": 1}
