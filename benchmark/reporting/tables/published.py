"""Table: published figures beside measured ones."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.published import METRICS, PublishedFigures, measured_value, published_value
from benchmark.reporting.tables.table import Column, Table


def published_table(published: PublishedFigures, boards: Sequence[Leaderboard]) -> Table:
    """The papers' figures with their source, and beside each what was measured here of the same thing."""
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
    return Table("published", "Published figures, beside what was measured here", tuple(columns), tuple(rows))
