"""Whether a training has to stop, for the process has been told to leave."""

from __future__ import annotations

import time
from dataclasses import dataclass

BLAME_SECONDS = 120.0  # after a warning: an error within may be a consequence of it


class Preempted(BaseException):
    """The process was told to leave, and its trainings are in checkpoints. Not an error: no run
    fails by it."""


@dataclass
class Preemption:
    """What the process has been told so far.

    Attributes:
        leave: stop at the next point from which every run can resume.
        save: write checkpoints now, since a kill may follow.
        warned: when that was, by the monotonic clock.
    """

    leave: bool = False
    save: bool = False
    warned: float | None = None

    @property
    def told(self) -> bool:
        """Whether an error now may be a consequence of what the scheduler does to the job's other
        processes."""
        return self.leave or (self.warned is not None and time.monotonic() - self.warned < BLAME_SECONDS)

    def taken(self) -> bool:
        """Whether checkpoints were asked for since the last call."""
        asked, self.save = self.save, False
        return asked
