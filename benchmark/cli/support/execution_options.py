"""Options that say where and how runs are trained or evaluated, and the launch that they make."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli.support.common import cores, number_option, path_option
from benchmark.cli.support.request import Request
from benchmark.cli.support.torchrun import local_process_count
from benchmark.execution import backends
from benchmark.spec import bounds
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.execution.backends.backend import Backend
    from benchmark.execution.launcher import Launch


def execution_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--seeds", metavar="0,1,2", help="default: the protocol's")
    parser.add_argument("--cluster", default=backends.DEFAULT, metavar="NAME", help=f"one of {', '.join(backends.names())}")
    parser.add_argument(
        "--cluster-config", type=path_option, metavar="FILE", help="what jobs on Slurm get (default: the user's file)"
    )
    parser.add_argument("--wait", action="store_true", help="on Slurm: until all is done")
    number_option(parser, "--jobs", bounds.JOBS, metavar="N", help="workers, or jobs on Slurm, at a time; default: one a core")
    parser.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda or auto (default)")
    number_option(
        parser, "--processes", bounds.PROCESSES, metavar="N", help="on each node, that share each run's batches (default: 1)"
    )
    parser.add_argument("--data", type=path_option, metavar="DIR", help="the images, for protocols that need some")
    number_option(
        parser, "--workers", bounds.WORKERS, metavar="N", help="image loaders a process; default: none on a CPU, else its share"
    )
    parser.add_argument(
        "--weights", type=path_option, metavar="DIR|FILE", help="pre-trained teachers (default: weights in --work)"
    )
    parser.add_argument("--work", type=path_option, default=Path(".bench"), metavar="DIR", help="checkpoints, logs, teachers")


def launch_of(args: argparse.Namespace, asked: Request) -> Launch:
    """The launch of a request. Raises UserError for options that do not go together."""
    from benchmark.execution.launcher import Launch
    from benchmark.execution.setup import Setup
    from benchmark.storage.results import Results
    from benchmark.storage.work_folder import Workspace

    backend = _backend(args)
    setup = Setup(backend.device(args.device), backend.at_a_time(cores() // backend.processes), backend.processes)
    words = asked.words | {"results": str(args.results.absolute())}
    return Launch(asked.plan, asked.protocol, Workspace(args.work), Results(args.results), backend, setup, words)


def _backend(args: argparse.Namespace) -> Backend:
    """The backend with its options. Raises UserError for options that do not go together."""
    backend = backends.load(args.cluster)
    if args.cluster_config and not backend.takes_config:
        others = [name for name in backends.names() if backends.load(name).takes_config]
        raise UserError(f"--cluster-config goes with --cluster {' or '.join(others)}")
    local_process_count()
    return backend(args.cluster_config, args.jobs, args.processes)


def ensure_folders(args: argparse.Namespace, launch: Launch, *others: tuple[str, Path]) -> None:
    """Raise UserError where a folder that is written cannot be."""
    from benchmark.storage.files import ensure_all_writable

    cells = sorted({launch.results.path(cell).parent for cell in launch.plan.cells})
    given = (*others, ("--work", args.work), ("--results", args.results))
    ensure_all_writable([*given, *(("--results", folder) for folder in cells)])
