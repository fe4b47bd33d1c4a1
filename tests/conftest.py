"""What the tests share: a protocol of a few steps, and the command as users call it."""

import gc
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmark.cli import main
from benchmark.spec.yaml_files import FOLDER

torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent


def tiny_protocol(**changes):
    """Protocol mini with few images and steps, as the content of a protocol file."""
    content = yaml.safe_load((FOLDER / "protocols" / "mini.yaml").read_text(encoding="utf-8"))
    content["data"] |= {"val_images": 60, "test_images": 80}
    content["scale"]["sizes"] = {name: {"embed_dim": 48, "depth": 2} for name in ("small", "base", "large")}
    content["teacher"] = {"floor": 0, "recipe": content["teacher"]["recipe"] | {"steps": 6, "batch_size": 16}}
    content["recipe"] |= {"steps": 4, "batch_size": 16}
    content["curve_points"] = 2
    return content | changes


@pytest.fixture(autouse=True)
def _thawed():
    """`bench report` leaves what it has read to the end of the process, which here goes on."""
    yield
    gc.unfreeze()


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


def python(*words, cwd=ROOT, env=None, **options):
    """Start this interpreter with `words`, as a process of its own; `env` is what its environment has beside this one's."""
    environment = os.environ | {"PYTHONPATH": str(cwd)} | (env or {})
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, check=False, **options
    )
