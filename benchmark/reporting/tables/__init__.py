"""The tables of a board."""

from __future__ import annotations

import functools

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.tables.arms import arms_table
from benchmark.reporting.tables.chosen import chosen_table
from benchmark.reporting.tables.closed import closed_table
from benchmark.reporting.tables.components import components_table
from benchmark.reporting.tables.cost import cost_table
from benchmark.reporting.tables.families import families_table
from benchmark.reporting.tables.match import match_table
from benchmark.reporting.tables.native import native_table
from benchmark.reporting.tables.reinit import reinit_table
from benchmark.reporting.tables.seeds import seeds_table
from benchmark.reporting.tables.shifted import shifted_table
from benchmark.reporting.tables.sizes import sizes_table
from benchmark.reporting.tables.table import Table
from benchmark.reporting.tables.teachers import teachers_table


@functools.lru_cache(maxsize=64)
def tables(board: Leaderboard) -> tuple[Table, ...]:
    """Those that a board has something for, the leaderboard first; made once for the terminal, the files and the README."""
    made = (
        families_table, arms_table, teachers_table, chosen_table, match_table, native_table, components_table, sizes_table,
        closed_table, reinit_table, seeds_table, shifted_table, cost_table,
    )  # fmt: skip
    return tuple(table for make in made for table in [make(board)] if table.rows)
