"""A scheduler's signals: leave, for others need the place or the time limit is near, or a warning
that the end may be near."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmark.training.preemption import Preemption


def python_that_waits() -> str:
    """Shell words for a Python that blocks the signal to leave until `heed`: it may come while
    imports still go on, and would end the process then."""
    import submitit

    code = (
        "import os, sys, signal; "
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIG{submitit.JobEnvironment.USR_SIG}]); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return shlex.join([sys.executable, "-ISc", code, sys.executable])


def _no_answer() -> None:
    pass


@dataclass
class SignalledPreemption(Preemption):
    """A preemption reported by signals, once `heed` was called; `answer` puts the job into the
    queue again."""

    answer: Callable[[], None] = field(default=_no_answer, compare=False)

    def heed(self) -> None:
        """Replace submitit's signal handlers, where it has set some.

        Its own answer to the signal for preemption and time limit, which is to put the job into the
        queue again and exit, may come in the middle of a step: here it waits in `answer` until
        checkpoints are written. SIGTERM (a cancelled job, or one that the scheduler has requeued
        already) only asks for checkpoints: a process that exited by it would count as finished, and
        would not be started again.
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

    def _leave(self, number: int, frame: Any) -> None:
        self.leave = True

    def _save(self, number: int, frame: Any) -> None:
        self.save, self.warned = True, time.monotonic()
