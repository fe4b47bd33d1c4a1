"""The processes that torchrun started this command in."""

from __future__ import annotations

import os
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from benchmark.cli.support.common import DONE
from benchmark.spec import bounds
from families.spec import UserError


def process_count() -> int:
    """How many processes torchrun started; 1 without it. Raises UserError where it did not set all
    variables."""
    size = bounds.JOBS.read("WORLD_SIZE", os.environ.get("WORLD_SIZE") or "1")
    if size > 1:
        absent = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
        if absent:
            raise UserError(f"WORLD_SIZE={size} without {', '.join(absent)}: torchrun sets all of them; else unset it")
        bounds.Whole(0, size - 1).read("RANK", os.environ["RANK"])
        bounds.WORKERS.read("LOCAL_RANK", os.environ["LOCAL_RANK"])
    return size


def local_process_count() -> int:
    """How many of these processes are on this machine."""
    return bounds.PROCESSES.read("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_WORLD_SIZE") or "1")


def joined(device: str, in_process: bool) -> Any:
    """A context of `benchmark.training.distributed.Ranks`; without torchrun a stand-in, which does
    not import torch."""
    if process_count() == 1:
        return nullcontext(SimpleNamespace(first=True, broadcast=lambda said: said))
    from benchmark.execution.setup import torch_device
    from benchmark.training.distributed import joined

    if not in_process:
        raise UserError("under torchrun it is --cluster debug: the processes are there already")
    return joined(torch_device(device))


def help_out(ranks: Any) -> int:
    """Do this process's part of the tasks that the first process sends, until it sends None."""
    from benchmark.execution.worker import share_work

    while (task := ranks.broadcast(None)) is not None:
        share_work(task, ranks)
    return DONE
