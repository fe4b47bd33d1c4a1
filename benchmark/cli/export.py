"""`bench export`: a finished model for other tools."""

from __future__ import annotations

import argparse
from typing import Any

from benchmark.cli.support.common import DONE, make_console, path_option
from benchmark.cli.support.work_folder import finished_run, work_folder_options
from families.spec import UserError


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("export", help="a finished model as a timm checkpoint and a folder of Hugging Face's layout")
    parser.add_argument("run", metavar="RUN", help="as in deit3/base/standard-distill-s0, or its key")
    parser.add_argument("--out", type=path_option, metavar="DIR", help="a new folder (default: export/RUN in --work)")
    parser.add_argument("--push", metavar="OWNER/NAME", help="also upload it to this repository of Hugging Face's hub")
    parser.add_argument("--private", action="store_true", help="with --push: a new repository is private")
    work_folder_options(parser)
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    from benchmark.spec.arm import trained_arm
    from benchmark.storage.work_folder import Workspace

    if args.private and args.push is None:
        raise UserError("--private goes with --push")
    item, cell, payload = finished_run(args.run, args)
    if item.evaluation is not None:
        raise UserError(f"{args.run}: nothing is trained by it; export {trained_arm(item.cells[0].arm)}-s{item.cells[0].seed}")
    from benchmark.tools.export import check_repository, export, push

    if args.push is not None:
        check_repository(args.push)
    default = args.work / "export" / cell.name.replace("/", "-")
    weights = Workspace(args.work).run(item.key).weights
    folder = export(item.run, cell, weights, args.out or default, payload)
    console = make_console()
    console.print(f"{cell.name}: {folder}; loads back with equal outputs", highlight=False, soft_wrap=True)
    if args.push is not None:
        console.print(f"{args.push}: {push(folder, args.push, args.private)}", highlight=False, soft_wrap=True)
    return DONE
