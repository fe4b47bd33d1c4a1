"""What a plan will cost: by arithmetic, or by what finished runs of its kind took."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from benchmark.spec.plan import Item, units
from benchmark.spec.run import Geometry, Run
from benchmark.storage.result_file import Result

PEAK, SHARE = 312e12, 0.4  # bfloat16 FLOP/s of an A100 (NVIDIA's data sheet); the share that training reaches: assumed


ASSUMED = f"an A100 at {SHARE:.0%} of its bfloat16 peak, assumed; evaluation not counted"


def forward_flops(geometry: Geometry, blocks: int | None = None, registers: int = 0) -> float:
    """Floating-point operations of a plain ViT's forward pass of one image, of its first `blocks` blocks (None: all), with so
    many registers beside its class token and patches.

    A multiplication and an addition are two. Per block 24 N d^2 of projections and MLP and 4 N^2 d of attention, for N tokens
    of width d; the patch embedding adds 2 N d 3 p^2, for N without registers.
    """
    embedded, dim = (geometry.img_size // geometry.patch_size) ** 2 + 1, geometry.embed_dim
    tokens = embedded + registers
    block = 24 * tokens * dim**2 + 4 * tokens**2 * dim
    return (geometry.depth if blocks is None else blocks) * block + 6 * embedded * dim * geometry.patch_size**2


def weights_bytes(geometry: Geometry) -> float:
    """Size of a plain ViT's float32 weights without its head: 12 d^2 a block, and the embeddings."""
    return 4 * (geometry.depth * 12 * geometry.embed_dim**2 + 3 * geometry.patch_size**2 * geometry.embed_dim)


def bill(items: Sequence[Item], most: int) -> dict[str, float]:
    """`gpu_hours` and `disk_gb` that runs will need, by arithmetic alone.

    A step is three forward passes of the student (the backward pass is twice the forward: Kaplan et al. 2020, arXiv
    2001.08361) and one of the teacher, as far as it is read and once for runs that train together. On disk each run keeps
    its weights, beside those of its checkpoint with both of Adam's moments and an average where the recipe has one.
    """
    operations, kept, passing = 0.0, 0.0, 0.0
    for unit in units(items, 1, most):
        seen = [item.run for item in unit if item.run.is_trained]
        images = [run.protocol.recipe.steps * run.protocol.recipe.batch_size for run in seen]
        operations += sum(3 * count * forward_flops(run.student.geometry) for run, count in zip(seen, images, strict=True))
        operations += max(
            (count * forward_flops(run.student.geometry, max(run.transfer.blocks) + 1)
             for run, count in zip(seen, images, strict=True) if run.transfer.blocks),
            default=0.0,
        )  # fmt: skip
        kept += sum(weights_bytes(run.student.geometry) for run in seen)
        passing = max(passing, sum(weights_bytes(r.student.geometry) * (3 + (r.protocol.recipe.ema is not None)) for r in seen))
    return {"gpu_hours": operations / (PEAK * SHARE) / 3600, "disk_gb": (kept + passing) / 1e9}


def by_experience(finished: Sequence[Result], todo: Sequence[Item]) -> dict[str, Any]:
    """What runs will take if each step costs what it did in finished runs of the same kind: all but seed, teacher and steps.

    Gives `device_hours`, hours times the processes that share a run; how many `runs` there are and are `covered`; and the
    `devices` it was measured on.
    """
    seconds: dict[str, list[float]] = {}
    devices: dict[str, set[str]] = {}
    for result in finished:
        kind, steps = _kind_of(result.run.run), result.run.protocol.recipe.steps
        seconds.setdefault(kind, []).append(result.cost.seconds * (result.cost.ranks or 1) / steps)
        devices.setdefault(kind, set()).add(result.cost.device)
    usual = {kind: mean(each) for kind, each in seconds.items()}
    kinds = [(item, _kind_of(item.run)) for item in (todo if usual else ())]
    known = [(item, kind) for item, kind in kinds if kind in usual]
    spent = sum(item.run.protocol.recipe.steps * usual[kind] for item, kind in known)
    on = sorted({device for _, kind in known for device in devices[kind]})
    return {"runs": len(todo), "covered": len(known), "device_hours": spent / 3600, "devices": on}


def _kind_of(run: Run) -> str:
    """What of a run decides the cost of its steps."""
    recipe = run.protocol.recipe.model_copy(update={"steps": 1})
    alike = run.model_copy(update={"seed": 0, "teacher": None, "protocol": run.protocol.model_copy(update={"recipe": recipe})})
    return alike.key
