"""What the tests share: a protocol of a few steps, and the command as users call it."""

import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from pathlib import Path

import pytest
import yaml

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmark.cli import main
from benchmark.spec.yaml_files import FOLDER

torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent
CHECKPOINT, WEIGHTS = "checkpoint.pt", "weights.pt"  # files of a run


def tiny_protocol(**changes):
    """Protocol mini with few images and steps, as the content of a protocol file."""
    content = yaml.safe_load((FOLDER / "protocols" / "mini.yaml").read_text(encoding="utf-8"))
    content["data"] |= {"val_images": 60, "test_images": 80}
    content["scale"]["sizes"] = {name: {"embed_dim": 48, "depth": 2} for name in ("small", "base", "large")}
    content["teacher"] = {"floor": 0, "recipe": content["teacher"]["recipe"] | {"steps": 6, "batch_size": 16}}
    content["recipe"] |= {"steps": 4, "batch_size": 16}
    content["curve_points"] = 2
    return content | changes


class Forked:
    """A function in a process and session of its own, which has torch from the beginning; used like subprocess.Popen, with
    errors among the output. `env` is what its environment has beside this one's."""

    started = []

    def __init__(self, function, *args, cwd=ROOT, env=None):
        descriptor, self.output = tempfile.mkstemp()
        os.close(descriptor)
        with contextlib.chdir(ROOT):
            CONTEXT.set_forkserver_preload(["tests.conftest", "benchmark.execution.worker", "benchmark.reporting.render"])
            forkserver.ensure_running()
        given = (self.output, str(cwd), os.environ | (env or {}), multiprocessing.get_start_method(), function, args)
        self.process = CONTEXT.Process(target=_in_fork, args=given)
        self.process.start()
        self.pid = self.process.pid
        self.started.append(self)

    @property
    def returncode(self):
        return self.process.exitcode

    def poll(self):
        return self.process.exitcode

    def wait(self, timeout=None):
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise TimeoutError(f"no end in {timeout} s: {Path(self.output).read_text()}")
        return self.process.exitcode

    def communicate(self, timeout=None):
        self.wait(timeout)
        return Path(self.output).read_text(), None

    def send_signal(self, number):
        with contextlib.suppress(ProcessLookupError):  # as Popen: nothing where it has ended
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


CONTEXT = multiprocessing.get_context("forkserver")


def _in_fork(output, cwd, environment, start_method, function, args):
    multiprocessing.set_start_method(start_method, force=True)  # else its image loaders would import torch again, each of them
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", encoding="utf-8"), os.fdopen(2, "w", encoding="utf-8", buffering=1)
    sys.exit(function(*args))


def command(*words, cwd=ROOT, env=None):
    """The command `bench` in a process of its own."""
    return Forked(main, [str(word) for word in words], cwd=cwd, env=env)


@pytest.fixture(autouse=True)
def _ended():
    """No test leaves a command to the next one."""
    yield
    for each in Forked.started:
        if each.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()
        Path(each.output).unlink()
    Forked.started.clear()


@pytest.fixture(autouse=True)
def _thawed():
    """`bench report` leaves what it has read to the end of the process, which here goes on."""
    yield
    gc.unfreeze()


def perturbed(model, seed=0, std=0.2):
    """The model, in eval mode, with noise on every parameter: fresh LayerScale, tables and biases hide what is wrong."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw) * std)
    return model.eval()


@contextmanager
def interrupted_after(seconds):
    """Within: TimeoutError after so many seconds."""

    def interrupt(*_):
        raise TimeoutError(f"waited for {seconds} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def at_once():
    """A test that waits for anything is interrupted after 5 s, and fails."""
    with interrupted_after(5):
        yield


@pytest.fixture
def tiny(tmp_path):
    """The path of a protocol file of a few steps."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_protocol()), encoding="utf-8")
    return path


@pytest.fixture
def folders(tmp_path):
    """The options that keep a command inside the test's folder."""
    return ["--results", str(tmp_path / "results"), "--work", str(tmp_path / "work")]


@pytest.fixture
def bench(capsys):
    """Run the command in this process: (exit code, standard output, standard error)."""

    def call(*words):
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def unreported(monkeypatch):
    """`bench run` ends when all is trained: without a leaderboard and reports, for tests of what comes before."""
    monkeypatch.setattr("benchmark.cli.run._close", lambda *given: None)


def python(*words, cwd=ROOT, env=None, **options):
    """Start this interpreter with `words`, as a process of its own; `env` is what its environment has beside this one's."""
    environment = os.environ | {"PYTHONPATH": str(cwd)} | (env or {})
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, check=False, **options
    )
