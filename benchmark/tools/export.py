"""Export a finished model: a folder that timm loads as from Hugging Face's hub, with a timm
checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from timm.models import save_for_hf
from torch import nn

import families
from benchmark.spec.arm import Arm
from benchmark.spec.run import Cell, Run
from benchmark.training.models import finished_model, teachers_input, timm_args
from families.spec import STANDARD, Partial, Ref, UserError, one_line, quoted

CHECKPOINT, TOLERANCE = "checkpoint.pth", 1e-5


def export(run: Run, cell: Cell, weights: Path, folder: Path, payload: dict[str, Any]) -> Path:
    """Write a finished run's model into a new folder: model.safetensors and config.json (timm's
    layout for Hugging Face's hub), checkpoint.pth (a state dict for timm's `checkpoint_path`) and a
    model card, README.md, with the scores of its `payload`.

    Raises UserError for a model that was measured with its teacher, a detector, one that no timm
    name describes, or an existing folder.
    """
    if run.transfer.copies:
        raise UserError(
            f"{cell.name}: Copy needs its teacher's attention at test time, so the student alone is not what was measured; a"
            " student of Distillation, or one without transfer, can be exported"
        )
    if run.detector is not None:
        raise UserError(f"{cell.name}: a detector is no model of timm's; its backbone is exported as that of its own run")
    if not weights.is_file():
        raise UserError(f"{cell.name}: its weights are not at {weights} any more")
    if folder.exists():
        raise UserError(f"--out {folder}: it is there already; give another folder")
    model = finished_model(run, weights)
    with TemporaryDirectory() as temporary:
        made = Path(temporary) / "exported"
        for name, args in _described(run, cell):
            if _written(run, cell, model, made, name, args):
                break
            shutil.rmtree(made, ignore_errors=True)
        else:
            raise UserError(
                f"{cell.name}: no architecture of timm's has exactly these components, so that it could be loaded back"
            )
        _card(run, cell, payload, name, args).save(made / "README.md")
        try:
            shutil.copytree(made, folder)
            for path in folder.iterdir():  # safetensors makes its file readable by its owner alone
                path.chmod((folder / "README.md").stat().st_mode)
        except OSError as error:
            raise UserError(f"--out {folder}: {error.strerror}") from None
    return folder


def _described(run: Run, cell: Cell) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and arguments of timm that may build the model; arguments that are no plain values are
    left out."""
    teacher = families.spec(cell.family).teacher(cell.size)
    native = teacher.model.partition(".")[0]
    if not run.is_student:
        yield native, {**teacher.args, **timm_args(run)}
        return
    args = {**(run.student.switched_off if run.student.components else STANDARD.standard), **timm_args(run)}
    for given in run.student.components.values():
        args |= given["args"]
    plain = {name: value for name, value in args.items() if not isinstance(value, dict)}
    assert all(set(value) <= {Ref.__name__, Partial.__name__} for value in args.values() if isinstance(value, dict))
    if ":" not in run.student.host:  # a class has no name by which timm could build it
        yield run.student.host, plain
    yield native, plain


def _written(run: Run, cell: Cell, model: nn.Module, folder: Path, name: str, args: dict[str, Any]) -> bool:
    """Write the model under this name; whether it loads back with equal outputs, from the folder
    and the checkpoint."""
    size, input_of = run.student.geometry.img_size, teachers_input(run)
    if run.is_student:
        input_of = run.protocol.normalisation
    try:
        twin = timm.create_model(name, pretrained=False, **args)
        twin.load_state_dict(model.state_dict())
    except (TypeError, RuntimeError):  # an argument that it does not take, or other parameters
        return False
    described = {
        "tag": f"{cell.protocol}.{cell.arm}-s{cell.seed}",  # else that of timm's own weights of this architecture
        "origin_url": None,
        "paper_ids": None,
        "paper_name": None,
        "license": None,
        "input_size": [3, size, size],
        "mean": list(input_of.mean),
        "std": list(input_of.std),
        "crop_pct": getattr(run.settings.data, "crop_pct", 1.0),
        "interpolation": getattr(run.settings.data, "interpolation", "bicubic"),
    }
    save_for_hf(twin, str(folder), model_config={"model_args": args, "pretrained_cfg": described}, safe_serialization=True)
    torch.save({"state_dict": model.state_dict()}, folder / CHECKPOINT)
    with torch.no_grad():
        x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        expected = model(x)
        loaded = (
            timm.create_model(f"local-dir:{folder}", pretrained=True),
            timm.create_model(name, checkpoint_path=str(folder / CHECKPOINT), **args),
        )
        return all(float((each.eval()(x) - expected).abs().max()) <= TOLERANCE for each in loaded)


def _card(run: Run, cell: Cell, payload: dict[str, Any], name: str, args: dict[str, Any]) -> ModelCard:
    """The model card: metadata as the hub reads them, scores and how to load the model."""
    teacher, score, made = families.spec(cell.family).teacher(cell.size), payload["metrics"], payload["provenance"]
    pinned = run.teacher is not None and bool(run.teacher.pinned)
    source = (payload["teacher"] or {}).get("source")
    data = run.settings.data
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=getattr(data, "source", "") or cell.protocol,
            dataset_name=f"test set of protocol {cell.protocol}",
            metric_type="accuracy",
            metric_name=title,
            metric_value=round(score[field], 4),
        )
        for title, field in (("top-1", "top1"), ("top-5", "top5"))
    ]
    licence: dict[str, Any] = _licence(teacher.licence) if pinned else {}
    metadata = ModelCardData(
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "attention-transfer"],
        model_name=cell.name,
        eval_results=results,
        **licence,
        attention_transfer={
            "method": run.transfer.method if run.is_student else run.role,
            "teacher": source if run.teacher is not None else None,
            "student": Arm.parse(cell.arm).student if run.is_student else None,
            "run": run.key,
            "commit": made["commit"],
        },
    )
    told = {
        "top-1 in % on the protocol's test set": round(score["top1"], 4),
        "key": run.key,
        "teacher": source,
        "commit": made["commit"],
        "finished": made["finished"],
        f"licence of the weights of {cell.family} {cell.size}, which were used": teacher.licence if pinned else None,
    }
    lines = "\n".join(f"- {what}: {value}" for what, value in told.items() if value is not None)
    text = f"""
# {cell.name}

{lines}

```python
import timm

model = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True)
backbone = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True, features_only=True)
same = timm.create_model({name!r}, checkpoint_path="PATH/TO/THIS/FOLDER/{CHECKPOINT}", **{args!r})
```

On the hub, `hf-hub:OWNER/NAME` stands for `local-dir:PATH/TO/THIS/FOLDER`. Images are normalised as
config.json says (`timm.data.resolve_model_data_config(model)`).
"""
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n{text}")


def _licence(name: str) -> dict[str, str]:
    """A licence as the hub names it."""
    known = {"Apache-2.0": "apache-2.0", "MIT": "mit", "CC-BY-NC-4.0": "cc-by-nc-4.0"}
    return {"license": known[name]} if name in known else {"license": "other", "license_name": name}


def check_repository(repo: str) -> None:
    """Raises UserError for a name that no repository of the hub can have."""
    if repo.count("/") != 1:
        raise UserError(f"--push {quoted(repo)}: OWNER/NAME")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"--push {quoted(repo)}: {one_line(error)}") from None


def push(folder: Path, repo: str, private: bool) -> str:
    """Upload an exported folder to a repository of Hugging Face's hub, which is made if it is
    missing; the address of the commit. Raises UserError where the hub refuses, or is not reached."""
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message=f"Upload {folder.name}").commit_url)
    except Exception as error:  # of names, tokens, the hub or the network: its client has no common kind
        raise UserError(
            f"--push {quoted(repo)}: {one_line(error)}; the model is in {folder}: delete it before you try again"
        ) from None
