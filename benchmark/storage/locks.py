"""Exclusive locks of folders."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from benchmark.storage.files import open_regular
from families.spec import UserError

LOCK_SECONDS = 0.2


@contextmanager
def locked(folder: Path, wait: bool, until: Callable[[], bool] = lambda: False) -> Iterator[bool]:
    """Within: nobody else has this lock, if it is True. With `wait` it always is, unless `until` came true first.

    Raises UserError for a folder that is another user's, or on a file system without locks.
    """
    with ExitStack() as within:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = within.enter_context(os.fdopen(open_regular(folder / "lock", os.O_RDWR | os.O_CREAT), "r+"))
            got = _lock(file)
            while wait and not got and not until():
                time.sleep(LOCK_SECONDS)
                got = _lock(file)
        except OSError as error:
            raise UserError(f"{folder}: cannot be locked ({error.strerror})") from None
        yield got


def is_locked(folder: Path) -> bool:
    """Whether somebody has this lock."""
    try:
        with os.fdopen(open_regular(folder / "lock", os.O_RDONLY)) as file:
            return not _lock(file, fcntl.LOCK_SH)  # two who only look are not in each other's way
    except OSError:  # none is there, or what nobody could lock
        return False


def _lock(file: IO[str], kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
