"""Rewrite result files of schema 1, in which evaluation sets were part of a run, as schema 2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from benchmark.spec.arm import Arm, trained_arm
from benchmark.spec.data_sets import CuedDigitsTraining, DataSettings, Described
from benchmark.spec.definitions import is_teacher
from benchmark.spec.evaluations import beside_of
from benchmark.spec.run import Transfer
from benchmark.spec.teacher_source import TeacherSource
from benchmark.storage.files import read_json, write_json
from benchmark.storage.result_file import Labelled, Rejected, Result, first_error, read_result, written
from benchmark.storage.scores import EvaluationRecord
from families.spec import UserError


@dataclass
class Conversion:
    """Files that were rewritten or merged into others, and why each other one was left as it is."""

    rewritten: list[Path]
    merged: list[Path]
    left: dict[Path, str]


def convert(folder: Path) -> Conversion:
    """Rewrite the result files of schema 1 below a results folder.

    Ensembles and comparisons of maps become evaluations in their student's file. A file stays as it
    is where it is damaged, or where the result of a run that it names is not there. A conversion
    that was interrupted goes on: what others need is written last.
    """
    found = {path: content for path in sorted(folder.glob("*/*/*/*.json")) if (content := _schema_1(path)) is not None}
    converter = _Converter({str(content.get("key")): content for content in found.values()})
    done, results, evaluations = Conversion([], [], {}), dict[Path, Result](), dict[Path, Path]()
    for path, content in found.items():
        with _Told(done, path):
            arm = content["run"]["arm"]
            if is_teacher(arm) or not Arm.parse(arm).evaluation:
                results[path] = converter.result(content)
            else:
                evaluations[path] = path.with_name(path.name.replace(arm, trained_arm(arm)))
    for path, beside in evaluations.items():
        with _Told(done, path):
            student = results.get(beside) or _converted(beside)
            name, record = converter.evaluation(found[path], student)
            results[beside] = student.model_copy(update={"evaluations": student.evaluations | {name: record}})
            done.merged.append(path)
    for path in sorted(results, key=lambda path: _needed_by_others(results[path])):
        write_json(path, written(results[path]), durable=True)
        done.rewritten.append(path)
        for merged in [each for each in done.merged if evaluations[each] == path]:
            merged.unlink()
    return done


def _needed_by_others(result: Result) -> int:
    return 2 if is_teacher(result.run.arm) else int(Arm.parse(result.run.arm).is_finetuned)


def _converted(path: Path) -> Result:
    """A student's result that an earlier conversion has written. Raises UserError."""
    found = read_result(path)
    if isinstance(found, Rejected):
        raise UserError(f"its student's result, {path.name}: {found.reason}")
    return found


class _Told:
    """Within: a file that cannot be converted is left as it is, with the reason."""

    def __init__(self, done: Conversion, path: Path) -> None:
        self.done, self.path = done, path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, ValidationError):
            self.done.left[self.path] = first_error(error)
        elif isinstance(error, UserError | KeyError | TypeError | AttributeError):
            self.done.left[self.path] = str(error) if isinstance(error, UserError) else f"not a result of schema 1 ({error!r})"
        return self.path in self.done.left


def _schema_1(path: Path) -> dict[str, Any] | None:
    content = read_json(path)
    return content if content is not None and content.get("schema") == 1 and isinstance(content.get("run"), dict) else None


class _Converter:
    """New results of old contents, by their old keys."""

    def __init__(self, contents: dict[str, dict[str, Any]]) -> None:
        self.contents, self.keys = contents, dict[str, str]()

    def result(self, content: dict[str, Any]) -> Result:
        """A result of schema 2. Raises UserError where a run that it names is not known, and
        pydantic's ValidationError, KeyError or TypeError for a damaged one."""
        run = self._labelled(content["run"])
        metrics, made = dict(content["metrics"]), content["provenance"]
        stamp = {"date": made["finished"], "code": made["code"]}
        shift = {name: {**score, "on": self._on(content, name), **stamp} for name, score in metrics.pop("shift", {}).items()}
        if shift and made.get("data") is not None:  # a digest that was of the shifted sets too
            made = made | {"data": None}
        return Result.model_validate({
            **content, "schema": 2, "key": run.run.key, "run": run.model_dump(mode="json"), "evaluations": shift,
            "provenance": made, "teacher": None if run.teacher is None else self._taught(content["teacher"]),
            "metrics": {**metrics, "on": self._on(content, "test")}, "val": {**content["val"], "on": self._on(content, "val")},
        })  # fmt: skip

    def evaluation(self, content: dict[str, Any], student: Result) -> tuple[str, EvaluationRecord]:
        """The name and record of an old ensemble's or comparison's result, whose student has the
        result `student`. Raises as `result`, and UserError where that is of another run."""
        teacher, metrics, made = dict(content["run"]["teacher"] or {}), content["metrics"], content["provenance"]
        name, finished = Arm.parse(content["run"]["arm"]).evaluation, teacher.pop("student", None)
        if finished in self.contents and self._new_key(finished) != student.key:
            raise UserError(f"it evaluates run {finished}, which is not the one in its student's result")
        beside = self._new_key(teacher["ensemble"]) if "ensemble" in teacher else beside_of(self._teacher(teacher))
        told: dict[str, Any] = {"on": self._on(content, "test"), "beside": beside, "date": made["finished"], "code": made["code"]}
        if "ensemble" in teacher:
            told["shift"] = {name: {**score, "on": self._on(content, name)} for name, score in metrics["shift"].items()}
        else:
            told["transfer"] = Transfer.model_validate(content["run"]["transfer"] | {"method": "none"})
        return name, EvaluationRecord.model_validate({key: value for key, value in metrics.items() if key != "shift"} | told)

    def _taught(self, record: dict[str, Any] | None) -> dict[str, Any] | None:
        """A teacher's record, whose source is named by its new key."""
        word, _, key = str((record or {}).get("source")).partition(" ")
        return {**record, "source": f"run {self._new_key(key)}"} if record and word == "run" else record

    def _labelled(self, old: dict[str, Any]) -> Labelled:
        protocol, source = dict(old["protocol"]), old.get("transfer", {}).get("source", "teacher")
        protocol.pop("evaluation_batch", None)
        augmented = protocol["recipe"].get("augment") is not None
        training = _settings(old).training(augmented=augmented, uses_val=source == "average")
        if isinstance(training, CuedDigitsTraining):
            training = training.model_copy(update={"edition": 1})  # schema 1 knew no other
        teacher = None if source == "uniform" or not old.get("teacher") else self._teacher(old["teacher"])
        return Labelled.model_validate(
            old | {"protocol": protocol | {"data": training}, "teacher": None if teacher is None else teacher.model_dump()}
        )

    def _teacher(self, old: dict[str, Any]) -> TeacherSource:
        kept = {name: value for name, value in old.items() if name not in ("student", "ensemble")}
        if "run" in kept:
            kept["run"] = self._new_key(kept["run"])
        return TypeAdapter[TeacherSource](TeacherSource).validate_python(kept)

    def _new_key(self, key: str) -> str:
        if key not in self.keys:
            if key not in self.contents:
                raise UserError(f"the result of run {key}, which it names, is not there")
            self.keys[key] = self._labelled(self.contents[key]["run"]).run.key
        return self.keys[key]

    @staticmethod
    def _on(content: dict[str, Any], name: str) -> Described:
        run = content["run"]
        batch = {"batch": run["protocol"].get("evaluation_batch", 500)}
        other = run.get("transfer", {}).get("source") == "other-image"
        return _settings(run).described(name) | (batch if other else {})


def _settings(run: dict[str, Any]) -> DataSettings:
    return TypeAdapter[DataSettings](DataSettings).validate_python(run["protocol"]["data"])


def told(done: Conversion) -> Iterator[str]:
    """What a conversion did, line by line."""
    yield f"{len(done.rewritten)} result files rewritten, {len(done.merged)} merged into those of their students"
    yield from (f"{path}: left as it is: {reason}" for path, reason in done.left.items())
