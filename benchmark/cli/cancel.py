"""`bench cancel`: end jobs."""

from __future__ import annotations

import argparse
from typing import Any

from benchmark.cli.support.common import DONE, make_console
from benchmark.cli.support.work_folder import names_something, submissions_of, wanted_of, work_folder_options


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("cancel", help="end what is queued or running; what is finished stays")
    work_folder_options(parser)
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    from benchmark.execution.monitor import cancel

    submissions = submissions_of(args.work)
    jobs, runs, mixed = cancel(submissions, wanted_of(args, submissions) if names_something(args) else None)
    console = make_console()
    if jobs:
        what = f"cancelled {jobs} jobs with {runs} runs; what they had is in their checkpoints, bench run goes on from there"
        console.print(what, highlight=False, soft_wrap=True)
    if mixed:
        console.print(f"{mixed} jobs go on, since they have other runs too", highlight=False)
    if not jobs and not mixed:
        console.print("nothing is queued or running", highlight=False)
    return DONE
