"""`bench run`: train what a request needs, and show its leaderboard."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import families
from benchmark.cli.common import (
    DEVICES,
    DONE,
    SOME_FAILED,
    check_device,
    cores,
    counting_bar,
    fetch_with_bar,
    folder_options,
    make_console,
    number_option,
    path_option,
    reports_folder,
    request_options,
)
from benchmark.cli.report import write_reports
from benchmark.cli.request import Request, read_request
from benchmark.spec import bounds
from families.spec import UnknownName, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from benchmark.execution.cluster_config import ClusterConfig
    from benchmark.execution.launcher import Launcher, Outcome
    from benchmark.spec.plan import Plan


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("run", help="train what a request needs and show its leaderboard")
    request_options(parser)
    folder_options(parser)
    parser.add_argument("--seeds", metavar="0,1,2", help="default: the protocol's")
    parser.add_argument("--cluster", default="local", metavar="NAME", help="local (processes), debug (in this process) or slurm")
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
    from benchmark.execution.launcher import CLUSTERS, Launcher
    from benchmark.execution.setup import Setup
    from benchmark.storage.provenance import code_version
    from benchmark.storage.results import Results
    from benchmark.storage.work_folder import Workspace

    code_version()  # of what is loaded from here on: an edit from now on would be seen
    asked = read_request(vars(args))
    if args.cluster not in CLUSTERS:
        raise UnknownName("cluster", args.cluster, CLUSTERS)
    if args.json and not args.dry_run:
        raise UserError("--json goes with --dry-run; a finished run's numbers come from bench report --json")
    if args.cluster == "debug" and (args.processes or 1) > 1:
        raise UserError("--processes goes with --cluster local; for debug, torchrun starts them")
    _started_here()
    config = _cluster_config(args)
    processes = config.ranks if args.cluster == "slurm" else args.processes or 1
    _check_batches(asked.plan, args, processes * _started_together())
    jobs = {"debug": 1, "local": args.jobs or max(1, cores() // processes), "slurm": config.parallel}[args.cluster]
    setup = Setup("cuda" if config.gpus and args.device == "auto" else args.device, jobs, processes)
    words = asked.words | {"results": str(args.results.absolute())}
    workspace, results = Workspace(args.work), Results(args.results)
    launcher = Launcher(asked.plan, asked.protocol, workspace, results, args.cluster, setup, config, words)
    if args.dry_run:
        if args.device not in DEVICES:
            raise UnknownName("device", args.device, DEVICES)
        _preview(launcher, args.json)
        return DONE
    with _joined(args) as ranks:
        if not ranks.first:
            return _help_out(ranks)
        try:
            return _lead(args, launcher, asked)
        finally:
            ranks.broadcast(None)


def _cluster_config(args: argparse.Namespace) -> ClusterConfig:
    """What jobs get: from --cluster-config or the user's file, --jobs and --processes before both; the defaults off Slurm."""
    from benchmark.execution.cluster_config import ClusterConfig, load_config
    from benchmark.spec.records import validated

    if args.cluster != "slurm":
        if args.cluster_config:
            raise UserError("--cluster-config goes with --cluster slurm")
        return ClusterConfig()
    chosen = {"parallel": args.jobs, "processes": args.processes}
    given = load_config(args.cluster_config).model_dump(exclude_unset=True)
    overruled = given | {name: value for name, value in chosen.items() if value is not None}
    return validated(ClusterConfig, overruled, "--jobs and --processes with the cluster's settings")


def _lead(args: argparse.Namespace, launcher: Launcher, asked: Request) -> int:
    """Train what is missing and show the leaderboard; on Slurm submit it, and that only with --wait."""
    from benchmark.storage.files import ensure_all_writable

    todo = launcher.survey()
    check_device(args.device, here=not launcher.detached)
    reports = reports_folder(args)
    cells = sorted({launcher.results.path(cell).parent for cell in launcher.plan.cells})
    given = (("--reports", reports), ("--work", args.work), ("--results", args.results))
    ensure_all_writable([*given, *(("--results", folder) for folder in cells)])
    console = make_console()
    launcher.setup = _setup(args, launcher, todo, console)
    outcome = _train(launcher, todo, console, args.wait)
    if outcome.submitted or outcome.elsewhere:
        _show_where_to_look(launcher, console)
    if not launcher.detached or args.wait or not (outcome.submitted or outcome.elsewhere):
        _close(args.results, reports, asked, console)
    return SOME_FAILED if outcome.failed else DONE


def _show_where_to_look(launcher: Launcher, console: Console) -> None:
    work = launcher.workspace.folder
    option = "" if work == Path(".bench").absolute() else f" --work {work}"
    console.print(
        f"bench status{option}: how far they are; bench logs{option} RUN: what one says; bench cancel{option}: end them\n"
        "The same command again submits what failed, and shows the leaderboard once all is done.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _joined(args: argparse.Namespace) -> Any:
    """The processes that torchrun started this command in; without it, this one."""
    from contextlib import nullcontext

    if _started_together() == 1:
        from types import SimpleNamespace  # benchmark.ranks would bring torch, before it is known to be needed

        return nullcontext(SimpleNamespace(first=True, broadcast=lambda said: said))
    from benchmark.execution.setup import torch_device
    from benchmark.training.distributed import joined

    if args.cluster != "debug":
        raise UserError("under torchrun it is --cluster debug: the processes are there already")
    return joined(torch_device(args.device))


def _help_out(ranks: Any) -> int:
    """Take part in what the first process orders, until it is done."""
    from benchmark.execution.worker import share_work

    while (order := ranks.broadcast(None)) is not None:
        share_work(order, ranks)
    return DONE


def _started_together() -> int:
    """How many processes torchrun started this command in; 1 without it. Raises UserError where it did not set all variables."""
    size = bounds.JOBS.read("WORLD_SIZE", os.environ.get("WORLD_SIZE") or "1")
    if size > 1:
        absent = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
        if absent:
            raise UserError(f"WORLD_SIZE={size} without {', '.join(absent)}: torchrun sets all of them; else unset it")
        bounds.Whole(0, size - 1).read("RANK", os.environ["RANK"])
        bounds.WORKERS.read("LOCAL_RANK", os.environ["LOCAL_RANK"])
    return size


def _started_here() -> int:
    """How many of these are on this machine."""
    return bounds.PROCESSES.read("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_WORLD_SIZE") or "1")


def _check_batches(plan: Plan, args: argparse.Namespace, ranks: int) -> None:
    for item in plan.items.values():
        size = item.run.protocol.recipe.batch_size
        if ranks > 1 and size % (2 * ranks):
            raise UserError(f"a batch of {size} ({item.cells[0]}) is not a multiple of twice the {ranks} processes that share it")
        whole = item.run.transfer.source == "other-image" or item.run.protocol.recipe.objective == "masked"
        if whole and (ranks > 1 or args.micro_batch):
            raise UserError(f"{item.cells[0]} needs whole batches: no --micro-batch, and one process")


def _setup(args: argparse.Namespace, launcher: Launcher, todo: list[Any], console: Console) -> Any:
    """How runs are trained here, once data and weights were found to be what the protocol says."""
    from dataclasses import replace

    from benchmark.data import DataLocation, check
    from benchmark.execution.setup import data_of, place_of, torch_device

    setup = launcher.setup
    if args.tensorboard:
        _check_tensorboard()
    if launcher.detached:
        share = launcher.config.cpus - 1 if launcher.config.gpus else 0
    else:
        on_gpus = bool(todo) and torch_device(args.device) == "cuda"
        if on_gpus and args.cluster == "local":
            import torch

            setup = replace(setup, jobs=args.jobs or max(1, torch.cuda.device_count() // setup.processes))
        beside = setup.jobs * setup.processes * _started_here()
        share = cores() // beside if on_gpus else 0
    root = None if args.data is None else args.data.absolute()
    place = DataLocation(root, args.work.absolute(), share if args.workers is None else args.workers)
    weights = args.weights or args.work / "weights"
    setup = replace(
        setup, place=place, weights=weights.absolute(), micro_batch=args.micro_batch, tensorboard=args.tensorboard
    )  # fmt: skip
    if not todo:
        return setup
    with counting_bar(console) as progress:
        items = {data_of(item.run): item for item in launcher.plan.items.values()}
        everywhere = replace(place, workers=cores())
        looked_at = {key: check(each.run.protocol.data, place_of(each, everywhere), progress) for key, each in items.items()}
        found = {key: digest for key, digest in looked_at.items() if digest is not None}
    other = launcher.other_images(found)
    if other is not None:
        raise UserError(f"the images in {args.data} are not those that made {other}: choose another --results, or those images")
    _check_weights(launcher, todo, setup.weights, console)
    return replace(setup, data=found)


def _check_weights(launcher: Launcher, todo: list[Any], folder: Path, console: Console) -> None:
    """Fetch what is missing of the pre-trained teachers, and load each once. Raises WeightsError."""
    wanted = {
        (item.cells[0].family, item.cells[0].size): item for item in todo if item.run.teacher and "weights" in item.run.teacher
    }
    for (family, size), item in wanted.items():
        from families.core.weights import file_digest, load_pretrained

        path = fetch_with_bar(family, size, folder, console)
        other = launcher.other_weights(item, file_digest(path))
        if other is not None:
            raise UserError(f"{path} is not the file that made {other}: choose another --results and --work, or that file")
        with console.status(f"loading {path.name}"):
            load_pretrained(families.spec(family).teacher(size), path)


def _check_tensorboard() -> None:
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise UserError("--tensorboard: it is not installed; pip install tensorboard") from None


def _train(launcher: Launcher, todo: list[Any], console: Console, wait: bool) -> Outcome:
    from benchmark.execution.live_progress import LiveProgress

    launcher.fill()
    outcome, plan = launcher.outcome, launcher.plan
    merged = len(plan.cells) - len(plan.items)
    console.print(
        f"{len(plan.items)} runs ({len(plan.cells)} cells, {merged} shared): {len(outcome.found)} finished before, "
        f"{len(outcome.restored)} restored from {launcher.workspace.folder}, {len(todo)} to train on {launcher.cluster}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    for key in outcome.retrained:
        console.print(f"{plan.items[key].cells[0]}: has a result but no weights here, so it is trained again", highlight=False)
    if todo and launcher.detached:
        launcher.submit(todo)
        _show_submitted(launcher, console)
    if todo and (wait or not launcher.detached):
        begun = time.monotonic()
        with LiveProgress(console, todo, launcher.workspace):
            if launcher.detached:
                launcher.follow(lambda told: console.print(f"{told}; still waiting", style="yellow", markup=False))
            else:
                launcher.train(todo)
                _show_elsewhere(outcome, console)
        minutes, seconds = divmod(round(time.monotonic() - begun), 60)
        console.print(f"trained {len(outcome.finished)} runs in {minutes} min {seconds} s", highlight=False)
    for key in outcome.waiting:
        console.print(
            f"{plan.items[key].cells[0]}: left, since what it needs first is queued or running elsewhere", highlight=False
        )
    for key, reason in outcome.failed.items():
        told = f"failed: {plan.items[key].cells[0]} ({key}): {reason}"
        console.print(told, style="red", highlight=False, markup=False, soft_wrap=True)
    if outcome.failed:
        console.print(f"logs and tracebacks: {launcher.workspace.folder}/runs/<key>/; the same command tries again")
    return outcome


def _show_submitted(launcher: Launcher, console: Console) -> None:
    outcome, arrays = launcher.outcome, launcher.submission.arrays
    if outcome.submitted:
        jobs = sum(len(array.jobs) for array in arrays)
        told = ", ".join(str(array.jobs[0].id).split("_")[0] for array in arrays)
        console.print(
            f"submitted {len(outcome.submitted)} runs as {jobs} jobs (Slurm's {told}), "
            f"at most {launcher.config.parallel} at a time",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    _show_elsewhere(outcome, console)


def _show_elsewhere(outcome: Outcome, console: Console) -> None:
    if outcome.elsewhere:
        console.print(f"{len(outcome.elsewhere)} runs are queued or running already: left as they are", highlight=False)


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


def _preview(launcher: Launcher, as_json: bool) -> None:
    from benchmark.cli.dry_run import preview, show
    from benchmark.storage.results import uncollected

    with uncollected():
        found = preview(launcher)
        if as_json:
            print(json.dumps(found, indent=1))
        else:
            show(found, launcher, make_console())
