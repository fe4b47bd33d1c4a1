"""Validated records, and the kinds of numbers that they hold."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from benchmark.spec import bounds
from families.spec import MOST_SHOWN, UnknownName, UserError, quoted

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
Name = Annotated[str, Field(pattern=r"^[a-z0-9_-]+$", max_length=100)]  # as in an arm
MOST_TOLD = 300  # characters of an error


class Record(BaseModel):
    """A validated record without unknown keys; frozen, numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __hash__(self) -> int:  # pydantic's own would fail for a record that holds a dict
        return hash(self.model_dump_json())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy without cached properties, whose values may differ for the copy."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied


AnyRecord = TypeVar("AnyRecord", bound=Record)


def validated(kind: type[AnyRecord], data: object, where: str) -> AnyRecord:
    """Validate `data` as a record. Raises UserError: one line with the place, and a near key for an
    unknown one."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        # A misspelt key is also missing: report the unknown word. Errors repeat for each data set.
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
    """The annotation that `part` of an error's location leads to: a field of a record, a dict's
    value, the record that a union's tag names, or an element of a tuple."""
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
