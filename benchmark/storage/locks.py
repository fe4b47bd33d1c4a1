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

LOCK, POLL_SECONDS = "lock", 0.2


@contextmanager
def locked(folder: Path, wait: bool, until: Callable[[], bool] = lambda: False) -> Iterator[bool]:
    """Within: True if this process alone has the folder's lock; with `wait` always, unless `until`
    came true first.

    Raises UserError where the lock is no regular file, is another user's, or is on a file system
    without locks.
    """
    with ExitStack() as within:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = within.enter_context(os.fdopen(open_regular(folder / LOCK, os.O_RDWR | os.O_CREAT), "r+"))
            got = _lock(file)
            while wait and not got and not until():
                time.sleep(POLL_SECONDS)
                got = _lock(file)
        except OSError as error:
            raise UserError(f"{folder}: cannot be locked ({error.strerror})") from None
        yield got


def is_locked(folder: Path) -> bool:
    """Whether a process has the folder's lock. Looking does not take it."""
    try:
        with os.fdopen(open_regular(folder / LOCK, os.O_RDONLY)) as file:
            return not _lock(file, fcntl.LOCK_SH)  # several may look at a time
    except OSError:  # it does not exist, or cannot be locked
        return False


def _lock(file: IO[str], kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
