"""Table: provenance of the results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmark.reporting.table import Column, Table
from benchmark.storage.result_file import Result

if TYPE_CHECKING:
    from benchmark.reporting.gather import Report

PLACE = 160


def of_report(report: Report) -> Table:
    """The provenance of all current results."""
    return provenance_table(report.found.current)


def provenance_table(results: Sequence[Result]) -> Table:
    """Code, device, host, versions and dates of the results."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        made = result.provenance
        versions = ", ".join(f"{name} {version}" for name, version in sorted(made.versions.items()))
        commit = (made.commit or "no commit") + (" with changes" if made.dirty else "")
        groups.setdefault(
            (result.cell.protocol, commit, made.code[:12], result.cost.device, made.host, versions, made.by or ""), []
        ).append(result)
    columns = ("protocol", "commit", "code", "device", "host", "versions", "by")
    rows = [
        dict(zip(columns, key, strict=True))
        | {
            "results": len(own),
            "runs": len({result.key for result in own}),
            "first": min(result.provenance.started for result in own)[:10],
            "last": max(result.provenance.finished for result in own)[:10],
        }
        for key, own in groups.items()
    ]
    shown_columns = [Column("protocol", "protocol", left=True), Column("results", "results"), Column("runs", "runs")]
    shown_columns += [Column(key, key, left=True) for key in (*columns[1:-1], "first", "last")]
    shown_columns += [Column("by", "by", left=True)] if any(row["by"] for row in rows) else []
    return Table(
        "provenance", "Provenance of the results", tuple(shown_columns), tuple(rows),
        ("code: digest of the files of benchmark/ and families/. A run that several families share counts as a result of each.",),
    )  # fmt: skip
