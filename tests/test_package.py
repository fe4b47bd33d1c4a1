"""The wheel, outside any clone: it holds what the command reads, and a run made from it is a whole result."""

import os
import subprocess
import sys
import zipfile

import pytest
import yaml

from benchmark.storage.provenance import PACKAGE, code_digest, package_version
from benchmark.storage.results import read_results

from .conftest import ROOT, tiny_protocol

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of packages into which the wheel is unpacked, which is all that an installation of it does."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    source = folder / "source"
    subprocess.run(["git", "clone", "--quiet", ROOT, source], check=True)
    subprocess.run([sys.executable, *words, source], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "packages")
    return folder / "packages"


def bench(installed, where, *words):
    """The output of the command in a folder, with what the wheel holds in place of this clone."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmark.cli", *map(str, words)],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_holds_the_packages_whole(installed):
    def files(root):
        paths = (path for name in ("benchmark", "families") for path in (root / name).rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix() for path in paths if "__pycache__" not in path.parts}

    assert files(installed) == files(installed.parent / "source")


def test_a_run_and_its_reports_outside_a_clone(installed, tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_protocol()))
    told = bench(installed, tmp_path, "--version")
    assert told == f"{PACKAGE} {package_version()}\n" and package_version() != "not installed"
    words = ("--family", "deit", "--sizes", "small", "--seeds", "0", "--protocol", "tiny.yaml", "--device", "cpu", "--jobs", "1")
    assert "trained 4 runs" in bench(installed, tmp_path, "run", *words)
    results, rejected = read_results(tmp_path / "results")
    assert len(results) == 7 and not rejected
    made = results[0].provenance
    assert made.commit is None and made.dirty is None and made.code == code_digest(installed)
    assert made.versions[PACKAGE] == package_version()
    assert "reports: reports/index.html" in bench(installed, tmp_path, "report", "--protocol", "tiny.yaml")
    assert "Li et al. 2024" in (tmp_path / "reports" / "published.csv").read_text()
