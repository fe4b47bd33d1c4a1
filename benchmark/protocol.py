"""Protocols and studies: YAML files, validated on reading. A shipped one is named by its file, a user's by its path."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from families.spec import UnknownName, UserError

FOLDER = Path(__file__).parent
Fraction = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]


class Record(BaseModel):
    """A validated record without unknown keys; frozen, numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CuedDigits(Record):
    """The embedded task (benchmark/data/cued_digits.py): sizes of the evaluation sets, noise of the shifted one."""

    name: Literal["cued_digits"]
    val_images: int = Field(gt=0)
    test_images: int = Field(gt=0)
    noise_std: float = Field(ge=0)


class Normalisation(Record):
    """What students get: (image - mean) / std per channel, on values in 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Recipe(Record):
    """One training: AdamW, linear warm-up, then cosine to zero, stepped per batch (timm)."""

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    lr: float = Field(gt=0)
    warmup: Fraction
    weight_decay: float = Field(ge=0)
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    clip_grad: float | None = Field(default=None, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    grad_checkpointing: bool = False


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
    it through torch.compile."""

    blocks: Literal["all"] | int
    loss: Literal["ce"]
    weight: float = Field(gt=0)
    teacher_precision: Literal["float32", "bfloat16"] | None = None
    compile_teacher: bool = False

    def indices(self, depth: int) -> tuple[int, ...]:
        """The transferred blocks of a model of this depth. Raises UserError when there are none or too few blocks."""
        count = depth if self.blocks == "all" else self.blocks if self.blocks > 0 else depth + self.blocks
        if not 0 < count <= depth:
            raise UserError(f"transfer.blocks: {self.blocks} of {depth} blocks leaves {count} to transfer")
        return tuple(range(count))


class Protocol(Record):
    """Data, geometries, recipes and evaluation: everything that runs of one comparison have in common.

    `together` bounds how many runs train in one process (each holds its model and optimiser in memory).
    """

    title: str
    says: str
    data: CuedDigits
    normalisation: Normalisation
    head: Literal["token", "avg"]
    scale: Scale
    teacher: Teaching
    recipe: Recipe
    transfer: TransferSettings
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    curve_points: int = Field(gt=0)
    checkpoint_seconds: float = Field(default=2.0, ge=0)
    together: int = Field(default=12, gt=0)

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is listed twice")
        return seeds


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
    """What is trained, by its name: `<student>-<method>` with variants, as in `standard-copy+budget=x3+source=uniform`.

    Attributes:
        student: standard, or matched (with all native components).
        method: how attention is transferred.
        budget: factor on the student recipe's steps.
        source: whose attention it is: the teacher's of the same image, of another image of the batch, or uniform.
        teacher: seed of a teacher that the protocol trains.
    """

    student: Literal["standard", "matched"]
    method: Literal["none", "copy", "distill"]
    budget: float = Field(default=1, gt=0)
    source: Literal["teacher", "other-image", "uniform"] = "teacher"
    teacher: int = Field(default=0, ge=0)

    @classmethod
    def parse(cls, text: str) -> Arm:
        """The arm of a name. Raises UserError for a text that is none, naming the valid words."""
        head, *variants = text.split("+")
        student, _, method = head.partition("-")
        fields: dict[str, str] = {"student": student, "method": method}
        for variant in variants:
            key, _, value = variant.partition("=")
            if key not in _PREFIX:
                raise UnknownName(f"variant in arm {text!r}", key, _PREFIX)
            fields[key] = value.removeprefix(_PREFIX[key])
        arm = validated(cls, fields, f"arm {text!r}")
        if arm.method == "none" and (arm.source, arm.teacher) != ("teacher", 0):
            raise UserError(f"arm {text!r}: without transfer there is no source and no teacher")
        if arm.name != text:
            raise UserError(f"arm {text!r}: write it {arm.name!r}")
        return arm

    @property
    def name(self) -> str:
        """The canonical name: variants that are not the default, in alphabetical order."""
        variants = sorted(self.model_dump(exclude_defaults=True, exclude={"student", "method"}).items())
        return f"{self.student}-{self.method}" + "".join(f"+{k}={_PREFIX[k]}{_short(v)}" for k, v in variants)

    @property
    def baseline(self) -> Arm:
        """The same student and budget without transfer: what this arm's gap is measured against."""
        return Arm(student=self.student, method="none", budget=self.budget)


_PREFIX = {"budget": "x", "source": "", "teacher": "s"}


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
        raise UserError(f"{where}: {path or 'content'}: {first['msg'].removeprefix('Value error, ')}") from None


def _unknown_key(kind: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    inside: Any = kind
    for part in loc[:-1]:
        if isinstance(inside, type) and issubclass(inside, BaseModel):
            inside = inside.model_fields[str(part)].annotation
        else:  # the values of a dict
            inside = get_args(inside)[-1]
    kind = inside
    near = get_close_matches(str(loc[-1]), kind.model_fields, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown key {'.'.join(map(str, loc))!r}; {hint}valid: {', '.join(kind.model_fields)}"


def shipped(kind: Literal["protocols", "studies"]) -> dict[str, Path]:
    """Name -> file of what the package brings."""
    return {path.stem: path for path in sorted((FOLDER / kind).glob("*.yaml"))}


def load_protocol(word: str) -> tuple[str, Protocol]:
    """(name, protocol) by name or YAML path. Raises UnknownName or UserError, one line each."""
    path = _find("protocol", word, shipped("protocols"))
    return path.stem, validated(Protocol, _read_yaml(path), str(path) if path.stem != word else f"protocol {word}")


def load_study(word: str) -> tuple[str, Study]:
    """(name, study) by name or YAML path. Raises UnknownName or UserError, one line each."""
    path = _find("study", word, shipped("studies"))
    return path.stem, validated(Study, _read_yaml(path), str(path) if path.stem != word else f"study {word}")


def _find(kind: str, word: str, known: Mapping[str, Path]) -> Path:
    if word in known:
        return known[word]
    path = Path(word)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        if path.stem in known and path.resolve() != known[path.stem].resolve():
            raise UserError(f"{path}: {path.stem!r} is the name of a shipped {kind}; give the file another one")
        return path
    raise UnknownName(kind, word, [*known, "a YAML file's path"])


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
