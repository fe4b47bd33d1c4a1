"""Result files (schema 2): one run in one cell with its evaluations, validated on reading."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from benchmark.spec.arm import Reinit
from benchmark.spec.data_sets import FEATURE_SCORES, TEACHER_SCORES
from benchmark.spec.detection import Backbone, Detector
from benchmark.spec.evaluations import Evaluation, measured_on
from benchmark.spec.records import Percent, Record
from benchmark.spec.run import Architecture, Cell, Conditions, Geometry, Role, Run, Transfer
from benchmark.spec.teacher_source import TeacherSource
from benchmark.spec.yaml_files import read_bytes
from benchmark.storage.files import is_sealed, parsed, sealed
from benchmark.storage.scores import (
    TAGS,
    AnyEvaluation,
    AnyMetrics,
    AnyPoint,
    AnySetScore,
    BoxEvaluationRecord,
    BoxMetrics,
    BoxScore,
    EvaluationRecord,
    NotNegative,
    Score,
)
from families.spec import MOST_SHOWN, one_line, quoted

SCHEMA = 2
CONVERSION = "rewrite this folder's files by bench check --convert RESULTS"


class NamedConditions(Conditions):
    """The run's part of its protocol, with the protocol's name."""

    name: str


class Labelled(Record):
    """A run with the labels of its cell."""

    family: str
    size: str
    arm: str
    seed: int
    protocol: NamedConditions
    student: Architecture
    transfer: Transfer = Transfer()
    role: Role = "student"
    teacher: TeacherSource | None = None
    reinit: Reinit = "none"
    taught_by: Geometry | None = None
    backbone: Backbone | None = None
    detector: Detector | None = None

    @cached_property
    def run(self) -> Run:
        """The run without labels. (A teacher's seed is its own.)"""
        conditions = Conditions(**{name: getattr(self.protocol, name) for name in Conditions.model_fields})
        kept = {name: getattr(self, name) for name in Run.model_fields if name != "task"}
        return Run(**(kept | {"protocol": conditions}))


class TeacherRecord(Record):
    """A student's teacher; `top1` in percent and `how` it was measured are null where it was not."""

    source: Annotated[str, Field(max_length=1000)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    revision: str | None = None
    top1: Percent | None = None
    how: str | None = None


class Cost(Record):
    """Of training: wall seconds, device, training images per second, peak memory of the process
    (cpu) or device.

    Seconds are those of the run's own steps, with its share of batch and teacher where several
    trained in one process: `together` in the process that ended the run. (Null: measured before
    runs trained together; then evaluation on the way is counted in.) `ranks` shared each batch
    where it is more than one; seconds are then those of one of them. `kwh`: the electricity of the
    whole training as codecarbon estimates it; null where it was not measured.
    """

    seconds: NotNegative
    device: str
    images_per_second: NotNegative
    peak_memory_mb: NotNegative
    together: int | None = None
    ranks: int | None = None
    kwh: NotNegative | None = None

    @property
    def hours(self) -> float:
        """Hours of the device: GPU-hours where that is a GPU."""
        return self.seconds * (self.ranks or 1) / 3600


class Provenance(Record):
    """Code, versions, machine and dates. `dirty` is of the code alone; null outside a git checkout.
    `data` is a digest of the images' names and sizes; null for embedded data. `cpu`, `gpu` and
    `threads` of torch are null where they are not known. `by`: who ran it, if they told."""

    commit: str | None
    dirty: bool | None
    code: str
    versions: dict[str, str]
    host: str
    started: str
    finished: str
    data: str | None = None
    cpu: str | None = None
    gpu: str | None = None
    threads: int | None = None
    by: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class Payload(Record):
    """The record of a finished run, without labels."""

    metrics: AnyMetrics
    evaluations: dict[str, AnyEvaluation] = {}
    val: AnySetScore
    curve: list[AnyPoint]
    teacher: TeacherRecord | None
    cost: Cost
    provenance: Provenance


class EvaluationPayload(Record):
    """The record of a finished evaluation, without labels: its scores by name."""

    evaluations: dict[str, AnyEvaluation] = Field(min_length=1)


class Result(Payload):
    """One result file. `sha256` is of its content."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    schema_: Literal[2] = Field(alias="schema")
    key: str
    run: Labelled
    sha256: str = ""

    @model_validator(mode="after")
    def _scored_as_what_it_is(self) -> Result:
        if any(isinstance(each, BoxMetrics) != (self.run.detector is not None) for each in (self.metrics, self.val)):
            raise ValueError("metrics and val are average precisions of a detector, and of nothing else")
        return self

    def is_of(self, run: Run) -> bool:
        """Whether it is of this run, validated on the set that the run names."""
        return self.key == run.key and self.val.on == measured_on(run, "val")

    def has(self, evaluation: Evaluation) -> bool:
        """Whether it has the scores of this evaluation of its run."""
        if self.key != evaluation.run.key:
            return False
        if evaluation.name == "test":
            return self.metrics.on == evaluation.on
        return all(answers(self.evaluations.get(name), evaluation) for name in evaluation.scores)

    @property
    def shifted(self) -> Mapping[str, Score | BoxScore]:
        """Scores on sets other than val and test, by name."""
        if isinstance(self.metrics, EvaluationRecord):
            return self.metrics.shift
        others = {*FEATURE_SCORES, *TEACHER_SCORES}
        return {name: each for name, each in self.evaluations.items() if name not in others and "=" not in name}

    @property
    def val_value(self) -> float | None:
        """Top-1, or a detector's box AP, on val in percent; None of an arm that names an evaluation,
        which is measured on test."""
        return None if isinstance(self.metrics, EvaluationRecord) else self.val.value

    def of_arm(self, arm: str, evaluation: Evaluation) -> Result:
        """The result of an arm that names an evaluation of this one: its scores are the metrics.
        Nothing was trained for it."""
        run = self.run.model_copy(update={"arm": arm, "transfer": evaluation.transfer or self.run.transfer})
        free = {"seconds": 0.0, "images_per_second": 0.0, "kwh": None}
        update = {"key": evaluation.key, "run": run, "metrics": self.evaluations[evaluation.name], "evaluations": {}}
        return self.model_copy(update=update | {"cost": self.cost.model_copy(update=free)})

    @functools.cached_property
    def cell(self) -> Cell:
        """The cell that the labels name."""
        run = self.run
        return Cell(run.protocol.name, run.family, run.size, run.arm, run.seed)


def answers(record: EvaluationRecord | BoxEvaluationRecord | None, evaluation: Evaluation) -> bool:
    """Whether a record is of this evaluation: on the same sets, and beside the same model."""
    if record is None or (record.on, record.beside, record.transfer) != (evaluation.on, evaluation.beside, evaluation.transfer):
        return False
    known = evaluation.run.settings.data.shifted_sets
    return all(score.on == measured_on(evaluation.run, name) for name, score in record.shift.items() if name in known)


@dataclass(frozen=True)
class Rejected:
    """A file that is no valid result, and why, on one line."""

    path: Path
    reason: str


def read_result(path: Path) -> Result | Rejected:
    """A result file, or why it is invalid: no regular file of at most 10 MB, not JSON, truncated,
    another schema, edited, or a key that is not its run's."""
    try:
        text = read_bytes(path)
        result = Result.model_validate_json(text, strict=True)
    except OSError as error:
        return Rejected(path, f"not readable: {error.strerror}")
    except ValidationError as error:
        return Rejected(path, _why_invalid(text, error))
    if not is_sealed(parsed(text)):
        return Rejected(path, "edited, or damaged: its content is not what its sha256 says")
    if result.run.run.key != result.key:
        return Rejected(path, f"its key {result.key} is not that of its run, {result.run.run.key}")
    if not path.as_posix().endswith(result.cell.path):
        return Rejected(path, f"its labels belong to {result.cell.path}")
    return result


def _why_invalid(text: bytes, error: ValidationError) -> str:
    try:
        content = parsed(text)
    except ValueError as wrong:
        return f"not JSON: {str(wrong)[:MOST_SHOWN]}"
    schema = content.get("schema", "none") if isinstance(content, dict) else "none"
    if schema == 1:
        return f"schema 1, not {SCHEMA}: {CONVERSION}"
    if schema != SCHEMA:
        return f"schema {schema if isinstance(schema, int) else quoted(schema)}, not {SCHEMA}"
    return first_error(error)


def first_error(error: ValidationError) -> str:
    """The first of a record's errors, with its place, on one line."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part not in TAGS)[:MOST_SHOWN]
    return f"{place}: {one_line(first['msg'])}" if place else one_line(first["msg"], MOST_SHOWN)


def labelled(cell: Cell, run: Run, payload: dict[str, Any]) -> dict[str, Any]:
    """The result file of a cell. Raises pydantic's ValidationError for a payload that is not valid."""
    fields = run.model_dump(mode="json")
    labels = {"family": cell.family, "size": cell.size, "arm": cell.arm, "seed": cell.seed}
    record = fields | labels | {"protocol": fields["protocol"] | {"name": cell.protocol}}
    return written(Result.model_validate({"schema": SCHEMA, "key": run.key, "run": record, **payload}))


def written(result: Result) -> dict[str, Any]:
    """The content of a result's file, sealed. What an evaluation does not have is left out."""
    content = result.model_dump(mode="json", by_alias=True, exclude={"sha256", "evaluations"})
    found = {name: each.model_dump(mode="json", exclude_defaults=True) for name, each in result.evaluations.items()}
    return sealed(content | {"evaluations": found})
