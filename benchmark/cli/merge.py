"""`bench merge`: several results folders as one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmark.cli.support.common import DONE, SOME_FAILED, make_console, path_option
from families.spec import UserError


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("merge", help="several results folders as one; contradictions are named")
    parser.add_argument(
        "folders", nargs="+", type=path_option, metavar="RESULTS", help="results folders; the first has precedence"
    )
    parser.add_argument("--out", type=path_option, required=True, metavar="DIR", help="a new or empty folder")
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code: 1 if the folders contradict one another, or a file is left out."""
    from benchmark.reporting.text import printable
    from benchmark.storage.files import ensure_writable
    from benchmark.storage.merging import merge, write_merged

    check_folders(args.folders)
    if any(args.out.resolve().is_relative_to(folder.resolve()) for folder in args.folders):
        raise UserError(f"--out {args.out}: within a folder that is merged")
    if args.out.is_dir() and any(args.out.iterdir()):
        raise UserError(f"--out {args.out}: not empty")
    merged = merge(args.folders)
    if not merged.results:
        raise UserError(f"no results in {', '.join(map(str, args.folders))}")
    ensure_writable("--out", args.out)
    write_merged(merged, args.out)
    console = make_console()
    for rejected in merged.rejected:
        console.print(printable(f"left out: {rejected.path}: {rejected.reason}"), style="yellow", highlight=False, soft_wrap=True)
    for line in merged.contradictions:
        console.print(printable(f"contradiction: {line}"), style="red", highlight=False, soft_wrap=True)
    counts = ", ".join(f"{count} of {folder}" for folder, count in merged.counts.items())
    told = f"{args.out}: {len(merged.results)} results, from {counts}; {len(merged.contradictions)} contradictions"
    console.print(printable(told), highlight=False, soft_wrap=True)
    return SOME_FAILED if merged.contradictions or merged.rejected else DONE


def check_folders(folders: list[Path]) -> None:
    """Raises UserError for a folder that is not there, or given twice."""
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a results folder is given twice")
