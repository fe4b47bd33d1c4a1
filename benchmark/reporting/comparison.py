"""Compare two results folders: the same runs, and what the leaderboards say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmark.reporting.gather import Report
from benchmark.reporting.table import Column, Table
from benchmark.storage.merging import differing_parts
from benchmark.storage.result_file import Result


@dataclass(frozen=True)
class Comparison:
    """What differs between the current results of two folders, A and B.

    Attributes:
        equal, differing: cells of one run, with equal and with other numbers.
        only_a, only_b: cells of one folder alone.
        verdicts: rows of leaderboards of both folders whose verdicts differ.
    """

    equal: tuple[tuple[Result, Result], ...]
    differing: tuple[tuple[Result, Result], ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    verdicts: tuple[dict[str, Any], ...]


def compare(a: Report, b: Report) -> Comparison:
    """Compare two reports' current results cell by cell, and their leaderboards' verdicts."""
    own, other = ({result.cell.name: result for result in report.found.current} for report in (a, b))
    both = [(own[name], other[name]) for name in own if name in other]  # current ones of one protocol: one run
    return Comparison(
        equal=tuple(pair for pair in both if not differing_parts(*pair)),
        differing=tuple(pair for pair in both if differing_parts(*pair)),
        only_a=tuple(name for name in own if name not in other),
        only_b=tuple(name for name in other if name not in own),
        verdicts=tuple(_verdicts(a, b)),
    )


def _verdicts(a: Report, b: Report) -> Iterator[dict[str, Any]]:
    tables = [{(board.protocol, board.study): board.table for board in report.boards} for report in (a, b)]
    for place in (place for place in tables[0] if place in tables[1]):
        rows = [{(r["family"], r["size"], r["arm"]): r for r in table[place].to_dict("records")} for table in tables]
        for key in (key for key in rows[0] if key in rows[1]):
            one, two = rows[0][key], rows[1][key]
            if isinstance(one["verdict"], str) and isinstance(two["verdict"], str) and one["verdict"] != two["verdict"]:
                labels = dict(zip(("protocol", "study", "family", "size", "arm"), (*place, *key), strict=True))
                yield labels | {name: (one[name], two[name]) for name in ("verdict", "gap", "n")}


def tables(found: Comparison) -> list[Table]:
    """The comparison as tables: runs by protocol and arm, runs with other numbers, verdicts."""
    return [table for table in (_by_arm(found), _differing(found), _verdicts_table(found)) if table.rows]


def _by_arm(found: Comparison) -> Table:
    groups = dict[tuple[str, str], list[float]]()
    for one, two in (*found.equal, *found.differing):
        groups.setdefault((one.cell.protocol, one.cell.arm), []).append(two.metrics.value - one.metrics.value)
    rows = [
        {
            "protocol": protocol,
            "arm": arm,
            "runs": len(values),
            "equal": sum(value == 0 for value in values),
            "mean": sum(values) / len(values),
            "largest": max(values, key=abs),
        }
        for (protocol, arm), values in sorted(groups.items())
    ]
    columns = [Column("protocol", "protocol", left=True), Column("arm", "arm", left=True), Column("runs", "in both")]
    columns += [Column("equal", "equal"), Column("mean", "mean B - A", 3), Column("largest", "largest", 3)]
    note = "In points of the number on test. equal: cells with the same number; largest: the difference of the largest size."
    return Table("by-arm", "Cells of one run in both folders", tuple(columns), tuple(rows), (note,))


def _differing(found: Comparison) -> Table:
    rows = [
        {
            "cell": one.cell.name,
            "a": one.metrics.value,
            "b": two.metrics.value,
            "difference": two.metrics.value - one.metrics.value,
            "parts": ", ".join(differing_parts(one, two)),
            "code": "same" if one.provenance.code == two.provenance.code else "other",
            "device": one.cost.device if one.cost.device == two.cost.device else f"{one.cost.device}, {two.cost.device}",
        }
        for one, two in sorted(found.differing, key=lambda pair: -abs(pair[1].metrics.value - pair[0].metrics.value))
    ]
    columns = [Column("cell", "cell", left=True), Column("a", "A", 2), Column("b", "B", 2), Column("difference", "B - A", 2)]
    columns += [Column(key, title, left=True) for key, title in (("parts", "of"), ("code", "code"), ("device", "device"))]
    return Table("differing", "Runs with other numbers", tuple(columns), tuple(rows))


def _verdicts_table(found: Comparison) -> Table:
    rows = [
        {name: row[name] for name in ("protocol", "study", "arm")}
        | {"teacher": f"{row['family']} {row['size']}", "n": "{}, {}".format(*row["n"])}
        | {"a": f"{row['verdict'][0]} ({row['gap'][0]:+.1f})", "b": f"{row['verdict'][1]} ({row['gap'][1]:+.1f})"}
        for row in found.verdicts
    ]
    names = {"protocol": "protocol", "study": "study", "teacher": "teacher", "arm": "arm", "n": "n", "a": "A", "b": "B"}
    return Table(
        "verdicts", "Verdicts that differ", tuple(Column(key, title, left=True) for key, title in names.items()), tuple(rows)
    )


def as_json(found: Comparison) -> dict[str, Any]:
    """The comparison for programs."""

    def numbers(result: Result) -> dict[str, Any]:
        return {
            "value": result.metrics.value,
            "key": result.key,
            "code": result.provenance.code,
            "commit": result.provenance.commit,
        }

    return {
        "equal": len(found.equal),
        "differing": [
            {"cell": one.cell.name, "parts": differing_parts(one, two), "a": numbers(one), "b": numbers(two)}
            for one, two in found.differing
        ],
        "only_a": list(found.only_a),
        "only_b": list(found.only_b),
        "verdicts": list(found.verdicts),
    }
