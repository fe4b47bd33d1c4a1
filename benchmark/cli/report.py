"""`bench report`: render the leaderboard from result files."""

from __future__ import annotations

import argparse
import gc
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cli.support.common import DONE, SOME_FAILED, folder_options, make_console, path_option, reports_folder
from families.spec import UnknownName, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from benchmark.reporting.gather import Report


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("report", help="render the leaderboard from result files")
    folder_options(parser)
    parser.add_argument("--protocol", metavar="NAME|FILE", help="a protocol of yours, beside the shipped ones")
    parser.add_argument("--study", metavar="FILES", help="studies of yours, beside the shipped ones")
    parser.add_argument("--readme", type=path_option, metavar="FILE", help="also renew the leaderboard block of a README")
    parser.add_argument("--claims", type=path_option, metavar="FILE", help="also write what is claimed beside what was measured")
    parser.add_argument("--tables", metavar="NAMES|all", help="what to print, as in sizes,shifted (default: the main ones)")
    parser.add_argument("--check", action="store_true", help="compare instead of writing; exit code 1 if anything differs")
    parser.add_argument("--open", action="store_true", help="show the page in a browser")
    parser.add_argument("--json", action="store_true", help="for programs; writes no files")
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    from benchmark.storage.results import uncollected

    with uncollected():
        try:
            return _reported(args)
        finally:
            gc.freeze()  # or the interpreter looks through ten thousand results for garbage when it ends


def _reported(args: argparse.Namespace) -> int:
    from benchmark.reporting.gather import gather
    from benchmark.reporting.json_export import as_json
    from benchmark.reporting.page import finding_data
    from benchmark.reporting.render import FEW
    from benchmark.reporting.terminal import show
    from benchmark.spec.protocol import load_protocol
    from benchmark.spec.study import load_studies
    from benchmark.storage.files import ensure_writable

    given = ("check", "open", "readme", "claims", "tables")
    for one, other in (*(("json", other) for other in given), ("check", "open"), ("check", "tables")):
        if getattr(args, one) and getattr(args, other):
            raise UserError(f"--{one} goes without --{other}")
    if args.tables == "":
        raise UserError("--tables: an empty name")
    protocol = None if args.protocol is None else load_protocol(args.protocol)
    studies = {} if args.study is None else load_studies(args.study)
    if not args.results.is_dir():
        raise UserError(f"--results {args.results}: no such folder")
    reports = reports_folder(args)
    if reports.resolve() == args.results.resolve():
        raise UserError(f"--reports {reports}: the results folder; reports need one of their own")
    found = gather(args.results, protocol, studies)
    if args.json:
        invalid = {each.path.relative_to(args.results).as_posix(): each.reason for each in found.found.rejected}
        stale = [each.cell.path for each in found.found.stale]
        boards = [as_json(each) for each in found.boards]
        claims = [finding_data(each, found.published) for each in found.findings]
        print(json.dumps({"boards": boards, "findings": claims, "stale": stale, "invalid": invalid}, indent=1))
        return DONE
    documents = _documents(found, reports, args)
    if args.check:
        return _check_reports(found, reports, documents)
    if args.tables:
        _table_names(found, args.tables)
    ensure_writable("--reports", reports)
    console = make_console()
    if not found.boards:
        console.print(f"no results to compare in {args.results}")
    if args.tables:
        _show_tables(found, args.tables, console)
    else:
        for board in found.boards:
            show(board, console, FEW)
    write_reports(found, reports, console)
    _write_documents(documents)
    if args.open:
        import webbrowser

        webbrowser.open((reports / "index.html").absolute().as_uri())
    return DONE


def _show_tables(found: Report, names: str, console: Console) -> None:
    from benchmark.reporting.tables import finding_tables, report_tables, tables
    from benchmark.reporting.terminal import show, show_claims, show_table

    shared, wanted = report_tables(found), _table_names(found, names)
    own = {board: {table.name for table in tables(board)} for board in found.boards}
    claimed = [(finding, {table.name for table in finding_tables(finding)}) for finding in found.findings if finding.measured]
    for board in found.boards:
        if own[board] & set(wanted):
            show(board, console, names=wanted)
    for finding, theirs in claimed:
        if theirs & set(wanted):
            show_claims(finding, console, wanted)
    for table in shared:
        if table.name in wanted:
            show_table(table, console)


def _table_names(found: Report, names: str) -> list[str]:
    """The names in --tables. Raises UnknownName."""
    from benchmark.reporting.tables import finding_tables, report_tables, tables

    claimed = (finding_tables(finding) for finding in found.findings if finding.measured)
    every = [*map(tables, found.boards), *claimed, report_tables(found)]
    known = list(dict.fromkeys(table.name for made in every for table in made))
    wanted = known if names == "all" else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise UnknownName("table", name, known)
    return wanted


@dataclass(frozen=True)
class _Document:
    """A file beside the reports that holds some of them: the option that names it, what of it is
    rendered, the whole text."""

    option: str
    path: Path
    part: str
    text: str


def _documents(found: Report, reports: Path, args: argparse.Namespace) -> list[_Document]:
    """Those that were asked for, as they are to be."""
    from benchmark.reporting.documents import claims_page, is_claims_page, readme_block, with_block

    documents = []
    if args.claims is not None and not args.claims.parent.is_dir():
        raise UserError(f"--claims {args.claims}: no folder {args.claims.parent}")
    if args.claims is not None and not args.check and not is_claims_page(args.claims):
        raise UserError(f"--claims {args.claims}: something else is there; delete it, or name another file")
    if args.readme is not None:
        block = readme_block(found, _beside(args.readme, reports))
        documents.append(_Document("--readme", args.readme, "leaderboard", with_block(args.readme, block)))
    if args.claims is not None:
        documents.append(_Document("--claims", args.claims, "table", claims_page(found, _beside(args.claims, reports))))
    return documents


def _check_reports(found: Report, reports: Path, documents: Sequence[_Document]) -> int:
    """Whether the reports, and what was rendered beside them, are what the results give: 0, or 1
    with a line for each that is not."""
    from benchmark.reporting.render import differences

    lines = [f"{reports}/{line}" for line in differences(found, reports)]
    for each in documents:
        there = each.path.read_text("utf-8", errors="replace") if each.path.is_file() else ""
        lines += [f"{each.path}: its {each.part} is not what the results give"] if there != each.text else []
    for line in lines:
        print(line)
    if lines:
        print("the same command without --check writes anew what is not to be removed")
    return SOME_FAILED if lines else DONE


def _write_documents(documents: Sequence[_Document]) -> None:
    from benchmark.storage.files import write_text

    for each in documents:
        try:
            write_text(each.path, each.text)
        except OSError as error:
            raise UserError(f"{each.option} {each.path}: {error.strerror}") from None


def _beside(readme: Path, reports: Path) -> str:
    return Path(os.path.relpath(reports.absolute(), readme.absolute().parent)).as_posix()


def write_reports(found: Report, reports: Path, console: Console) -> None:
    """Write the reports and print what was left out. Raises UserError where a file cannot be
    written."""
    from benchmark.reporting.render import FEW, render
    from benchmark.reporting.text import printable
    from benchmark.reporting.text_files import BOOK, left_out_lines

    lines = left_out_lines(found.found, found.folder)
    for line in lines[:FEW]:
        console.print(f"left out: {line}", style="yellow", highlight=False, soft_wrap=True)
    if len(lines) > FEW:
        console.print(f"left out: {len(lines) - FEW} more, named in {reports / BOOK}", style="yellow", highlight=False)
    written = render(found, reports)
    whole = ", ".join(f"{board.comparisons} ({board.protocol} {board.study})" for board in found.boards)
    told = printable(f"reports: {reports / 'index.html'} and {len(written) - 1} other files")
    console.print(told, highlight=False, soft_wrap=True)
    console.print(
        f"In the reports, simultaneous intervals allow for all comparisons of a whole study: {printable(whole) or 'none yet'}.",
        style="dim", highlight=False,
    )  # fmt: skip
