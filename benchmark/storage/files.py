"""Atomic writes, and reads that distrust the file."""

from __future__ import annotations

import errno
import functools
import glob
import hashlib
import json
import os
import secrets
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from benchmark.spec.yaml_files import MOST_BYTES, read_bytes
from families.spec import UserError

PROBE_BYTES = 2**16
LEFTOVER_SECONDS = 3600.0
SEAL = "sha256"


class Damaged(Exception):
    """A file exists, but does not hold what was written."""


def is_file_or_nothing(path: Path) -> bool:
    """Whether a path is a regular file (not a link to one) or does not exist."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return True


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """A text file's content; empty if it cannot be read. Bytes that are not UTF-8 become
    replacement characters."""
    try:
        return read_bytes(path, most).decode(errors="replace")
    except OSError:
        return ""


def parsed(content: bytes) -> Any:
    """The JSON value. Raises ValueError, also if it is nested too deeply."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is none."""
    try:
        content = parsed(read_bytes(path))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_sealed(path: Path) -> dict[str, Any] | None:
    """The sealed JSON object in a file, without its seal; None if there is no file. Raises Damaged
    if the seal does not match."""
    try:
        content = parsed(read_bytes(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Damaged(f"{path}: {getattr(error, 'strerror', None) or 'not JSON'}") from None
    if not is_sealed(content):
        raise Damaged(f"{path}: not as it was written")
    return {name: value for name, value in content.items() if name != SEAL}


def is_sealed(content: Any) -> bool:
    """Whether a JSON value is an object with the seal of its content."""
    return isinstance(content, dict) and content.get(SEAL) == _seal(content)


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with its seal: a sha256 of its content, which `is_sealed` checks."""
    return content | {SEAL: _seal(content)}


def _seal(content: dict[str, Any]) -> str:
    content = {name: value for name, value in content.items() if name != SEAL}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def last_line(text: str, otherwise: str) -> str:
    """The last line of a text that is not blank."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else otherwise


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a new file that replaces the one at `path` on leaving. On an error the old file stays
    and the new one is removed.

    `durable` syncs file and folder, so that the change survives a power failure. Raises OSError,
    naming the file.
    """
    temporary = path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):  # torch.save hides a full disk
            error = error.__context__
        if isinstance(error, OSError) and error.filename is None:  # a failed write does not name its file
            error.filename = str(path)
        raise error from None
    if durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, content: Any, durable: bool = False) -> None:
    """Replace a file by JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
    with replacing(path, durable) as file:
        file.write(text.encode())


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text."""
    with replacing(path, durable=False) as file:
        file.write(text.encode())


def append(path: Path, text: str) -> None:
    """Append text to a file. Raises OSError also if it is not a regular file (writing to a pipe
    could block)."""
    with os.fdopen(open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a", encoding="utf-8") as file:
        file.write(text)


def open_regular(path: Path, flags: int) -> int:
    """A descriptor of a regular file, opened without blocking. Raises OSError for anything else."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def sweep(folder: Path, name: str = "*") -> None:
    """Remove temporary files that killed processes left for files of this name: those of this
    machine's dead processes, and those of other machines that are older than an hour."""
    for path in folder.glob(f".{name if name == '*' else glob.escape(name)}.*-*-*.tmp"):
        with suppress(OSError, ValueError):
            host, pid, _ = path.name.split(".")[-2].split("-")
            if not _lives(int(pid)) if host == _host() else time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()


@functools.cache
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def set_aside(path: Path) -> Path:
    """Rename a damaged file to NAME.set-aside, replacing an older one; the new path."""
    aside = path.with_name(f"{path.name}.set-aside")
    os.replace(path, aside)
    return aside


def ensure_all_writable(folders: Iterable[tuple[str, Path]]) -> None:
    """`ensure_writable` for each (option, folder). If one fails, the folders made so far are
    removed again."""
    made: list[Path] = []
    try:
        for option, folder in folders:
            made += [each for each in (*reversed(folder.parents), folder) if not each.exists()]
            ensure_writable(option, folder)
    except UserError:
        for each in reversed(made):
            with suppress(OSError):
                each.rmdir()
        raise


def ensure_writable(option: str, folder: Path) -> None:
    """Make a folder and write a test file. Raises UserError, so that no training starts whose
    result cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-test-{os.getpid()}"
        try:
            with probe.open("wb") as file:
                file.write(bytes(PROBE_BYTES))  # an empty file would fit on a full disk
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{option} {folder}: cannot be made or written ({error.strerror})") from None
