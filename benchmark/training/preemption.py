"""What a scheduler tells a process while it works: to leave, since others need its place or its time is over, or that an end
may be near."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

BLAME_SECONDS = 120.0  # after SIGTERM: within which what fails may fail by it


def python_that_waits() -> str:
    """The shell's words for a Python that keeps the signal to leave until `heed`: it may come while imports still go on, and
    would end the process then."""
    import submitit

    code = (
        "import os, sys, signal; "
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIG{submitit.JobEnvironment.USR_SIG}]); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return shlex.join([sys.executable, "-ISc", code, sys.executable])


class Preempted(BaseException):
    """The process was told to leave, and what it trains is in checkpoints. Not an error: no run fails by it."""


def _nothing() -> None:
    """No answer is wanted."""


@dataclass
class Preemption:
    """What has been told so far. Nothing is, until `heed` was called.

    Attributes:
        leave: to leave at the next point from which all can go on.
        save: to write checkpoints now, for a kill may follow.
        warned: when that was, by the monotonic clock.
        answer: what the signal to leave wants in the end.
    """

    leave: bool = False
    save: bool = False
    warned: float | None = None
    answer: Callable[[], None] = field(default=_nothing, compare=False)

    def heed(self) -> None:
        """Take the place of submitit's signal handlers where it has set some.

        Its own answer to the signal for preemption and time limit, which is to put the job into the queue again and end, may
        come in the middle of a step: here it waits in `answer` until whoever trains has saved. SIGTERM (a cancelled job, or a
        scheduler that has requeued it already) only asks for checkpoints: a process that ended by it would be taken for
        one that has finished, and not be started again.
        """
        import submitit

        leaving = getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")
        requeue = signal.getsignal(leaving)
        if threading.current_thread() is not threading.main_thread() or not callable(requeue):
            return
        self.answer = lambda: requeue(leaving, None)
        signal.signal(leaving, self._leave)
        signal.signal(signal.SIGTERM, self._save)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [leaving])

    @property
    def told(self) -> bool:
        """Whether an error now may come of what the scheduler does to other processes of the job."""
        return self.leave or (self.warned is not None and time.monotonic() - self.warned < BLAME_SECONDS)

    def taken(self) -> bool:
        """Whether checkpoints were asked for since the last call."""
        asked, self.save = self.save, False
        return asked

    def _leave(self, number: int, frame: Any) -> None:
        self.leave = True

    def _save(self, number: int, frame: Any) -> None:
        self.save, self.warned = True, time.monotonic()
