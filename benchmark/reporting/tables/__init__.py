"""The tables: one module each.

A module states its PLACE among the tables and has one of three functions: `of_board(board)`,
`of_finding(finding)` for the claims of a study, `of_report(report)` for a table that all boards
share. It returns a Table; one without rows is left out.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from benchmark.analysis.claims import Finding
from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.registry import modules
from benchmark.reporting.table import Table

if TYPE_CHECKING:
    from benchmark.reporting.gather import Report


@functools.lru_cache(maxsize=64)
def tables(board: Leaderboard) -> tuple[Table, ...]:
    """The tables of a board, made once for the terminal, the files and the README."""
    return _with_rows(module.of_board(board) for module in modules(__name__) if hasattr(module, "of_board"))


def finding_tables(finding: Finding) -> tuple[Table, ...]:
    """The tables of a study's claims."""
    return _with_rows(module.of_finding(finding) for module in modules(__name__) if hasattr(module, "of_finding"))


def report_tables(report: Report) -> tuple[Table, ...]:
    """The tables that all boards share."""
    return _with_rows(module.of_report(report) for module in modules(__name__) if hasattr(module, "of_report"))


def _with_rows(made: Iterable[Table]) -> tuple[Table, ...]:
    return tuple(table for table in made if table.rows)
