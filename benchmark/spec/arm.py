"""Arms: what is trained, by its name and the variants in it."""

from __future__ import annotations

import functools
import re
from typing import Literal

from pydantic import Field

from benchmark.spec.records import Centre, Positive, Record, Seed, validated
from families.spec import UnknownName, UserError, quoted

Loss = Literal["ce", "kl", "mse", "cosine"]


Reinit = Literal["none", "attention", "mlp"]


Part = Literal["map", "logits", "q", "k", "v", "output"]


STARRED = {"blocks": "1", "native": "x", "without": "x", "of": "x", "data": "x", "recipe": "x"}  # variants, with a sample value


STAR = re.compile(r"\+(\w+)=([a-z]+-)?\*")


def star_filled(text: str) -> str:
    """An arm as it could be for some teacher."""
    for key, _ in STAR.findall(text):
        if key not in STARRED:
            raise UserError(f"arm {quoted(text)}: * stands for what a teacher has of {', '.join(STARRED)}")
    return STAR.sub(lambda found: found.group(0)[:-1] + STARRED[found.group(1)], text)


class Arm(Record):
    """What is trained, by its name: `<student>-<method>` with variants, as in `standard-copy+budget=x3+source=uniform`, or
    `finetune`: the teacher itself with a new head.

    Attributes:
        student: standard, matched (with all native components), or the teacher itself.
        method: how attention is transferred.
        budget, lr: factors on the recipe's steps and its learning rate.
        data: one of the protocol's other data sets, which the student learns and is tested on.
        blocks: `first-K`, `last-K`, or `only-K` (counted from 0); "": the protocol's.
        part: of the teacher's attention, in place of the map; its other parts are the student's own. `logits` are the
            map's before the softmax (Distillation alone), `output` is map times values, before the projection.
        loss, weight: Distillation's, and a factor on the protocol's weight; without: the protocol's.
        sinks: the attention that the teacher pays to class token and registers: kept, dropped, or redistributed among the patches
            in proportion.
        source: whose attention it is: the teacher's of the same image, of another image of the batch, its average over val's
            images, uniform, or that of the same architecture untrained.
        teacher: seed of a teacher that the protocol trains, or of the untrained one.
        recipe: one of the protocol's other ways to pre-train a teacher.
        weights: the teacher as pre-trained, fine-tuned on the task first, or with its LayerScale folded into its weights.
        native, without: a matched student has these native components alone, or all but these (commas between them).
        of: the family whose native components a matched student gets, in place of its teacher's.
        gamma: what a matched student's LayerScale starts at, in place of its family's value.
        reinit: what of the teacher starts anew before it is fine-tuned.
        match: nothing is trained: the maps of the finished student (end), or as it starts, are compared with the teacher's.
        ensemble: evaluated by itself, or together with the fine-tuned teacher.
    """

    student: Literal["standard", "matched", "teacher"]
    method: Literal["none", "copy", "distill", "finetune"]
    budget: Positive = 1
    lr: Positive = 1
    data: str = ""
    blocks: str = Field(default="", pattern=r"^((first|last)-[1-9]\d*|only-(0|[1-9]\d*)|)$")
    part: Part = "map"
    loss: Loss | None = None
    weight: Positive = 1
    sinks: Literal["keep", "drop", "redistribute"] = "keep"
    source: Literal["teacher", "other-image", "average", "uniform", "untrained"] = "teacher"
    teacher: Seed = 0
    recipe: str = ""
    weights: Literal["pretrained", "finetuned", "folded"] = "pretrained"
    native: str = ""
    without: str = ""
    of: str = ""
    gamma: Centre | None = None
    reinit: Reinit = "none"
    match: Literal["none", "start", "end"] = "none"
    ensemble: Literal["none", "finetuned"] = "none"

    @classmethod
    def parse(cls, text: str) -> Arm:
        """The arm of a name. Raises UserError for a text that is none, naming the valid words."""
        return _parsed(text)

    @functools.cached_property
    def name(self) -> str:
        """The canonical name: variants that are not the default, in alphabetical order."""
        head = "finetune" if self.method == "finetune" else f"{self.student}-{self.method}"
        variants = sorted(self.model_dump(exclude_defaults=True, exclude={"student", "method"}).items())
        return head + "".join(f"+{k}={_PREFIX.get(k, '')}{_short(v)}" for k, v in variants)

    @property
    def transfers(self) -> bool:
        """Whether attention is handed over: what a gap is measured of."""
        return self.method in ("copy", "distill")

    @functools.cached_property
    def baseline(self) -> Arm:
        """The same student, task, budget and learning rate without transfer: what this arm's gap is measured against; of an
        ensemble, that student's ensemble. The fine-tuned teacher's is the standard student's."""
        if self.student == "teacher":
            return Arm(student="standard", method="none", budget=self.budget, lr=self.lr, data=self.data)
        kept = {name: getattr(self, name) for name in ("student", *BASELINE)}
        return Arm(method="none", **kept)

    @functools.cached_property
    def standard(self) -> Arm:
        """The same with the standard student."""
        return self.model_copy(update={"student": "standard"} | {name: _DEFAULTS[name] for name in MATCHING})

    @property
    def tuned_teacher(self) -> Arm:
        """The fine-tuned teacher that it learns from or is evaluated with."""
        return Arm(student="teacher", method="finetune", teacher=self.teacher, recipe=self.recipe, data=self.data)

    @property
    def alone(self) -> Arm:
        """The arm whose student this one evaluates, in an ensemble or beside its teacher."""
        return self.model_copy(update={"ensemble": "none", "match": "none"})

    def default(self, name: str) -> Arm:
        """The arm without its variant of this name."""
        return self.model_copy(update={name: _DEFAULTS[name]})


MATCHING = ("native", "without", "of", "gamma")  # variants of a matched student


BASELINE = ("budget", "lr", "data", *MATCHING, "ensemble")  # variants that a baseline shares


_ALWAYS, _TRANSFER = ("none", "copy", "distill", "finetune"), ("copy", "distill")


_GOES_WITH: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("budget", "lr", "data"), _ALWAYS),
    **dict.fromkeys(("blocks", "part", "sinks", "source", "weights"), _TRANSFER),
    **dict.fromkeys(("teacher", "recipe"), (*_TRANSFER, "finetune")),
    **dict.fromkeys(("loss", "weight"), ("distill",)),
    **dict.fromkeys((*MATCHING, "ensemble"), ("none", *_TRANSFER)),
    "reinit": ("finetune",),
    "match": ("none",),
}


_PREFIX = {"budget": "x", "lr": "x", "weight": "x", "teacher": "s"}


_DEFAULTS = {name: field.default for name, field in Arm.model_fields.items()}


@functools.lru_cache(maxsize=100_000)
def _parsed(text: str) -> Arm:
    head, *variants = text.split("+")
    student, _, method = ("teacher", "-", "finetune") if head == "finetune" else head.partition("-")
    fields: dict[str, str] = {"student": student, "method": method}
    for variant in variants:
        key, _, value = variant.partition("=")
        if key not in _GOES_WITH:
            raise UnknownName(f"variant in arm {quoted(text)}", key, _GOES_WITH)
        fields[key] = value.removeprefix(_PREFIX.get(key, ""))
    arm = validated(Arm, fields, f"arm {quoted(text)}")
    if (arm.student == "teacher") != (arm.method == "finetune"):
        raise UserError(f"arm {quoted(text)}: what is fine-tuned is the teacher; write it 'finetune'")
    for key in [each for each in fields if each in _GOES_WITH]:
        if arm.method not in _GOES_WITH[key]:
            raise UserError(f"arm {quoted(text)}: {key} goes with {', '.join(_GOES_WITH[key])}, not with {arm.method}")
        if key in MATCHING and arm.student != "matched":
            raise UserError(f"arm {quoted(text)}: {key} goes with a matched student")
    reason = _contradiction(arm)
    if reason is not None:
        raise UserError(f"arm {quoted(text)}: {reason}")
    if arm.name != text:
        raise UserError(f"arm {quoted(text)}: write it {arm.name!r}")
    return arm


def _contradiction(arm: Arm) -> str | None:
    """Why no arm can be so, where its single variants can."""
    if arm.method == "copy" and arm.part == "logits":
        return "Copy of the logits is Copy of the map"
    if arm.method == "distill" and arm.part != "map" and arm.loss not in ("mse", "cosine"):
        return f"part {arm.part} is no distribution, as cross-entropy and KL want; give loss=mse or loss=cosine"
    if arm.native and arm.without:
        return "native says which components there are, without which there are not; give one of them"
    if arm.source == "untrained" and (arm.weights, arm.recipe) != ("pretrained", ""):
        return "an untrained teacher has no weights"
    if arm.part != "map" and (arm.sinks, arm.source) not in (("keep", "teacher"), ("keep", "other-image"), ("keep", "untrained")):
        return f"sinks and a source without an image are of the map, not of part {arm.part}"
    if arm.weights == "finetuned" and arm.recipe:
        return "the teachers that are fine-tuned first are of the usual recipe"
    if arm.match != "none" and arm.ensemble != "none":
        return "an ensemble has no maps"
    if arm.ensemble != "none" and (arm.teacher or arm.recipe or arm.source == "untrained"):
        return "an ensemble's student learns from the teacher that is fine-tuned: the usual one of seed 0"
    for names in (arm.native.split(","), arm.without.split(",")):
        if names != sorted(set(names)):
            return "names of components stand in alphabetical order, each once"
    return None


def _short(value: object) -> str:
    return f"{value:g}".replace("e+", "e") if isinstance(value, float) else str(value)  # a + begins the next variant
