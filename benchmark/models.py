"""From a run to its models: what is trained, and the teacher that it learns from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import families
from benchmark.plan import Run
from benchmark.protocol import Normalisation
from benchmark.transfer import Reader
from families.weights import WeightsError, load_pretrained

HEADS = ("head.", "norm.", "fc_norm.")  # what belongs to a head: the norm before it moves with the pooling


def model_of(run: Run, family: str, size: str, files: Mapping[str, Path]) -> nn.Module:
    """The model that a run trains, at its start; `files` as for `taught_by`, which fine-tuning starts from."""
    adapter = families.load(family)
    if run.role == "teacher":
        return adapter.architecture(size, seed=run.seed, **timm_args(run))
    if run.role == "finetune":
        fresh = adapter.architecture(size, seed=run.stream, **timm_args(run))
        return _with_new_head(fresh, taught_by(run, family, size, files).state_dict())
    return adapter.student(size, seed=run.stream, native=run.student.components, **timm_args(run))


def taught_by(run: Run, family: str, size: str, files: Mapping[str, Path]) -> nn.Module:
    """The frozen teacher of a run.

    `files` names its weights as `run.teacher` does: those of the `run` that trained it, else the pre-trained `weights`. Raises
    WeightsError for a file that does not fit.
    """
    if "run" in files:
        return trained(run, family, size, files["run"])
    return load_pretrained(families.spec(family).teacher(size), files["weights"]).eval().requires_grad_(False)


def trained(run: Run, family: str, size: str, weights: Path) -> nn.Module:
    """A teacher that was trained here for a run's task, with its head, frozen, from its state-dict file."""
    model = families.load(family).teacher(size, pretrained=False, **timm_args(run))
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model


def reader_of(run: Run, family: str, size: str, files: Mapping[str, Path], device: str) -> Reader:
    """The teacher of a run, to be read in the blocks that are transferred."""
    given = run.transfer
    drop_path = run.protocol.recipe.drop_path if given.teacher_drop_path else 0.0
    teacher = taught_by(run, family, size, files).to(device)
    return Reader(teacher, given.blocks, given.teacher_precision, given.compile_teacher, drop_path=drop_path)


def teachers_input(run: Run, family: str) -> Normalisation:
    """What a run's teacher was pre-trained on: the family's own normalisation, or the protocol's where it was trained here."""
    if run.teacher is None or "weights" not in run.teacher:
        return run.protocol.normalisation
    spec = families.spec(family)
    return Normalisation(mean=spec.mean, std=spec.std)


def timm_args(run: Run) -> dict[str, Any]:
    """The arguments that give a run's models their geometry, head and classes."""
    classes = run.protocol.data.num_classes
    return {**run.student.geometry.model_dump(), "global_pool": run.protocol.head, "num_classes": classes}


def _with_new_head(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Take a backbone's state in place; the head stays as it starts, and so does its norm where the teacher has none of that
    name. Raises WeightsError for any other gap."""
    own = model.state_dict()
    taken = {name: value for name, value in state.items() if name in own and not name.startswith("head.")}
    gaps = [name for name in own.keys() ^ taken.keys() if not name.startswith(HEADS)]
    gaps += [name for name in state if name not in own and not name.startswith(HEADS)]
    if gaps:
        raise WeightsError(f"{type(model).__name__} cannot be fine-tuned from these weights: {', '.join(sorted(gaps)[:5])}")
    model.load_state_dict(own | taken)
    return model
