"""One self-contained page for a browser: page.html with its styles, its scripts and the
leaderboards as JSON.

It loads nothing, and links to result files. Equal leaderboards give equal text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import families
from benchmark.analysis.claims import EXPECTED, SIGNS, Finding, Judged
from benchmark.analysis.leaderboard import MARKS, SAME, Entry, Leaderboard, Row
from benchmark.analysis.measures import Measure
from benchmark.analysis.notes import code_notes
from benchmark.analysis.statistics import Estimate
from benchmark.reporting.published import PublishedFigures, published_of
from benchmark.reporting.tables.claims import summary_of
from benchmark.reporting.tables.published import published_table
from benchmark.spec.arm import Arm
from benchmark.storage.result_file import Provenance, Result
from benchmark.storage.scores import WORDS, field_of
from families.spec import UserError

FOLDER = Path(__file__).parent
DECIMALS = 4
NATIVE = {"matched-none": "control", "matched-copy": "reversal_copy", "matched-distill": "reversal_distill"}
CELLS = (
    "family", "size", "arm", "steps", "n", "score", "top1", "sd", "min", "max", "val", "gap", "plain95_low", "plain95_high",
    "simultaneous95_low", "simultaneous95_high", "verdict",
)  # fmt: skip
GAPS = ("gap", "plain95_low", "plain95_high", "simultaneous95_low", "simultaneous95_high")
RUNS = (
    "protocol", "family", "size", "arm", "seed", "key", "score", "test", "val", "shift", "curve", "kl", "dropped", "teacher",
    "seconds", "device", "made", "finished",
)  # fmt: skip


def page(
    boards: Sequence[Leaderboard], findings: Sequence[Finding], left_out: Sequence[str], results: str,
    published: PublishedFigures | None = None,
) -> str:  # fmt: skip
    """The page's text.

    Args:
        boards: one for each study of a protocol, in the order of the page.
        findings: the judged claims of studies.
        left_out: lines on files that do not count.
        results: the POSIX path from the page to the results folder.
        published: the content of results/published.yaml, shown beside measurements and never
            instead of them.
    """
    content = {
        "boards": [_board(board) for board in boards],
        "findings": [finding_data(finding, published or PublishedFigures()) for finding in findings],
        "families": {name: _family(name) for name in sorted({f for board in boards for row in board.rows for f in row.families})},
        "leftOut": list(left_out),
        "marks": MARKS | SIGNS,
        "published": _published(published, boards),
        "results": results,
        **_runs(boards),
    }
    return _assembled(embedded(content))


def _assembled(data: str) -> str:
    """page.html with the data, the styles and the scripts in place of their names in braces."""

    def text_of(name: re.Match[str]) -> str:
        return data if name[1] == "data" else (FOLDER / name[1]).read_text(encoding="utf-8").rstrip()

    return re.sub(r"\{\{([a-z.]+)\}\}", text_of, (FOLDER / "page.html").read_text(encoding="utf-8"))


def embedded(content: Any) -> str:
    """JSON for a <script> element: no text in it can close the element or open a comment."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _board(board: Leaderboard) -> dict[str, Any]:
    names = dict.fromkeys([*board.arms, *(board.table["arm"].unique() if len(board.table) else ())])
    arms = {name: Arm.parse(name) for name in names}
    return {
        "protocol": board.protocol,
        "study": board.study,
        "title": board.title,
        "description": board.description,
        "arms": [_arm(name, arms[name], name in board.arms) for name in names],
        "families": [_verdicts(board, *each) for each in board.verdicts],
        "rows": [_row(board, row) for row in board.rows],
        "notes": list(board.notes),
        "measure": board.measure.word,
        "metric": _metric(board),
        "footnote": board.footnote,
        "comparisons": board.comparisons,
        "runs": board.runs,
        "seeds": board.seeds,
        "cells": _cells(board, arms),
    }


def _metric(board: Leaderboard) -> str:
    """What its runs are scored by on a set."""
    return next((WORDS[field_of(result.metrics.model_dump())] for result in board.results), board.measure.word)


def finding_data(finding: Finding, published: PublishedFigures) -> dict[str, Any]:
    """A study's claims with their measured and published figures, for the page and for programs."""
    return {
        "protocol": finding.protocol,
        "study": finding.study,
        "title": finding.title,
        "asks": finding.asks,
        "limits": finding.limits,
        "footnote": " ".join([finding.footnote, *(f"Also: {note}." for note in code_notes(finding.made))]),
        "comparisons": list(finding.comparisons),
        "runs": finding.runs,
        "commands": list(finding.commands),
        "imagenet": list(finding.on_imagenet),
        "claims": [_claim(judged, published) for judged in finding.judged],
    }


def _claim(judged: Judged, published: PublishedFigures) -> dict[str, Any]:
    """A claim; `outcome`: the first of its outcomes by weight, `word`: all outcomes with counts."""
    return {
        "description": judged.claim.description,
        "who": judged.who,
        "rows": list(judged.claim.rows),
        "word": judged.word,
        "outcome": judged.outcome,
        "summary": summary_of(judged),
        "published": published_of(published, judged.claim),
        "measured": [
            {
                "difference": one.difference,
                "arms": None if dict(one.arms) == one.terms else [arm for arm, _ in one.arms],
                "teacher": one.label,
                "on": one.on,
                "n": one.n,
                "m": one.comparisons,
                "expect": EXPECTED[one.expect] if one.expect else None,
                "outcome": one.outcome,
                "estimate": _estimate(one.estimate),
            }
            for one in judged.measured
        ],
    }


def _arm(name: str, arm: Arm, listed: bool) -> dict[str, Any]:
    """An arm; `line`: its name at any budget, one curve where a study varies the budget."""
    return {
        "name": name,
        "student": arm.student,
        "method": arm.method,
        "transfers": arm.transfers,
        "baseline": arm.baseline.name,
        "line": arm.model_copy(update={"budget": 1.0}).name,
        "listed": listed,
    }


def _verdicts(board: Leaderboard, family: str, teachers: int, verdicts: Mapping[str, str | None]) -> dict[str, Any]:
    own = [row for row in board.rows if family in row.families]
    arms = {}
    for arm, verdict in verdicts.items():
        gaps = [gap.value for row in own if (gap := row.entries[board.arms.index(arm)].gap) is not None]
        arms[arm] = [verdict, _number(min(gaps, default=None)), _number(max(gaps, default=None))]
    return {"family": family, "teachers": teachers, "arms": arms, "rows": [board.rows.index(row) for row in own]}


def _row(board: Leaderboard, row: Row) -> dict[str, Any]:
    entries = {entry.arm.name: entry for entry in row.entries}
    matched = [name for name in NATIVE if name in entries and not entries[name].note]
    shifted: dict[str, dict[str, Any]] = {}
    for (family, size, name, which), estimate in board.shifted.items():
        if (family, size) == (row.families[0], row.size):
            shifted.setdefault(name, {})[which] = _estimate(estimate)
    native = {name: _estimate(board.native(row).get(kind)) for name, kind in NATIVE.items()} if matched else {}
    return {
        "families": list(row.families),
        "size": row.size,
        "entries": {name: _entry(entry) | {"shifted": shifted.get(name, {})} for name, entry in entries.items()},
        "native": native if any(native.values()) else None,
        "inert": list(row.inert),
    }


def _entry(entry: Entry) -> dict[str, Any]:
    known = {"score": _number(entry.score), "n": entry.n, "gap": _estimate(entry.gap), "note": entry.note}
    return known | ({"reversal": _estimate(entry.reversal)} if entry.reversal else {})


def _estimate(estimate: Estimate | None) -> list[Any] | None:
    """Value, half-widths (plain, simultaneous) and verdict."""
    if estimate is None:
        return None
    return [_number(estimate.value), _number(estimate.plain), _number(estimate.simultaneous), estimate.verdict]


def _family(name: str) -> dict[str, Any]:
    try:
        spec = families.spec(name)
    except UserError:
        return {"title": name, "paper": "", "native": []}
    native = [[component.name, component.description] for component in spec.native]
    return {"title": spec.title, "paper": spec.paper, "native": native}


def _cells(board: Leaderboard, arms: Mapping[str, Arm]) -> dict[str, Any]:
    """The long table by rows; a matched student that is the standard one has no gap."""
    table = board.table
    columns = [*(name for name in CELLS if name in table), *sorted(name for name in table if name.startswith("shift:"))]
    if not len(table):
        return {"columns": list(CELLS), "rows": []}
    groups = {(family, size, arm): group for family, size, arm, group in _tuples(table, ("family", "size", "arm", "group"))}
    standard = {name: arm.standard.name for name, arm in arms.items() if arm.student == "matched"}
    rows = []
    for values in _tuples(table, columns):
        row = dict(zip(columns, values, strict=True))
        family, size, arm = row["family"], row["size"], row["arm"]
        if arm in standard and groups[family, size, arm] == groups.get((family, size, standard[arm])):
            row |= dict.fromkeys(name for name in GAPS if name in row) | {"verdict": SAME}
        rows.append([_number(value) if isinstance(value, float) else value for value in row.values()])
    return {"columns": columns, "rows": rows}


def _tuples(table: Any, columns: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    """Rows as Python's own numbers."""
    return zip(*(table[column].tolist() for column in columns), strict=True)


class _Distinct:
    """Values that many runs share, each stored once."""

    def __init__(self) -> None:
        self.places: dict[Hashable, int] = {}
        self.values: list[Any] = []

    def place(self, key: Hashable, value: Any) -> int:
        if key not in self.places:
            self.places[key] = len(self.values)
            self.values.append(value)
        return self.places[key]


def _runs(boards: Sequence[Leaderboard]) -> dict[str, Any]:
    """Every counted result once, by path; distinct provenance and teachers once."""
    distinct = {result.cell: (result, board.measure) for board in boards for result in board.results}
    made, teachers = _Distinct(), _Distinct()
    rows = [_run(*distinct[cell], made, teachers) for cell in sorted(distinct)]
    return {"runs": {"columns": list(RUNS), "rows": rows}, "made": made.values, "teachers": teachers.values}


def _run(result: Result, measure: Measure, made: _Distinct, teachers: _Distinct) -> list[Any]:
    cell, metrics, teacher = result.cell, result.metrics, result.teacher
    learnt = None
    if teacher is not None:
        told = [teacher.source, teacher.revision or teacher.sha256, _number(teacher.top1), teacher.how]
        learnt = teachers.place(tuple(told), told)
    return [
        cell.protocol, cell.family, cell.size, cell.arm, cell.seed, result.key, _number(measure.of(result)),
        _number(metrics.value), _number(result.val_value),
        {name: _number(score.value) for name, score in result.shifted.items()},
        [[point.step, _number(point.value)] for point in result.curve],
        _numbers(metrics.attention_kl), _numbers(metrics.dropped_mass), learnt,
        _number(result.cost.seconds), result.cost.device, _made(result.provenance, made), result.provenance.finished,
    ]  # fmt: skip


def _made(provenance: Provenance, made: _Distinct) -> int:
    versions = " · ".join(f"{name} {number}" for name, number in sorted(provenance.versions.items()))
    told = [provenance.commit, provenance.dirty, provenance.code, provenance.host, versions]
    return made.place(tuple(told), told)


def _number(value: float | None) -> float | None:
    """To four decimals, a whole number as an integer; None for a missing one."""
    if value is None or math.isnan(value):
        return None
    short = round(value, DECIMALS)
    return int(short) if short == int(short) else short


def _published(published: PublishedFigures | None, boards: Sequence[Leaderboard]) -> dict[str, Any]:
    if published is None or not published.figures:
        return {"head": [], "rows": []}
    table = published_table(published, boards)
    rows = [[str(row[column.key]) for column in table.columns] for row in table.rows]
    return {"head": [column.title for column in table.columns], "rows": rows}


def _numbers(values: Sequence[float] | None) -> list[float | None] | None:
    return None if values is None else [_number(value) for value in values]
