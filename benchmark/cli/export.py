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
    work_folder_options(parser)
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    from benchmark.spec.arm import trained_arm
    from benchmark.storage.scores import WORDS, field_of
    from benchmark.storage.work_folder import Workspace

    item, cell, payload = finished_run(args.run, args)
    if item.evaluation is not None:
        raise UserError(f"{args.run}: nothing is trained by it; export {trained_arm(item.cells[0].arm)}-s{item.cells[0].seed}")
    from benchmark.tools.export import export

    score, made = payload["metrics"], payload["provenance"]
    told = {f"{WORDS[field_of(score)]} in % on the protocol's test set": score[field_of(score)], "key": item.key}
    told |= {"teacher": (payload["teacher"] or {}).get("source"), "commit": made["commit"], "finished": made["finished"]}
    default = args.work / "export" / cell.name.replace("/", "-")
    weights = Workspace(args.work).run(item.key).weights
    folder = export(item.run, cell, weights, args.out or default, told)
    make_console().print(f"{cell.name}: {folder}; loads back with equal outputs", highlight=False, soft_wrap=True)
    return DONE
