"""`bench run`: train the missing runs of a request, and show its leaderboard."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cli.report import write_reports
from benchmark.cli.support.common import (
    DEVICES,
    DONE,
    SOME_FAILED,
    by_option,
    check_device,
    folder_options,
    make_console,
    number_option,
    reports_folder,
    request_options,
)
from benchmark.cli.support.execution_options import ensure_folders, execution_options, launch_of
from benchmark.cli.support.request import Request, read_request
from benchmark.cli.support.run_setup import check_batches, checked_setup
from benchmark.cli.support.torchrun import help_out, joined, process_count
from benchmark.execution import trackers
from benchmark.spec import bounds
from families.spec import UnknownName, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from benchmark.execution.launcher import Launch


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("run", help="train what a request needs and show its leaderboard")
    request_options(parser)
    folder_options(parser)
    execution_options(parser)
    number_option(parser, "--micro-batch", bounds.BATCH, metavar="N", help="images at a time; more accumulate gradients")
    parser.add_argument("--tracker", metavar="NAMES", help=f"also send learning curves to {', '.join(trackers.names())}")
    parser.add_argument("--tensorboard", action="store_true", help="as --tracker tensorboard: event files below --work")
    parser.add_argument("--by", type=by_option, metavar="NAME", help="who you are, or your group, for the results' provenance")
    parser.add_argument("--energy", action="store_true", help="measure the electricity of training, by codecarbon")
    parser.add_argument("--dry-run", action="store_true", help="show what would be trained, and train nothing")
    parser.add_argument("--json", action="store_true", help="with --dry-run: for programs")
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    from benchmark.storage.provenance import code_version

    code_version()  # of the code that is loaded: later edits are noticed
    asked = read_request(vars(args))
    if args.json and not args.dry_run:
        raise UserError("--json goes with --dry-run; a finished run's numbers come from bench report --json")
    launch = launch_of(args, asked)
    check_batches(asked.plan.items.values(), launch.setup.processes * process_count(), args.micro_batch)
    if args.dry_run:
        if args.device not in DEVICES:
            raise UnknownName("device", args.device, DEVICES)
        _preview(launch, args.json)
        return DONE
    with joined(args.device, launch.backend.in_process) as ranks:
        if not ranks.first:
            return help_out(ranks)
        try:
            return _lead(args, launch, asked)
        finally:
            ranks.broadcast(None)


def _lead(args: argparse.Namespace, launch: Launch, asked: Request) -> int:
    """Train missing runs and show the leaderboard; on a scheduler submit them, and show it only
    with --wait."""
    from benchmark.cli.support.run_output import show_where_to_look, train
    from benchmark.execution.survey import Survey

    survey, detached = Survey(launch), launch.backend.detached
    check_device(args.device, here=not detached)
    reports = reports_folder(args)
    ensure_folders(args, launch, ("--reports", reports))
    console = make_console()
    launch.setup = checked_setup(args, launch, survey, console)
    outcome = train(launch, survey, console, args.wait)
    if outcome.submitted or outcome.elsewhere:
        show_where_to_look(launch, console)
    if not detached or args.wait or not (outcome.submitted or outcome.elsewhere):
        _close(args.results, reports, asked, console)
    return SOME_FAILED if outcome.failed else DONE


def _close(results: Path, reports: Path, asked: Request, console: Console) -> None:
    from benchmark.analysis.leaderboard import leaderboard
    from benchmark.analysis.sorting import sort_results
    from benchmark.reporting.gather import gather
    from benchmark.reporting.terminal import show
    from benchmark.spec.definitions import Definitions
    from benchmark.spec.teachers import spelt_out
    from benchmark.storage.results import read_results

    plan = asked.plan
    found = sort_results(*read_results(results), {plan.protocol: Definitions(asked.protocol)})
    wanted = set(plan.cells)
    current = [result for result in found.current if result.cell in wanted]
    for part in asked.parts:
        spelt = spelt_out(asked.protocol, part.study, part.teachers)
        whole = plan.distinct_comparisons  # of the request
        described, own = (plan.protocol, asked.protocol.description), (part.name, spelt)
        board = leaderboard(described, own, current, whole, part.teachers, measure=asked.protocol.measure)
        show(board, console)
    console.print(asked.protocol.description.strip(), style="dim", markup=False, highlight=False)
    given = {part.name: part.study for part in asked.parts}
    write_reports(gather(results, (plan.protocol, asked.protocol), given), reports, console)


def _preview(launch: Launch, as_json: bool) -> None:
    from benchmark.cli.support.dry_run import preview, show
    from benchmark.storage.results import uncollected

    with uncollected():
        found = preview(launch)
        if as_json:
            print(json.dumps(found, indent=1))
        else:
            show(found, launch, make_console())
