"""From a run to its models: what is trained, and the teacher that it learns from."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import families
from benchmark.spec.definitions import records_in
from benchmark.spec.recipe import Normalisation
from benchmark.spec.run import Run
from benchmark.spec.teacher_source import Untrained
from benchmark.storage.work_folder import Workspace
from benchmark.transfer.teacher_reader import TeacherReader
from families.core.adapter import build_student
from families.core.checkpoints import WeightsError, check_plain, read_torch
from families.core.layer_scale import fold
from families.core.weights import load_pretrained
from families.spec import Component, Host, one_line

# What starts anew with a part of the teacher: of each block the module, and BEiT's table of biases that all blocks share.
REINIT_PATTERNS = {"none": (), "attention": ("blocks.*.attn.*", "rel_pos_bias.*"), "mlp": ("blocks.*.mlp.*",)}
REMEDY = "delete it, and bench run trains its run again"  # of weights that a run of ours left
HEADS = ("head.", "norm.", "fc_norm.")  # what belongs to a head: the norm before it moves with the pooling


def model_of(run: Run, files: Mapping[str, Path]) -> nn.Module:
    """The model that a run trains, at its start; `files` as for `taught_by`, which fine-tuning starts from."""
    if run.is_teacher:
        return families.load(run.family).architecture(run.size, seed=run.seed, **timm_args(run))
    if run.is_finetuned:
        fresh = families.load(run.family).architecture(run.size, seed=run.stream, **timm_args(run))
        return _with_new_head(fresh, taught_by(run, files).state_dict(), REINIT_PATTERNS[run.reinit])
    return student_of(run)


def student_of(run: Run) -> nn.Module:
    """The student of a run at its start, from what the run says of it alone; what is only evaluated is a student too."""
    host = Host(run.student.host, records_in(run.student.switched_off))
    components = {
        name: Component(name, "", "", records_in(given["args"]), records_in(given["initial"]))
        for name, given in run.student.components.items()
    }
    return build_student(host, components, f"student:{run.seed}", **timm_args(run))


def taught_by(run: Run, files: Mapping[str, Path]) -> nn.Module:
    """The frozen teacher of a run.

    `files` names its weights as `run.teacher` does: those of the `run` that trained it, else the pre-trained `weights`; an
    untrained one has none. Raises WeightsError for a file that does not fit.
    """
    if isinstance(run.teacher, Untrained):
        seed = int(run.teacher.seed)
        return families.load(run.family).teacher(run.size, pretrained=False, seed=seed, **timm_args(run))
    if "run" in files:
        model = trained(run, files["run"])
    else:
        model = load_pretrained(families.spec(run.family).teacher(run.size), files["weights"]).eval().requires_grad_(False)
    return fold(model) if run.teacher is not None and run.teacher.is_folded else model


def trained(run: Run, weights: Path) -> nn.Module:
    """A teacher that was trained here, with its head, frozen, from its state-dict file. Raises WeightsError for one that is
    damaged or another model's."""
    state = read_state(weights)
    if "head.weight" not in state:
        raise WeightsError(f"{weights}: not the weights of a model with a head; {REMEDY}")
    classes = len(state["head.weight"])  # of its own task, which a student may not share
    model = families.load(run.family).teacher(run.size, pretrained=False, **timm_args(run) | {"num_classes": classes})
    _take(model, state, weights)
    return model


def read_state(path: Path) -> dict[str, Tensor]:
    """A state-dict file that was written here. Raises WeightsError, one line, for one that is damaged or holds anything else."""
    state = read_torch(path, REMEDY)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: a {type(state).__name__} of other things than weights; {REMEDY}")
    check_plain(path, state, REMEDY)
    return state


def load_state(model: nn.Module, path: Path) -> None:
    """Give a model the weights of a state-dict file. Raises WeightsError for one that is damaged or another model's."""
    _take(model, read_state(path), path)


def _take(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        told = one_line(error).partition(": ")[2][:100]
        raise WeightsError(f"{path}: not the weights of this run's model ({told}); {REMEDY}") from None


def reader_of(run: Run, files: Mapping[str, Path], device: str) -> TeacherReader:
    """The teacher of a run, to be read in the blocks that are transferred."""
    given = run.transfer
    drop_path = run.protocol.recipe.drop_path if given.teacher_drop_path else 0.0
    teacher = taught_by(run, files).to(device)
    precision, values = given.teacher_precision, given.needs_route
    return TeacherReader(teacher, given.blocks, precision, given.compile_teacher, drop_path=drop_path, values=values)


def teachers_input(run: Run) -> Normalisation:
    """What a run's teacher was pre-trained on: the family's own normalisation, or the protocol's where it was trained here."""
    if run.teacher is None or not run.teacher.pinned:
        return run.protocol.normalisation
    spec = families.spec(run.family)
    return Normalisation(mean=spec.mean, std=spec.std)


def timm_args(run: Run) -> dict[str, Any]:
    """The arguments that give a run's models their geometry, head and classes."""
    classes = run.protocol.data.num_classes
    return {**run.student.geometry.model_dump(), "global_pool": run.protocol.head, "num_classes": classes}


def _with_new_head(model: nn.Module, state: Mapping[str, Tensor], anew: Sequence[str] = ()) -> nn.Module:
    """Take a backbone's state in place; the head stays as it starts, and so do parameters of the patterns `anew`, and its norm
    where the teacher has none of that name. Raises WeightsError for any other gap."""
    own = model.state_dict()
    state = {name: own[name] if any(fnmatchcase(name, each) for each in anew) and name in own else state[name] for name in state}
    taken = {name: value for name, value in state.items() if name in own and not name.startswith("head.")}
    gaps = [name for name in own.keys() ^ taken.keys() if not name.startswith(HEADS)]
    gaps += [name for name in state if name not in own and not name.startswith(HEADS)]
    if gaps:
        raise WeightsError(f"{type(model).__name__} cannot be fine-tuned from these weights: {', '.join(sorted(gaps)[:5])}")
    model.load_state_dict(own | taken)
    return model


def weights_digest(path: Path) -> str:
    """sha256 of a state-dict file's tensors, independent of how they were stored. Raises WeightsError for a file that is
    damaged or no state dict."""
    digest = hashlib.sha256()
    for name, value in sorted(read_state(path).items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def weights_of(workspace: Workspace, key: str) -> Path:
    """The path of a finished run's weights. Raises WeightsError if the file is damaged or is not the one that the run left."""
    from benchmark.training.models import REMEDY
    from families.core.checkpoints import WeightsError

    path = workspace.run(key).weights
    at = path.stat()
    found = digest_at(path, at.st_size, at.st_mtime_ns)
    if workspace.weights_digest(key) not in (None, found):
        raise WeightsError(f"{path}: not the weights that run {key} left; {REMEDY}")
    return path


@functools.lru_cache
def digest_at(path: Path, size: int, mtime_ns: int) -> str:
    from benchmark.training.models import weights_digest

    return weights_digest(path)
