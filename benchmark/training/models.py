"""Build the models of a run: the one that it trains, and its teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import families
from benchmark.spec.architectures import records_in
from benchmark.spec.recipe import Normalisation
from benchmark.spec.run import Run
from benchmark.spec.teacher_source import Untrained
from benchmark.training.detection.detector import Detector
from benchmark.training.detection.windows import restrict
from benchmark.training.state_files import REMEDY, load_state, read_state, take_state
from benchmark.transfer.pairing import teachers_blocks
from benchmark.transfer.teacher_reader import TeacherReader
from families.core.adapter import build_student
from families.core.layer_scale import fold
from families.core.positions import resize
from families.core.starts import start_attention
from families.spec import Component, Host, WeightsError

# Parameters of each part of a teacher that can be re-initialised. BEiT's blocks share a bias table.
REINIT_PATTERNS = {"none": (), "attention": ("blocks.*.attn.*", "rel_pos_bias.*"), "mlp": ("blocks.*.mlp.*",)}
HEADS = ("head.", "norm.", "fc_norm.", "attn_pool.")  # the norm before the head moves with the pooling


def model_of(run: Run, files: Mapping[str, Path]) -> nn.Module:
    """The model that a run trains, at its start; `files` as for `frozen_teacher`."""
    if run.is_teacher:
        return families.load(run.family).architecture(run.size, seed=run.seed, **timm_args(run))
    if run.is_finetuned:
        fresh = families.load(run.family).architecture(run.size, seed=run.stream, **timm_args(run))
        return _with_new_head(fresh, frozen_teacher(run, files).state_dict(), REINIT_PATTERNS[run.reinit])
    if run.detector is not None:
        return _detector(run, read_state(files["backbone"]), files["backbone"])
    return student_of(run)


def finished_model(run: Run, weights: Path) -> nn.Module:
    """The model of a finished run with its last weights, frozen. Raises WeightsError for a file
    that does not fit."""
    if run.detector is not None:
        model = _detector(run)
    elif run.is_student:
        model = _usual_student(run)
    else:
        return trained(run, weights)
    load_state(model, weights)
    return model.eval().requires_grad_(False)


def _detector(run: Run, state: Mapping[str, Tensor] | None = None, path: Path = Path()) -> nn.Module:
    """The detector of a run, whose body has the state of its backbone's run if there is one. Raises
    WeightsError for a state that does not fit."""
    assert run.detector is not None and run.backbone is not None
    body = _backbone(run, None if state is None else len(state["head.weight"]) if "head.weight" in state else 0)
    if state is not None:
        take_state(body, state, path)
    img_size = run.student.geometry.img_size
    return Detector(resize(body, img_size, run.detector.positions), run.detector, run.protocol.data.num_classes, run.stream)


def _backbone(run: Run, classes: int | None) -> nn.Module:
    """The model of a detector's backbone at its own input size, with a head of so many classes."""
    before, args = _before(run), {"num_classes": classes or 1}
    if before.is_finetuned:
        return families.load(run.family).architecture(run.size, seed=run.stream, **timm_args(before) | args)
    return _usual_student(before, **args)


def _before(run: Run) -> Run:
    """The run with the model that its detector begins from; a run without one as it is."""
    if run.backbone is None:
        return run
    geometry = run.student.geometry.model_copy(update={"img_size": run.backbone.img_size})
    return run.model_copy(update={"student": run.student.model_copy(update={"geometry": geometry}), "role": run.backbone.role})


def student_of(run: Run) -> nn.Module:
    """The student of a run, at its start."""
    return start_attention(_usual_student(run), run.student.start, run.seed)


def _usual_student(run: Run, **others: Any) -> nn.Module:
    host = Host(run.student.host, records_in(run.student.switched_off))
    components = {
        name: Component(name, "", "", records_in(given["args"]), records_in(given["initial"]))
        for name, given in run.student.components.items()
    }
    return build_student(host, components, run.seed, **timm_args(run) | others)


def frozen_teacher(run: Run, files: Mapping[str, Path]) -> nn.Module:
    """The frozen teacher of a run.

    `files` has its weights: of the `run` that trained it, else the pre-trained `weights`. Raises
    WeightsError for a file that does not fit.
    """
    img_size = run.student.geometry.img_size
    if isinstance(run.teacher, Untrained):
        seed, args = int(run.teacher.seed), teachers_args(_before(run))
        model = families.load(run.family).teacher(run.size, pretrained=False, seed=seed, **args)
    elif "run" in files:
        model = trained(_before(run), files["run"])
    else:
        model = families.load(run.family).teacher(run.size, weights=files["weights"], img_size=img_size)
    if run.detector is not None:
        restrict(resize(model, img_size, run.detector.positions), run.detector.windows, run.detector.global_blocks)
    return fold(model) if run.teacher is not None and run.teacher.is_folded else model


def trained(run: Run, weights: Path) -> nn.Module:
    """A frozen teacher that a run trained, with its head. Raises WeightsError if its file is
    damaged or another model's."""
    state = read_state(weights)
    if "head.weight" not in state:
        raise WeightsError(f"{weights}: not the weights of a model with a head; {REMEDY}")
    classes = len(state["head.weight"])  # of its own task, which a student may not share
    model = families.load(run.family).teacher(run.size, pretrained=False, **teachers_args(run) | {"num_classes": classes})
    take_state(model, state, weights)
    return model


def reader_of(run: Run, files: Mapping[str, Path], device: str) -> TeacherReader:
    """A reader of the run's teacher, for the transferred blocks."""
    given = run.transfer
    drop_path = run.protocol.recipe.drop_path if given.teacher_drop_path else 0.0
    teacher = frozen_teacher(run, files).to(device)
    precision, values = given.teacher_precision, given.needs_route
    blocks = sorted({*teachers_blocks(given, run.teachers_geometry.depth, run.student.geometry.depth).values()})
    return TeacherReader(teacher, blocks, precision, given.compile_teacher, drop_path=drop_path, values=values)


def teachers_input(run: Run) -> Normalisation:
    """The input normalisation of a run's teacher: the family's if it was pre-trained elsewhere,
    else the protocol's."""
    if run.teacher is None or not run.teacher.pinned:
        return run.protocol.normalisation
    spec = families.spec(run.family)
    return Normalisation(mean=spec.mean, std=spec.std)


def timm_args(run: Run) -> dict[str, Any]:
    """Arguments of timm for geometry, head and classes of a run's models."""
    classes = run.protocol.data.num_classes
    return {**run.student.geometry.model_dump(), "global_pool": run.protocol.head, "num_classes": classes}


def teachers_args(run: Run) -> dict[str, Any]:
    """The same of a run's teacher."""
    return timm_args(run) | run.teachers_geometry.model_dump()


def _with_new_head(model: nn.Module, state: Mapping[str, Tensor], anew: Sequence[str] = ()) -> nn.Module:
    """Load a backbone's state. The head, parameters that match `anew`, and a norm that the teacher
    lacks keep their initial values. Raises WeightsError for any other difference."""
    own = model.state_dict()
    state = {name: own[name] if any(fnmatchcase(name, each) for each in anew) and name in own else state[name] for name in state}
    taken = {name: value for name, value in state.items() if name in own and not name.startswith("head.")}
    gaps = [name for name in own.keys() ^ taken.keys() if not name.startswith(HEADS)]
    gaps += [name for name in state if name not in own and not name.startswith(HEADS)]
    if gaps:
        raise WeightsError(f"{type(model).__name__} cannot be fine-tuned from these weights: {', '.join(sorted(gaps)[:5])}")
    model.load_state_dict(own | taken)
    return model
