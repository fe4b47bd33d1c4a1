"""Variants of arms: how one acts, what it changes in a run, and what it does not go with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import families
from benchmark.spec import plugins
from benchmark.spec.teacher_source import LAYER_SCALE
from families.spec import Component, Constant, UnknownName

if TYPE_CHECKING:
    from benchmark.spec.arm import Arm
    from benchmark.spec.definitions import Draft
    from benchmark.spec.teachers import Choice


@dataclass(frozen=True)
class Variant:
    """How an arm's field acts.

    Attributes:
        methods: the methods that it goes with.
        change: changes the draft of a run to a value that is not the default.
        prefix: stands before the value in an arm's name.
        matched: whether it is for matched students alone.
        baseline: whether the arm without transfer has it too, against which a gap is measured.
        evaluates: whether it names an evaluation of the arm without it, and changes no run.
        star: the values that `*` stands for in a study; None where it cannot stand.
        sample: one of them, to check a study's arms before any teacher is known.
        word: what an arm's name calls it; "": the field's name.
        forbids: why an arm cannot have its value, None if it can.
    """

    methods: tuple[str, ...]
    change: Callable[[Draft, Any], None] = lambda draft, value: None
    prefix: str = ""
    matched: bool = False
    baseline: bool = False
    evaluates: bool = False
    star: Callable[[Choice], list[str]] | None = None
    sample: str = "x"
    word: str = ""
    forbids: Callable[[Arm], str | None] = lambda arm: None


# ---- what variants change


def set_field(field: str) -> Callable[[Draft, Any], None]:
    """Change a field of the draft to the value."""
    return lambda draft, value: setattr(draft, field, value)


def in_transfer(field: str) -> Callable[[Draft, Any], None]:
    """Change a field of the run's transfer to the value."""
    return lambda draft, value: draft.transfer.update({field: value})


def change_weight(draft: Draft, factor: float) -> None:
    """Multiply the loss weight of the transfer."""
    draft.transfer["weight"] *= factor


def change_blocks(draft: Draft, text: str) -> None:
    """Transfer the first or last blocks, or one alone."""
    kind, _, count = text.partition("-")
    number, depth = int(count), draft.geometry.depth
    if number > depth - (kind == "only"):
        draft.refuse(f"the teacher has {depth} blocks" + (", counted from 0" if kind == "only" else ""))
    chosen = {"first": range(number), "last": range(depth - number, depth), "only": (number,)}
    draft.transfer["blocks"] = tuple(chosen[kind])


def change_native(draft: Draft, names: str) -> None:
    """Keep the native components named."""
    draft.components = named(draft, names)


def named(draft: Draft, names: str) -> dict[str, Component]:
    """Components by name, each of which the size has. Raises UnknownName."""
    spec, words = families.spec(draft.giving), names.split(",")
    found = spec.components(draft.size, words)
    for name in words:
        if name not in found:
            raise UnknownName(f"native component of {draft.giving} {draft.size}", name, spec.components(draft.size))
    return found


def change_without(draft: Draft, names: str) -> None:
    """Leave out the native components named."""
    left_out = named(draft, names)
    draft.components = {name: each for name, each in draft.components.items() if name not in left_out}


def change_of(draft: Draft, family: str) -> None:
    """Give the student another family's native components."""
    draft.giving = family
    draft.components = families.spec(family).components(draft.size)


def change_gamma(draft: Draft, start: float) -> None:
    """Start LayerScale at another value."""
    if LAYER_SCALE not in draft.components:
        draft.refuse(f"{draft.family}'s matched student has no {LAYER_SCALE} here")
    scale = draft.components[LAYER_SCALE]
    draft.components[LAYER_SCALE] = replace(scale, initial={pattern: Constant(start) for pattern in scale.initial})


# ---- what does not go together


def part_contradicts(arm: Arm) -> str | None:
    """Why an arm that transfers another part than the map is none."""
    if arm.part == "map":
        return None
    if not plugins.constant("transfer/parts", arm.part, "COPIED", True) and arm.method == "copy":
        return f"Copy of the {arm.part} is Copy of the map"
    if arm.method == "distill" and (arm.loss is None or of_distributions(arm.loss)):
        others = [each for each in plugins.names("transfer/losses") if not of_distributions(each)]
        return f"part {arm.part} is no distribution, as cross-entropy and KL want; give loss={' or loss='.join(reversed(others))}"
    if arm.sinks != "keep" or plugins.constant("transfer/sources", arm.source, "OF_MAPS", False):
        return f"sinks and a source without an image are of the map, not of part {arm.part}"
    return None


def of_distributions(loss: str) -> bool:
    """Whether a loss compares distributions."""
    return bool(plugins.constant("transfer/losses", loss, "OF_DISTRIBUTIONS", False))


def untrained_contradicts(arm: Arm) -> str | None:
    """Why an arm with an untrained teacher is none."""
    usual = (arm.weights, arm.recipe) == ("pretrained", "")
    return None if usual or not arm.learns_untrained else "an untrained teacher has no weights"


def weights_contradict(arm: Arm) -> str | None:
    """Why an arm with a fine-tuned teacher is none."""
    usual = arm.weights != "finetuned" or not arm.recipe
    return None if usual else "the teachers that are fine-tuned first are of the usual recipe"


def components_contradict(arm: Arm) -> str | None:
    """Why an arm with a choice of components is none."""
    if arm.native and arm.without:
        return "native says which components there are, without which there are not; give one of them"
    for names in (arm.native.split(","), arm.without.split(",")):
        if names != sorted(set(names)):
            return "names of components stand in alphabetical order, each once"
    return None


def start_contradicts(arm: Arm) -> str | None:
    """Why an arm with another start is none."""
    return None if arm.start == "usual" or arm.student == "standard" else "start goes with a standard student"


def task_contradicts(arm: Arm) -> str | None:
    """Why an arm with another task is none."""
    usual = (arm.budget, arm.lr, arm.data, arm.into, arm.match, arm.ensemble) == (1, 1, "", "", "none", "none")
    return None if usual or not arm.task else "task goes without budget, lr, data, student, match and ensemble"


def ensemble_contradicts(arm: Arm) -> str | None:
    """Why an arm that names two evaluations, or an ensemble, is none."""
    if arm.match != "none" and arm.ensemble != "none":
        return "an ensemble has no maps"
    if arm.ensemble != "none" and (arm.recipe or arm.learns_untrained):
        return "an ensemble's student learns from the teacher that is fine-tuned: the usual one"
    return None


# ---- students of another size


def change_size(draft: Draft, text: str) -> None:
    """Gives the student another size: one of the family's, or WIDTHxDEPTHxHEADS."""
    draft.into = text
    if draft.components and "x" not in text:
        draft.components = draft.spec.components(text, draft.components)


def into_contradicts(arm: Arm) -> str | None:
    """Why an arm with a student of another size is none."""
    if arm.pairing != "usual" and arm.part != "map":
        return f"pairing is of the map, not of part {arm.part}"
    if not arm.into:
        return None
    if arm.part != "map":
        return f"heads of another size are mixed by their maps, not by part {arm.part}"
    if arm.of or arm.ensemble != "none" or arm.match != "none":
        return f"student={arm.into} goes with the family's own components, and without ensemble and match"
    return None
