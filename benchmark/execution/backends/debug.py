"""The command's own process, or those that torchrun started it in."""

from __future__ import annotations

from pathlib import Path

from benchmark.execution.backends.backend import Backend
from families.spec import UserError


class Debug(Backend):
    """One worker, in the command's own process."""

    executor = "debug"
    in_process = True

    def __init__(self, config: Path | None = None, jobs: int | None = None, processes: int | None = None) -> None:
        super().__init__(config, jobs, processes)
        if self.processes > 1:
            raise UserError("--processes goes with --cluster local; for debug, torchrun starts them")

    def at_a_time(self, places: int) -> int:
        """One."""
        return 1


BACKEND = Debug
