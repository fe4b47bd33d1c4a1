"""The cost of a training step: plain, Copy, Distillation and written-out maps, timed in turn in one
process.

Students are initialised as in a run; images are random, since the arithmetic does not depend on
them. The steps are those of runs (`Student.learn` and `update`). The data pipeline is measured
apart.
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import families
from benchmark import data
from benchmark.data import DataLocation
from benchmark.spec.protocol import Protocol, load_protocol
from benchmark.spec.recipe import Recipe
from benchmark.spec.run import Transfer
from benchmark.storage.measurements import Setting
from benchmark.storage.provenance import provenance, utc_now
from benchmark.training.clock import now, seconds
from benchmark.training.run_trainer import peak_memory
from benchmark.training.student import Student
from benchmark.transfer.attention_transfer import AttentionTransfer
from benchmark.transfer.reference import kept_maps, replaced_maps, unfused
from benchmark.transfer.teacher_reader import TeacherReader, holds_maps
from families.core.attention import align, layout
from families.spec import UserError, one_line

METHODS = ("plain", "copy", "distill")
YARDSTICKS = ("explicit_copy", "explicit_distill")
WARM_UP = 2
IMG_SIZE = 224  # of the real teachers
NO_END = 10**9


def setting_of(family: str, size: str, batch: int | None, img_size: int | None, **more: Any) -> Setting:
    """The setting of a request at the teacher's own geometry. Raises UnknownName for an unknown
    family or size, UserError for blocks or an image size that the model cannot have."""
    geometry, blocks = families.spec(family).teacher(size).at(img_size).geometry, more["blocks"]
    if blocks is not None and not 0 < blocks <= geometry["depth"]:
        raise UserError(f"--blocks {blocks}: from 1 to {geometry['depth']}")
    return Setting(family=family, size=size, geometry=geometry, batch=batch or 8, **more)


class Bench:
    """One student and one teacher, and a step of each of `kinds`."""

    def __init__(self, setting: Setting, kinds: Sequence[str]) -> None:
        torch.set_num_threads(setting.threads)
        self.device = torch.device(setting.device)
        adapter, geometry = families.load(setting.family), setting.geometry
        blocks = tuple(range(setting.blocks or geometry["depth"]))
        teacher = adapter.teacher(setting.size, False, None, **geometry).to(self.device)
        native = adapter.native if setting.matched else ()
        model = adapter.student(setting.size, 1000, native=native, **geometry).to(self.device)
        self.blocks, self.kinds, self.tokens = blocks, tuple(kinds), len(layout(model))
        if align(layout(teacher), layout(model)).teacher is not None:  # written-out maps need equal tokens
            self.kinds = tuple(kind for kind in kinds if kind in METHODS)
        if any(kind in YARDSTICKS for kind in self.kinds):
            self.explicit_teacher, self.explicit = unfused(teacher), unfused(model).train()
            self.explicit_optimizer = torch.optim.AdamW(self.explicit.parameters(), lr=1e-5)
        if any(kind in METHODS for kind in self.kinds):
            recipe = Recipe(
                steps=NO_END, batch_size=setting.batch, lr=1e-5, warmup=0, weight_decay=0.05,
                precision=setting.precision, compile=setting.compile,
            )  # type: ignore[arg-type]  # fmt: skip
            self.student = Student(model, Transfer(), None, recipe)
            model.train()
            self.bonds = {"plain": self.student.transfer}
        if any(kind in ("copy", "distill") for kind in self.kinds):
            self.reader = TeacherReader(teacher, blocks, setting.teacher_precision, setting.compile_teacher, setting.held)
            distil = Transfer(method="distill", blocks=blocks, loss="ce", weight=1.0)
            self.bonds["copy"] = AttentionTransfer(Transfer(method="copy", blocks=blocks), model, self.reader)
            self.bonds["distill"] = AttentionTransfer(distil, model, self.reader)
        draw = torch.Generator().manual_seed(0)
        size = geometry["img_size"]
        self.x = torch.randn(setting.batch, 3, size, size, generator=draw).to(self.device)
        self.y = torch.randint(1000, (setting.batch,), generator=draw).to(self.device)
        self.autocast = functools.partial(
            torch.autocast, self.device.type, dtype=torch.bfloat16, enabled=setting.precision == "bfloat16"
        )

    def step(self, kind: str) -> dict[str, float]:
        """Seconds by phase of one step."""
        marks = [("", now(self.device))]

        def mark(phase: str) -> None:
            marks.append((phase, now(self.device)))

        if kind in METHODS:
            self.student.transfer = self.bonds[kind]
            with self.autocast():
                reading = {} if kind == "plain" else self.reader.read(self.x)
            mark("teacher")
            self.student.begin(0)
            self.student.learn(self.x, self.y, reading, mark=mark)
            self.student.update()
            mark("update")
        else:
            self._explicit_step(kind, mark)
        return {phase: seconds(before, after) for (_, before), (phase, after) in itertools.pairwise(marks)}

    def _explicit_step(self, kind: str, mark: Callable[[str], None]) -> None:
        with torch.no_grad(), kept_maps(self.explicit_teacher) as maps, self.autocast():
            self.explicit_teacher.forward_features(self.x)  # type: ignore[operator]
        mark("teacher")
        self.explicit_optimizer.zero_grad()
        if kind == "explicit_copy":
            copied = [maps[b] if b in self.blocks else None for b in range(len(maps))]
            with replaced_maps(self.explicit, copied), self.autocast():
                loss = F.cross_entropy(self.explicit(self.x).float(), self.y)
        else:
            with kept_maps(self.explicit) as own, self.autocast():
                loss = F.cross_entropy(self.explicit(self.x).float(), self.y)
            for block in self.blocks:
                loss = loss - (maps[block] * own[block].float().clamp_min(1e-12).log()).sum(-1).mean()
        mark("forward")
        loss.backward()
        mark("backward")
        self.explicit_optimizer.step()
        mark("update")


def measure(setting: Setting, rounds: int, yardstick: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """Time `rounds` steps of each kind, one of each a round, and measure each kind's peak memory in
    its own process.

    Returns, for `plain`, `copy`, `distill` and the yardsticks: median seconds and quartiles, ratio
    to plain (of medians; quartiles over rounds), images/s, peak memory in MiB above that of the
    imports, and median seconds by phase. Also `second_copy` and `second_distill`, the cost of an
    arm whose teacher and batch another arm has paid for, and `teacher`.
    """
    began = utc_now()
    progress("peak memory")
    memory = {kind: _in_own_process(setting, kind) for kind in (METHODS + YARDSTICKS if yardstick else METHODS)}
    bench = Bench(setting, [kind for kind in memory if memory[kind] is not None])
    kinds = bench.kinds
    times: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for number in range(-WARM_UP, rounds):
        progress(f"round {number + 1} of {rounds}" if number >= 0 else "warm-up")
        for kind in kinds:
            phases = bench.step(kind)
            if number >= 0:
                times[kind].append(phases)
    totals = {kind: [sum(each.values()) for each in times[kind]] for kind in kinds}
    own = {kind: [sum(each.values()) - each["teacher"] for each in times[kind]] for kind in ("copy", "distill")}
    totals |= {f"second_{kind}": own[kind] for kind in own}
    totals["teacher"] = [each["teacher"] for kind in ("copy", "distill") for each in times[kind]]
    found: dict[str, Any] = {kind: _summary(totals[kind], totals["plain"], setting.batch) for kind in totals}
    for kind in kinds:
        found[kind]["phases"] = {
            phase: round(statistics.median(each[phase] for each in times[kind]), 6) for phase in times[kind][0]
        }
        weight, plain = memory[kind], memory["plain"]
        assert weight is not None and plain is not None
        found[kind] |= {"peak_memory_mb": weight, "memory_ratio": round(weight / plain, 3)}
    held = holds_maps(bench.device, bench.tokens) if setting.held is None else setting.held
    about = {"setting": asdict(setting), "rounds": rounds, "tokens": bench.tokens, "formulation": "maps" if held else "parts"}
    return {**found, **about, "provenance": provenance(began, utc_now())}


def _summary(seconds: Sequence[float], plain: Sequence[float], batch: int) -> dict[str, Any]:
    median = statistics.median(seconds)
    ratios = [one / other for one, other in zip(seconds, list(plain) * 2, strict=False)]
    return {
        "seconds": round(median, 7),
        "quartiles": _quartiles(seconds),
        "ratio": round(median / statistics.median(plain), 4),
        "ratio_quartiles": _quartiles(ratios),
        "images_per_second": round(batch / median, 2),
    }


def _quartiles(values: Sequence[float]) -> list[float]:
    if len(values) < 2:
        return [round(values[0], 7)] * 2
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return [round(low, 7), round(high, 7)]


def _in_own_process(setting: Setting, kind: str) -> float | None:
    """Peak memory in MiB of two steps, above that of the imports; None for a kind that the setting
    lacks.

    Raises UserError if the step fails.
    """
    context = multiprocessing.get_context("forkserver")  # one import for all kinds
    context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_weigh, args=(setting, kind, sender))
    process.start()
    sender.close()
    try:
        found: float | str | None = receiver.recv()
    except EOFError:
        found = "its process was killed (out of memory?)"
    process.join()
    if isinstance(found, str):
        raise UserError(f"a step of {kind.replace('_', ' ')} cannot be taken here: {found}")
    return found


def _weigh(setting: Setting, kind: str, sender: Any) -> None:
    device = torch.device(setting.device)
    before = peak_memory(device)
    try:
        bench = Bench(setting, [kind])
        for _ in range(2 if bench.kinds else 0):
            bench.step(kind)
    except Exception as error:  # the user is told
        sender.send(one_line(f"{type(error).__name__}: {error}"))
        return
    sender.send(round((peak_memory(device) - before) / 2**20, 1) if bench.kinds else None)


def measure_data(protocol: Protocol, place: DataLocation, seconds: float = 2.0) -> dict[str, Any]:
    """Images/s of a protocol's training batches on one core. Raises UserError for missing images."""
    torch.set_num_threads(1)
    size = protocol.scale.img_size if protocol.scale else protocol.img_size or IMG_SIZE
    batches = data.load(protocol.data, place, size, protocol.normalisation).train("speed", protocol.recipe, 0)
    next(batches)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        count += len(next(batches)[1])
    return {"source": protocol.data.name, "images_per_second_per_worker": round(count / (time.perf_counter() - began), 1)}


def measure_images(folder: Path, img_size: int, seconds: float = 5.0) -> dict[str, Any]:
    """Images/s of one worker on a folder of class folders, by stage: reading and decoding alone,
    then with the augmentation of protocol li2024. Raises UserError for an unreadable folder."""
    from timm.data import create_dataset

    from benchmark.data.augmentation import training_transform

    try:
        images = create_dataset("", root=str(folder))
    except (RuntimeError, FileNotFoundError, AssertionError) as error:
        raise UserError(f"--images {folder}: {one_line(error)}") from None
    li2024: Any = load_protocol("li2024")[1]
    augment = training_transform(li2024.recipe.augment, li2024.data, img_size, li2024.normalisation)
    torch.set_num_threads(1)
    rates = {}
    for stage, transform in (("decode", lambda image: image.load()), ("augment", augment)):
        images.transform = transform
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            images[count % len(images)]
            count += 1
        rates[stage] = round(count / (time.perf_counter() - began), 1)
    return {
        "source": str(folder),
        "images_per_second_per_worker": rates["augment"],
        "decode_images_per_second": rates["decode"],
    }


def limits(found: Mapping[str, Any], pipeline: Mapping[str, Any]) -> dict[str, float]:
    """Loader workers that keep each method busy: its images/s over those of one worker."""
    rate = pipeline["images_per_second_per_worker"]
    return {kind: round(found[kind]["images_per_second"] / rate, 3) for kind in METHODS}
