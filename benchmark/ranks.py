"""Processes that train one run together, on one node or several: who they are, and the little that they tell each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """A process among those that share a run's batches; alone unless said otherwise.

    Attributes:
        rank, size: its number, and how many there are.
        local: its number on its node, which chooses its GPU.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks of a CPU tensor."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def mean(self, value: float) -> float:
        """The mean over all ranks."""
        return value if self.size == 1 else float(self.total(torch.tensor(value, dtype=torch.float64))) / self.size

    def tell(self, value: Any) -> Any:
        """What rank 0 says."""
        said = [value]
        if self.size > 1:
            dist.broadcast_object_list(said, src=0)
        return said[0]

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.size > 1:
            dist.barrier()


def found() -> Ranks:
    """A process's place, as submitit or torchrun gave it."""
    import submitit

    try:
        tasks = submitit.JobEnvironment().num_tasks
    except RuntimeError:  # no job of submitit's
        tasks = 1
    if tasks > 1 and not dist.is_initialized():
        environment = submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        if environment.world_size == environment.local_world_size:
            os.environ["MASTER_ADDR"] = "127.0.0.1"  # one node: no name has to be resolved
    rank, size, local = (int(os.environ.get(name, default)) for name, default in _VARIABLES)
    return Ranks(rank, size, local)


_VARIABLES = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Within: the ranks can tell each other things. Tensors on a GPU go by nccl, all else by gloo."""
    ranks = found()
    if ranks.size == 1 or dist.is_initialized():
        yield ranks
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo", init_method="env://")
    try:
        yield ranks
    finally:
        dist.destroy_process_group()
