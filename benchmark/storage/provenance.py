"""The provenance of a number: code, versions, machine and dates."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import Any

from benchmark.storage.files import read_json

ROOT = Path(__file__).parent.parent.parent
PACKAGE = "attention-transfer-bench"
CODE, ENDINGS, FROZEN = ("benchmark", "families"), (".py", ".yaml"), "frozen.json"


def utc_now(timespec: str = "seconds") -> str:
    """The time as in records, ISO 8601; `timespec` as of datetime.isoformat."""
    return datetime.now(UTC).isoformat(timespec=timespec)


def provenance(started: str, finished: str, data: str | None = None, by: str | None = None) -> dict[str, Any]:
    """The record of this process's code, versions and machine; `by`: who runs it."""
    import torch

    others = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "pillow", "pycocotools")
    return {
        **code_version(),
        "versions": {"python": platform.python_version(), PACKAGE: package_version()} | {name: version(name) for name in others},
        "host": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "cpu": cpu_model(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "started": started,
        "finished": finished,
    } | {name: value for name, value in (("data", data), ("by", by)) if value is not None}


def package_version() -> str:
    """The version of this package; "not installed" for a clone that is used without an installation."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "not installed"


@functools.lru_cache(maxsize=1)
def cpu_model() -> str | None:
    """The model of this machine's CPU; None where it is not told."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


@functools.lru_cache(maxsize=1)
def code_version() -> dict[str, Any]:
    """commit, dirty, and a digest of the code, which works outside a git checkout too.

    Read once a process, for the code that was loaded makes its runs. A frozen copy has commit and
    dirty of its original.
    """
    copied = read_json(ROOT / FROZEN)
    if copied is not None:
        return copied | {"code": code_digest(ROOT)}
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", *CODE)
    return {"commit": commit, "dirty": None if changes is None else bool(changes), "code": code_digest(ROOT)}


def code_digest(root: Path) -> str:
    """sha256 of the code below a folder: paths and contents."""
    return _digest((path.relative_to(root).as_posix(), path.read_bytes()) for path in code_files(root))


def code_digest_of(commit: str) -> str | None:
    """The same of a commit of this git checkout; None where it has no such commit."""
    if not re.fullmatch("[0-9a-f]{40}", commit) or _git("cat-file", "-e", f"{commit}^{{commit}}") is None:
        return None
    listed = (PurePath(path) for path in (_git("ls-tree", "-r", "--name-only", commit, "--", *CODE) or "").splitlines())
    kept = sorted(path for path in listed if path.suffix in ENDINGS)
    paths = [path.as_posix() for folder in CODE for path in kept if path.parts[0] == folder]
    return _digest(zip(paths, _contents_of(commit, paths), strict=True))


def _contents_of(commit: str, paths: Sequence[str]) -> Iterator[bytes]:
    """The contents of a commit's files; of a link, that of its target."""
    words = ["git", "cat-file", "--batch", "--follow-symlinks"]
    asked = "".join(f"{commit}:{path}\n" for path in paths).encode()
    rest = subprocess.run(words, cwd=ROOT, input=asked, capture_output=True, check=True).stdout
    for _ in paths:
        head, _, rest = rest.partition(b"\n")
        size = int(head.split()[-1])
        yield rest[:size]
        rest = rest[size + 1 :]


def _digest(files: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for path, content in files:
        digest.update(path.encode() + content)
    return digest.hexdigest()


def code_files(root: Path) -> Iterator[Path]:
    """The code below a folder, in a fixed order."""
    for folder in CODE:
        yield from sorted(path for path in (root / folder).rglob("*") if path.suffix in ENDINGS)


def _git(*args: str) -> str | None:
    if not (ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
