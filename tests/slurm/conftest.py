"""A Slurm of the tests' own, and the command as users call it there."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml

from benchmark.cli import main
from benchmark.execution import follower, monitor
from tests.conftest import ROOT, Forked, interrupted_after, tiny_protocol
from tests.slurm.lab import Lab, unavailable

BENCH = (sys.executable, "-m", "benchmark.cli")


@pytest.fixture(scope="session")
def lab():
    """A cluster of two nodes, for all tests of a process."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(f"no Slurm here: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))  # sockets want short paths
    with Lab(folder / "slurm") as started:
        yield started
    shutil.rmtree(folder, ignore_errors=True)


def protocol(teacher_steps=60, steps=40, **changes):
    """Protocol mini, tiny: its runs take a second or two, or as many more as they have more steps."""
    content = tiny_protocol(checkpoint_seconds=0.3) | changes
    content["teacher"]["recipe"]["steps"] = teacher_steps
    content["recipe"]["steps"] = steps
    return content


def hurried(words):
    """The command, which asks after jobs and logs more often than users want."""
    with ExitStack() as within:
        for module, names in {follower: ("FOLLOW",), monitor: ("FOLLOW", "ASK", "WATCH")}.items():
            for name in names:
                within.enter_context(patch.object(module, f"{name}_SECONDS", 0.3))
        return main(words)


class Site:
    """A user's folder on the cluster: a protocol, settings, results, work folder, and commands typed there.

    `code` is the checkout whose command is typed.
    """

    def __init__(self, root, lab, content, study="main", family="deit", seeds="0", code=ROOT, **config):
        self.root, self.lab, self.code = root, lab, code
        root.mkdir(parents=True, exist_ok=True)
        (root / "tiny.yaml").write_text(yaml.safe_dump(content))
        self.configure(**config)
        chosen = {"protocol": root / "tiny.yaml", "family": family, "sizes": "base", "seeds": seeds, "study": study}
        self.request = [word for name, value in chosen.items() for word in (f"--{name}", value)] + ["--results", root / "results"]
        self.environment = os.environ | lab.environment() | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}

    def configure(self, **config):
        settings = {"partition": "main", "minutes": 30, "parallel": 2} | config
        (self.root / "cluster.yaml").write_text(yaml.safe_dump(settings))

    def words(self, verb, *more):
        where = ["--work", self.root / "work"]
        on = ["--cluster", "slurm", "--cluster-config", self.root / "cluster.yaml"]
        request = [*self.request, *on] if verb in ("run", "evaluate") else []
        return [str(word) for word in (*BENCH, verb, *request, *where, *more)]

    def start(self, verb, *more):
        """The command in the background."""
        return self.background(self.words(verb, *more))

    def background(self, words):
        """A command in the background, from this checkout."""
        assert self.code == ROOT
        return Forked(hurried, [str(word) for word in words[len(BENCH) :]], cwd=self.root, env=self.environment)

    def call(self, words, errors=None):
        """The command as if typed in the user's folder: exit code and output, with errors among it or apart. In this process,
        which has torch already, where it is this checkout's command."""
        words, out = [str(word) for word in words], io.StringIO()
        if self.code != ROOT:
            options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            done = subprocess.run(words, cwd=self.root, env=self.environment, check=False, **options)
            return done.returncode, done.stdout
        environment = patch.dict(os.environ, self.environment, clear=True)
        with environment, contextlib.chdir(self.root), redirect_stdout(out), redirect_stderr(errors or out):
            return hurried(words[len(BENCH) :]), out.getvalue()

    def bench(self, verb, *more, code=0, seconds=300):
        """The command to its end: what it printed."""
        with interrupted_after(seconds):
            found, out = self.call(self.words(verb, *more))
        assert found == code, f"exit code {found}\n{out}\n{self.logs()}"
        return out

    def status(self):
        """What `bench status --json` says."""
        code, out = self.call(self.words("status", "--json"), errors=io.StringIO())
        assert code == 0, out
        return json.loads(out)

    def counts(self):
        """How many runs are in each state that there is."""
        return {kind: count for kind, count in self.status()["counts"].items() if count}

    def states(self):
        """By arm and seed, as in standard-copy-s0, a run's state with reason and job."""
        runs = self.status()["runs"]
        return {Path(cell).stem: run for run in runs for cell in run["cells"]}

    def progress(self, name):
        """The last progress of a run by arm and seed; empty when there is none."""
        for path in (self.root / "work" / "runs").glob("*/run.log"):
            if f" {name.rpartition('-')[0]} {name.rpartition('-')[2]} " in path.read_text():
                try:
                    return json.loads((path.parent / "progress.json").read_text()) | {"folder": str(path.parent)}
                except (OSError, ValueError):
                    return {}
        return {}

    def numbers(self):
        """By cell, what must not depend on where and how often a run was interrupted."""
        found = {}
        for path in sorted((self.root / "results").glob("*/*/*/*.json")):
            content = json.loads(path.read_text())
            found[path.relative_to(self.root / "results").as_posix()] = {
                name: content[name] for name in ("key", "metrics", "val", "curve")
            }
        return found

    def logs(self):
        """What jobs wrote to their error streams, for a failing test's message."""
        files = sorted((self.root / "work" / "jobs").glob("*/*.err"))
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in files)

    def until(self, condition, seconds=120, what="it", pause=0.2):
        """Wait until `condition()` is true and give its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = condition()
            if found:
                return found
            time.sleep(pause)
        raise AssertionError(f"{what} never came: {self.counts()}\n{self.lab.command('squeue')}\n{self.logs()}")

    def until_submitting(self, process):
        """Wait until a command has written down what it is about to submit."""
        while not list((self.root / "work" / "jobs").glob("*/submission.json")):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.001)

    def until_over(self, seconds=300):
        """Wait until no job of this cluster is left."""
        self.until(lambda: not self.lab.command("squeue", "--noheader").strip(), seconds, "the end of all jobs")

    def until_told(self):
        """Wait until Slurm's accounting, which comes after squeue, tells how every job ended."""
        self.until(lambda: "Slurm does not say how" not in str(self.status()["runs"]), what="how jobs ended")


def stop(pid):
    while state(pid) not in "TZ":
        os.kill(pid, signal.SIGSTOP)  # again, where Slurm has woken it up meanwhile
        time.sleep(0.01)


def state(pid):
    """As ps has it: T is stopped, Z a process that has ended; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextmanager
def held(site, *names):
    """Within: the processes that train these runs stand still, each as soon as it has a checkpoint."""
    pids = {}

    def caught():
        for name in names:
            at = {} if name in pids else site.progress(name)
            if at.get("state") == "running" and (Path(at["folder"]) / "checkpoint.pt").exists():
                pids[name] = at["pid"]
                stop(at["pid"])
        return len(pids) == len(names)

    try:
        site.until(caught, what=f"a checkpoint of {' and '.join(names)}", pause=0.02)
        yield [pids[name] for name in names]
    finally:
        for pid in pids.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def until_gone(site, pid):
    """Until Slurm has killed a process. It wakes it up with its first signal and kills it KillWait later: in between it shall
    not come to its end."""

    def gone():
        with suppress(ProcessLookupError):
            stop(pid)
        return state(pid) in ("", "Z")

    site.until(gone, what="the end of a process", pause=0.02)


@pytest.fixture(scope="session")
def expected(tmp_path_factory):
    """Numbers of a protocol's runs by `--cluster debug`, each protocol measured once."""
    known = {}

    def measure(site):
        content = (site.root / "tiny.yaml").read_text()
        given = json.dumps([content, [str(word) for word in site.request[2:-2]]])
        if given not in known:
            root = tmp_path_factory.mktemp("debug")
            words = [*BENCH, "run", *site.request[:-1], root / "results", "--work", root / "work", "--cluster", "debug"]
            code, out = site.call(words)
            assert code == 0, out
            other = Site.__new__(Site)
            other.root = root
            known[given] = other.numbers()
        return known[given]

    return measure


@pytest.fixture(autouse=True)
def _clean(lab):
    """No test leaves a job to the next one."""
    yield
    lab.cancel_all()
    lab.wait_idle(60)
