"""From boards to what people read: the terminal, Markdown, CSV, JSON and figures.

Nothing here trains or measures; the same results give the same files.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark import plots
from benchmark.board import NATIVE, NATIVE_MEANS, Entry, Leaderboard, Sorted
from benchmark.protocol import Arm
from benchmark.stats import Estimate
from families.spec import UserError

MANY_BUDGETS = 3  # from here on a study is drawn as curves over the budget
LONG = ("arm", "n", "top-1", "gap")
STYLES = {"success": "green", "failure": "red", "inconclusive": "yellow", "mixed": "magenta"}


# ---- the terminal


def show(board: Leaderboard, console: Console) -> None:
    """Print the board, family verdicts and what the signs mean."""
    table = Table(title=f"{board.title}\nprotocol {board.protocol}, {board.runs} runs", title_style="bold", header_style="bold")
    table.add_column("teacher")
    if board.long:
        for column in LONG:
            table.add_column(column, justify="left" if column == "arm" else "right", overflow="fold")
        for row in board.rows:
            for entry in row.entries:
                table.add_row(row.label, entry.arm.name, *_long_cells(entry), style=_style(entry))
            table.add_section()
    else:
        for arm in board.arms:
            table.add_column(arm.replace("-", " ", 1), justify="right", overflow="fold")
        for row in board.rows:
            table.add_row(row.label, *(Text(entry.text, style=_style(entry)) for entry in row.entries))
    console.print(table)
    for line in (*verdict_lines(board), *board.notes):
        console.print(line, markup=False, highlight=False)
    console.print(board.footnote, style="dim", markup=False, highlight=False)
    if board.native:
        native = Table("teacher", header_style="bold")
        for column in NATIVE:
            native.add_column(column, justify="right")
        for teacher, estimates in board.native:
            native.add_row(teacher, *(with_interval(each) for each in estimates))
        console.print(native)
        console.print(NATIVE_MEANS, style="dim", markup=False, highlight=False)


def _style(entry: Entry) -> str:
    verdict = entry.gap.verdict if entry.gap else None
    return STYLES[verdict] if verdict else ""


def _long_cells(entry: Entry) -> tuple[str, str, str]:
    """An arm's runs, mean top-1, and gap with verdict, for a table with a row an arm."""
    top1 = "–" if entry.top1 is None else f"{entry.top1:.1f}"
    return str(entry.n), top1, entry.text if entry.arm.transfers and entry.top1 is not None else ""


def with_interval(estimate: Estimate | None) -> str:
    """An estimate with its plain 95 % interval's half-width, where it has them."""
    if estimate is None:
        return "–"
    return f"{estimate.value:+.1f}" + (f" ± {estimate.plain:.1f}" if estimate.plain is not None else "")


def verdict_lines(board: Leaderboard) -> list[str]:
    """A line a family: its verdict by arm over its teachers on the board; none where each arm has a row of its own."""
    lines: list[str] = []
    if board.long:
        return lines
    for family, count, verdicts in board.verdicts:
        told = "; ".join(f"{arm} {verdict or 'no verdict'}" for arm, verdict in verdicts.items())
        lines.append(f"{family} ({count} teacher{'s' if count > 1 else ''}): {told}")
    return lines


# ---- files


def render(
    folder: Path, boards: Sequence[tuple[str, Leaderboard, str]], sorted_results: Sorted, results_folder: Path
) -> list[Path]:
    """Write leaderboard.md, and for each (study, board, what the protocol says) a CSV and a figure; what was written.

    Raises UserError where a file cannot be written.
    """
    try:
        return _render(folder, boards, sorted_results, results_folder)
    except OSError as error:
        raise UserError(f"--reports {error.filename}: {error.strerror}") from None


def _render(
    folder: Path, boards: Sequence[tuple[str, Leaderboard, str]], sorted_results: Sorted, results_folder: Path
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["# Leaderboard\n\nRendered by `bench report` from result files; not edited by hand.\n"]
    written = []
    for study, board, says in boards:
        stem = f"{board.protocol}-{study}"
        budgets = {Arm.parse(arm).budget for arm in board.arms}
        draw, kind = (plots.gaps, "gaps") if len(budgets) < MANY_BUDGETS else (plots.budgets, "budgets")
        csv, figure = folder / f"{stem}.csv", folder / f"{stem}-{kind}.svg"
        csv.write_text(to_csv(board.table), encoding="utf-8")
        draw(board, figure)
        written += [csv, figure, figure.with_suffix(".png")]
        parts.append(markdown(board, says, csv.name, figure.name))
    parts.append(left_out(sorted_results, results_folder))
    page = folder / "leaderboard.md"
    page.write_text("\n".join(part for part in parts if part), encoding="utf-8")
    return [page, *written]


def to_csv(table: pd.DataFrame) -> str:
    """CSV text with numbers to four decimals."""
    buffer = io.StringIO()
    table.to_csv(buffer, index=False, float_format="%.4f", lineterminator="\n")
    return buffer.getvalue()


def markdown(board: Leaderboard, says: str, csv: str = "", figure: str = "") -> str:
    """A board as a Markdown section."""
    lines = [f"## {board.title}", "", f"Protocol {board.protocol}, {board.runs} runs. {says.strip()}".rstrip(), ""]
    head = ["teacher", *(LONG if board.long else board.arms)]
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in board.rows:
        if board.long:
            lines += [f"| {row.label} | {entry.arm.name} | {' | '.join(_long_cells(entry))} |" for entry in row.entries]
        else:
            lines.append(f"| {row.label} | {' | '.join(entry.text for entry in row.entries)} |")
    lines += ["", board.footnote, ""]
    listed = [f"- {line}" for line in (*verdict_lines(board), *board.notes)]
    lines += [*listed, ""] if listed else []
    if board.native:
        lines += [f"| teacher | {' | '.join(NATIVE)} |", f"|{'---|' * (len(NATIVE) + 1)}"]
        lines += [f"| {teacher} | {' | '.join(map(with_interval, estimates))} |" for teacher, estimates in board.native]
        lines += ["", NATIVE_MEANS, ""]
    lines += [f"Numbers: [{csv}]({csv})", ""] if csv else []
    lines += [f"![{board.title}]({figure})", ""] if figure else []
    return "\n".join(lines)


def insert_block(path: Path, boards: Sequence[str]) -> None:
    """Put boards between a file's leaderboard marks. Raises UserError when it cannot be read or has no such marks."""
    begin, end = "<!-- leaderboard -->\n", "<!-- /leaderboard -->"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--readme {path}: {' '.join(str(error).split())}") from None
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise UserError(f"--readme {path}: no block between {begin.strip()} and {end}")
    path.write_text("".join([before, begin, *boards, end, after]), encoding="utf-8")


def left_out_lines(found: Sorted, folder: Path) -> list[str]:
    """A line for each file below the results folder that does not count, and for each protocol that is not known."""
    lines = [f"{item.path.relative_to(folder).as_posix()}: {item.reason}" for item in found.rejected]
    lines += [f"{item.cell.path}: stale, its protocol or family has changed since" for item in found.stale]
    lines += [f"{count} results of protocol {name}: give its file as --protocol" for name, count in found.unknown.items()]
    return lines


def left_out(found: Sorted, folder: Path) -> str:
    """The Markdown section of what does not count; empty when everything does."""
    lines = [f"- {line}" for line in left_out_lines(found, folder)]
    return "\n".join(["## Left out", "", *lines, ""]) if lines else ""


def as_json(board: Leaderboard) -> dict[str, Any]:
    """A board for programs."""
    rows = [
        {
            "families": list(row.families),
            "size": row.size,
            "arms": {
                name: {
                    "top1": entry.top1,
                    "n": entry.n,
                    "gap": entry.gap.value if entry.gap else None,
                    "half_width": entry.gap.simultaneous if entry.gap else None,
                    "verdict": entry.gap.verdict if entry.gap else None,
                    "note": entry.note or None,
                }
                for name, entry in zip(board.arms, row.entries, strict=True)
            },
        }
        for row in board.rows
    ]
    verdicts = {family: {"teachers": count, **found} for family, count, found in board.verdicts}
    return {
        "protocol": board.protocol,
        "study": board.title,
        "comparisons": board.comparisons,
        "rows": rows,
        "families": verdicts,
    }
