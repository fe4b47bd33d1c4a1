"""State-dict files that runs leave: read, checked and held against their digest."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from benchmark.storage.work_folder import Workspace
from families.core.checkpoints import check_plain, read_torch
from families.spec import WeightsError, one_line

REMEDY = "delete it, and bench run trains its run again"  # of weights that a run of ours left


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state-dict file of a run. Raises WeightsError, one line, if it is damaged or holds
    anything else."""
    state = read_torch(path, REMEDY)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: a {type(state).__name__} of other things than weights; {REMEDY}")
    check_plain(path, state, REMEDY)
    return state


def load_state(model: nn.Module, path: Path) -> None:
    """Load a state-dict file into a model. Raises WeightsError if it is damaged or another model's."""
    take_state(model, read_state(path), path)


def take_state(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict that came from `path`. Raises WeightsError if it is another model's."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        told = one_line(error).partition(": ")[2][:100]
        raise WeightsError(f"{path}: not the weights of this run's model ({told}); {REMEDY}") from None


def weights_digest(path: Path) -> str:
    """The sha256 of a state-dict file's tensors, however they are stored. Raises WeightsError if it
    is no such file."""
    digest = hashlib.sha256()
    for name, value in sorted(read_state(path).items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def weights_of(workspace: Workspace, key: str) -> Path:
    """The path of a finished run's weights. Raises WeightsError if they are damaged or not what the
    run left."""
    path = workspace.run(key).weights
    at = path.stat()
    found = digest_at(path, at.st_size, at.st_mtime_ns)
    if workspace.weights_digest(key) not in (None, found):
        raise WeightsError(f"{path}: not the weights that run {key} left; {REMEDY}")
    return path


@functools.lru_cache
def digest_at(path: Path, size: int, mtime_ns: int) -> str:
    """The digest of a file with this size and time of change; each file is read once."""
    return weights_digest(path)
