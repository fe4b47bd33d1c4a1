"""Files of versions and containers agree with pyproject.toml and with one another."""

import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .conftest import ROOT

LISTED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
NEEDED = {canonicalize_name(each.name): each for each in map(Requirement, LISTED)}


def pinned(path):
    """Version by name, of a file with exact versions alone."""
    lines = (line for line in (ROOT / path).read_text().splitlines() if not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines)}


def test_the_tested_versions_are_within_the_bounds():
    tested = pinned("constraints.txt")
    assert set(NEEDED) <= set(tested)
    assert all(NEEDED[name].specifier.contains(tested[name]) for name in NEEDED)


def test_the_oldest_versions_are_the_lower_bounds():
    bounds = {
        name: Version(each.version) for name, needed in NEEDED.items() for each in needed.specifier if each.operator == ">="
    }
    assert pinned("tests/oldest.txt") == bounds


def test_both_containers_are_made_of_the_same_files():
    copied = [line.split()[1:] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY")]
    docker = {name for *names, _ in copied for name in names}
    definition = (ROOT / "apptainer.def").read_text()
    files = dict(line.split() for line in definition.split("%files\n")[1].split("\n\n")[0].splitlines())
    assert files == {name: f"/src/{name}" for name in docker}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == docker and all((ROOT / name).exists() for name in docker)
