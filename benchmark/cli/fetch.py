"""`bench fetch`: download pre-trained teachers, and the data set of a protocol."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import families
from benchmark.cli.support.common import (
    DONE,
    SOME_FAILED,
    fetch_images_with_bar,
    fetch_with_bar,
    licence_option,
    make_console,
    path_option,
)
from families.spec import UserError


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("fetch", help="put teachers and images where nodes without network find them")
    told = "as in deit3,dinov2 (default: papers)"
    parser.add_argument("--family", "--teacher", default="papers", metavar="NAMES|papers|all|timm:NAME", help=told)
    parser.add_argument("--sizes", metavar="SIZES", help="as in base,large (default: all that the families have)")
    licence_option(parser)
    parser.add_argument("--weights", type=path_option, metavar="DIR", help="where to (default: weights in --work)")
    parser.add_argument("--protocol", metavar="NAME|FILE", help="whose images are fetched too; its teachers, if it trains none")
    parser.add_argument("--data", type=path_option, metavar="DIR", help="where to put the images")
    parser.add_argument("--work", type=path_option, default=Path(".bench"), metavar="DIR", help="default: .bench")
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    if (args.protocol is None) != (args.data is None):
        raise UserError("fetch takes --protocol NAME and --data DIR together, or neither")
    from benchmark.spec.teachers import licensed, teachers_of

    wanted = licensed(teachers_of(args.family, args.sizes), args.licence)
    if args.protocol is not None and _fetch_images(args):
        return DONE
    return _fetch_teachers(args, wanted)


def _fetch_images(args: argparse.Namespace) -> bool:
    """Fetch the images of a protocol and of its other data sets; whether it trains its own teachers."""
    from benchmark.data import DataLocation
    from benchmark.spec.data_sets import Images
    from benchmark.spec.protocol import load_protocol

    name, protocol = load_protocol(args.protocol)
    blocks = [each.data for each in (protocol, *protocol.datasets.values()) if isinstance(each.data, Images)]
    blocks = [each for each in blocks if each.torchvision is not None]
    if not blocks:
        raise UserError(f"protocol {name}: torchvision has none of its images, and nothing is fetched (docs/data.md)")
    console, place = make_console(), DataLocation(args.data.absolute())
    for each in blocks:
        fetch_images_with_bar(each, place, console)
        console.print(f"{each.source} is in {args.data}", highlight=False, soft_wrap=True)
    return protocol.teacher is not None


def _fetch_teachers(args: argparse.Namespace, wanted: Sequence[tuple[str, str]]) -> int:
    from rich.table import Table

    from benchmark.storage.files import ensure_writable
    from families.core.weights import record_of
    from families.spec import WeightsError

    folder = (args.weights or args.work / "weights").absolute()
    ensure_writable("--weights", folder)
    console = make_console()
    table = Table(title=f"weights in {folder}", header_style="bold")
    for column in ("teacher", "file", "MB", "source", "revision", "sha256", "licence"):
        table.add_column(column, overflow="fold")
    failed = []
    for family, size in wanted:
        teacher = families.spec(family).teacher(size)
        try:
            path = fetch_with_bar(family, size, folder, console)
        except WeightsError as error:  # the others may be there for the taking
            failed.append(str(error))
            console.print(f"failed: {family} {size}: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
            continue
        record = record_of(teacher, path)
        table.add_row(
            f"{family} {size}", str(path.relative_to(folder)), f"{path.stat().st_size / 1e6:.0f}", record["source"],
            (record["revision"] or "not known")[:12], (record["sha256"] or "")[:12], teacher.licence,
        )  # fmt: skip
    if table.row_count:
        console.print(table)
    restricted = dict.fromkeys(
        each.licence for each in (families.spec(f).teacher(size) for f, size in wanted) if each.is_restricted
    )
    if restricted:
        named = ", ".join(restricted)
        console.print(
            f"{named}: read its terms, which restrict the use of the weights and of what is made with them.", soft_wrap=True
        )
    return SOME_FAILED if failed else DONE
