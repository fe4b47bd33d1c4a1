"""Print leaderboards, tables and claims."""

from __future__ import annotations

from collections.abc import Collection

from rich.console import Console

from benchmark.analysis.claims import Finding
from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.table import Table, printed
from benchmark.reporting.tables import finding_tables, tables
from benchmark.reporting.tables.claims import claimed_line
from benchmark.reporting.text import printable
from benchmark.reporting.text_files import BOOK


def show(board: Leaderboard, console: Console, most: int | None = None, names: Collection[str] | None = None) -> None:
    """Print the tables of these names and their notes; for a table of more than `most` rows
    print where it is written.

    `names` None: the tables that are printed unasked and those that the study names.
    """
    _say(console, f"{printable(board.title)}\nprotocol {printable(board.protocol)}, {board.runs} runs", "bold")
    for table in tables(board):
        if not (table.printed or table.name in board.printed if names is None else table.name in names):
            continue
        if most is not None and len(table.rows) > most:
            _say(console, f"{printable(table.title)}: {len(table.rows)} rows, in {BOOK}")
        else:
            show_table(table, console)
    for note in board.notes:
        _say(console, printable(note))


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, markup=False, highlight=False)


def show_table(table: Table, console: Console) -> None:
    """Print a table and its notes."""
    console.print(printed(table))
    for note in table.notes:
        _say(console, printable(note), "dim")


def show_claims(finding: Finding, console: Console, names: Collection[str] | None = None) -> None:
    """Print a study's claims and its tables of these names (None: all)."""
    place = printable(f"protocol {finding.protocol}, study {finding.study}")
    _say(console, f"{printable(finding.title)}\n{place}, {finding.runs} runs", "bold")
    for number, judged in enumerate(finding.judged, 1):
        _say(console, printable(f"{number}. {claimed_line(judged)}: {judged.word}"))
    for table in finding_tables(finding):
        if names is None or table.name in names:
            show_table(table, console)
