"""What a scheduler tells a process while it works: to leave, since others need its place or its time is over, or that an end
may be near."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class Leaving(BaseException):
    """The process was told to leave, and what it trains is in checkpoints. Not an error: no run fails by it."""


@dataclass
class Notice:
    """What has been told so far. Nothing is, until `heed` was called.

    Attributes:
        leave: to leave at the next point from which all can go on.
        save: to write checkpoints now, for a kill may follow.
        ending: that a kill may follow. (Not taken back once the checkpoints are written.)
    """

    leave: bool = False
    save: bool = False
    ending: bool = False
    answer: Callable[[], None] = field(default=lambda: None, compare=False)

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

    @property
    def told(self) -> bool:
        """Whether anything was: an error from then on may come of what the scheduler does to other processes of the job."""
        return self.leave or self.ending

    def taken(self) -> bool:
        """Whether checkpoints were asked for since the last call."""
        asked, self.save = self.save, False
        return asked

    def _leave(self, number: int, frame: Any) -> None:
        self.leave = True

    def _save(self, number: int, frame: Any) -> None:
        self.save = self.ending = True
