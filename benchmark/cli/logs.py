"""`bench logs`: the log of a run."""

from __future__ import annotations

import argparse
from typing import Any

from benchmark.cli.support.common import DONE
from benchmark.cli.support.work_folder import monitor_of, work_folder_options


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("logs", help="show a run's log, and why it failed")
    parser.add_argument("run", metavar="RUN", help="as in deit3/base/standard-copy-s0, or its key")
    parser.add_argument("--follow", action="store_true", help="go on while it runs")
    work_folder_options(parser)
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    from benchmark.execution.monitor import find_run, log_of

    monitor = monitor_of(args)
    for line in log_of(monitor, find_run(monitor, args.run), args.follow):
        print(line, flush=True)
    return DONE
