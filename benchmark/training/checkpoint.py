"""Checkpoints: what a run resumes from exactly."""

from __future__ import annotations

import io
import math
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from benchmark.storage.files import replacing
from families.core.checkpoints import read_torch
from families.spec import WeightsError, one_line

_WRITER = ThreadPoolExecutor(1, "checkpoints")
ANEW = "set aside, and the run starts anew"  # what becomes of a checkpoint that cannot be used


@dataclass
class Progress:
    """How far a run is: steps taken, seconds spent, the loss since the last point of its curve, and
    the curve; the energy of the seconds that were metered."""

    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    kwh: float = 0.0
    metered: float = 0.0

    @property
    def whole_kwh(self) -> float | None:
        """The energy of all steps; None if some were not metered."""
        whole = self.metered > 0 and math.isclose(self.metered, self.seconds, rel_tol=1e-3)
        return round(self.kwh, 9) if whole else None


KINDS = {name: type(value) for name, value in vars(Progress()).items()}


@dataclass
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        run: the run's key.
        code: digest of the code; a run is made by one code from beginning to end.
        model, optimizer: state dicts.
        progress: how far the run is.
        average: state dict of averaged weights, None without.
        masked: state dict of masked image modelling, None without.
    """

    run: str
    code: str
    model: dict[str, Any]
    optimizer: dict[str, Any]
    progress: Progress
    average: dict[str, Any] | None = None
    masked: dict[str, Any] | None = None

    def write(self, path: Path) -> None:
        """Write the file, whole."""
        save(self._content(), path)

    def write_in_background(self, path: Path) -> Future[None]:
        """Serialise the content now, into memory, and write the file, whole, in a background thread.
        The future raises OSError if that fails."""
        content = io.BytesIO()
        torch.save(self._content(), content)
        return _WRITER.submit(_replace, path, content)

    def _content(self) -> dict[str, Any]:
        return vars(self) | {"progress": vars(self.progress)}

    def has_parts_of(self, other: Checkpoint) -> bool:
        """Whether its models have the tensors of the other's, by name and shape."""
        return all(_shapes(getattr(self, name)) == _shapes(getattr(other, name)) for name in ("model", "average", "masked"))


def _shapes(state: Any) -> Any:
    """Shapes by name; what is no state dict, as it is."""
    if not isinstance(state, dict):
        return state
    return {name: value.shape if isinstance(value, torch.Tensor) else type(value) for name, value in state.items()}


def read_checkpoint(path: Path, like: Checkpoint) -> Checkpoint | None:
    """Read a checkpoint; None for one of the run of `like` by other code. Raises WeightsError for a
    damaged file, or one that is not of this run."""
    content, wrong = read_torch(path, ANEW), WeightsError(f"{path}: not a checkpoint of run {like.run}; {ANEW}")
    if not isinstance(content, dict) or content.get("run") != like.run:
        raise wrong
    if content.get("code") != like.code:
        return None
    progress = content.get("progress")
    if content.keys() != {each.name for each in fields(Checkpoint)} or not isinstance(progress, dict):
        raise wrong
    if {name: type(value) for name, value in progress.items()} != KINDS:
        raise wrong
    found = Checkpoint(**(content | {"progress": Progress(**progress)}))
    if not found.has_parts_of(like):
        raise wrong
    return found


def take_optimizer(optimizer: torch.optim.Optimizer, saved: Checkpoint, path: Path) -> None:
    """Load the optimizer's state. Raises WeightsError, and changes nothing, for one that is not of
    this optimizer."""
    try:
        every = [each for group in optimizer.param_groups for each in group["params"]]
        for number, state in saved.optimizer["state"].items():  # none of a parameter without gradients
            shapes = [value.shape for value in state.values() if isinstance(value, torch.Tensor) and value.dim()]
            if any(shape != every[number].shape for shape in shapes):
                raise ValueError("other shapes")
        if not all({"lr", "weight_decay"} <= each.keys() for each in saved.optimizer["param_groups"]):
            raise ValueError("no rates")
        optimizer.load_state_dict(saved.optimizer)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise WeightsError(f"{path}: not the state of this run's optimizer ({one_line(error, 80)}); {ANEW}") from None


def save(content: Any, path: Path) -> None:
    """Write a torch file, whole."""
    with replacing(path) as file:
        torch.save(content, file)


def _replace(path: Path, content: io.BytesIO) -> None:
    with replacing(path) as file:
        file.write(content.getbuffer())
