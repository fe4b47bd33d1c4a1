"""Table: published figures beside measured ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.published import METRICS, PublishedFigures, measured_value, published_value
from benchmark.reporting.table import Column, Table

if TYPE_CHECKING:
    from benchmark.reporting.gather import Report

PLACE = 150


def of_report(report: Report) -> Table:
    """The published figures beside the measurements of the report."""
    return published_table(report.published, report.boards)


def published_table(published: PublishedFigures, boards: Sequence[Leaderboard]) -> Table:
    """Published figures with their source, beside measurements of the same thing."""
    rows = [
        {
            "source": published.sources[figure.source].cite,
            "what": figure.what,
            "value": published_value(figure),
            "metric": METRICS[figure.metric],
            "measured": next(filter(None, (measured_value(figure, board) for board in boards)), "not measured"),
        }
        for figure in published.figures
    ]
    columns = [Column(key, key, left=True) for key in ("source", "what", "metric")]
    columns += [Column("value", "published"), Column("measured", "measured here")]
    return Table("published", "Published figures beside measurements", tuple(columns), tuple(rows))
