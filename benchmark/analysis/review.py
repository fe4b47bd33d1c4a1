"""Review results that somebody hands in: what a maintainer would check before they are merged."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmark.analysis.sorting import read_sorted
from benchmark.spec.protocol import Protocol
from benchmark.spec.teacher_source import Trained
from benchmark.storage.merging import differing_parts, outcome
from benchmark.storage.provenance import code_digest, code_digest_of, code_version
from benchmark.storage.result_file import Result
from benchmark.storage.scores import EvaluationRecord, Score

MOST_SHIFT = 10.0  # points by which top-1 on val and test may differ beyond sampling; ImageNet's differ by some
SIGMAS = 6.0
RATE = 0.02  # share by which images a second may miss steps x batch / seconds, which are rounded


@dataclass(frozen=True)
class Review:
    """What was found.

    Attributes:
        results: how many results count.
        objections: a line for each reason not to merge, with the file.
        notes: lines that a maintainer should know.
    """

    results: int
    objections: tuple[str, ...]
    notes: tuple[str, ...]


def review(folder: Path, against: Path | None = None, protocol: tuple[str, Protocol] | None = None) -> Review:
    """Review a results folder: every file valid, sealed and current; from a known, unchanged
    version of the code; numbers that agree with one another; no run twice with other numbers.

    Args:
        folder: the results.
        against: results that they would be merged into; those of equal cells are compared, and
            students may have their teachers there.
        protocol: a protocol of the submitter's, beside the shipped ones.
    """
    definitions, found = read_sorted(folder, protocol)
    others = read_sorted(against, protocol)[1].current if against is not None else []
    lines = [f"{_below(folder, each.path)}: {each.reason}" for each in found.rejected]
    lines += [f"{each.cell.path}: stale: its protocol or family is another one in this version" for each in found.stale]
    lines += [f"{count} results of protocol {name}, which is not known: give its file" for name, count in found.unknown.items()]
    lines += [f"{one}: another outcome than that of {other}, which is the same run" for one, other in found.differing]
    made = [each for each in found.current if not isinstance(each.metrics, EvaluationRecord)]  # which their run's file holds
    for result in made:
        lines += [f"{result.cell.path}: {reason}" for reason in (*_of_code(result), *_of_numbers(result))]
    lines += _copied(made) + _of_data(made, others) + _beside(made, others)
    lines += _of_teachers(made, others, {name for name, each in definitions.items() if each.protocol.teacher is not None})
    return Review(len(found.current), tuple(lines), tuple(_notes(made)))


def _below(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _notes(results: Sequence[Result]) -> Iterator[str]:
    unsigned = sum(result.provenance.by is None for result in results)
    if unsigned:
        yield f"{unsigned} results do not tell who ran them (bench run --by NAME)"
    for name in sorted({result.provenance.by for result in results if result.provenance.by}):
        yield f"by {name}: {sum(result.provenance.by == name for result in results)} results"


@functools.cache
def _digest_of(commit: str) -> str | None:
    return code_digest_of(commit)


@functools.cache
def _own_digest() -> str:
    from benchmark.storage.provenance import ROOT

    return code_digest(ROOT)


def _of_code(result: Result) -> Iterator[str]:
    """Objections to the code that made a result."""
    made = result.provenance
    if made.dirty:
        yield "made by code with uncommitted changes"
    elif made.code == _own_digest():
        return
    elif made.commit is None:
        yield f"made by an installed package whose code ({made.code[:8]}) is not that of this version"
    elif code_version()["commit"] is None:
        yield f"made by commit {made.commit[:8]}, which can be checked in a git checkout alone"
    elif _digest_of(made.commit) != made.code:
        known = "whose code is another one" if _digest_of(made.commit) else "which this checkout does not have"
        yield f"made by commit {made.commit[:8]}, {known}"


def _of_numbers(result: Result) -> Iterator[str]:
    """Objections to numbers that do not agree with one another."""
    steps, cost = result.run.protocol.recipe.steps, result.cost
    points = [point.step for point in result.curve]
    if points != sorted({*points}) or (points and not 0 < points[-1] <= steps):
        yield f"the steps of its curve do not rise to at most {steps}"
    elif points and points[-1] == steps and result.curve[-1].value != result.val.value:
        yield f"its curve ends at {result.curve[-1].value:g} on val, but val is {result.val.value:g}"
    scores = {"test": result.metrics, "val": result.val} | dict(result.evaluations)
    for name, score in scores.items():
        yield from (f"{name}: {reason}" for reason in _of_score(score))
    test, val = result.metrics, result.val
    if isinstance(test, Score) and isinstance(val, Score):
        counts = [on.get("images") for on in (getattr(each, "on", {}) for each in (test, val))]
        if all(isinstance(count, int) and count > 0 for count in counts):
            p = (test.value + val.value) / 200
            sampling = 100 * math.sqrt(max(p * (1 - p), 1 / 1000) * sum(1 / int(count) for count in counts if count))
            if abs(test.value - val.value) > MOST_SHIFT + SIGMAS * sampling:
                yield f"top-1 is {test.value:g} on test, but {val.value:g} on val"
    seconds, rate = steps * result.run.protocol.recipe.batch_size, cost.images_per_second
    if result.run.role != "detector" and cost.ranks is None and abs(cost.seconds * rate / seconds - 1) > RATE:
        yield f"{rate:g} images/s are not its steps and batch in {cost.seconds:g} s"
    started, finished, latest = result.provenance.started, result.provenance.finished, datetime.now(UTC) + timedelta(days=1)
    if not started <= finished or not _is_before(finished, latest):
        yield f"finished at {finished}, before it started or in the future"
    for name, each in result.evaluations.items():
        if not _is_before(each.date, latest):
            yield f"{name}: made at {each.date}, no date of the past"


def _is_before(date: str, latest: datetime) -> bool:
    try:
        return datetime.fromisoformat(date).replace(tzinfo=UTC) <= latest
    except ValueError:
        return False


def _of_score(score: object) -> Iterator[str]:
    if not isinstance(score, Score):
        return
    if score.top5 < score.top1:
        yield f"top-5 {score.top5:g} is below top-1 {score.top1:g}"
    images = getattr(score, "on", {}).get("images")
    if isinstance(images, int) and images > 0:
        for name in ("top1", "top5"):
            right = getattr(score, name) * images / 100
            if abs(right - round(right)) > 1e-4 * max(1.0, images / 1e4):
                yield f"{name} {getattr(score, name):g} is no whole number of {images} images"


def _copied(results: Sequence[Result]) -> list[str]:
    """Runs of different seeds with one curve, which no two trainings give."""
    first, lines = dict[tuple[object, ...], Result](), []
    for result in results:
        losses = tuple(point.loss for point in result.curve)
        other = first.setdefault(losses, result)
        if losses and other.run.seed != result.run.seed and other.key != result.key:
            lines.append(f"{result.cell.path}: its curve is that of {other.cell.path}, a run of another seed")
    return lines


def _of_data(results: Sequence[Result], others: Sequence[Result]) -> list[str]:
    """Results of one data set by other images."""

    def place(result: Result) -> str:
        return result.run.protocol.data.model_dump_json()

    known = dict[str, tuple[str | None, str]]()
    for result in others:
        known.setdefault(place(result), (result.provenance.data, "the results it would be merged into"))
    lines = []
    for result in results:
        data, where = known.setdefault(place(result), (result.provenance.data, result.cell.path))
        if result.provenance.data != data:
            lines.append(f"{result.cell.path}: from other images ({result.provenance.data}) than {where} ({data})")
    return lines


def _beside(results: Sequence[Result], others: Sequence[Result]) -> list[str]:
    """Cells and runs that are there already with other numbers."""
    by_cell, by_key = {each.cell.path: each for each in others}, {each.key: each for each in others}
    lines = []
    for result in results:
        other = by_cell.get(result.cell.path) or by_key.get(result.key)
        if other is not None and other.key == result.key:
            parts = differing_parts(other, result)
            if parts:
                told = f"that run is there already, with {outcome(other)}, not {outcome(result)}"
                lines.append(f"{result.cell.path}: {told} (other {', '.join(parts)})")
    return lines


def _of_teachers(results: Sequence[Result], others: Sequence[Result], training: set[str]) -> list[str]:
    """Students whose trained teacher has no result, or another score than they say."""
    known: Mapping[str, Result] = {each.key: each for each in (*others, *results)}
    lines = []
    for result in results:
        teacher = result.run.teacher
        if result.cell.protocol not in training or not isinstance(teacher, Trained):
            continue
        own = known.get(teacher.run)
        if own is None:
            lines.append(f"{result.cell.path}: its teacher, run {teacher.run}, has no result")
        elif result.teacher is not None and result.teacher.top1 is not None and result.teacher.top1 != own.metrics.value:
            lines.append(
                f"{result.cell.path}: says that its teacher has {result.teacher.top1:g}, but {own.cell.path} has {outcome(own)}"
            )
    return lines
