"""`bench status`: the state of each run."""

from __future__ import annotations

import argparse
import json
from typing import Any

from benchmark.cli.support.common import DONE, make_console
from benchmark.cli.support.work_folder import monitor_of, work_folder_options


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("status", help="what is finished, running, queued, failed, stale, missing")
    parser.add_argument("--watch", action="store_true", help="keep the table live until nothing is queued or running")
    parser.add_argument("--json", action="store_true", help="for programs: every run")
    work_folder_options(parser)
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    from benchmark.execution.monitor import as_json, show, watch

    monitor = monitor_of(args)
    if args.json:
        print(json.dumps(as_json(monitor.look()), indent=1))
        return DONE
    (watch if args.watch else show)(monitor, make_console())
    return DONE
