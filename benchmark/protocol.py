"""Protocols and studies: YAML files, validated on reading. A shipped one is named by its file, a user's by its path."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

import families
from benchmark import bounds
from benchmark.files import read_bytes
from families.spec import MOST_SHOWN, Family, UnknownName, UserError, quoted

FOLDER = Path(__file__).parent
DEFAULT_PROTOCOL = "mini"
NUMBER = BeforeValidator(bounds.no_bool)
Fraction = Annotated[float, NUMBER, Field(ge=0, le=1)]
Percent = Annotated[float, NUMBER, Field(ge=0, le=100)]
Positive = Annotated[float, NUMBER, Field(gt=0, le=bounds.LARGEST)]
NotNegative = Annotated[float, NUMBER, Field(ge=0, le=bounds.LARGEST)]
Centre = Annotated[float, NUMBER, Field(ge=-bounds.LARGEST, le=bounds.LARGEST)]
Steps = Annotated[int, NUMBER, Field(ge=bounds.STEPS.least, le=bounds.STEPS.most)]
BatchSize = Annotated[int, NUMBER, Field(ge=bounds.BATCH.least, le=bounds.BATCH.most)]
ImageCount = Annotated[int, NUMBER, Field(ge=bounds.IMAGES.least, le=bounds.IMAGES.most)]
ClassCount = Annotated[int, NUMBER, Field(ge=bounds.CLASSES.least, le=bounds.CLASSES.most)]
Pixels = Annotated[int, NUMBER, Field(ge=bounds.PIXELS.least, le=bounds.PIXELS.most)]
Width = Annotated[int, NUMBER, Field(ge=bounds.WIDTH.least, le=bounds.WIDTH.most)]
Depth = Annotated[int, NUMBER, Field(ge=bounds.DEPTH.least, le=bounds.DEPTH.most)]
Seed = Annotated[int, NUMBER, Field(ge=bounds.SEED.least, le=bounds.SEED.most)]
Points = Annotated[int, NUMBER, Field(ge=bounds.POINTS.least, le=bounds.POINTS.most)]
RunCount = Annotated[int, NUMBER, Field(ge=bounds.RUNS.least, le=bounds.RUNS.most)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_-]+$", max_length=100)]  # what an arm can be called by
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a protocol's or study's file without its ending
MOST_EXTENDED = 20  # files, one by way of the other
MOST_YAML = bounds.MEGABYTE
MOST_TOLD = 300  # characters of what is wrong
Loss = Literal["ce", "kl", "mse", "cosine"]
Reinit = Literal["none", "attention", "mlp"]
Part = Literal["map", "logits", "q", "k", "v", "output"]


class Record(BaseModel):
    """A validated record without unknown keys; frozen, numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __hash__(self) -> int:  # pydantic's own would fail for a record that holds a dict
        return hash(self.model_dump_json())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy without what was computed of this one once (functools.cached_property): of the copy it may be something else."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied


class CuedDigits(Record):
    """The embedded task (benchmark/data/cued_digits.py): sizes of the evaluation sets, noise of the shifted one.

    `imbalance` is how many times as often the first class is asked for as the last one in training, falling geometrically
    between them (evaluation stays balanced); `hues` the share of the colour circle that the eight colours are spread over.
    """

    name: Literal["cued_digits"]
    val_images: ImageCount
    test_images: ImageCount
    noise_std: NotNegative
    imbalance: Positive = Field(default=1, ge=1)
    hues: Positive = Field(default=1, le=1)

    @property
    def num_classes(self) -> int:
        """The ten digits."""
        return 10


class Split(Record):
    """A part of a data set: its name in timm's data set factory, and how many images it has (checked before training)."""

    split: str
    images: ImageCount


class ShiftedSet(Record):
    """A shifted test set: image folders at `path`, below the data folder or beside it, of `classes` of the training classes.

    `named_by` tells how its folders name them: as the training set's folders do, or by their index in that order.
    Accuracy is that over the set's own classes: the model's other outputs are left out (ImageNet-A and -R: Hendrycks et al.
    2021, arXiv 1907.07174 and 2006.16241).
    """

    path: str
    images: ImageCount
    classes: ClassCount
    named_by: Literal["class", "index"] = "class"


class Images(Record):
    """Photographs through timm's data set factory (benchmark/data/images.py), found in `--data DIR`.

    `source` is the factory's prefix: "" for image folders and tars, else as in "wds/" or "hfds/NAME". Either `held_out` of the
    training images are val, or `val` names a split of its own. Evaluation resizes the shorter side to the model's input size
    / crop_pct and crops the centre.
    """

    name: Literal["images"]
    source: str = ""
    num_classes: ClassCount
    train: Split
    test: Split
    val: Split | None = None
    held_out: Annotated[int, NUMBER, Field(ge=0, le=bounds.IMAGES.most)] = 0
    crop_pct: Positive = Field(default=0.875, le=1)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    shifted: dict[str, ShiftedSet] = {}

    @model_validator(mode="after")
    def _one_val(self) -> Images:
        if (self.val is None) == (self.held_out == 0):
            raise ValueError("either held_out images of train are val, or val names a split")
        if self.held_out >= self.train.images:
            raise ValueError(f"held_out {self.held_out} leaves none of {self.train.images} training images")
        if {"train", "val", "test"} & set(self.shifted):
            raise ValueError("shifted: train, val and test are names of their own")
        if self.streamed and self.held_out:
            raise ValueError(f"source {quoted(self.source)} is streamed: nothing can be held out of it; val names a split")
        return self

    @property
    def streamed(self) -> bool:
        """Whether the source is read in its own order, without access by index."""
        return self.source.split("/")[0].lower() in ("wds", "hfids", "tfds")

    @property
    def training_images(self) -> int:
        """Images of an epoch."""
        return self.train.images - self.held_out


class Augment(Record):
    """What is done to training images, by timm's names: each image by itself (a pure function of seed, epoch and image),
    then mixup and cutmix between images of a batch (of seed and step)."""

    scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    hflip: Fraction = 0.5
    auto_augment: str | None = None
    color_jitter: NotNegative | None = None
    erase: Fraction = 0.0
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0


class Normalisation(Record):
    """What students get: (image - mean) / std per channel, on values in 0..1."""

    mean: tuple[Centre, Centre, Centre]
    std: tuple[Positive, Positive, Positive]


class Recipe(Record):
    """One training: AdamW, linear warm-up, then cosine to zero, stepped per batch (timm).

    Attributes:
        steps, epochs: the budget; a protocol file gives one of them, and epochs become steps.
        lr: of the whole batch, not scaled further; `layer_decay` multiplies it per layer below the head.
        warmup: share of the steps.
        drop_path: stochastic depth of the last block, growing linearly from 0 at the first.
        smoothing: of labels.
        ema: decay per step of the averaged weights that are evaluated then.
        augment: of training images; None: they are resized and cropped as for evaluation.
        compile: run the student through torch.compile, its attention left out.
        objective: what is learnt, of labels, or of masked image modelling (benchmark/masked.py), which a teacher can be
            pre-trained by; its head then is a probe on features that it does not change.
        mask_ratio: share of the patches that are masked then.
    """

    steps: Steps
    epochs: Positive | None = None
    batch_size: BatchSize
    lr: Positive
    warmup: Fraction
    weight_decay: NotNegative
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    clip_grad: Positive | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    grad_checkpointing: bool = False
    layer_decay: Positive | None = Field(default=None, le=1)
    drop_path: NotNegative = Field(default=0.0, lt=1)
    smoothing: NotNegative = Field(default=0.0, lt=1)
    ema: Positive | None = Field(default=None, lt=1)
    augment: Augment | None = None
    compile: bool = False
    objective: Literal["labels", "masked"] = "labels"
    mask_ratio: Positive = Field(default=0.5, lt=1)


class Pretraining(Record):
    """A way to pre-train a teacher; one whose val top-1 is below the floor is an error."""

    recipe: Recipe
    floor: Percent


class Teaching(Pretraining):
    """How a protocol pre-trains its own teachers; `others` are further ways, by the names that arms call them by."""

    others: dict[Name, Pretraining] = {}

    def by(self, name: str) -> Pretraining:
        """The way called `name`, the usual one for none. Raises UnknownName."""
        if name and name not in self.others:
            raise UnknownName("recipe of this protocol's teachers", name, self.others)
        return self.others[name] if name else self


class Size(Record):
    """A scaled-down geometry."""

    embed_dim: Width
    depth: Depth


class Scale(Record):
    """Geometries of a protocol that does not use the teachers' own. `head_dim` is a factor on the teacher's head_dim, so
    that a family with narrow heads keeps them."""

    img_size: Pixels
    patch_size: Pixels
    head_dim: Positive
    sizes: dict[str, Size]

    @model_validator(mode="after")
    def _whole_patches(self) -> Scale:
        if self.img_size % self.patch_size:
            raise ValueError(f"img_size: {self.img_size} is not a multiple of patch_size: {self.patch_size}")
        return self


class TransferSettings(Record):
    """What is transferred: `blocks` is "all", or a count of first blocks (negative: all but that many last ones);
    `weight` is the distillation loss's; `teacher_precision` the teacher's, where it is not the recipe's; `compile_teacher` runs
    it through torch.compile; `teacher_drop_path` drops the student's residual branches in the teacher too while training, as
    Li et al.'s released code does (it is deterministic otherwise)."""

    blocks: Literal["all"] | Annotated[int, NUMBER, Field(ge=-bounds.DEPTH.most, le=bounds.DEPTH.most)]
    loss: Loss
    weight: Positive
    teacher_precision: Literal["float32", "bfloat16"] | None = None
    compile_teacher: bool = False
    teacher_drop_path: bool = False

    @field_validator("blocks")
    @classmethod
    def _some_blocks(cls, blocks: Literal["all"] | int) -> Literal["all"] | int:
        if blocks == 0:
            raise ValueError("0 transfers no block; all, a count of first ones, or minus how many last ones stay out")
        return blocks

    def indices(self, depth: int) -> tuple[int, ...]:
        """The transferred blocks of a model of this depth. Raises UserError when there are none or too few blocks."""
        count = depth if self.blocks == "all" else self.blocks if self.blocks > 0 else depth + self.blocks
        if not 0 < count <= depth:
            raise UserError(f"transfer.blocks: {self.blocks} of {depth} blocks leaves {count} to transfer")
        return tuple(range(count))


class Protocol(Record):
    """Data, geometries, recipes and evaluation: everything that runs of one comparison have in common.

    Without `scale` models have the teachers' own geometry; without `teacher` the teachers are the pre-trained ones. `recipes`
    gives a method (none, copy, distill, finetune) a recipe of its own in place of `recipe` (null: none, after all).
    `evaluation_batch` bounds memory; images of one such batch lend each other their attention in the control that does so.
    `together` bounds how many runs train in one process (each holds its model and optimiser in memory). `datasets` are other
    tasks to transfer to from the same teachers, by the names that arms call them by: a file gives their `data` block, or names
    the protocol whose block it is; all else is this protocol's. Their images lie in a folder of that name below the data
    folder or beside it.
    """

    title: str
    says: str
    data: CuedDigits | Images = Field(discriminator="name")
    normalisation: Normalisation
    head: Literal["token", "avg"]
    scale: Scale | None = None
    teacher: Teaching | None = None
    recipe: Recipe
    recipes: dict[Literal["none", "copy", "distill", "finetune"], Recipe] = {}
    transfer: TransferSettings
    seeds: tuple[Seed, ...] = Field(min_length=1)
    curve_points: Points
    checkpoint_seconds: NotNegative = 2.0
    together: RunCount = 12
    evaluation_batch: BatchSize = Field(default=500, gt=1)
    datasets: dict[Name, Protocol] = {}

    @model_validator(mode="before")
    @classmethod
    def _steps_of_epochs(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        found = _with_steps(content)
        if isinstance(content.get("datasets"), dict):
            own = {key: value for key, value in content.items() if key != "datasets"}
            blocks = {
                name: each.get("data", each) if isinstance(each, dict) else each for name, each in content["datasets"].items()
            }
            found = found | {"datasets": {name: own | {"data": data} for name, data in blocks.items()}}
        return found

    @model_validator(mode="after")
    def _consistent(self) -> Protocol:
        taught = [] if self.teacher is None else [each.recipe for each in (self.teacher, *self.teacher.others.values())]
        for recipe in (self.recipe, *self.recipes.values()):
            if recipe.objective != "labels":
                raise ValueError("recipe.objective: students learn from labels; it is for teachers")
        for recipe in (self.recipe, *self.recipes.values(), *taught):
            if recipe.epochs is not None:
                raise ValueError("epochs need data whose images are counted; give steps")
            if isinstance(self.data, CuedDigits) and recipe.augment is not None:
                raise ValueError("recipe.augment: cued_digits has no augmentation")
        if self.scale is not None and self.teacher is None:
            raise ValueError("teacher: at a scale of the protocol's own there are no pre-trained teachers; give their recipe")
        return self

    def recipe_of(self, method: str) -> Recipe:
        """The recipe of a method: its own, or the one of all."""
        return self.recipes.get(method, self.recipe)  # type: ignore[call-overload, no-any-return]

    def on(self, dataset: str) -> Protocol:
        """The protocol with one of its other tasks in place of its own, itself for none. Raises UnknownName."""
        if dataset and dataset not in self.datasets:
            raise UnknownName("data set of this protocol", dataset, self.datasets)
        return self.datasets[dataset] if dataset else self

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is listed twice")
        return seeds


def _with_steps(content: dict[str, Any]) -> dict[str, Any]:
    """A protocol file's content with its recipes' epochs turned into steps of whole batches; the rest as it is."""
    data: Any = content.get("data")

    def stepped(recipe: Any) -> Any:
        if not isinstance(recipe, dict) or recipe.get("epochs") is None:
            return recipe
        if recipe.get("steps") is not None:
            raise ValueError("a recipe gives epochs or steps, not both (write null for the one that is not meant)")
        try:  # as pydantic reads numbers
            images, size = int(data["train"]["images"]) - int(data.get("held_out", 0)), int(recipe["batch_size"])
            steps = max(1, round(float(recipe["epochs"]) * (images // size)))
        except (TypeError, KeyError, AttributeError, ValueError, ArithmeticError):  # their own records say what is wrong
            return recipe | {"steps": 1}
        if images // size < 1 <= images:
            raise ValueError(f"a batch of {size} is more than the {images} training images")
        return recipe | {"steps": steps, "epochs": None}

    changed = dict(content)
    if "recipe" in content:
        changed["recipe"] = stepped(content["recipe"])
    if isinstance(content.get("recipes"), dict):
        given = {method: recipe for method, recipe in content["recipes"].items() if recipe is not None}
        changed["recipes"] = {method: stepped(recipe) for method, recipe in given.items()}
    if isinstance(content.get("teacher"), dict):
        changed["teacher"] = content["teacher"] | {"recipe": stepped(content["teacher"].get("recipe"))}
        if isinstance(content["teacher"].get("others"), dict):
            changed["teacher"]["others"] = {
                name: each | {"recipe": stepped(each.get("recipe"))} if isinstance(each, dict) else each
                for name, each in content["teacher"]["others"].items()
            }
    return changed


class Teachers(Record):
    """Which teachers a study is for: of these families (None: of all), with native components or without any, or with the one
    named, of several sizes. A family that a request names is taken as it is."""

    families: tuple[str, ...] | None = None
    native: bool | str | None = None
    several_sizes: bool = False

    def chosen(self, names: Iterable[str], spec: Callable[[str], Family]) -> list[str]:
        """Of the families called `names` those that it is for; `spec` gives what a family's file says."""
        found = []
        for name in names:
            native = [component.name for component in spec(name).native]
            fits = self.families is None or name in self.families
            fits &= self.native is None or (
                self.native in native if isinstance(self.native, str) else bool(native) == self.native
            )
            if fits and (not self.several_sizes or len(spec(name).sizes) > 1):
                found.append(name)
        return found


Expected = Literal["above", "below", "not-above", "not-below", "same", "same-family", "same-size"]


class Test(Record):
    """What a claim says of measured differences, in words that a report can compare with what was measured.

    Attributes:
        of: differences, as in `matched-copy - matched-none - standard-copy + standard-none`: arms with signs between them. A `*`
            in an arm stands for each value that the teacher has, the same one throughout a difference.
        expect: the side of 0 on which each difference is claimed to be, or not to be; `same`: all of one teacher on one side,
            whichever it is; `same-family`: all of one family, at all its sizes; `same-size`: all teachers of a size. None:
            nothing is claimed, the numbers stand for themselves.
        families: whose teachers it is about; None: all that have results.
        failing: a difference, too: claimed is only something of teachers that have it below 0, for whom a transfer fails.
        metric: what is compared: top-1 on the test set, or on each of the shifted ones, in percentage points; or the KL of
            maps from the teacher's, in nats, a mean over blocks.
    """

    __test__: ClassVar[bool] = False  # or pytest takes it for one of its own

    of: tuple[str, ...] = Field(min_length=1)
    expect: Expected | None = None
    families: tuple[str, ...] | None = None
    failing: str | None = None
    metric: Literal["top1", "shifted", "kl"] = "top1"

    @model_validator(mode="after")
    def _differences(self) -> Test:
        try:
            given = (*self.of, *([] if self.failing is None else [self.failing]))
            for arm in (arm for difference in given for arm in signed_terms(difference)):
                Arm.parse(_with_star_filled(arm))
        except UserError as error:
            raise ValueError(str(error)) from None
        return self


def signed_terms(difference: str) -> dict[str, float]:
    """The arms of a difference, as in `standard-copy - standard-none`, each with its weight, 1 or -1. Raises UserError."""
    first, *rest = difference.split() or [""]
    signs, arms = rest[::2], [first, *rest[1::2]]
    if len(signs) != len(arms) - 1 or not signs or not set(signs) <= {"+", "-"} or len(set(arms)) < len(arms):
        raise UserError(
            f"{quoted(difference)} is no difference, such as 'standard-copy - standard-none', of arms that are not the same"
        )
    return dict(zip(arms, [1.0, *(1.0 if sign == "+" else -1.0 for sign in signs)], strict=True))


class Claim(Record):
    """What somebody says of what a study measures.

    Attributes:
        says: the claim in one sentence, without figures: those stand in results/published.yaml.
        by: who says so; None: a question of this suite's own.
        rows: the numbers of the experiments among those of both papers (docs/claims.md); published figures have them too.
        tests: what it says of measured differences; none where nothing is told of them.
    """

    says: str
    by: str | None = None
    rows: tuple[int, ...] = ()
    tests: tuple[Test, ...] = ()


class Study(Record):
    """Which arms are trained for which teachers, and what is asked of them.

    A `*` in an arm's variant stands for each value that the teacher has (benchmark.plan.arms_of). `choose` names the variant
    whose best value the report chooses on val, of the baseline too, to compare both by their best. `tables` are printed
    besides the usual ones, if there is something in them. `asks` is what the study tests, `claims` what is said of that, and
    `limits` tells by the name of a protocol what that can and cannot say about it.
    """

    title: str
    arms: tuple[str, ...] = Field(min_length=1)
    teachers: Teachers = Teachers()
    choose: Literal["weight", "lr"] | None = None
    tables: tuple[Literal["sizes", "closed", "shifted", "cost"], ...] = ()
    asks: str = ""
    claims: tuple[Claim, ...] = ()
    limits: dict[str, str] = {}

    @field_validator("arms")
    @classmethod
    def _arms(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        try:
            for arm in arms:
                Arm.parse(_with_star_filled(arm))
        except UserError as error:
            raise ValueError(str(error)) from None
        if len(set(arms)) < len(arms):
            raise ValueError("an arm is listed twice")
        return arms


STARRED = {"blocks": "1", "native": "x", "without": "x", "of": "x", "data": "x", "recipe": "x"}  # variants, with a sample value
STAR = re.compile(r"\+(\w+)=([a-z]+-)?\*")


def _with_star_filled(text: str) -> str:
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


AnyRecord = TypeVar("AnyRecord", bound=Record)


def validated(kind: type[AnyRecord], data: object, where: str) -> AnyRecord:
    """`data` as a record. Raises UserError: one line with the place, and the nearest key for an unknown one."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        # A misspelt key is also a missing one: the unknown word says more. What is wrong here is so with each other data set too.
        first = min(error.errors(), key=lambda each: (each["loc"][:1] == ("datasets",), each["type"] != "extra_forbidden"))
        path = _shortened(".".join(str(part) for part in first["loc"]))
        if first["type"] == "extra_forbidden":
            raise UserError(f"{where}: {_unknown_key(kind, first['loc'])}") from None
        if first["type"] == "union_tag_invalid":
            valid = first["ctx"]["expected_tags"].replace("'", "").split(", ")
            raise UserError(f"{where}: {UnknownName(path, first['ctx']['tag'], valid)}") from None
        told = " ".join(first["msg"].removeprefix("Value error, ").split())
        raise UserError(f"{where}: {path or 'content'}: {told[:MOST_TOLD]}") from None


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _unknown_key(kind: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    inside: Any = kind
    for part in map(str, loc[:-1]):
        inside = _inside(inside, part)
    fields = _records(inside)[0].model_fields
    near = get_close_matches(_shortened(str(loc[-1])), fields, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown key {quoted('.'.join(map(str, loc)))}; {hint}valid: {', '.join(fields)}"


def _inside(annotation: Any, part: str) -> Any:
    """What `part` of an error's place leads to: a field of a record, a dict's value, the record that a union's tag names, or any
    element of a tuple."""
    if get_origin(annotation) is tuple:
        return get_args(annotation)[0]
    records = _records(annotation)
    if not records:
        return get_args(annotation)[-1]
    tags = {tag: record for record in records if "name" in record.model_fields for tag in get_args(_annotation(record, "name"))}
    return tags.get(part) or _annotation(records[0], part)


def _records(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is dict:
        return []
    return [record for each in get_args(annotation) for record in _records(each)]


def _annotation(record: type[BaseModel], field: str) -> Any:
    return record.model_fields[field].annotation


def shipped(kind: Literal["protocols", "studies"]) -> dict[str, Path]:
    """Name -> file of what the package brings."""
    return {path.stem: path for path in sorted((FOLDER / kind).glob("*.yaml"))}


def load_protocol(word: str) -> tuple[str, Protocol]:
    """(name, protocol) by name or YAML path. Raises UnknownName or UserError, one line each.

    A file that `extends` another one (a name, or a path from its own folder) takes that one's content; of a section that
    both have, it replaces the keys that it gives.
    """
    path = _find("protocol", word, shipped("protocols"))
    return path.stem, validated(Protocol, _extended(path), str(path) if path.stem != word else f"protocol {word}")


def load_study(word: str) -> tuple[str, Study]:
    """(name, study) by name or YAML path. Raises UnknownName or UserError, one line each."""
    path = _find("study", word, shipped("studies"))
    where = str(path) if path.stem != word else f"study {word}"
    if path.stem == "claims":
        raise UserError(f"{where}: the reports call their page of claims so; give this file another name")
    study = validated(Study, read_yaml(path), where)
    for test in (test for claim in study.claims for test in claim.tests):
        for family in test.families or ():
            try:
                families.spec(family)
            except UserError as error:
                raise UserError(f"{where}: claims: {error}") from None
    return path.stem, study


def load_studies(words: str) -> dict[str, Study]:
    """Studies by name, of several names or YAML paths with commas between them, each once. Raises UserError, one line."""
    found: dict[str, Study] = {}
    for word in dict.fromkeys(word.strip() for word in words.split(",")):
        name, study = load_study(word)
        if name in found:
            raise UserError(f"--study {words}: two studies are called {name}")
        found[name] = study
    return found


def _extended(path: Path, below: tuple[Path, ...] = (), resolved: bool = True) -> Any:
    """A protocol file's content with that of the one it extends; with `resolved`, other data sets that are named by a protocol
    have become its `data` block."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        if below:
            raise UserError(f"{path}: {below[0].name} extends it, but it has no keys")
        return content
    if resolved and isinstance(content.get("datasets"), dict):
        given = {name: _data_of(path, each) if isinstance(each, str) else each for name, each in content["datasets"].items()}
        content = content | {"datasets": given}
    if "extends" not in content:
        return content
    base = _named_beside(path, str(content["extends"]))
    if base.resolve() in (path.resolve(), *below):
        raise UserError(f"{path}: extends itself by way of {base}")
    if len(below) >= MOST_EXTENDED:
        raise UserError(f"{path}: extends another file, as {MOST_EXTENDED} before it do; at most that many")
    inherited = _extended(base, (path.resolve(), *below), resolved)
    merged = dict(inherited)
    for key, value in content.items():
        if key != "extends":
            both = isinstance(value, dict) and isinstance(inherited.get(key), dict)
            merged[key] = inherited[key] | value if both else value
    return merged


def _data_of(path: Path, word: str) -> Any:
    content = _extended(_named_beside(path, word), resolved=False)
    return content.get("data") if isinstance(content, dict) else None


def _named_beside(path: Path, word: str) -> Path:
    """The protocol that a file calls by name, or by a path from its own folder."""
    known = shipped("protocols")
    return _find("protocol", word if word in known else str(path.parent / word), known)


def _find(kind: str, word: str, known: Mapping[str, Path]) -> Path:
    if word in known:
        return known[word]
    path = Path(word)
    if path.suffix not in (".yaml", ".yml") or not _is_file(path):
        raise UnknownName(kind, word, [*known, "a YAML file's path"])
    if not FILE_NAME.fullmatch(path.stem):
        letters = "letters, digits, dot, dash and underscore, at most 100, a letter or digit first"
        raise UserError(f"{kind} {quoted(word)}: a file's name, which results and reports bear, has {letters}")
    if path.stem in known and path.resolve() != known[path.stem].resolve():
        raise UserError(f"{path}: {path.stem!r} is the name of a shipped {kind}; give the file another one")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the file system, or with a null byte
        return False


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe; libyaml's where PyYAML was built with it, as its wheels are: ten times as fast. A key that stands twice in a mapping
    is an error, where YAML's readers else keep the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = next((key for key, count in keys.items() if count > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"key {quoted(twice)} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)  # type: ignore[no-any-return]


def read_yaml(path: Path) -> Any:
    """A file's content. Raises UserError, one line, for one that is no YAML, larger than a megabyte, or nested too deeply."""
    try:
        loader = _Loader(read_bytes(path, MOST_YAML))
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except RecursionError:
        raise UserError(f"{path}: not readable as YAML: nested too deeply") from None
    except Exception as error:  # for a value that its tag does not fit, as a day that does not exist, PyYAML raises anything
        told = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: not readable as YAML: {told[:MOST_TOLD]}") from None
