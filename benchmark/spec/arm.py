"""Arms: what is trained, by its name and the variants in it.

A variant is declared once, as a field of `Arm`: its name, values and default, and by `Variant` the
methods that it goes with, what it changes in the run, and whether the baseline has it too.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field

from benchmark.spec import plugins
from benchmark.spec.records import Centre, Positive, Record, validated
from benchmark.spec.stars import star_blocks, star_native, star_of, star_recipe, star_student, star_task
from benchmark.spec.variants import (
    Variant,
    change_blocks,
    change_gamma,
    change_native,
    change_of,
    change_size,
    change_weight,
    change_without,
    components_contradict,
    ensemble_contradicts,
    in_transfer,
    into_contradicts,
    part_contradicts,
    set_field,
    start_contradicts,
    task_contradicts,
    untrained_contradicts,
    weights_contradict,
)
from families.spec import UnknownName, UserError, quoted

if TYPE_CHECKING:
    Loss: TypeAlias = str
    Part: TypeAlias = str
    Source: TypeAlias = str
else:
    Loss, Part, Source = (Literal[plugins.names(f"transfer/{kind}")] for kind in ("losses", "parts", "sources"))

Reinit = Literal["none", "attention", "mlp"]
Start = Literal["usual", "mimetic", "impulse"]
Weights = Literal["pretrained", "finetuned", "folded"]
Ensemble = Literal["none", "finetuned"]
CHOSEN: dict[str, Any] = {"matched": True, "baseline": True, "star": star_native, "forbids": components_contradict}
ANY, TRANSFERS = ("none", "copy", "distill", "finetune"), ("copy", "distill")
STUDENTS = ("none", *TRANSFERS)
STAR = re.compile(r"\+(\w+)=([a-z]+-)?\*")


class Arm(Record):
    """What is trained, by its name: `<student>-<method>` with variants, as in
    `standard-copy+budget=x3+source=uniform`, or `finetune`: the teacher itself with a new head.

    Attributes:
        student: standard, matched (with all native components), or the teacher itself.
        method: how attention is transferred.
        budget, lr: factors on the recipe's steps and its learning rate.
        data: one of the protocol's other data sets, which the student learns and is tested on.
        task: one of the protocol's tasks: a detector on the backbone of the arm without it.
        blocks: `first-K`, `last-K`, or `only-K` (counted from 0); "": the protocol's.
        part: of the teacher's attention, in place of the map; its other parts are the student's
            own. `logits` are the map's before the softmax (Distillation alone), `output` is map
            times values, before the projection.
        loss, weight: Distillation's, and a factor on the protocol's weight; without: the
            protocol's.
        sinks: the attention that the teacher pays to class token and registers: kept, dropped, or
            redistributed among the patches in proportion.
        source: whose attention it is: the teacher's of the same image, of another image of the
            batch, its average over val's images, uniform, or that of the same architecture
            untrained.
        recipe: one of the protocol's other ways to pre-train a teacher.
        weights: the teacher as pre-trained, fine-tuned on the task first, or with its LayerScale
            folded into its weights.
        native, without: the only native components of a matched student, or those it lacks.
        of: the family whose native components a matched student gets, in place of its teacher's.
        gamma: what a matched student's LayerScale starts at, in place of its family's value.
        reinit: what of the teacher starts anew before it is fine-tuned.
        start: of the attention weights of a standard student: the usual one, or one that needs no
            teacher.
        match: nothing is trained: the maps of the finished student (end), or as it starts, are
            compared with the teacher's.
        ensemble: evaluated by itself, or together with the fine-tuned teacher.
        into: written `student`: another size of the family, or WIDTHxDEPTHxHEADS, for a student
            that is not of its teacher's.
        pairing: of the teacher's blocks and heads with the student's: the usual one, blocks in
            reverse, or heads shuffled.
    """

    student: Literal["standard", "matched", "teacher"]
    method: Literal["none", "copy", "distill", "finetune"]
    budget: Annotated[Positive, Variant(ANY, set_field("budget"), prefix="x", baseline=True)] = 1
    lr: Annotated[Positive, Variant(ANY, set_field("lr"), prefix="x", baseline=True)] = 1
    data: Annotated[str, Variant(ANY, set_field("data"), baseline=True, star=lambda choice: list(choice.protocol.datasets))] = ""
    task: Annotated[str, Variant(ANY, set_field("task"), baseline=True, star=star_task, forbids=task_contradicts)] = ""
    blocks: Annotated[
        str,
        Field(pattern=r"^((first|last)-[1-9]\d*|only-(0|[1-9]\d*)|)$"),
        Variant(TRANSFERS, change_blocks, star=star_blocks, sample="1"),
    ] = ""
    part: Annotated[Part, Variant(TRANSFERS, in_transfer("part"), forbids=part_contradicts)] = "map"
    loss: Annotated[Loss | None, Variant(("distill",), in_transfer("loss"))] = None
    weight: Annotated[Positive, Variant(("distill",), change_weight, prefix="x")] = 1
    sinks: Annotated[Literal["keep", "drop", "redistribute"], Variant(TRANSFERS, in_transfer("sinks"))] = "keep"
    source: Annotated[Source, Variant(TRANSFERS, in_transfer("source"), forbids=untrained_contradicts)] = "teacher"
    recipe: Annotated[str, Variant((*TRANSFERS, "finetune"), set_field("teacher_recipe"), star=star_recipe)] = ""
    weights: Annotated[Weights, Variant(TRANSFERS, set_field("teacher_weights"), forbids=weights_contradict)] = "pretrained"
    of: Annotated[str, Variant(STUDENTS, change_of, matched=True, baseline=True, star=star_of)] = ""
    native: Annotated[str, Variant(STUDENTS, change_native, **CHOSEN)] = ""
    without: Annotated[str, Variant(STUDENTS, change_without, **CHOSEN)] = ""
    gamma: Annotated[Centre | None, Variant(STUDENTS, change_gamma, matched=True, baseline=True)] = None
    reinit: Annotated[Reinit, Variant(("finetune",), set_field("reinit"))] = "none"
    start: Annotated[Start, Variant(("none",), set_field("start"), forbids=start_contradicts)] = "usual"
    match: Annotated[Literal["none", "start", "end"], Variant(("none",), evaluates=True)] = "none"
    ensemble: Annotated[Ensemble, Variant(STUDENTS, baseline=True, evaluates=True, forbids=ensemble_contradicts)] = "none"
    into: Annotated[
        str,
        Variant(STUDENTS, change_size, baseline=True, star=star_student, sample="base", word="student", forbids=into_contradicts),
    ] = ""
    pairing: Annotated[Literal["usual", "reversed", "shuffled"], Variant(TRANSFERS, in_transfer("pairing"))] = "usual"

    @classmethod
    def parse(cls, text: str) -> Arm:
        """The arm of a name. Raises UserError for a text that is none, naming the valid words."""
        return _parsed(text)

    @functools.cached_property
    def name(self) -> str:
        """The canonical name: variants that are not the default, in alphabetical order."""
        head = "finetune" if self.method == "finetune" else f"{self.student}-{self.method}"
        told = sorted((VARIANTS[key].word or key, VARIANTS[key].prefix + _short(value)) for key, value in self.variants())
        return head + "".join(f"+{word}={value}" for word, value in told)

    def variants(self) -> Iterator[tuple[str, Any]]:
        """(name, value) of the variants that are not at their default, in the order in which they
        change a run."""
        return ((key, getattr(self, key)) for key in VARIANTS if getattr(self, key) != DEFAULTS[key])

    @property
    def transfers(self) -> bool:
        """Whether attention is handed over: what a gap is measured of."""
        return self.method in TRANSFERS

    @property
    def is_matched(self) -> bool:
        """Whether its student is a matched one."""
        return self.student == "matched"

    @property
    def is_finetuned(self) -> bool:
        """Whether it is the fine-tuned teacher itself."""
        return self.method == "finetune"

    @property
    def compares_maps(self) -> bool:
        """Whether maps are compared with the teacher's, and nothing is trained."""
        return self.match != "none"

    @property
    def changes_components(self) -> bool:
        """Whether a variant changes the components that its matched student has, or their start."""
        return any(VARIANTS[name].matched for name, _ in self.variants())

    @property
    def learns_untrained(self) -> bool:
        """Whether its teacher has random weights."""
        return self.source == "untrained"

    @property
    def ignores_teacher(self) -> bool:
        """Whether its attention depends on no teacher."""
        return not plugins.constant("transfer/sources", self.source, "NEEDS_TEACHER", True)

    @functools.cached_property
    def baseline(self) -> Arm:
        """The same student, task, budget and learning rate without transfer: what this arm's gap is
        measured against; of an ensemble, that student's ensemble. The fine-tuned teacher's is the
        standard student's."""
        shared = {key: getattr(self, key) for key, variant in VARIANTS.items() if variant.baseline}
        return Arm(student="standard" if self.is_finetuned else self.student, method="none", **shared)

    @functools.cached_property
    def standard(self) -> Arm:
        """The same with the standard student."""
        matched = {key: DEFAULTS[key] for key, variant in VARIANTS.items() if variant.matched}
        return self.model_copy(update={"student": "standard"} | matched)

    @property
    def tuned_teacher(self) -> Arm:
        """The fine-tuned teacher that it learns from or is evaluated with."""
        return Arm(student="teacher", method="finetune", recipe=self.recipe, data=self.data)

    @functools.cached_property
    def evaluation(self) -> str:
        """The evaluation that it names, as in `match=end`; empty for an arm that is trained."""
        return next((f"{name}={value}" for name, value in self.variants() if VARIANTS[name].evaluates), "")

    def default(self, name: str) -> Arm:
        """The arm without its variant of this name."""
        return self.model_copy(update={name: DEFAULTS[name]})


def _declared(name: str) -> Variant | None:
    return next((each for each in Arm.model_fields[name].metadata if isinstance(each, Variant)), None)


VARIANTS: dict[str, Variant] = {name: found for name in Arm.model_fields if (found := _declared(name)) is not None}
WORDS = {variant.word or name: name for name, variant in VARIANTS.items()}
EVALUATIONS = tuple(name for name, variant in VARIANTS.items() if variant.evaluates)
DEFAULTS = {name: Arm.model_fields[name].default for name in VARIANTS}
STARRED = {variant.word or name: variant.sample for name, variant in VARIANTS.items() if variant.star is not None}


def is_owned(arm: Arm) -> bool:
    """Whether one leaderboard alone shows an arm: with transfer, match, reinit or another start."""
    return arm.transfers or arm.match != "none" or arm.reinit != "none" or arm.start != "usual"


def trained_arm(text: str) -> str:
    """The arm that is trained for an arm, which may name an evaluation of it."""
    return "+".join(part for part in text.split("+") if part.partition("=")[0] not in EVALUATIONS)


def with_evaluation(text: str, evaluation: str) -> str | None:
    """The arm that names an evaluation of an arm, if one does."""
    name, _, value = evaluation.partition("=")
    return Arm.parse(text).model_copy(update={name: value}).name if name in EVALUATIONS else None


def star_filled(text: str) -> str:
    """An arm as it could be for some teacher."""
    for key, _ in STAR.findall(text):
        if key not in STARRED:
            raise UserError(f"arm {quoted(text)}: * stands for what a teacher has of {', '.join(STARRED)}")
    return STAR.sub(lambda found: found.group(0)[:-1] + STARRED[found.group(1)], text)


@functools.lru_cache(maxsize=100_000)
def _parsed(text: str) -> Arm:
    head, *variants = text.split("+")
    student, _, method = ("teacher", "-", "finetune") if head == "finetune" else head.partition("-")
    fields: dict[str, str] = {"student": student, "method": method}
    for variant in variants:
        word, _, value = variant.partition("=")
        if word not in WORDS:
            raise UnknownName(f"variant in arm {quoted(text)}", word, WORDS)
        key = WORDS[word]
        fields[key] = value.removeprefix(VARIANTS[key].prefix)
    arm = validated(Arm, fields, f"arm {quoted(text)}")
    reason = _contradiction(arm, fields)
    if reason is not None:
        raise UserError(f"arm {quoted(text)}: {reason}")
    if arm.name != text:
        raise UserError(f"arm {quoted(text)}: write it {arm.name!r}")
    return arm


def _contradiction(arm: Arm, given: Collection[str]) -> str | None:
    """Why there is no such arm, whose variants `given` are valid one by one."""
    if (arm.student == "teacher") != arm.is_finetuned:
        return "what is fine-tuned is the teacher; write it 'finetune'"
    for key in (each for each in given if each in VARIANTS):
        variant = VARIANTS[key]
        if arm.method not in variant.methods:
            return f"{key} goes with {', '.join(variant.methods)}, not with {arm.method}"
        if variant.matched and not arm.is_matched:
            return f"{key} goes with a matched student"
    return next((reason for variant in VARIANTS.values() if (reason := variant.forbids(arm)) is not None), None)


def _short(value: object) -> str:
    return f"{value:g}".replace("e+", "e") if isinstance(value, float) else str(value)  # a + begins the next variant
