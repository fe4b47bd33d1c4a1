"""`bench check`: the contract tests of a family, or the images of a protocol."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import families
from benchmark.cli.support.common import DONE, SOME_FAILED, cores, counting_bar, make_console, path_option
from families.spec import UserError


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("check", help="the contract tests of one family, as a table; or a protocol's images")
    parser.add_argument("--family", "--teacher", metavar="NAME|timm:NAME", help="whose adapter is tested")
    parser.add_argument("--protocol", metavar="NAME|FILE", help="whose images in --data are counted and decoded, once")
    parser.add_argument("--data", type=path_option, metavar="DIR")
    parser.add_argument("--convert", type=path_option, metavar="RESULTS", help="rewrite result files of schema 1 as they are now")
    parser.add_argument("--work", type=path_option, default=Path(".bench"), metavar="DIR", help="remembers it (default: .bench)")
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    if args.convert is not None:
        for option in ("family", "protocol", "data"):
            if getattr(args, option) is not None:
                raise UserError(f"--convert goes without --{option}")
        return _convert(args)
    if (args.family is None) == (args.protocol is None):
        raise UserError("check takes --family NAME, or --protocol NAME with --data DIR")
    return _check_data(args) if args.family is None else _check_family(args)


def _convert(args: argparse.Namespace) -> int:
    from benchmark.tools.convert import convert, told

    if not args.convert.is_dir():
        raise UserError(f"--convert {args.convert}: no such folder")
    done = convert(args.convert)
    for line in told(done):
        make_console().print(line, highlight=False, soft_wrap=True)
    return SOME_FAILED if done.left else DONE


def _check_data(args: argparse.Namespace) -> int:
    """Check all data sets and tasks of a protocol that are there, whichever of them fail."""
    from benchmark.data import DataLocation, check
    from benchmark.execution.setup import place_named
    from benchmark.spec.protocol import load_protocol

    name, protocol = load_protocol(args.protocol)
    place = DataLocation(args.data, args.work.absolute(), cores())
    others = {part: each.data for part, each in (protocol.datasets | protocol.tasks).items()}
    parts = {"": protocol.data} | {part: data for part, data in others.items() if not data.is_embedded}
    console, good, absent, wrong = make_console(), [], [], []
    for part, settings in parts.items():
        told = f"{part} of protocol {name}" if part else f"protocol {name}"
        try:
            own = place_named(part, settings, place)
        except UserError as error:
            absent.append(f"{error}: {told} is not checked")
            continue
        try:
            with counting_bar(console) as progress:
                found = check(settings, own, progress)
        except UserError as error:
            wrong.append(str(error))
            continue
        line = "{} needs no images" if found.digest is None else "the images are those of {}, and can be read"
        good.append(line.format(told))
        absent += [f"{reason}: runs are not evaluated on it" for reason in found.absent.values()]
    if wrong:
        raise UserError("; ".join(wrong))
    for line in good + absent:
        console.print(line, highlight=False, soft_wrap=True)
    return DONE


def _check_family(args: argparse.Namespace) -> int:
    spec = families.spec(args.family)
    from rich.table import Table
    from rich.text import Text

    from benchmark.tools.check import contract

    table = Table(title=f"{args.family}: {spec.title}", header_style="bold")
    for column in ("size", "contract", "", "found"):
        table.add_column(column, overflow="fold")
    rows = [row for size in spec.sizes for row in contract(args.family, size)]
    for row in rows:
        holds = Text("holds", "green") if row.holds else Text("fails", "red")
        table.add_row(row.size, row.claim, holds, row.found)
    console = make_console()
    console.print(table)
    return DONE if all(row.holds for row in rows) else SOME_FAILED
