"""Protocols: data, geometries, recipes and evaluation, as YAML files that can extend one another."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from benchmark.spec import bounds
from benchmark.spec.arm import Loss
from benchmark.spec.data_sets import CuedDigits, Images
from benchmark.spec.detection import DetectionTask, in_folder
from benchmark.spec.recipe import Normalisation, Recipe, with_steps
from benchmark.spec.records import (
    NUMBER,
    BatchSize,
    Depth,
    Name,
    NotNegative,
    Percent,
    Pixels,
    Points,
    Positive,
    Record,
    RunCount,
    Seed,
    Width,
    validated,
)
from benchmark.spec.torchvision_sets import with_facts
from benchmark.spec.yaml_files import find_file, read_value, read_yaml, shipped
from families.spec import UnknownName, UserError, quoted

DEFAULT_PROTOCOL = "mini"
Need = Literal["pretrained", "unsaturated"]
MOST_EXTENDED = 20  # files, one by way of the other
KEY = VALUE = r"[A-Za-z0-9_.-]+"  # of what stands in a protocol's name, which is a folder's and begins a file's
MOST_SET = 120  # characters of all of it


class Pretraining(Record):
    """A way to pre-train a teacher. A teacher whose val top-1 is below the floor (percent) fails."""

    recipe: Recipe
    floor: Percent


class Teaching(Pretraining):
    """How a protocol pre-trains its teachers. `others` are alternatives, by their names in arms."""

    others: dict[Name, Pretraining] = {}

    def by(self, name: str) -> Pretraining:
        """The alternative called `name`; the default one for "". Raises UnknownName."""
        if name and name not in self.others:
            raise UnknownName("recipe of this protocol's teachers", name, self.others)
        return self.others[name] if name else self


class Size(Record):
    """A scaled-down geometry."""

    embed_dim: Width
    depth: Depth


class Scale(Record):
    """Scaled-down geometries, in place of the teachers' own.

    Attributes:
        img_size, patch_size: in pixels.
        head_dim: factor on the teacher's head dimension, so that families with narrow heads keep
            them.
        sizes: width and depth by the teacher's size.
    """

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
    """A protocol's transfer settings.

    Attributes:
        blocks: "all", a number of first blocks, or minus the number of last blocks to leave out.
        loss, weight: of Distillation.
        teacher_precision: of the teacher; None: the recipe's.
        compile_teacher: run the teacher through torch.compile.
        teacher_drop_path: drop the student's residual branches in the teacher too, as the released
            code of Li et al. does; otherwise the teacher is deterministic.
    """

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
        """The transferred blocks of a model of this depth. Raises UserError if that leaves none."""
        count = depth if self.blocks == "all" else self.blocks if self.blocks > 0 else depth + self.blocks
        if not 0 < count <= depth:
            raise UserError(f"transfer.blocks: {self.blocks} of {depth} blocks leaves {count} to transfer")
        return tuple(range(count))


class Protocol(Record):
    """Data, geometries, recipes and evaluation: what the runs of one comparison have in common.

    Attributes:
        scale: None: models have the teachers' own geometry.
        img_size: in pixels a side, a multiple of each teacher's patch size; None: each teacher's.
        teacher: None: the teachers are pre-trained elsewhere.
        saturated: whether students solve the task in the end, whatever they got from a teacher. A
            label for claims: no part of a run.
        recipe, recipes: the training of students, and of single methods in place of it.
        measure: what gaps are differences of: top-1 on test, or the area under the learning curve
            (benchmark/analysis/measures.py).
        evaluation_batch: bounds memory; the other-image source shifts attention within such a
            batch.
        together: the most runs that train in one process; each holds a model and an optimiser.
        datasets: other tasks to transfer to from the same teachers, by their names in arms. A file
            gives a `data` block or the name of the protocol that has it; the rest is this
            protocol's. Their images lie in a folder of that name in the data folder or beside it;
            those that torchvision fetches in the data folder itself.
        tasks: detection tasks, by their names in arms. Their images lie in a folder of that name in
            the data folder or beside it.
    """

    title: str
    description: str
    data: CuedDigits | Images = Field(discriminator="name")
    normalisation: Normalisation
    head: Literal["token", "avg"]
    scale: Scale | None = None
    img_size: Pixels | None = None
    teacher: Teaching | None = None
    saturated: bool = False
    recipe: Recipe
    recipes: dict[Literal["none", "copy", "distill", "finetune"], Recipe] = {}
    transfer: TransferSettings
    seeds: tuple[Seed, ...] = Field(min_length=1)
    curve_points: Points
    measure: Literal["top1", "area"] = "top1"
    checkpoint_seconds: NotNegative = 2.0
    together: RunCount = 12
    evaluation_batch: BatchSize = Field(default=500, gt=1)
    datasets: dict[Name, Protocol] = {}
    tasks: dict[Name, DetectionTask] = {}

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
        if isinstance(content.get("tasks"), dict):
            found = found | {"tasks": {name: in_folder(name, task) for name, task in content["tasks"].items()}}
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
        if self.scale is not None and self.img_size is not None:
            raise ValueError("img_size: models have that of the scale; give scale.img_size")
        if self.scale is not None and self.teacher is None:
            raise ValueError("teacher: at a scale of the protocol's own there are no pre-trained teachers; give their recipe")
        return self

    @property
    def rung(self) -> int:
        """Its level of evidence: 0 for images made here, 1 for teachers trained here on real ones,
        2 for pre-trained teachers, 3 for these on whole image folders."""
        if self.data.is_embedded:
            return 0
        if self.teacher is not None:
            return 1
        assert isinstance(self.data, Images)
        return 2 if self.data.source.startswith("torchvision/") else 3

    def recipe_of(self, method: str) -> Recipe:
        """The recipe of a method."""
        return self.recipes.get(method, self.recipe)  # type: ignore[call-overload, no-any-return]

    def lacks(self, needs: Iterable[Need]) -> tuple[Need, ...]:
        """Those of a claim's needs that it does not offer."""
        offered = {"pretrained": self.teacher is None, "unsaturated": not self.saturated}
        return tuple(need for need in needs if not offered[need])

    def on(self, dataset: str) -> Protocol:
        """The protocol with another of its data sets; itself for "". Raises UnknownName."""
        if dataset and dataset not in self.datasets:
            raise UnknownName("data set of this protocol", dataset, self.datasets)
        return self.datasets[dataset] if dataset else self

    def task(self, name: str) -> DetectionTask:
        """One of its tasks. Raises UnknownName."""
        if name not in self.tasks:
            raise UnknownName("task of this protocol", name, self.tasks)
        return self.tasks[name]

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is listed twice")
        return seeds


def _with_steps(content: dict[str, Any]) -> dict[str, Any]:
    """A protocol file's content with epochs converted to steps of whole batches: of all training
    images for teachers, of those that are theirs for students."""
    data: Any = with_facts(content.get("data"))

    def stepped(recipe: Any, few: Any = None) -> Any:
        return with_steps(recipe, data, few)

    changed, few = dict(content), data.get("student_images") if isinstance(data, dict) else None
    if "recipe" in content:
        changed["recipe"] = stepped(content["recipe"], few)
    if isinstance(content.get("recipes"), dict):
        given = {method: recipe for method, recipe in content["recipes"].items() if recipe is not None}
        changed["recipes"] = {method: stepped(recipe, few) for method, recipe in given.items()}
    if isinstance(content.get("teacher"), dict):
        changed["teacher"] = content["teacher"] | {"recipe": stepped(content["teacher"].get("recipe"))}
        if isinstance(content["teacher"].get("others"), dict):
            changed["teacher"]["others"] = {
                name: each | {"recipe": stepped(each.get("recipe"))} if isinstance(each, dict) else each
                for name, each in content["teacher"]["others"].items()
            }
    return changed


def load_protocol(word: str) -> tuple[str, Protocol]:
    """Load (name, protocol) by name or YAML path. Raises UnknownName or UserError, one line each.

    A file that `extends` another one (a name, or a path from its folder) inherits its content. In a
    section that both have, it replaces the keys that it gives. A word from `with_values`, as in
    mini+recipe.steps=20, is the protocol with these values in place of its own.
    """
    word, values = split_values(word)
    path = find_file("protocol", word, shipped("protocols"))
    content = _replaced(_extended(path), _nested(values)) if values else _extended(path)
    told = f"protocol {word}" if path.stem == word else str(path)
    return _named(path.stem, values), validated(Protocol, content, _named(told, values))


@functools.cache
def shipped_protocols() -> Mapping[str, Protocol]:
    """The package's protocols by name, read once."""
    return MappingProxyType({name: load_protocol(name)[1] for name in shipped("protocols")})


def with_values(word: str, settings: Iterable[str]) -> str:
    """A protocol's word with values in place of its own, given as in recipe.steps=20. Raises
    UserError."""
    word, values = split_values(word)
    for setting in settings:
        key, _, value = (part.strip() for part in setting.partition("="))
        if not re.fullmatch(KEY, key) or not re.fullmatch(VALUE, value):
            told = "KEY=VALUE, as in recipe.steps=20, with letters, digits, dot, dash and underscore"
            raise UserError(f"--set {quoted(setting)}: not {told}; other values go into a protocol's file")
        if key in values:
            raise UserError(f"--set {quoted(key)}: given twice")
        values[key] = value
    if len(_named("", values)) > MOST_SET:
        raise UserError(f"--set: more than {MOST_SET} characters; so many values go into a protocol's file")
    return _named(word, dict(sorted(values.items())))


def split_values(word: str) -> tuple[str, dict[str, str]]:
    """A protocol's word without the values that stand in it, and these."""
    found = re.fullmatch(rf"(.*?)((?:\+{KEY}={VALUE})*)", word, re.DOTALL)
    assert found is not None
    return found[1], dict(each.split("=", 1) for each in found[2].split("+")[1:])


def _named(word: str, values: Mapping[str, str]) -> str:
    return "".join([word, *(f"+{key}={value}" for key, value in values.items())])


def _nested(values: Mapping[str, str]) -> dict[str, Any]:
    """Values by dotted key, as the sections of a file. Raises UserError for a key below a value."""
    found = dict[str, Any]()
    for key, value in values.items():
        *sections, last = key.split(".")
        section = found
        for each in sections:
            section = section.setdefault(each, {})
            if not isinstance(section, dict):
                raise UserError(f"--set {quoted(key)}: {quoted(each)} is given a value too")
        section[last] = read_value(value)
    return found


def _replaced(content: Any, given: dict[str, Any], place: str = "") -> Any:
    """A section with other values, those of its own sections below it; `place` is its dotted key."""
    if not isinstance(content, dict):
        raise UserError(f"--set: {quoted(place)} is no section of the protocol")
    new = dict[str, Any]()
    for key, value in given.items():
        inner = content.get(key, {})
        new[key] = (
            _replaced({} if inner is None else inner, value, f"{place}.{key}".lstrip(".")) if isinstance(value, dict) else value
        )
    return _merged(content, new)


def _merged(content: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A section with values in place of its own; epochs in place of steps too, and the other way."""
    replaced = {other for one, other in (("steps", "epochs"), ("epochs", "steps")) if one in given}
    return {key: value for key, value in content.items() if key not in replaced} | given


def _extended(path: Path, below: tuple[Path, ...] = (), resolved: bool = True) -> Any:
    """A protocol file's content with that of the file it extends. `resolved`: a data set given by the
    name of a protocol becomes the `data` block of that protocol."""
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
    if not isinstance(content["extends"], str):
        raise UserError(f"{path}: extends: the name of a protocol, or a YAML file's path")
    base = _named_beside(path, content["extends"])
    if base.resolve() in (path.resolve(), *below):
        raise UserError(f"{path}: extends itself by way of {base}")
    if len(below) >= MOST_EXTENDED:
        raise UserError(f"{path}: extends another file, as {MOST_EXTENDED} before it do; at most that many")
    inherited = _extended(base, (path.resolve(), *below), resolved)
    merged = dict(inherited)
    for key, value in content.items():
        if key != "extends":
            both = isinstance(value, dict) and isinstance(inherited.get(key), dict)
            merged[key] = _merged(inherited[key], value) if both else value
    return merged


def _data_of(path: Path, word: str) -> Any:
    content = _extended(_named_beside(path, word), resolved=False)
    return content.get("data") if isinstance(content, dict) else None


def _named_beside(path: Path, word: str) -> Path:
    """The protocol file that another one names, or gives by a path from its folder."""
    known = shipped("protocols")
    return find_file("protocol", word if word in known else str(path.parent / word), known)
