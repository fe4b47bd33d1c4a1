"""`bench compare`: what differs between two results folders, and by how much."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmark.cli.merge import check_folders
from benchmark.cli.support.common import DONE, make_console, path_option
from families.spec import UserError

FEW = 10  # cells or files that are named of those in one folder alone, or left out


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("compare", help="what differs between two results folders, and by how much")
    parser.add_argument("a", type=path_option, metavar="A", help="a results folder")
    parser.add_argument("b", type=path_option, metavar="B", help="another one")
    parser.add_argument("--protocol", metavar="NAME|FILE", help="a protocol of yours, beside the shipped ones")
    parser.add_argument("--study", metavar="FILES", help="studies of yours, beside the shipped ones")
    parser.add_argument("--json", action="store_true", help="for programs: everything")
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    from benchmark.reporting.comparison import as_json, compare, tables
    from benchmark.reporting.gather import gather
    from benchmark.reporting.render import FEW as ROWS
    from benchmark.reporting.terminal import show_table
    from benchmark.reporting.text import printable
    from benchmark.reporting.text_files import left_out_lines
    from benchmark.spec.protocol import load_protocol
    from benchmark.spec.study import load_studies

    check_folders([args.a, args.b])
    protocol = load_protocol(args.protocol) if args.protocol else None
    studies = load_studies(args.study) if args.study else {}
    reports = [gather(folder, protocol, studies) for folder in (args.a, args.b)]
    left = {folder: left_out_lines(report.found, folder) for folder, report in zip((args.a, args.b), reports, strict=True)}
    for folder, report in zip((args.a, args.b), reports, strict=True):
        if not report.found.current:
            why = f" ({left[folder][0]})" if left[folder] else ""
            raise UserError(f"{folder}: no results that count{why}")
    found = compare(*reports)
    if args.json:
        print(json.dumps(as_json(found) | {"left_out": list(left.values())}, indent=1))
        return DONE
    console = make_console()

    def say(text: str) -> None:
        console.print(printable(text), highlight=False, soft_wrap=True)

    say(f"A: {args.a}, B: {args.b}")
    for which, lines in zip("AB", left.values(), strict=True):
        for line in lines[:FEW]:
            say(f"left out of {which}: {line}")
        _more(say, f"left out of {which}", lines)
    for table in tables(found):
        show_table(replace(table, rows=table.rows[:ROWS]), console)
        if len(table.rows) > ROWS:
            say(f"{len(table.rows) - ROWS} more rows; --json has all")
    for which, names in (("A", found.only_a), ("B", found.only_b)):
        for name in names[:FEW]:
            say(f"only in {which}: {name}")
        _more(say, f"only in {which}", names)
    counts = f"{len(found.equal)} cells equal, {len(found.differing)} with other numbers"
    counts += f", {len(found.only_a)} only in A, {len(found.only_b)} only in B; {len(found.verdicts)} verdicts differ"
    say(counts)
    return DONE


def _more(say: Any, what: str, names: Sequence[str]) -> None:
    if len(names) > FEW:
        say(f"{what}: {len(names) - FEW} more; --json names all")
