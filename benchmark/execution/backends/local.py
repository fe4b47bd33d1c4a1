"""Worker processes of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmark.execution.backends.backend import Backend


class Local(Backend):
    """Processes that share a list of runs until it is empty."""

    executor = "local"

    def parameters(self, name: str, folder: Path, code: Path, after: Iterable[str]) -> dict[str, Any]:
        """As many processes for a job as share a run."""
        return super().parameters(name, folder, code, after) | {"tasks_per_node": self.processes}

    def worker_environment(self) -> dict[str, str | None]:
        """The GPUs of this process, which submitit would hide."""
        return {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES")}


BACKEND = Local
