"""Processes that train one run together, on one node or several."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """A process among those that share a run's batches.

    Attributes:
        rank, size: its number, and the number of processes.
        local: its number on its node, which chooses its GPU.
        talk: the process group for messages, without a timeout: rank 0 may wait long for others'
            runs. Gradients use the default group, whose timeout ends a hanging job.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    talk: Any = field(default=None, compare=False)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum of a CPU tensor over all ranks."""
        if self.size > 1:
            dist.all_reduce(values, group=self.talk)
        return values

    def any(self, value: bool) -> bool:
        """Whether the value is true on any rank."""
        return value if self.size == 1 else bool(self.total(torch.tensor(int(value))) > 0)

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0."""
        said = [value]
        if self.size > 1:
            dist.broadcast_object_list(said, src=0, group=self.talk)
        return said[0]

    def all_gather(self, value: Any) -> list[Any]:
        """The values of all ranks, by rank."""
        said = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(said, value, group=self.talk)
        return said

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier(group=self.talk)


def found() -> Ranks:
    """The place of this process, from submitit or torchrun."""
    import submitit

    try:
        tasks = submitit.JobEnvironment().num_tasks
    except RuntimeError:  # no job of submitit's
        tasks = 1
    if tasks > 1 and not dist.is_initialized():
        os.environ["MASTER_PORT"] = str(_meeting_port())  # in place of a batch script's, which jobs on a node would share
        environment = submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        if environment.world_size == environment.local_world_size:
            os.environ["MASTER_ADDR"] = "127.0.0.1"  # one node: no name has to be resolved
    rank, size, local = (int(os.environ.get(name) or default) for name, default in _VARIABLES)
    return Ranks(rank, size, local)


def _meeting_port() -> int:
    """A port that all processes of a job choose alike, below those that systems give to connections
    (32768 and up on Linux): submitit's own choice may be one of them."""
    import submitit

    return random.Random(submitit.JobEnvironment().job_id).randrange(20_000, 32_768)


_VARIABLES = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Within: the ranks are connected, by nccl for gradients on GPUs and else by gloo."""
    global _joined  # noqa: PLW0603
    ranks = found()
    if ranks.size == 1 or _joined is not None:
        yield _joined or ranks
        return
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", init_method="env://")
    _joined = replace(ranks, talk=dist.new_group(backend="gloo", timeout=timedelta(days=365)))
    try:
        yield _joined
    finally:
        _joined = None
        dist.destroy_process_group()


_joined: Ranks | None = None
ALONE = Ranks()
