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
    check_device,
    cores,
    folder_options,
    make_console,
    number_option,
    path_option,
    reports_folder,
    request_options,
)
from benchmark.cli.support.request import Request, read_request
from benchmark.cli.support.run_setup import check_batches, checked_setup
from benchmark.cli.support.torchrun import help_out, joined, local_process_count, process_count
from benchmark.execution import backends
from benchmark.spec import bounds
from families.spec import UnknownName, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from benchmark.execution.backends.backend import Backend
    from benchmark.execution.launcher import Launch


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("run", help="train what a request needs and show its leaderboard")
    request_options(parser)
    folder_options(parser)
    parser.add_argument("--seeds", metavar="0,1,2", help="default: the protocol's")
    parser.add_argument("--cluster", default=backends.DEFAULT, metavar="NAME", help=f"one of {', '.join(backends.names())}")
    parser.add_argument(
        "--cluster-config", type=path_option, metavar="FILE", help="what jobs on Slurm get (default: the user's file)"
    )
    parser.add_argument("--wait", action="store_true", help="on Slurm: until all is done, then show the leaderboard")
    number_option(parser, "--jobs", bounds.JOBS, metavar="N", help="workers, or jobs on Slurm, at a time; default: one a core")
    parser.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda or auto (default)")
    number_option(
        parser, "--processes", bounds.PROCESSES, metavar="N", help="on each node, that share each run's batches (default: 1)"
    )
    parser.add_argument("--data", type=path_option, metavar="DIR", help="the images, for protocols that need some")
    number_option(
        parser, "--workers", bounds.WORKERS, metavar="N", help="image loaders a process; default: none on a CPU, else its share"
    )
    parser.add_argument("--weights", type=path_option, metavar="DIR", help="pre-trained teachers (default: weights in --work)")
    number_option(parser, "--micro-batch", bounds.BATCH, metavar="N", help="images at a time; more accumulate gradients")
    parser.add_argument("--tensorboard", action="store_true", help="also write event files below --work")
    parser.add_argument("--work", type=path_option, default=Path(".bench"), metavar="DIR", help="checkpoints, logs, teachers")
    parser.add_argument("--dry-run", action="store_true", help="show what would be trained, and train nothing")
    parser.add_argument("--json", action="store_true", help="with --dry-run: for programs")
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    from benchmark.execution.launcher import Launch
    from benchmark.execution.setup import Setup
    from benchmark.storage.provenance import code_version
    from benchmark.storage.results import Results
    from benchmark.storage.work_folder import Workspace

    code_version()  # of the code that is loaded: later edits are noticed
    asked = read_request(vars(args))
    backend = _backend(args)
    check_batches(asked.plan, backend.processes * process_count(), args.micro_batch)
    setup = Setup(backend.device(args.device), backend.at_a_time(cores() // backend.processes), backend.processes)
    words = asked.words | {"results": str(args.results.absolute())}
    launch = Launch(asked.plan, asked.protocol, Workspace(args.work), Results(args.results), backend, setup, words)
    if args.dry_run:
        if args.device not in DEVICES:
            raise UnknownName("device", args.device, DEVICES)
        _preview(launch, args.json)
        return DONE
    with joined(args.device, backend.in_process) as ranks:
        if not ranks.first:
            return help_out(ranks)
        try:
            return _lead(args, launch, asked)
        finally:
            ranks.broadcast(None)


def _backend(args: argparse.Namespace) -> Backend:
    """The backend with its options. Raises UserError for options that do not go together."""
    backend = backends.load(args.cluster)
    if args.json and not args.dry_run:
        raise UserError("--json goes with --dry-run; a finished run's numbers come from bench report --json")
    if args.cluster_config and not backend.takes_config:
        others = [name for name in backends.names() if backends.load(name).takes_config]
        raise UserError(f"--cluster-config goes with --cluster {' or '.join(others)}")
    local_process_count()
    return backend(args.cluster_config, args.jobs, args.processes)


def _lead(args: argparse.Namespace, launch: Launch, asked: Request) -> int:
    """Train missing runs and show the leaderboard; on a scheduler submit them, and show it only
    with --wait."""
    from benchmark.cli.support.run_output import show_where_to_look, train
    from benchmark.execution.survey import Survey
    from benchmark.storage.files import ensure_all_writable

    survey, detached = Survey(launch), launch.backend.detached
    check_device(args.device, here=not detached)
    reports = reports_folder(args)
    cells = sorted({launch.results.path(cell).parent for cell in launch.plan.cells})
    given = (("--reports", reports), ("--work", args.work), ("--results", args.results))
    ensure_all_writable([*given, *(("--results", folder) for folder in cells)])
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
        board = leaderboard((plan.protocol, asked.protocol.description), (part.name, spelt), current, whole, part.teachers)
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
