"""The runs that `status`, `cancel`, `logs`, `export` and `inspect` look at."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cli.support.common import REQUEST, path_option, request_options
from benchmark.cli.support.request import read_request
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.execution.monitor import Monitor, Wanted
    from benchmark.execution.submissions import Submissions
    from benchmark.spec.plan import Item, Plan
    from benchmark.spec.run import Cell


def work_folder_options(parser: argparse.ArgumentParser) -> None:
    """Give a verb the options that choose runs of a work folder."""
    request_options(parser, "those of the requests made so far in --work", given=False)
    parser.add_argument("--seeds", metavar="0,1,2")
    parser.add_argument("--results", type=path_option, metavar="DIR")
    parser.add_argument("--work", type=path_option, default=Path(".bench"), metavar="DIR", help="default: .bench")


def names_something(args: argparse.Namespace) -> bool:
    """Whether the options name any runs."""
    return any(getattr(args, name, None) is not None for name in REQUEST)


def monitor_of(args: argparse.Namespace) -> Monitor:
    """The states of the runs that the options choose."""
    from benchmark.execution.monitor import Monitor

    submissions = submissions_of(args.work)
    return Monitor(submissions.workspace, wanted_of(args, submissions), submissions)


def finished_run(word: str, args: argparse.Namespace) -> tuple[Item, Cell, dict[str, Any]]:
    """The finished run that a word names, the cell that it names it by, and its result. Raises
    UserError for none, several, or one that is not finished; WeightsError for weights that are not
    what it left."""
    from benchmark.execution.monitor import find_run, names_cell
    from benchmark.training.state_files import weights_of

    monitor = monitor_of(args)
    workspace, key = monitor.workspace, find_run(monitor, word)
    item = next((item for (each, _), (item, _) in monitor.entries.items() if each == key), None)
    payload = workspace.payload(key)
    if workspace.run(key).weights.is_file():
        weights_of(workspace, key)
    if item is None or payload is None:
        raise UserError(f"{word}: not finished in {args.work}, or of a protocol that has changed since")
    return item, next((cell for cell in item.cells if names_cell(word, cell)), item.cells[0]), payload


def submissions_of(work: Path) -> Submissions:
    """The submissions of a work folder. Raises UserError if the path is no folder."""
    from benchmark.execution.submissions import Submissions
    from benchmark.storage.work_folder import Workspace

    if os.path.lexists(work) and not work.is_dir():
        raise UserError(f"--work {work}: not a folder")
    return Submissions(Workspace(work))


def wanted_of(args: argparse.Namespace, submissions: Submissions) -> list[Wanted]:
    """The runs of all requests made in the work folder, or those of them that the options name;
    else the runs named."""
    from benchmark.execution.monitor import Wanted
    from benchmark.storage.results import Results

    made = list(_made(args, submissions))
    if not names_something(args):
        if not made:
            raise UserError(f"nothing was submitted from --work {args.work} yet; or name a request, as in --family deit3")
        return made
    named = read_request(vars(args)).plan  # raises for unknown families, sizes and studies
    return _narrowed(args, made, named) or [Wanted(named, Results(args.results or Path("results")))]


def _made(args: argparse.Namespace, submissions: Submissions) -> Iterator[Wanted]:
    """The requests made in the work folder, each once. One that is not valid any more is named on
    stderr."""
    from benchmark.execution.monitor import Wanted
    from benchmark.storage.results import Results

    requests = {json.dumps(each.request, sort_keys=True): each.request for each in submissions.submissions()}
    for request in requests.values():
        try:
            yield Wanted(read_request(request).plan, Results(args.results or Path(request.get("results") or "results")))
        except UserError as error:  # a protocol file that is gone, say
            print(f"bench: a request made before can not be read again: {error}", file=sys.stderr)


def _narrowed(args: argparse.Namespace, made: list[Wanted], named: Plan) -> list[Wanted]:
    """Those runs of earlier requests that the options name."""
    labels = {"family": args.family, "size": args.sizes, "seed": args.seeds}
    only: dict[str, Any] = {
        label: {getattr(cell, label) for cell in named.cells} for label, given in labels.items() if given is not None
    }
    studies, found = set(named.study.split(",")), []
    for each in made:
        own = set(each.plan.study.split(","))
        if (args.protocol is None or each.plan.protocol == named.protocol) and (args.study is None or studies & own):
            partly = args.study is not None and not own <= studies  # only the arms of the named studies
            found.append(each.narrowed(only | ({"arm": {cell.arm for cell in named.cells}} if partly else {})))
    return [each for each in found if each.plan.items]
