"""Image folders on a real Slurm: loader processes, augmentation and all, through a preemption without any grace."""

import re

import pytest
import yaml

from tests.data.test_imagenet import CLASSES, SUBSET, protocol_file
from tests.jpegs import make_folder, wnids

from .conftest import Site


@pytest.fixture
def site(lab, tmp_path):
    names = wnids(CLASSES)
    make_folder(tmp_path / "data", {"train": 76, "validation": 36}, CLASSES)
    make_folder(tmp_path / "data", {"imagenet-a": 24, "imagenet-r": 20}, CLASSES, 1, {names[i]: i for i in SUBSET})
    make_folder(tmp_path / "data", {"imagenet-v2": 24}, CLASSES, 2, {str(i): i for i in range(CLASSES)})
    content = yaml.safe_load(protocol_file(tmp_path).read_text())
    content["recipe"]["epochs"], content["curve_points"], content["checkpoint_seconds"] = 12, 2, 0
    made = Site(tmp_path / "user", lab, content, tmp_path / "few.yaml", "dinov2_reg", partition="hard", cpus=3)
    made.request = ["--data", tmp_path / "data", "--device", "cpu", "--workers", "2", *made.request]
    return made


def test_loaders_that_are_killed_first_fail_no_run(site, lab, expected):
    """Slurm sends SIGTERM to every process of a job; loaders obey it at once, and the training process sees them die."""
    site.bench("run")
    site.until(lambda: site.progress("standard-copy-s0").get("step", 0) > 20, what="a student in training")
    lab.command("sbatch", "--partition=main", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap", "sleep 5")
    site.until(lambda: "PENDING" in lab.command("squeue", "--noheader", "--format=%T", "--partition=hard"), what="the preemption")
    site.until_over()
    assert site.counts() == {"finished": 4}
    assert site.numbers() == expected(site)
    logs = [path.read_text() for path in (site.root / "work" / "runs").glob("*/run.log")]
    assert any("given back" in log for log in logs), "the loaders' death was seen, and was no failure"
    assert any(int(step) > 0 for log in logs for step in re.findall(r"training from step (\d+)", log))
