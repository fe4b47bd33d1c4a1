"""`bench submit`: check results before they are handed in."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmark.cli.support.common import DONE, SOME_FAILED, make_console, path_option
from families.spec import UserError


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("submit", help="check results before you hand them in")
    parser.add_argument("folder", type=path_option, metavar="RESULTS", help="the results folder")
    parser.add_argument("--against", type=path_option, metavar="DIR", help="the results that they go into (default: results)")
    parser.add_argument("--protocol", metavar="NAME|FILE", help="a protocol of yours, beside the shipped ones")
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code: 1 if there are objections."""
    from benchmark.analysis.review import review
    from benchmark.reporting.text import printable
    from benchmark.spec.protocol import load_protocol

    against = args.against or Path("results")
    for folder in (args.folder, *([] if args.against is None else [args.against])):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    there = against.is_dir() and against.resolve() != args.folder.resolve()
    found = review(args.folder, against if there else None, None if args.protocol is None else load_protocol(args.protocol))
    if not found.results and not found.objections:
        raise UserError(f"no results in {args.folder}")
    console = make_console()
    for line in found.objections:
        console.print(printable(f"objection: {line}"), style="red", highlight=False, soft_wrap=True)
    for line in found.notes:
        console.print(printable(f"note: {line}"), highlight=False, soft_wrap=True)
    told = f"{found.results} results of {args.folder}" + (f", against {against}" if there else "")
    console.print(printable(f"{told}: {len(found.objections) or 'no'} objections"), highlight=False, soft_wrap=True)
    return SOME_FAILED if found.objections else DONE
