"""`bench export`: a finished model for other tools."""

from __future__ import annotations

import argparse
from typing import Any

from benchmark.cli.support.common import DONE, make_console, path_option
from benchmark.cli.support.work_folder import monitor_of, work_folder_options
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
    from benchmark.execution.monitor import find_run, names_cell
    from benchmark.spec.arm import trained_arm
    from benchmark.storage.scores import WORDS, field_of
    from benchmark.training.state_files import weights_of

    monitor = monitor_of(args)
    workspace = monitor.workspace
    key = find_run(monitor, args.run)
    item = next((item for (each, _), (item, _) in monitor.entries.items() if each == key), None)
    payload, weights = workspace.payload(key), workspace.run(key).weights
    if weights.is_file():
        weights_of(workspace, key)
    if item is None or payload is None:
        raise UserError(f"{args.run}: not finished in {args.work}, or of a protocol that has changed since")
    if item.evaluation is not None:
        raise UserError(f"{args.run}: nothing is trained by it; export {trained_arm(item.cells[0].arm)}-s{item.cells[0].seed}")
    from benchmark.tools.export import export

    cell = next((cell for cell in item.cells if names_cell(args.run, cell)), item.cells[0])
    score, made = payload["metrics"], payload["provenance"]
    told = {f"{WORDS[field_of(score)]} in % on the protocol's test set": score[field_of(score)], "key": key}
    told |= {"teacher": (payload["teacher"] or {}).get("source"), "commit": made["commit"], "finished": made["finished"]}
    default = args.work / "export" / cell.name.replace("/", "-")
    folder = export(item.run, cell, weights, args.out or default, told)
    make_console().print(f"{cell.name}: {folder}; loads back with equal outputs", highlight=False, soft_wrap=True)
    return DONE
