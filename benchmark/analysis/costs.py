"""The cost of a plan: by arithmetic, by measured steps, or by finished runs of the same kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from benchmark.spec.plan import Item, units
from benchmark.spec.run import Geometry, Run
from benchmark.storage.result_file import Result

PEAK, SHARE = 312e12, 0.4  # bfloat16 FLOP/s of an A100 (NVIDIA's data sheet); the share that training reaches: assumed
ASSUMED = f"an A100 at {SHARE:.0%} of its bfloat16 peak, assumed; evaluation and detectors' heads not counted"


def forward_flops(geometry: Geometry, blocks: int | None = None, registers: int = 0) -> float:
    """Floating-point operations of a plain ViT's forward pass of one image, through its first
    `blocks` blocks (None: all), with `registers` tokens beside its class token and patches.

    A multiplication and an addition are two. Per block 24 N d^2 of projections and MLP and 4 N^2 d
    of attention, for N tokens of width d; the patch embedding adds 2 N d 3 p^2, for N without
    registers.
    """
    embedded, dim = (geometry.img_size // geometry.patch_size) ** 2 + 1, geometry.embed_dim
    tokens = embedded + registers
    block = 24 * tokens * dim**2 + 4 * tokens**2 * dim
    return (geometry.depth if blocks is None else blocks) * block + 6 * embedded * dim * geometry.patch_size**2


def weights_bytes(geometry: Geometry) -> float:
    """Size of a plain ViT's float32 weights without its head: 12 d^2 a block, and the embeddings."""
    return 4 * (geometry.depth * 12 * geometry.embed_dim**2 + 3 * geometry.patch_size**2 * geometry.embed_dim)


@dataclass(frozen=True)
class StepCost:
    """Seconds of one step of a run: its own, and its teacher's, which runs that train together pay
    once.

    `origins` says where that was measured: devices, or the code's digest.
    """

    own: float
    teacher: float = 0.0
    origins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """How long runs take.

    Attributes:
        runs, covered: how many there are, and have a known cost.
        hours: of all workers together.
        until_done: hours until the last of the workers is done.
        origins: of the costs.
    """

    runs: int
    covered: int
    hours: float
    until_done: float
    origins: frozenset[str]


def estimate(items: Sequence[Item], step_cost: Callable[[Run], StepCost | None], most: int, jobs: int = 1) -> Estimate:
    """The time of runs by `jobs` workers, in units of at most `most` runs; `step_cost` is None for
    a run of unknown cost.

    Students wait for all teachers. Evaluation, start and the data pipeline are not counted.
    """
    items = [item for item in items if item.evaluation is None]
    covered, loads, origins = 0, [0.0] * jobs, set[str]()
    total = 0.0
    for teachers in (True, False):
        for unit in units([item for item in items if (item.run.is_teacher) == teachers], jobs, most):
            costs = [(item.run.protocol.recipe.steps, step_cost(item.run)) for item in unit]
            known = [(steps, cost) for steps, cost in costs if cost is not None]
            seconds = sum(steps * cost.own for steps, cost in known)
            seconds += max((steps * cost.teacher for steps, cost in known), default=0.0)
            covered, total = covered + len(known), total + seconds
            origins.update(origin for _, cost in known for origin in cost.origins)
            loads[loads.index(min(loads))] += seconds
        loads = [max(loads)] * jobs
    return Estimate(len(items), covered, total / 3600, max(loads) / 3600, frozenset(origins))


def by_arithmetic(run: Run) -> StepCost | None:
    """A step as floating-point operations, on an A100 (see ASSUMED).

    It is three forward passes of the student (the backward pass is twice the forward: Kaplan et al.
    2020, arXiv 2001.08361) and one of the teacher, through the blocks that are read.
    """
    geometry, second = run.student.geometry, run.protocol.recipe.batch_size / (PEAK * SHARE)
    read = forward_flops(run.teachers_geometry, max(run.transfer.blocks) + 1) if run.transfer.blocks else 0.0
    return StepCost(3 * second * forward_flops(geometry), second * read)


def by_measurement(measured: Mapping[tuple[Geometry, bool], Mapping[str, Any]]) -> Callable[[Run], StepCost | None]:
    """Steps as `bench speed` timed them (storage.measurements.read_measurements) at a run's
    geometry; a matched student's by those of a matched one if there are any, else of a standard
    one, and the reverse."""

    def step_cost(run: Run) -> StepCost | None:
        geometry, matched = run.student.geometry, bool(run.student.components)
        known = measured.get((geometry, matched)) or measured.get((geometry, not matched))
        if known is None or run.detector is not None:  # which was not measured
            return None
        method, origins = run.transfer.method, (known["provenance"]["code"],)
        if method == "none":
            return StepCost(known["plain"]["seconds"], 0.0, origins)
        return StepCost(known[f"second_{method}"]["seconds"], known["teacher"]["seconds"], origins)

    return step_cost


def by_experience(finished: Sequence[Result]) -> Callable[[Run], StepCost | None]:
    """Steps as in finished runs of the same kind: equal but for seed, teacher and number of steps.
    Processes that share a run count each; a teacher's share is in the run's own seconds."""
    seconds: dict[str, list[float]] = {}
    devices: dict[str, set[str]] = {}
    for result in finished:
        kind, steps = _kind_of(result.run.run), result.run.protocol.recipe.steps
        seconds.setdefault(kind, []).append(result.cost.seconds * (result.cost.ranks or 1) / steps)
        devices.setdefault(kind, set()).add(result.cost.device)
    usual = {kind: StepCost(mean(each), 0.0, tuple(devices[kind])) for kind, each in seconds.items()}
    return lambda run: usual.get(_kind_of(run)) if usual else None


def _kind_of(run: Run) -> str:
    """A key that runs whose steps cost the same have in common."""
    recipe = run.protocol.recipe.model_copy(update={"steps": 1})
    alike = run.model_copy(update={"seed": 0, "teacher": None, "protocol": run.protocol.model_copy(update={"recipe": recipe})})
    return alike.key


def disk_bytes(items: Sequence[Item], most: int) -> float:
    """The space of runs in the work folder, in bytes.

    Each keeps its weights; the largest unit of at most `most` runs also has checkpoints: weights,
    both of Adam's moments, and an average where the recipe has one.
    """
    kept, passing = 0.0, 0.0
    for unit in units(items, 1, most):
        trained = [(weights_bytes(item.run.student.geometry), item.run) for item in unit if item.evaluation is None]
        kept += sum(size for size, _ in trained)
        passing = max(passing, sum(size * (3 + (run.protocol.recipe.ema is not None)) for size, run in trained))
    return kept + passing
