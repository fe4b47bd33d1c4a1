"""The reports as text files: leaderboard.md, the page, and each table as CSV and LaTeX."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from benchmark.analysis.claims import Finding
from benchmark.analysis.leaderboard import Leaderboard
from benchmark.analysis.sorting import SortedResults
from benchmark.reporting.csv import frame, to_csv
from benchmark.reporting.figure import Figure
from benchmark.reporting.gather import Report
from benchmark.reporting.latex import latex
from benchmark.reporting.markdown import markdown
from benchmark.reporting.page import page
from benchmark.reporting.table import Table
from benchmark.reporting.tables import finding_tables, report_tables, tables
from benchmark.reporting.tables.claims import claimed_line
from benchmark.reporting.text import as_line, as_text, printable

PAGE, BOOK = "index.html", "leaderboard.md"


def texts(report: Report, folder: Path) -> dict[str, str]:
    """The text files of a report in `folder`, by name."""
    files: dict[str, str] = {}
    made = [(board, tables(board), drawn) for board, drawn in report.figures]
    shared = report_tables(report)
    for board, own, _ in made:
        files[f"{board.stem}.csv"] = to_csv(board.table)
        files[f"{board.stem}.tex"] = "\n".join(latex(table, f"{board.stem}-{table.name}") for table in own)
        files |= {f"{board.stem}-{table.name}.csv": to_csv(frame(table)) for table in own}
    claimed = {place: (finding, finding_tables(finding), drawn) for place, (finding, drawn) in report.measured.items()}
    for finding, own, _ in claimed.values():
        files |= {f"{finding.stem}-{table.name}.csv": to_csv(frame(table)) for table in own}
        files |= {f"{finding.stem}-{table.name}.tex": latex(table, f"{finding.stem}-{table.name}") for table in own}
    files |= {f"{table.name}.csv": to_csv(frame(table)) for table in shared}
    files |= {f"{table.name}.tex": latex(table, table.name) for table in shared}
    boards = {(board.protocol, board.study): (board, own, drawn) for board, own, drawn in made}
    alone = [place for place in claimed if place not in boards]
    sections = []
    for place, (board, own, drawn) in boards.items():
        about = _claims_section(*claimed[place]) if place in claimed else ""
        sections += [f"## {as_text(board.title)}\n", about, _section(board, own, drawn)]
    for place in alone:
        sections += [f"## {as_text(claimed[place][0].title)}\n", _claims_section(*claimed[place])]
    sections += [f"## {table.title}\n\n{markdown(table)}\n{_numbers(table.name)}\n" for table in shared]
    sections += [left_out(report.found, report.folder)]
    files[BOOK] = "\n".join([HEAD, *(section for section in sections if section)])
    files[PAGE] = page(
        report.boards,
        report.findings,
        left_out_lines(report.found, report.folder),
        _href(report.folder, folder),
        report.published,
    )
    return files


HEAD = (
    "# Leaderboard\n\nRendered by `bench report` from result files; not edited by hand. With filters and every seed:"
    " [index.html](index.html).\n"
)


def linked(path: str) -> str:
    """A Markdown link to a file by its own path."""
    return f"[{as_text(path)}]({quote(path)})"


def _numbers(name: str) -> str:
    return f"Numbers: {linked(f'{name}.csv')}; in LaTeX: {linked(f'{name}.tex')}"


def _drawn(stem: str, figure: Figure) -> list[str]:
    name = f"{stem}-{figure.name}"
    return [f"![{as_text(figure.title)}]({quote(name)}.svg)", "", f"Drawn from {linked(f'{name}-drawn.csv')}"]


def _href(results: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(results.absolute(), folder.absolute())).as_posix())


def _section(board: Leaderboard, own: Sequence[Table], drawn: Sequence[Figure]) -> str:
    """A leaderboard in Markdown."""
    lines = [as_text(f"Protocol {board.protocol}, study {board.study}, {board.runs} runs. {board.description}".strip()), ""]
    for table in own:
        lines += [f"### {table.title}", "", markdown(table)]
        lines += [f"Numbers: {linked(f'{board.stem}-{table.name}.csv')}", ""]
    lines += listed(board.notes)
    for figure in drawn:
        lines += [*_drawn(board.stem, figure), ""]
    lines += [f"Every cell: {linked(f'{board.stem}.csv')}; the tables in LaTeX: {linked(f'{board.stem}.tex')}", ""]
    return "\n".join(lines)


def listed(lines: Iterable[str]) -> list[str]:
    """A Markdown list with an empty line after it; nothing for no lines."""
    items = [f"- {as_line(line)}" for line in lines]
    return [*items, ""] if items else []


def _claims_section(finding: Finding, own: Sequence[Table], drawn: Sequence[Figure]) -> str:
    """A study's question, claims and measurements in Markdown."""
    told = f"{finding.runs} runs of protocol {as_text(finding.protocol)} stand behind what is compared here."
    lines = [f"**{as_text(finding.asks.strip())}** {told}" if finding.asks else told, ""]
    lines += [f"{number}. {as_line(claimed_line(judged))}: **{judged.word}**" for number, judged in enumerate(finding.judged, 1)]
    for figure in drawn:
        lines += ["", *_drawn(finding.stem, figure)]
    for table in own:
        lines += ["", markdown(table), _numbers(f"{finding.stem}-{table.name}"), ""]
    if finding.limits:
        lines += [f"*What {as_text(finding.protocol)} can and cannot say:* {as_text(finding.limits)}", ""]
    return "\n".join([*lines, *(["```sh", *finding.commands, "```", ""] if finding.commands else [])])


def left_out_lines(found: SortedResults, folder: Path) -> list[str]:
    """A line for each file in the results folder that does not count, and for each unknown
    protocol; safe to print, whatever the names of files are."""
    return [printable(line) for line in _left_out(found, folder)]


def _left_out(found: SortedResults, folder: Path) -> list[str]:
    lines = [f"{item.path.relative_to(folder).as_posix()}: {item.reason}" for item in found.rejected]
    lines += [f"{item.cell.path}: stale, its protocol or family has changed since" for item in found.stale]
    lines += [f"{count} results of protocol {name}: give its file as --protocol" for name, count in found.unknown.items()]
    lines += [
        f"{count} results of {arm} by protocol {name}: on no leaderboard, since no study lists it; give one that does as --study"
        for (name, arm), count in found.unlisted.items()
    ]
    return lines + [f"{one}: counted, though {other} tells another outcome of the same run" for one, other in found.differing]


def left_out(found: SortedResults, folder: Path) -> str:
    """The Markdown section on results that do not count; empty when all count."""
    lines = listed(left_out_lines(found, folder))
    return "\n".join(["## Left out", "", *lines]) if lines else ""
