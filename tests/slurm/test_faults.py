"""Faults of jobs on a real Slurm: the final numbers are those of an undisturbed run, and what was lost is seen until then.

Runs are caught in the middle by stopping their process (SIGSTOP), so that none ends before its fault has come.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from .conftest import BENCH, Site, held, protocol, state, stop, until_gone

STEPS = 200
STUDIES = {"one": ["standard-none"], "plain": ["standard-none", "matched-none"], "taught": ["standard-distill"]}
STUDIES["all"] = [*STUDIES["plain"], *STUDIES["taught"]]
PREEMPTOR = ("sbatch", "--parsable", "--partition=main", "--exclusive", "--nodes=2", "--output=/dev/null", "--wrap=sleep 3")


@pytest.fixture(scope="session")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    for name, arms in STUDIES.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"title": name, "arms": arms}))
    return folder


@pytest.fixture
def place(lab, tmp_path, studies):
    def make(study, folder="site", content=None, **config):
        content = content or protocol(teacher_steps=STEPS, steps=STEPS, together=1, checkpoint_seconds=0.1)  # a job a run
        return Site(tmp_path / folder, lab, content, study=studies / f"{study}.yaml", family="dinov2_reg", **config)

    return make


@pytest.fixture
def numbers(place, expected):
    """Of all studies' runs, undisturbed."""
    return expected(place("all", folder="undisturbed"))


@pytest.fixture(scope="session")
def expected_of_two(tmp_path_factory):
    """Numbers of a request whose runs two processes share, which differ from one process's by rounding."""
    known = {}

    def measure(site):
        given = str(site.request[2:-2])
        if given not in known:
            root = tmp_path_factory.mktemp("two")
            words = [*BENCH, "run", *site.request[:-1], root / "results", "--work", root / "work", "--processes", "2"]
            subprocess.run([str(word) for word in words], cwd=root, env=site.environment, check=True, capture_output=True)
            other = Site.__new__(Site)
            other.root = root
            known[given] = other.numbers()
        return known[given]

    return measure


def noticed(pid):
    """Whether Slurm has given a stopped process its notice: that waits there, or the process was woken up too."""
    if state(pid) != "T":
        return True
    waiting = re.search(r"ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text()).group(1)
    return bool(int(waiting, 16) & 1 << signal.SIGUSR2 - 1)


def job_of(site, name):
    return site.states()[name]["job"]


def log(site, name):
    return (Path(site.progress(name)["folder"]) / "run.log").read_text()


def starts(site, name):
    """The steps from which a run was trained, each time."""
    return [int(step) for step in re.findall(r"training from step (\d+)", log(site, name))]


def submissions(site):
    return sorted(path.read_text() for path in (site.root / "work" / "jobs").glob("*/submission.json"))


def assert_went_on(site, *names):
    """Runs were interrupted, and resumed from a checkpoint."""
    for name in names:
        assert len(starts(site, name)) > 1 and starts(site, name)[-1] > 0, log(site, name)


def assert_complete(site, numbers):
    assert site.counts() == {"finished": len(site.numbers())}, site.states()
    assert site.numbers().items() <= numbers.items()


def assert_came_back(site, numbers, *names):
    """Slurm has put jobs into the queue again, which went on by themselves."""
    site.until_over()
    assert_complete(site, numbers)
    assert_went_on(site, *names)
    assert_restarted(site, *names)


def only_jobs(site):
    """By arm and seed the job of each run, where one command has submitted them."""
    (record,) = map(json.loads, submissions(site))
    return {Path(name).name: job["id"] for array in record["arrays"] for job in array["jobs"] for name in job["runs"].values()}


def assert_restarted(site, *names):
    """These runs' only jobs were started more than once."""
    jobs = only_jobs(site)
    for name in names:
        assert re.search(r"Restarts=[1-9]", site.lab.command("scontrol", "show", "job", jobs[name])), jobs


def assert_failed(site, **reasons):
    """Exactly these runs (by arm with _ for -, of seed 0) have failed, for these reasons; the others are finished."""
    site.until_told()
    states = site.states()
    failed = {name: run["reason"] for name, run in states.items() if run["state"] == "failed"}
    assert {run["state"] for run in states.values()} <= {"finished", "failed"}
    wanted = {f"{arm.replace('_', '-')}-s0": reason for arm, reason in reasons.items()}
    assert failed.keys() == wanted.keys(), states
    for name, reason in wanted.items():
        assert re.search(reason, failed[name]), failed


def assert_again(site, numbers, count):
    """The same command again submits so many runs, and all is complete."""
    assert f"submitted {count} runs as {count} jobs" in site.bench("run")
    site.until_over()
    assert_complete(site, numbers)


def test_a_killed_process_loses_its_run_alone(place, numbers):
    site = place("taught")
    site.bench("run")
    with held(site, "standard-distill-s0") as (pid,):
        os.kill(pid, signal.SIGKILL)
    site.until_over()
    assert_failed(site, standard_distill=rf"ended at step \d+/{STEPS}: FAILED")
    assert_again(site, numbers, 1)
    assert_went_on(site, "standard-distill-s0")


def test_a_killed_teacher_takes_its_students_along(place, numbers):
    site = place("taught")
    site.bench("run")
    with held(site, "teacher-s0") as (pid,):
        os.kill(pid, signal.SIGKILL)
    site.until_over()
    assert_failed(site, teacher="ended at step .*FAILED", standard_distill="what it needs first has failed")
    assert_again(site, numbers, 2)
    assert_went_on(site, "teacher-s0")


def test_a_killed_rank_ends_its_job(place, expected_of_two):
    site = place("one", processes=2)
    numbers = expected_of_two(site)
    site.bench("run")
    with held(site, "standard-none-s0") as (pid,):
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        ranks = {int(child) for path in Path(f"/proc/{parent}/task").glob("*/children") for child in path.read_text().split()}
        assert pid in ranks and len(ranks) == 2
        os.kill((ranks - {pid}).pop(), signal.SIGKILL)
    site.until_over()
    assert_failed(site, standard_none="Connection reset|Connection closed|ended")
    assert_again(site, numbers, 1)
    assert_went_on(site, "standard-none-s0")


@pytest.mark.parametrize("partition", ["low", "hard"])  # with 20 s to leave, and with none
def test_preemption(place, numbers, partition):
    site, runs = place("plain", partition=partition), ("standard-none-s0", "matched-none-s0")
    site.bench("run")
    with held(site, *runs) as pids:
        site.lab.command(*PREEMPTOR)
        site.until(lambda: all(map(noticed, pids)), what="the notice")
    assert_came_back(site, numbers, *runs)


def test_preemption_of_a_job_of_two_tasks(place, expected_of_two):
    site = place("one", partition="low", processes=2)
    numbers = expected_of_two(site)
    site.bench("run")
    with held(site, "standard-none-s0") as (pid,):
        site.lab.command(*PREEMPTOR)
        site.until(lambda: noticed(pid), what="the notice")
    assert_came_back(site, numbers, "standard-none-s0")


def test_preemption_of_a_job_that_has_just_begun(place, numbers):
    """A process that still imports has nobody who listens, and shall not die of its notice."""
    site = place("one", partition="low")
    command = site.start("run")  # which ends after its job has begun
    pid = site.until(lambda: just_begun(site.lab), what="the job's process")
    stop(pid)
    assert "submitted 1 runs" in command.communicate(timeout=120)[0]
    site.lab.command(*PREEMPTOR)
    site.until(lambda: noticed(pid), what="the notice")
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    site.until_over()
    assert_complete(site, numbers)
    assert_restarted(site, "standard-none-s0")


def just_begun(lab):
    """The Python of a job, as soon as it is there."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words, variables = ((path / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
            if words[1:4] == [b"-u", b"-m", b"submitit.core._submit"] and f"SLURM_CONF={lab.conf}".encode() in variables:
                return int(path.name)
    return None


def test_the_time_limit(place, numbers):
    site = place("one", minutes=1, notice_seconds=10)  # Slurm looks every 30 s: 20 to 50 s after the start
    site.bench("run")
    with held(site, "standard-none-s0") as (pid,):
        site.until(lambda: noticed(pid), what="the notice")
    assert_came_back(site, numbers, "standard-none-s0")


def test_requeue_by_hand(place, numbers):
    site = place("taught")
    site.bench("run")
    with held(site, "teacher-s0") as (pid,):
        site.lab.command("scontrol", "requeue", job_of(site, "teacher-s0"))
        until_gone(site, pid)
    assert_came_back(site, numbers, "teacher-s0")


def test_a_cancelled_job_of_an_array(place, numbers):
    site = place("plain")
    site.bench("run")
    with held(site, "matched-none-s0") as (pid,):
        site.lab.command("scancel", job_of(site, "matched-none-s0"))
        until_gone(site, pid)
    site.until_over()
    assert_failed(site, matched_none=rf"ended at step \d+/{STEPS}: CANCELLED")
    assert_again(site, numbers, 1)
    assert_went_on(site, "matched-none-s0")


def test_a_cancelled_job_that_waited(place, numbers):
    site = place("plain", parallel=1)
    site.bench("run")
    jobs = only_jobs(site)
    first, second = sorted(jobs, key=jobs.get)
    with held(site, first):
        site.lab.command("scancel", jobs[second])
        assert site.until(lambda: site.counts() == {"running": 1, "failed": 1}, what="the cancellation")
        site.until_told()
        assert "before it began: CANCELLED" in site.states()[second]["reason"]
    site.until_over()
    assert_again(site, numbers, 1)
    assert len(starts(site, first)) == 1


def test_without_a_controller_jobs_go_on(place, numbers):
    site = place("taught")
    site.bench("run")
    with held(site, "teacher-s0"):
        before = submissions(site)
        site.lab.stop_controller()
    try:
        for verb in ("status", "run"):
            said = [line for line in site.bench(verb, code=2).splitlines() if "finished before" not in line]
            assert len(said) == 1 and said[0].startswith("bench: squeue does not answer"), said
        assert submissions(site) == before
        site.until(lambda: site.progress("teacher-s0").get("state") == "finished", what="the teacher")
    finally:
        site.lab.start_controller()
    site.until_over()
    assert_complete(site, numbers)
    assert len(submissions(site)) == 1 and len(starts(site, "teacher-s0")) == 1


def test_results_away_for_a_while(place, numbers):
    site = place("plain")
    results, away = site.root / "results", site.root / "away"
    site.bench("run")
    with held(site, "standard-none-s0", "matched-none-s0"):
        results.rename(away)
        results.write_text("")  # so that it cannot be made anew
    site.until_over()
    kept = r"Not a directory.*numbers are kept, bench run writes them"
    assert_failed(site, standard_none=kept, matched_none=kept)
    assert site.bench("run", code=2).count("\n") == 1
    results.unlink()
    away.rename(results)
    before = submissions(site)
    assert "2 restored" in site.bench("run")
    assert submissions(site) == before
    assert_complete(site, numbers)


def test_a_run_that_raises(place, numbers):
    site = place("plain")
    site.bench("run")
    with held(site, "standard-none-s0"):
        obstacle = Path(site.progress("standard-none-s0")["folder"]) / "weights.pt"
        obstacle.mkdir()
    site.until_over()
    assert_failed(site, standard_none="IsADirectoryError")
    said = site.bench("logs", "dinov2_reg/base/standard-none-s0")
    assert "Traceback (most recent call last)" in said and "IsADirectoryError" in said
    shutil.rmtree(obstacle)
    assert_again(site, numbers, 1)
    assert 0 not in starts(site, "standard-none-s0")[1:]  # its last checkpoint may even be that of its last step


def test_a_loss_that_is_no_number(place, numbers):
    content = protocol(teacher_steps=STEPS, steps=STEPS, checkpoint_seconds=0.1)  # it trains beside the other student
    site = place("taught", content=content | {"recipes": {"distill": content["recipe"] | {"lr": 1e30}}})
    site.bench("run")
    site.until_over()
    for _ in range(2):
        assert_failed(site, standard_distill=r"FloatingPointError: the loss is (nan|inf) at step \d+$")
        assert {Path(cell).stem for cell in site.numbers()} == {"teacher-s0", "standard-none-s0"}
        assert site.numbers().items() <= numbers.items()
        assert "submitted 1 runs" in site.bench("run")
        site.until_over()


def test_a_node_that_goes_down(place, numbers):
    """Slurm puts its jobs into the queue again, and they go on elsewhere, or here once what is left of them has ended."""
    site = place("one")
    site.bench("run")
    with held(site, "standard-none-s0") as (pid,):
        (node,) = set(
            re.findall(r" NodeList=(127\S+)", site.lab.command("scontrol", "show", "job", job_of(site, "standard-none-s0")))
        )
        site.lab.lose_node(node)
        try:
            site.until(lambda: site.counts() in ({"queued": 1}, {"failed": 1}), what="the loss of the job")
        finally:
            site.lab.bring_back_node(node)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    site.until_over()
    if site.counts() != {"finished": 1}:
        assert_failed(site, standard_none="ended at step .*(NODE_FAIL|FAILED|CANCELLED)")
        site.bench("run", "--wait")
    assert_complete(site, numbers)
    assert_went_on(site, "standard-none-s0")


def test_a_job_that_slurm_holds_is_told_with_the_remedy(place, numbers):
    """As after a launch that failed: it would wait for ever."""
    site = place("one")
    site.bench("run")
    with held(site, "standard-none-s0") as (pid,):
        job = job_of(site, "standard-none-s0")
        site.lab.command("scontrol", "requeuehold", job)
        until_gone(site, pid)
    site.until(lambda: site.counts() == {"queued": 1}, what="the hold")
    reason = site.until(lambda: site.states()["standard-none-s0"]["reason"], what="the reason")
    assert "held" in reason.lower() and reason.endswith(f": scontrol release {job}"), reason
    assert f"queued for: {reason}" in site.bench("status")
    site.lab.command("scontrol", "release", job)
    assert_came_back(site, numbers, "standard-none-s0")


def test_without_accounting_status_is_still_json(place, numbers, tmp_path):
    """sacct fails: one line on stderr, how jobs ended is not known, and the same command again goes on."""
    site = place("one")
    site.bench("run")
    with held(site, "standard-none-s0") as (pid,):
        site.lab.command("scancel", job_of(site, "standard-none-s0"))
        until_gone(site, pid)
    site.until_over()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sacct").write_text("#!/bin/sh\necho sacct: error: no database >&2\nexit 1\n")
    (broken / "sacct").chmod(0o755)
    whole, path = site.environment, site.environment["PATH"]
    site.environment = whole | {"PATH": f"{broken}{os.pathsep}{path}"}
    words = site.words("status", "--json")
    done = subprocess.run(words, cwd=site.root, env=site.environment, capture_output=True, text=True, check=True)
    assert done.stderr.count("\n") == 1 and "sacct failed" in done.stderr and "how jobs ended is not known" in done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["state"] == "failed" and re.search(rf"ended at step \d+/{STEPS}: Slurm does not say how", run["reason"])
    assert "submitted 1 runs as 1 jobs" in site.bench("run")
    site.until_over()
    site.environment = whole
    assert_complete(site, numbers)
    assert_went_on(site, "standard-none-s0")


@pytest.mark.parametrize("seconds", [0, 0.15])
def test_a_controller_that_dies_while_runs_are_submitted(place, numbers, seconds):
    """As the first record is written, or a moment later: one line, nothing twice, and the same command completes it."""
    site = place("taught")
    process = site.start("run")
    try:
        site.until_submitting(process)
        time.sleep(seconds)
        site.lab.stop_controller()
        out = process.communicate(timeout=300)[0]
    finally:
        site.lab.start_controller()
    last = out.strip().splitlines()[-1]
    assert "Traceback" not in out and len(last) <= 300, out
    assert process.returncode in (0, 2), out  # it may have got everything through
    assert (process.returncode == 2) == last.startswith("bench: "), out
    site.bench("run", "--wait")
    assert_complete(site, numbers)
    assert all(steps[0] == 0 and 0 not in steps[1:] for steps in (starts(site, name) for name in site.states()))


@pytest.mark.parametrize("seconds", [0, 0.15])
def test_a_command_that_is_killed_while_it_submits(place, numbers, seconds):
    site = place("taught")
    process = site.start("run")
    site.until_submitting(process)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    site.bench("run", "--wait")
    assert_complete(site, numbers)
    site.bench("cancel")
    assert "0 to train" in site.bench("run", "--wait")


def test_a_full_work_folder(place, numbers):
    """Jobs whose checkpoints find no space fail and say so; once there is some, the same command completes all."""
    site = place("plain")
    work = site.root / "work"
    work.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", work], check=True)
    try:
        site.bench("run")
        with held(site, "standard-none-s0", "matched-none-s0"), (work / "fill").open("wb") as file, suppress(OSError):
            file.write(bytes(2**24))
        site.until_over()
        states = site.states()
        assert {run["state"] for run in states.values()} == {"failed"}, states
        for run in states.values():
            assert re.search(r"No space left on device|ended at step", run["reason"]), states
        assert "No space left on device" in site.bench("run", code=2)
        (work / "fill").unlink()
        assert not list(work.rglob("*.tmp"))
        site.bench("run", "--wait")
        assert_complete(site, numbers)
    finally:
        site.until_over()
        subprocess.run(["umount", "--lazy", work], check=True)
