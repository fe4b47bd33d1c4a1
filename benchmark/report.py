"""From boards to what people read: the terminal, Markdown, CSV, LaTeX, JSON, figures and the page.

Nothing here trains or measures; the same results give the same files.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from rich.console import Console

from benchmark.board import Leaderboard, Sorted, leaderboard, sort_results, students_table
from benchmark.claims import Finding, Judged, findings
from benchmark.figures import Figure, claims_figures, digest_in, figures, save
from benchmark.page import page
from benchmark.plan import Definitions, Plan, is_teacher, make_plan, spelt_out, teachers_of
from benchmark.protocol import Arm, Protocol, Study, load_protocol, load_study, read_yaml, shipped, validated
from benchmark.store import Result, read_results
from benchmark.tables import (
    Column,
    Marked,
    PublishedFigures,
    Table,
    as_line,
    as_text,
    claims_table,
    frame,
    latex,
    markdown,
    printable,
    printed,
    provenance_table,
    published_of,
    published_table,
    summary_of,
    tables,
    to_csv,
)
from families.spec import UserError

FEW = 30  # rows that `bench report` prints of a table
FIRST = ("main", "nulls")  # whether failure can be seen at all stands right under what is claimed
PRINTED = ("leaderboard", "teachers", "chosen", "match", "reinit", "native", "components", "teacher-seeds")
SHOWN_IN_README = {"main": ("leaderboard", "teachers"), "nulls": ("arms",), "teachers": ("teacher-seeds",)}
BEGIN, END = "<!-- leaderboard -->\n", "<!-- /leaderboard -->"
TEXTS, PICTURES = (".md", ".csv", ".tex", ".html"), (".svg", ".png")
PAGE, BOOK = "index.html", "leaderboard.md"


@dataclass(frozen=True)
class Report:
    """What a results folder gives: a board for each study of each protocol, what is claimed of studies beside what was
    measured, what was left out, and the papers' figures."""

    folder: Path
    boards: tuple[Leaderboard, ...]
    findings: tuple[Finding, ...]
    found: Sorted
    published: PublishedFigures

    @cached_property
    def figures(self) -> list[tuple[Leaderboard, list[Figure]]]:
        """Those of each board."""
        return [(board, figures(board)) for board in self.boards]

    @cached_property
    def measured(self) -> dict[tuple[str, str], tuple[Finding, list[Figure]]]:
        """The claims of which something was measured, with their figures, by protocol and study."""
        return {(each.protocol, each.study): (each, claims_figures(each)) for each in self.findings if each.measured}


def gather(folder: Path, protocol: tuple[str, Protocol] | None = None, given: Mapping[str, Study] | None = None) -> Report:
    """The report of a results folder, by the shipped protocols and studies and the ones given; m is the whole study's.

    A transfer arm that several studies list belongs to the first of them: main, those given, then by name.
    """
    protocols = {name: load_protocol(name)[1] for name in shipped("protocols")} | dict([protocol] if protocol else [])
    studies = {name: load_study(name)[1] for name in shipped("studies")} | dict(given or {})
    definitions = {name: Definitions(content) for name, content in protocols.items()}
    found = sort_results(*read_results(folder), definitions)
    boards, judged = list[Leaderboard](), list[Finding]()
    ranked = list(dict.fromkeys(["main", *(given or {}), *sorted(studies)]))
    for name, content in protocols.items():
        own = [result for result in found.current if result.cell.protocol == name]
        if not own:
            continue
        measured, assigned, listed = {result.cell.arm for result in own}, set[str](), set[str]()
        teachers = sorted({(result.cell.family, result.cell.size) for result in own})
        this = _Measured(name, definitions[name], own, students_table(own, name))
        known = {each: spelt_out(content, listing, teachers) for each, listing in studies.items()}
        for study_name in ranked:
            spelt = known[study_name]
            listed |= {each for arm in spelt.arms for each in _with_baseline(arm)}
            arms = {arm for arm in spelt.arms if owned(Arm.parse(arm))}
            ours = arms - assigned
            assigned |= arms
            if measured & ours:
                boards.append(_board(this, (study_name, studies[study_name], spelt), ours))
        shown = {arm for board in boards if board.protocol == name for each in board.arms for arm in _with_baseline(each)}
        left = {arm for arm in measured & listed - shown if Arm.parse(arm).student != "standard"}
        while left:  # arms that transfer nothing: the study of which most was measured shows them
            fitting = [each for each, spelt in known.items() if left & set(spelt.arms)]
            if not fitting:
                break
            best = min(fitting, key=lambda each: (len(set(known[each].arms) - measured), each))
            boards.append(_board(this, (best, studies[best], known[best]), set()))
            left -= set(known[best].arms)
        shown_here = [board for board in boards if board.protocol == name]
        asked = {each: studies[each] for each in ranked}
        judged += findings(name, content, own, asked, shown_here, this.defined, this.table)
        for arm in (result.cell.arm for result in own):
            if arm not in listed and not is_teacher(arm):
                found.unlisted[name, arm] = found.unlisted.get((name, arm), 0) + 1
    order = list(protocols)
    boards.sort(key=lambda board: (order.index(board.protocol), [board.study != first for first in FIRST], board.study))
    return Report(folder, tuple(boards), tuple(judged), found, _published(folder))


def _with_baseline(arm: str) -> tuple[str, str]:
    return arm, Arm.parse(arm).baseline.name


def owned(arm: Arm) -> bool:
    """Whether it belongs to one study's board: what transfers, and what no other study would show."""
    return arm.transfers or arm.match != "none" or arm.reinit != "none"


@dataclass(frozen=True)
class _Measured:
    """One protocol's current results, with what its boards share: the definitions of its runs, and students_table."""

    name: str
    defined: Definitions
    results: Sequence[Result]
    table: pd.DataFrame


def _board(measured: _Measured, study: tuple[str, Study, Study], ours: set[str]) -> Leaderboard:
    """A study's board of a protocol's results; `study` is its name, what its file says, and that spelt out for the teachers that
    have results. Comparisons are counted of the whole study's own arms, `ours`, for all teachers that it is for, and for the
    others that have results of them."""
    (study_name, listed, spelt), protocol = study, measured.defined.protocol
    known = teachers_of("all", None, listed.teachers)
    teachers = [pair for pair in known if protocol.scale is None or pair[1] in protocol.scale.sizes]
    cells = (result.cell for result in measured.results)
    others = sorted({(cell.family, cell.size) for cell in cells if cell.arm in ours} - set(teachers))
    elsewhere = {arm for arm in spelt.arms if Arm.parse(arm).transfers} - ours
    whole = _planned(measured, study_name, listed, [*teachers, *others])
    counted = {(one.keys, one.baseline_keys) for one in whole.comparisons if one.arm not in elsewhere}
    counted -= {(one.keys, one.baseline_keys) for one in whole.comparisons if one.arm in elsewhere}
    says, own = (measured.name, protocol.says), (study_name, spelt)
    return leaderboard(says, own, measured.results, len(counted), elsewhere=elsewhere, table=measured.table)


def _planned(measured: _Measured, study_name: str, study: Study, teachers: list[tuple[str, str]]) -> Plan:
    """The study for these teachers, without those that the protocol cannot be run for; with one seed, which is enough to count
    comparisons."""
    name, defined = measured.name, measured.defined
    protocol = defined.protocol

    def planned(some: list[tuple[str, str]]) -> Plan:
        return make_plan(name, protocol, study_name, study, some, protocol.seeds[:1], defined)

    def possible(teacher: tuple[str, str]) -> bool:
        try:
            planned([teacher])
        except UserError:
            return False
        return True

    try:
        return planned(teachers)
    except UserError:
        return planned([teacher for teacher in teachers if possible(teacher)])


def _published(folder: Path) -> PublishedFigures:
    path = folder / "published.yaml"
    return validated(PublishedFigures, read_yaml(path), str(path)) if path.is_file() else PublishedFigures()


# ---- the terminal


def show(board: Leaderboard, console: Console, most: int | None = None, names: Collection[str] | None = None) -> None:
    """Print a board's tables of these names (None: the usual ones, and those of its study) and what their numbers mean; of
    one of more than `most` rows, only where it is written."""
    names = (*PRINTED, *board.printed) if names is None else names
    _say(console, f"{printable(board.title)}\nprotocol {printable(board.protocol)}, {board.runs} runs", "bold")
    for table in (each for each in tables(board) if each.name in names):
        if most is not None and len(table.rows) > most:
            _say(console, f"{printable(table.title)}: {len(table.rows)} rows, in {BOOK}")
        else:
            show_table(table, console)
    for note in board.notes:
        _say(console, printable(note))


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, markup=False, highlight=False)


def show_table(table: Table, console: Console) -> None:
    """Print a table and what its numbers mean."""
    console.print(printed(table))
    for note in table.notes:
        _say(console, printable(note), "dim")


def show_claims(finding: Finding, console: Console) -> None:
    """Print a study's claims, and what was measured of them."""
    place = printable(f"protocol {finding.protocol}, study {finding.study}")
    _say(console, f"{printable(finding.title)}\n{place}, {finding.runs} runs", "bold")
    for number, judged in enumerate(finding.judged, 1):
        _say(console, printable(f"{number}. {_claimed(judged)}: {judged.word}"))
    show_table(claims_table(finding), console)


# ---- files


def texts(report: Report, folder: Path) -> dict[str, str]:
    """The text files of a report in `folder`, by name."""
    files: dict[str, str] = {}
    made = [(board, tables(board), drawn) for board, drawn in report.figures]
    shared = shared_tables(report)
    for board, own, _ in made:
        files[f"{board.stem}.csv"] = to_csv(board.table)
        files[f"{board.stem}.tex"] = "\n".join(latex(table, f"{board.stem}-{table.name}") for table in own)
        files |= {f"{board.stem}-{table.name}.csv": to_csv(frame(table)) for table in own}
    claimed = {place: (finding, claims_table(finding), drawn) for place, (finding, drawn) in report.measured.items()}
    for finding, table, _ in claimed.values():
        files[f"{finding.stem}-claims.csv"] = to_csv(frame(table))
        files[f"{finding.stem}-claims.tex"] = latex(table, f"{finding.stem}-claims")
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
    "# Leaderboard\n\nRendered by `bench report` from result files; not edited by hand. The same with filters, and every seed:"
    " [index.html](index.html).\n"
)


def _linked(path: str) -> str:
    return f"[{as_text(path)}]({quote(path)})"


def _numbers(name: str) -> str:
    return f"Numbers: {_linked(f'{name}.csv')}; in LaTeX: {_linked(f'{name}.tex')}"


def _drawn(stem: str, figure: Figure) -> list[str]:
    name = f"{stem}-{figure.name}"
    return [f"![{as_text(figure.title)}]({quote(name)}.svg)", "", f"Drawn from {_linked(f'{name}-drawn.csv')}"]


def shared_tables(report: Report) -> list[Table]:
    """Those of all boards together, and of what every current result was made by."""
    found = [published_table(report.published, report.boards), provenance_table(report.found.current)]
    return [table for table in found if table.rows]


def _href(results: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(results.absolute(), folder.absolute())).as_posix())


def _section(board: Leaderboard, own: Sequence[Table], drawn: Sequence[Figure]) -> str:
    """A board in Markdown."""
    lines = [as_text(f"Protocol {board.protocol}, study {board.study}, {board.runs} runs. {board.says}".strip()), ""]
    for table in own:
        lines += [f"### {table.title}", "", markdown(table)]
        lines += [f"Numbers: {_linked(f'{board.stem}-{table.name}.csv')}", ""]
    lines += _listed(board.notes)
    for figure in drawn:
        lines += [*_drawn(board.stem, figure), ""]
    lines += [f"Every cell: {_linked(f'{board.stem}.csv')}; the tables in LaTeX: {_linked(f'{board.stem}.tex')}", ""]
    return "\n".join(lines)


def _listed(lines: Iterable[str]) -> list[str]:
    """The lines of a list in Markdown, and an empty one after; nothing of nothing."""
    items = [f"- {as_line(line)}" for line in lines]
    return [*items, ""] if items else []


def _claims_section(finding: Finding, table: Table, drawn: Sequence[Figure]) -> str:
    """What a study asks, what is claimed of it, and what was measured, in Markdown."""
    told = f"{finding.runs} runs of protocol {as_text(finding.protocol)} stand behind what is compared here."
    lines = [f"**{as_text(finding.asks.strip())}** {told}" if finding.asks else told, ""]
    lines += [f"{number}. {as_line(_claimed(judged))}: **{judged.word}**" for number, judged in enumerate(finding.judged, 1)]
    for figure in drawn:
        lines += ["", *_drawn(finding.stem, figure)]
    lines += ["", markdown(table), _numbers(f"{finding.stem}-{table.name}"), ""]
    if finding.limits:
        lines += [f"*What {as_text(finding.protocol)} can and cannot say:* {as_text(finding.limits)}", ""]
    return "\n".join([*lines, *(["```sh", *finding.commands, "```", ""] if finding.commands else [])])


def _claimed(judged: Judged) -> str:
    """A claim and who says so, in a line."""
    several = "s" if len(judged.claim.rows) > 1 else ""
    rows = f", experiment{several} {' and '.join(map(str, judged.claim.rows))}" if judged.claim.rows else ""
    return f"{judged.claim.says.rstrip('.')} ({judged.who}{rows})"


def pictures(report: Report) -> Iterator[tuple[str, Figure]]:
    """The figures of a report, by the stem of their files."""
    for board, drawn in report.figures:
        for figure in drawn:
            yield f"{board.stem}-{figure.name}", figure
    for finding, drawn in report.measured.values():
        for figure in drawn:
            yield f"{finding.stem}-{figure.name}", figure


def render(report: Report, folder: Path) -> list[Path]:
    """Write all files of a report; what was written. Raises UserError where a file cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [(figure, folder, stem.removesuffix(f"-{figure.name}")) for stem, figure in pictures(report)]
        with _painters(len(jobs)) as painters:
            saved = painters.map(save, *zip(*jobs, strict=True)) if jobs else iter(())
            files = texts(report, folder)
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8", newline="\n")
            written = [*(folder / name for name in files), *(path for paths in saved for path in paths)]
    except OSError as error:
        raise UserError(f"--reports {error.filename}: {error.strerror}") from None
    return written


def _painters(jobs: int) -> Executor:
    """What draws beside this process: a process for each processor, or a thread where processes are not forked."""
    if sys.platform != "linux":
        return ThreadPoolExecutor(1)
    alone = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)  # the process that waits for them tells of an interrupt
    return ProcessPoolExecutor(max(1, min(jobs, len(os.sched_getaffinity(0)))), get_context("fork"), alone)


def differences(report: Report, folder: Path) -> list[str]:
    """A line for each file below `folder` that is not what the results give: text by its bytes, figures by the digest of
    their data that they hold."""
    expected = {name: text.encode() for name, text in texts(report, folder).items()}
    drawn: dict[str, str] = {}
    for stem, figure in pictures(report):
        expected[f"{stem}-drawn.csv"] = figure.csv().encode()
        drawn |= {f"{stem}{ending}": figure.digest for ending in (PICTURES if figure.png else PICTURES[:1])}
    lines = []
    for name, content in sorted(expected.items()):
        path = folder / name
        if not path.is_file():
            lines.append(f"{name}: missing")
        elif path.read_bytes() != content:
            lines.append(f"{name}: not what the results give")
    for name, digest in sorted(drawn.items()):
        path = folder / name
        if not path.is_file() or digest_in(path) != digest:
            lines.append(f"{name}: {'drawn from other data' if path.is_file() else 'missing'}")
    known = {*expected, *drawn}
    there = sorted(path.name for path in folder.glob("*") if path.suffix in (*TEXTS, *PICTURES))
    return lines + [f"{name}: no file of this report, to be removed" for name in there if name not in known]


# ---- the README's block


def readme_block(report: Report, folder: str) -> str:
    """The leaderboard as a README shows it: of study main, under it whether failure could be seen, and how far other teachers
    lie apart. `folder` is the path from the README to the reports."""
    parts = [section for board, drawn in report.figures for section in _readme_section(board, drawn, folder)]
    book, seeds = _linked(f"{folder}/{BOOK}"), _linked(f"{folder}/{PAGE}")
    return "\n".join([*parts, f"All tables and figures: {book}. With filters, and every seed: {seeds}.", ""])


def _readme_section(board: Leaderboard, drawn: Sequence[Figure], folder: str) -> list[str]:
    names = SHOWN_IN_README.get(board.study, ())
    found = {table.name: table for table in tables(board)}
    if not set(names) & set(found):
        return []
    lines = [f"### {as_text(board.title)}", "", f"Protocol {as_text(board.protocol)}, {board.runs} runs.", ""]
    for name in (name for name in names if name in found):
        lines += [markdown(found[name])]
        if name == "leaderboard":
            stem = quote(f"{folder}/{board.stem}")
            lines += [f"![{as_text(each.title)}]({stem}-{each.name}.png)\n" for each in drawn if each.png]
    return lines + _listed(board.notes)


def with_block(path: Path, block: str) -> str:
    """A file's text with `block` between its leaderboard marks. Raises UserError when it cannot be read or has no marks."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--readme {path}: {' '.join(str(error).split())}") from None
    before, found, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise UserError(f"--readme {path}: no block between {BEGIN.strip()} and {END}")
    return "".join([before, BEGIN, block, END, after])


# ---- the page of claims


def claims_page(report: Report, folder: str) -> str:
    """Every claim in one table: who says so, the commands that test it, what was measured on mini, what was published.
    `folder` is the path from the page to the reports."""
    parts = [CLAIMS_HEAD.format(book=quote(f"{folder}/{BOOK}"), page=quote(f"{folder}/{PAGE}"))]
    for name in dict.fromkeys(finding.protocol for finding in report.findings):
        own = [finding for finding in report.findings if finding.protocol == name]
        parts += [f"## Protocol {as_text(name)}\n", markdown(_claims_overview(report, own))]
        said = [f"- {_code(finding.study)}: {as_text(finding.limits)}" for finding in own if finding.limits]
        parts += [f"### What {as_text(name)} can and cannot say\n", *said, ""] if said else []
    return "\n".join(parts)


CLAIMS_HEAD = """\
# Claims

Rendered by `bench report --claims` from the studies' files, the result files and `results/published.yaml`; not edited by hand.

What both papers found, and what this suite asks besides: by which command each is tested, and what came out here. Experiments
are numbered through both papers (`docs/studies.md`); number 7, detection on COCO, needs other tools (`bench export`) and was not
measured. A claim is *contradicted* at the scale of the protocol that measured it, and no further; under the table stands what
that scale can and cannot say. Every difference with its interval and a figure: [the report]({book}), or [the page]({page}) (open
it from a clone).

✓ as claimed: the simultaneous 95 % interval lies on the claimed side of 0. ✗ contradicted: on the other side. ~ open: it
contains 0. ○ not contradicted: it contains 0, and the claim is that something is not so. ○ no failure: the claim is about
transfers that fail, and this one is not shown to. Numbers alone: nothing names a side. A claim of several differences is marked
by the first of contradicted, open, not contradicted, as claimed that one of them is; the counts tell of how many. An arm that
stands alone means its gap to the same student without transfer, with (reversal) that minus the standard student's
(`docs/statistics.md`).
"""


def _code(text: str) -> str:
    """Text as code in Markdown; one that would end the code or a cell, as text."""
    return f"`{text}`" if text.isprintable() and not set(text) & set("`|") else as_text(text)


def _claims_overview(report: Report, found: Sequence[Finding]) -> Table:
    rows = [
        {
            "experiment": ", ".join(map(str, judged.claim.rows)) or None,
            "claim": judged.claim.says,
            "by": judged.who,
            "commands": Marked("; ".join(map(_code, finding.commands))) or None,
            "imagenet": Marked(_code(judged.on_imagenet)) if judged.on_imagenet else None,
            "measured": Marked("; ".join([f"**{judged.word}**", *map(as_text, summary_of(judged))]))
            if judged.measured
            else judged.word,
            "published": "; ".join(published_of(report.published, judged.claim)) or None,
        }
        for finding in found
        for judged in finding.judged
    ]
    titles = {"experiment": "experiment", "claim": "claim", "by": "by", "commands": f"command for {found[0].protocol}"}
    titles |= {"imagenet": "command for ImageNet", "measured": f"measured on {found[0].protocol}", "published": "published"}
    return Table("claims", "Claims", tuple(Column(key, title, left=True) for key, title in titles.items()), tuple(rows))


# ---- what does not count


def left_out_lines(found: Sorted, folder: Path) -> list[str]:
    """A line for each file below the results folder that does not count, and for each protocol that is not known: with nothing
    in it that a terminal acts on, whatever files are called."""
    return [printable(line) for line in _left_out(found, folder)]


def _left_out(found: Sorted, folder: Path) -> list[str]:
    lines = [f"{item.path.relative_to(folder).as_posix()}: {item.reason}" for item in found.rejected]
    lines += [f"{item.cell.path}: stale, its protocol or family has changed since" for item in found.stale]
    lines += [f"{count} results of protocol {name}: give its file as --protocol" for name, count in found.unknown.items()]
    lines += [
        f"{count} results of {arm} by protocol {name}: on no board, since no study lists it; give one that does as --study"
        for (name, arm), count in found.unlisted.items()
    ]
    return lines + [f"{one}: counted, though {other} tells another outcome of the same run" for one, other in found.differing]


def left_out(found: Sorted, folder: Path) -> str:
    """The Markdown section of what does not count; empty when everything does."""
    lines = _listed(left_out_lines(found, folder))
    return "\n".join(["## Left out", "", *lines]) if lines else ""


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
        "study": board.study,
        "title": board.title,
        "comparisons": board.comparisons,
        "runs": board.runs,
        "rows": rows,
        "families": verdicts,
    }
