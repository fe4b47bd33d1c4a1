"""`bench evaluate`: measure finished runs on sets, with other runs, or by their features."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from benchmark.cli.support.common import (
    DONE,
    SOME_FAILED,
    check_device,
    make_console,
    path_option,
    request_options,
)
from benchmark.cli.support.evaluation_sets import ALL
from benchmark.cli.support.execution_options import ensure_folders, execution_options, launch_of
from benchmark.cli.support.request import read_request
from benchmark.cli.support.run_setup import check_batches, checked_setup
from benchmark.cli.support.torchrun import help_out, joined, process_count
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.execution.launcher import Launch


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("evaluate", help="measure finished runs on more sets, or by their features")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="as in deit3/base/standard-copy-s0 (default: a request's)")
    request_options(parser)
    parser.add_argument("--sets", metavar="NAMES|PATH:CLASSES", help="as in imagenet_a,imagenet_r (default: the protocol's)")
    parser.add_argument("--features", action="store_true", help="k-NN and linear probe, of the teacher's features too")
    parser.add_argument("--retrain", action="store_true", help="train runs again whose weights are gone")
    parser.add_argument("--results", type=path_option, default=path_option("results"), metavar="DIR", help="default: results")
    execution_options(parser)
    parser.set_defaults(verb=execute, micro_batch=None, tensorboard=False, tracker=None, by=None, energy=False)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    from benchmark.storage.provenance import code_version

    code_version()
    if not all(args.runs):
        raise UserError("RUN is empty: as in deit3/base/standard-copy-s0")
    for option in ("seeds", "family", "sizes", "teacher", "licence"):
        if args.runs and getattr(args, option) is not None:
            raise UserError(f"--{option} goes with a request; RUN names its own")
    named = args.sets if args.sets is not None else "" if args.features else ALL
    sets = ",".join(filter(None, (named, "features,teacher_features" if args.features else "")))
    asked = read_request(vars(args) | {"sets": sets, "runs": "\n".join(args.runs) or None})
    launch = launch_of(args, asked)
    with joined(args.device, launch.backend.in_process) as ranks:
        if not ranks.first:
            return help_out(ranks)
        try:
            return _lead(args, launch)
        finally:
            ranks.broadcast(None)


def _lead(args: argparse.Namespace, launch: Launch) -> int:
    from benchmark.cli.support.run_output import show_where_to_look, train
    from benchmark.execution.survey import Survey

    survey = Survey(launch, trains=False, retrains=args.retrain)
    check_batches(survey.todo, launch.setup.processes * process_count(), None)
    check_device(args.device, here=not launch.backend.detached)
    ensure_folders(args, launch)
    console = make_console()
    launch.setup = checked_setup(args, launch, survey, console)
    if args.sets is not None and survey.absent:
        raise UserError(next(iter(survey.absent.values())))
    outcome = train(launch, survey, console, args.wait)
    if outcome.submitted or outcome.elsewhere:
        show_where_to_look(launch, console)
    elif outcome.finished:
        console.print("bench report shows the new scores", highlight=False)
    return SOME_FAILED if outcome.failed else DONE
