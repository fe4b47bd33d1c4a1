"""Protocols and studies: YAML files, validated on reading. A shipped one is named by its file, a user's by its path."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from families.spec import UnknownName, UserError

FOLDER = Path(__file__).parent
Fraction = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]


class Record(BaseModel):
    """A validated record without unknown keys; frozen, numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __hash__(self) -> int:  # pydantic's own would fail for a record that holds a dict
        return hash(self.model_dump_json())


class CuedDigits(Record):
    """The embedded task (benchmark/data/cued_digits.py): sizes of the evaluation sets, noise of the shifted one."""

    name: Literal["cued_digits"]
    val_images: int = Field(gt=0)
    test_images: int = Field(gt=0)
    noise_std: float = Field(ge=0)

    @property
    def num_classes(self) -> int:
        """The ten digits."""
        return 10


class Split(Record):
    """A part of a data set: its name in timm's data set factory, and how many images it has (checked before training)."""

    split: str
    images: int = Field(gt=0)


class ShiftedSet(Record):
    """A shifted test set: image folders at `path`, below the data folder or beside it, of `classes` of the training classes.

    `named_by` tells how its folders name them: as the training set's folders do, or by their index in that order.
    Accuracy is that over the set's own classes: the model's other outputs are left out (ImageNet-A and -R: Hendrycks et al.
    2021, arXiv 1907.07174 and 2006.16241).
    """

    path: str
    images: int = Field(gt=0)
    classes: int = Field(gt=1)
    named_by: Literal["class", "index"] = "class"


class Images(Record):
    """Photographs through timm's data set factory (benchmark/data/images.py), found in `--data DIR`.

    `source` is the factory's prefix: "" for image folders and tars, else as in "wds/" or "hfds/NAME". Either `held_out` of the
    training images are val, or `val` names a split of its own. Evaluation resizes the shorter side to the model's input size
    / crop_pct and crops the centre.
    """

    name: Literal["images"]
    source: str = ""
    num_classes: int = Field(gt=1)
    train: Split
    test: Split
    val: Split | None = None
    held_out: int = Field(default=0, ge=0)
    crop_pct: float = Field(default=0.875, gt=0, le=1)
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
            raise ValueError(f"source {self.source!r} is streamed: nothing can be held out of it; val names a split")
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
    color_jitter: float | None = None
    erase: Fraction = 0.0
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)


class Normalisation(Record):
    """What students get: (image - mean) / std per channel, on values in 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


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
    """

    steps: int = Field(gt=0)
    epochs: float | None = Field(default=None, gt=0)
    batch_size: int = Field(gt=0)
    lr: float = Field(gt=0)
    warmup: Fraction
    weight_decay: float = Field(ge=0)
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    clip_grad: float | None = Field(default=None, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    grad_checkpointing: bool = False
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    ema: float | None = Field(default=None, gt=0, lt=1)
    augment: Augment | None = None
    compile: bool = False


class Teaching(Record):
    """How a protocol pre-trains its own teachers; one whose val top-1 is below the floor is an error."""

    recipe: Recipe
    floor: Percent


class Size(Record):
    """A scaled-down geometry."""

    embed_dim: int = Field(gt=0)
    depth: int = Field(gt=0)


class Scale(Record):
    """Geometries of a protocol that does not use the teachers' own. `head_dim` is a factor on the teacher's head_dim, so
    that a family with narrow heads keeps them."""

    img_size: int = Field(gt=0)
    patch_size: int = Field(gt=0)
    head_dim: float = Field(gt=0)
    sizes: dict[str, Size]


class TransferSettings(Record):
    """What is transferred: `blocks` is "all", or a count of first blocks (negative: all but that many last ones);
    `weight` is the distillation loss's; `teacher_precision` the teacher's, where it is not the recipe's; `compile_teacher` runs
    it through torch.compile; `teacher_drop_path` drops the student's residual branches in the teacher too while training, as
    Li et al.'s released code does (it is deterministic otherwise)."""

    blocks: Literal["all"] | int
    loss: Literal["ce"]
    weight: float = Field(gt=0)
    teacher_precision: Literal["float32", "bfloat16"] | None = None
    compile_teacher: bool = False
    teacher_drop_path: bool = False

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
    `together` bounds how many runs train in one process (each holds its model and optimiser in memory).
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
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    curve_points: int = Field(gt=0)
    checkpoint_seconds: float = Field(default=2.0, ge=0)
    together: int = Field(default=12, gt=0)
    evaluation_batch: int = Field(default=500, gt=1)

    @model_validator(mode="before")
    @classmethod
    def _steps_of_epochs(cls, content: Any) -> Any:
        return _with_steps(content) if isinstance(content, dict) else content

    @model_validator(mode="after")
    def _consistent(self) -> Protocol:
        taught = [] if self.teacher is None else [self.teacher.recipe]
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
    return changed


class Study(Record):
    """Which arms are trained for each teacher."""

    title: str
    arms: tuple[str, ...] = Field(min_length=1)

    @field_validator("arms")
    @classmethod
    def _arms(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        try:
            for arm in arms:
                Arm.parse(arm)
        except UserError as error:
            raise ValueError(str(error)) from None
        if len(set(arms)) < len(arms):
            raise ValueError("an arm is listed twice")
        return arms


class Arm(Record):
    """What is trained, by its name: `<student>-<method>` with variants, as in `standard-copy+budget=x3+source=uniform`, or
    `finetune`: the teacher itself with a new head.

    Attributes:
        student: standard, matched (with all native components), or the teacher itself.
        method: how attention is transferred.
        budget: factor on the student recipe's steps.
        source: whose attention it is: the teacher's of the same image, of another image of the batch, or uniform.
        teacher: seed of a teacher that the protocol trains.
        weights: the teacher as pre-trained, or fine-tuned on the task first.
        ensemble: evaluated by itself, or together with the fine-tuned teacher.
    """

    student: Literal["standard", "matched", "teacher"]
    method: Literal["none", "copy", "distill", "finetune"]
    budget: float = Field(default=1, gt=0)
    source: Literal["teacher", "other-image", "uniform"] = "teacher"
    teacher: int = Field(default=0, ge=0)
    weights: Literal["pretrained", "finetuned"] = "pretrained"
    ensemble: Literal["none", "finetuned"] = "none"

    @classmethod
    def parse(cls, text: str) -> Arm:
        """The arm of a name. Raises UserError for a text that is none, naming the valid words."""
        head, *variants = text.split("+")
        student, _, method = ("teacher", "-", "finetune") if head == "finetune" else head.partition("-")
        fields: dict[str, str] = {"student": student, "method": method}
        for variant in variants:
            key, _, value = variant.partition("=")
            if key not in _PREFIX:
                raise UnknownName(f"variant in arm {text!r}", key, _PREFIX)
            fields[key] = value.removeprefix(_PREFIX[key])
        arm = validated(cls, fields, f"arm {text!r}")
        if (arm.student == "teacher") != (arm.method == "finetune"):
            raise UserError(f"arm {text!r}: what is fine-tuned is the teacher; write it 'finetune'")
        if arm.method == "none" and (arm.source, arm.teacher, arm.weights) != ("teacher", 0, "pretrained"):
            raise UserError(f"arm {text!r}: without transfer there is no source and no teacher")
        if arm.method == "finetune" and (arm.source, arm.weights, arm.ensemble) != ("teacher", "pretrained", "none"):
            raise UserError(f"arm {text!r}: finetune takes budget and teacher alone")
        if arm.name != text:
            raise UserError(f"arm {text!r}: write it {arm.name!r}")
        return arm

    @property
    def name(self) -> str:
        """The canonical name: variants that are not the default, in alphabetical order."""
        head = "finetune" if self.method == "finetune" else f"{self.student}-{self.method}"
        variants = sorted(self.model_dump(exclude_defaults=True, exclude={"student", "method"}).items())
        return head + "".join(f"+{k}={_PREFIX[k]}{_short(v)}" for k, v in variants)

    @property
    def transfers(self) -> bool:
        """Whether attention is handed over: what a gap is measured of."""
        return self.method in ("copy", "distill")

    @property
    def baseline(self) -> Arm:
        """The same student and budget without transfer: what this arm's gap is measured against; of an ensemble, that student's
        ensemble. The fine-tuned teacher's is the standard student's."""
        student = "standard" if self.student == "teacher" else self.student
        return Arm(student=student, method="none", budget=self.budget, ensemble=self.ensemble)

    @property
    def tuned_teacher(self) -> Arm:
        """The fine-tuned teacher that it learns from or is evaluated with."""
        return Arm(student="teacher", method="finetune", teacher=self.teacher)

    @property
    def alone(self) -> Arm:
        """The arm whose student this one evaluates in an ensemble."""
        return self.model_copy(update={"ensemble": "none"})


_PREFIX = {"budget": "x", "source": "", "teacher": "s", "weights": "", "ensemble": ""}


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


AnyRecord = TypeVar("AnyRecord", bound=Record)


def validated(kind: type[AnyRecord], data: object, where: str) -> AnyRecord:
    """`data` as a record. Raises UserError: one line with the place, and the nearest key for an unknown one."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        # A misspelt key is also a missing one: the unknown word says more.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UserError(f"{where}: {_unknown_key(kind, first['loc'])}") from None
        if first["type"] == "union_tag_invalid":
            valid = first["ctx"]["expected_tags"].replace("'", "").split(", ")
            raise UserError(f"{where}: {UnknownName(path, first['ctx']['tag'], valid)}") from None
        raise UserError(f"{where}: {path or 'content'}: {first['msg'].removeprefix('Value error, ')}") from None


def _unknown_key(kind: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    inside: Any = kind
    for part in map(str, loc[:-1]):
        inside = _inside(inside, part)
    fields = _records(inside)[0].model_fields
    near = get_close_matches(str(loc[-1]), fields, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown key {'.'.join(map(str, loc))!r}; {hint}valid: {', '.join(fields)}"


def _inside(annotation: Any, part: str) -> Any:
    """What `part` of an error's place leads to: a field of a record, a dict's value, or the record that a union's tag names."""
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
    return path.stem, validated(Study, read_yaml(path), str(path) if path.stem != word else f"study {word}")


def _extended(path: Path, below: tuple[Path, ...] = ()) -> Any:
    content = read_yaml(path)
    if not isinstance(content, dict) or "extends" not in content:
        return content
    word, known = str(content["extends"]), shipped("protocols")
    base = _find("protocol", word if word in known else str(path.parent / word), known)
    if base.resolve() in (path.resolve(), *below):
        raise UserError(f"{path}: extends itself by way of {base}")
    inherited = _extended(base, (*below, path.resolve()))
    merged = dict(inherited)
    for key, value in content.items():
        if key != "extends":
            both = isinstance(value, dict) and isinstance(inherited.get(key), dict)
            merged[key] = inherited[key] | value if both else value
    return merged


def _find(kind: str, word: str, known: Mapping[str, Path]) -> Path:
    if word in known:
        return known[word]
    path = Path(word)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        if path.stem in known and path.resolve() != known[path.stem].resolve():
            raise UserError(f"{path}: {path.stem!r} is the name of a shipped {kind}; give the file another one")
        return path
    raise UnknownName(kind, word, [*known, "a YAML file's path"])


# Safe; libyaml's where PyYAML was built with it, as its wheels are: ten times as fast.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> Any:
    """A file's content. Raises UserError, one line."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
