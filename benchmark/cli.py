"""The command `bench`. Heavy imports stay inside the verbs: help and lists come at once."""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import families
from benchmark import bounds
from families.spec import MOST_SHOWN, UnknownName, UserError, quoted

if TYPE_CHECKING:
    from rich.console import Console

    from benchmark.bounds import Whole
    from benchmark.cluster import ClusterConfig
    from benchmark.jobs import Jobs
    from benchmark.launch import Launcher, Outcome
    from benchmark.overview import Overview
    from benchmark.plan import Plan
    from benchmark.protocol import Protocol, Study
    from benchmark.report import Report

DONE, SOME_FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130
MOST_SAID = 1000  # characters of a line


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 all done, 1 some run failed, 2 the request itself was wrong."""
    _prepare_streams()
    os.environ["MPLBACKEND"] = "agg"  # figures are drawn into files, whatever a user has set for windows
    try:
        args = _parser().parse_args(argv)
        return int(args.verb(args))
    except UserError as error:
        return _refused(str(error))
    except KeyboardInterrupt:
        print("bench: interrupted; the same command again goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:  # a full disk, a folder that is not ours
        if error.errno is None:
            raise
        return _refused(": ".join(str(part) for part in (error.filename, error.strerror) if part is not None))


def _prepare_streams() -> None:
    """Write a replacement for characters that the terminal lacks, and nothing to a stream that is closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="replace")


def _refused(told: str) -> int:
    """Print what is wrong with a request on one line of printable characters."""
    line = "".join(letter if letter.isprintable() else " " for letter in told)
    print(f"bench: {' '.join(line.split())[:MOST_SAID]}", file=sys.stderr)
    return WRONG_REQUEST


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        shown = " ".join(word if len(word) <= MOST_SHOWN else f"{word[:MOST_SHOWN]}..." for word in message[:MOST_SAID].split())
        raise UserError(f"{shown} (see {self.prog} --help)")


def _path(text: str) -> Path:
    """An option's path. An empty one (an unset shell variable) is refused: it would mean the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path")
    return Path(text)


def _number(parser: argparse.ArgumentParser, option: str, allowed: Whole, **given: Any) -> None:
    """Give a command an option that takes a whole number."""
    parser.add_argument(option, type=functools.partial(allowed.read, option), **given)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="bench", description="When does attention transfer work for Vision Transformers?")
    verbs = parser.add_subparsers(required=True, metavar="VERB", parser_class=_Parser)

    _run_parser(verbs)
    report = verbs.add_parser("report", help="render the leaderboard from result files")
    _folders(report)
    report.add_argument("--protocol", metavar="NAME|FILE", help="a protocol of yours, beside the shipped ones")
    report.add_argument("--study", metavar="FILES", help="studies of yours, beside the shipped ones")
    report.add_argument("--readme", type=_path, metavar="FILE", help="also renew the leaderboard block of a README")
    report.add_argument("--claims", type=_path, metavar="FILE", help="also write what is claimed beside what was measured")
    report.add_argument("--tables", metavar="NAMES|all", help="what to print, as in sizes,shifted (default: the main ones)")
    report.add_argument("--check", action="store_true", help="compare instead of writing; exit code 1 if anything differs")
    report.add_argument("--open", action="store_true", help="show the page in a browser")
    report.add_argument("--json", action="store_true", help="for programs; writes no files")
    report.set_defaults(verb=_report)

    listing = verbs.add_parser("list", help="families, teachers, studies, protocols")
    listing.add_argument("what", nargs="?", default="families", metavar="|".join(LISTS))
    listing.add_argument("--json", action="store_true", help="for programs: everything")
    listing.set_defaults(verb=_list)

    _work_parsers(verbs)
    _speed_parser(verbs)
    _inspect_parser(verbs)
    fetch = verbs.add_parser("fetch", help="put pre-trained teachers where nodes without network find them")
    fetch.add_argument("--family", default="all", metavar="NAMES|all", help="as in deit3,dinov2 (default: all)")
    fetch.add_argument("--sizes", metavar="SIZES", help="as in base,large (default: all that the families have)")
    fetch.add_argument("--weights", type=_path, metavar="DIR", help="where to (default: weights in --work)")
    fetch.add_argument("--work", type=_path, default=Path(".bench"), metavar="DIR", help="default: .bench")
    fetch.set_defaults(verb=_fetch)

    check = verbs.add_parser("check", help="the contract tests of one family, as a table; or a protocol's images")
    check.add_argument("--family", metavar="NAME", help="whose adapter is tested")
    check.add_argument("--protocol", metavar="NAME|FILE", help="whose images in --data are counted and decoded, once")
    check.add_argument("--data", type=_path, metavar="DIR")
    check.add_argument("--work", type=_path, default=Path(".bench"), metavar="DIR", help="remembers it (default: .bench)")
    check.set_defaults(verb=_check)
    return parser


def _run_parser(verbs: Any) -> None:
    run = verbs.add_parser("run", help="train what a request needs and show its leaderboard")
    _request(run)
    _folders(run)
    run.add_argument("--seeds", metavar="0,1,2", help="default: the protocol's")
    run.add_argument("--cluster", default="local", metavar="NAME", help="local (processes), debug (in this process) or slurm")
    run.add_argument("--cluster-config", type=_path, metavar="FILE", help="what jobs on Slurm get (default: the user's file)")
    run.add_argument("--wait", action="store_true", help="on Slurm: until all is done, then show the leaderboard")
    _number(run, "--jobs", bounds.JOBS, metavar="N", help="workers, or jobs on Slurm, at a time; default: one a core")
    run.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda or auto (default)")
    _number(run, "--processes", bounds.PROCESSES, metavar="N", help="on each node, that share each run's batches (default: 1)")
    run.add_argument("--data", type=_path, metavar="DIR", help="the images, for protocols that need some")
    _number(run, "--workers", bounds.WORKERS, metavar="N", help="image loaders a process; default: none on a CPU, else its share")
    run.add_argument("--weights", type=_path, metavar="DIR", help="pre-trained teachers (default: weights in --work)")
    _number(run, "--micro-batch", bounds.BATCH, metavar="N", help="images at a time; more accumulate gradients")
    run.add_argument("--tensorboard", action="store_true", help="also write event files below --work")
    run.add_argument("--work", type=_path, default=Path(".bench"), metavar="DIR", help="checkpoints, logs, teachers")
    run.add_argument("--dry-run", action="store_true", help="show what would be trained, and train nothing")
    run.add_argument("--json", action="store_true", help="with --dry-run: for programs")
    run.set_defaults(verb=_run)


def _work_parsers(verbs: Any) -> None:
    status = verbs.add_parser("status", help="what is finished, running, queued, failed, stale, missing")
    status.add_argument("--watch", action="store_true", help="keep the table live until nothing is queued or running")
    status.add_argument("--json", action="store_true", help="for programs: every run")
    status.set_defaults(verb=_status)
    cancel = verbs.add_parser("cancel", help="end what is queued or running; what is finished stays")
    cancel.set_defaults(verb=_cancel)
    logs = verbs.add_parser("logs", help="show a run's log, and why it failed")
    logs.add_argument("run", metavar="RUN", help="as in deit3/base/standard-copy-s0, or its key")
    logs.add_argument("--follow", action="store_true", help="go on while it runs")
    logs.set_defaults(verb=_logs)
    exported = verbs.add_parser("export", help="a finished model as a timm checkpoint and a folder of Hugging Face's layout")
    exported.add_argument("run", metavar="RUN", help="as in deit3/base/standard-distill-s0, or its key")
    exported.add_argument("--out", type=_path, metavar="DIR", help="a new folder (default: export/RUN in --work)")
    exported.set_defaults(verb=_export)
    for parser in (status, cancel, logs, exported):
        _request(parser, "those of the requests made so far in --work", given=False)
        parser.add_argument("--seeds", metavar="0,1,2")
        parser.add_argument("--results", type=_path, metavar="DIR")
        parser.add_argument("--work", type=_path, default=Path(".bench"), metavar="DIR", help="default: .bench")


def _speed_parser(verbs: Any) -> None:
    speed = verbs.add_parser("speed", help="time plain, copy and distill steps beside each other")
    speed.add_argument("--family", required=True, metavar="NAME")
    speed.add_argument("--size", metavar="SIZE", help="default: the family's first")
    speed.add_argument("--matched", action="store_true", help="the matched student (default: the standard one)")
    speed.add_argument("--protocol", metavar="NAME|FILE", help="as its runs do; run --dry-run then estimates hours")
    _number(speed, "--batch", bounds.BATCH, metavar="N", help="default: 8")
    _number(speed, "--img-size", bounds.PIXELS, metavar="PX", help="default: the teacher's; a multiple of its patch size")
    _number(speed, "--rounds", bounds.ROUNDS, default=20, metavar="N", help="steps of each kind, in turn (default: 20)")
    _number(speed, "--blocks", bounds.DEPTH, metavar="N", help="transfer the first N blocks (default: all)")
    speed.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda or auto (default)")
    speed.add_argument("--precision", metavar="NAME", help="float32 (default) or bfloat16")
    speed.add_argument("--teacher-precision", metavar="NAME", help="the teacher's own (default: the same)")
    speed.add_argument("--compile-teacher", action="store_true", help="run the teacher through torch.compile")
    speed.add_argument("--formulation", metavar="NAME", help="maps or parts (default: what is faster on the device)")
    _number(speed, "--threads", bounds.PROCESSES, metavar="N", help="of the CPU (default: one a core)")
    speed.add_argument("--no-yardstick", action="store_true", help="leave out the written-out maps")
    speed.add_argument("--data", type=_path, metavar="DIR", help="the images, where --protocol needs some")
    speed.add_argument("--images", type=_path, metavar="DIR", help="measure the loader on this folder of image folders")
    speed.add_argument(
        "--work", type=_path, default=Path(".bench"), metavar="DIR", help="where --protocol's measurements are kept"
    )
    speed.add_argument("--json", action="store_true", help="for programs")
    speed.set_defaults(verb=_speed)


def _inspect_parser(verbs: Any) -> None:
    inspect = verbs.add_parser("inspect", help="the picture of a teacher's attention, and its numbers by block")
    inspect.add_argument("--family", required=True, metavar="NAME")
    inspect.add_argument("--size", metavar="SIZE", help="default: the family's first")
    inspect.add_argument("--image", type=_path, metavar="FILE", help="default: the first test image of mini")
    inspect.add_argument("--blocks", metavar="0,5,11|all", help="whose maps are drawn (default: first, middle, last)")
    inspect.add_argument("--heads", metavar="0,3|all", help="beside their mean (default: all of few, else some)")
    inspect.add_argument("--query", metavar="WHOSE", help="cls, mean (of the patches), centre or ROW,COLUMN (default: cls)")
    inspect.add_argument("--protocol", default="mini", metavar="NAME|FILE", help="whose teacher it is (default: mini)")
    inspect.add_argument("--random", action="store_true", help="random weights: a look without training or fetching any")
    inspect.add_argument("--weights", type=_path, metavar="DIR", help="pre-trained teachers (default: weights in --work)")
    inspect.add_argument("--work", type=_path, default=Path(".bench"), metavar="DIR", help="where teachers lie (default: .bench)")
    inspect.add_argument("--out", type=_path, metavar="FILE.png", help="default: inspect/FAMILY-SIZE.png in --work")
    inspect.add_argument("--json", action="store_true", help="for programs: by head too")
    inspect.set_defaults(verb=_inspect)


DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")  # whether they are here is another question
REQUEST: dict[str, str | None] = {"family": "all", "sizes": None, "study": "main", "protocol": "mini", "seeds": None}


def _request(parser: argparse.ArgumentParser, otherwise: str = "", given: bool = True) -> None:
    """The options that say which runs; without `given` they have no defaults of their own, but mean `otherwise`."""
    for name, shape, told in (
        ("family", "NAMES|all", "as in deit3,dinov2 (default: all)"),
        ("sizes", "SIZES", "as in base,large (default: all that the families have)"),
        ("study", "NAMES|FILE", "as in main,parts (default: main)"),
        ("protocol", "NAME|FILE", "default: mini"),
    ):
        note = told if given else f"{told.split(' (')[0].split('default')[0]} (default: {otherwise})".strip()
        parser.add_argument(f"--{name}", default=REQUEST[name] if given else None, metavar=shape, help=note)


def _folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=_path, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument(
        "--reports", type=_path, metavar="DIR", help="default: reports beside results, FOLDER-reports beside FOLDER"
    )


# ---- run


def _run(args: argparse.Namespace) -> int:
    from benchmark.launch import CLUSTERS, Launcher
    from benchmark.store import Results, Workspace, code_version
    from benchmark.work import Setup

    code_version()  # of what is loaded from here on: an edit from now on would be seen
    asked = _asked(vars(args))
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
    jobs = {"debug": 1, "local": args.jobs or max(1, _cores() // processes), "slurm": config.parallel}[args.cluster]
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
            ranks.tell(None)


@dataclass(frozen=True)
class _Part:
    """One study of a request: its name and content, the teachers that it is asked for, and its own plan."""

    name: str
    study: Study
    teachers: list[tuple[str, str]]
    plan: Plan


@dataclass(frozen=True)
class _Asked:
    """A request: its words, made whole, and what they name; `plan` is that of all its studies."""

    words: dict[str, str | None]
    protocol: Protocol
    parts: list[_Part]
    plan: Plan


def _asked(options: Mapping[str, Any]) -> _Asked:
    """What the request's options name. Raises UserError."""
    from benchmark.plan import joined, make_plan, teachers_of
    from benchmark.protocol import load_protocol, load_studies, shipped
    from benchmark.store import uncollected

    words = {name: default if options.get(name) is None else options[name] for name, default in REQUEST.items()}
    name, protocol = load_protocol(str(words["protocol"]))
    parts = list[_Part]()
    for study_name, study in load_studies(str(words["study"])).items():
        teachers = teachers_of(str(words["family"]), words["sizes"], study.teachers)
        with uncollected():
            plan = make_plan(name, protocol, study_name, study, teachers, _seeds(words["seeds"], protocol))
        if not plan.items:
            raise UserError(
                f"study {study_name} has no arm for {words['family']}: what its * stands for is not there, or it is for others"
            )
        parts.append(_Part(study_name, study, teachers, plan))
    if words["protocol"] not in shipped("protocols"):  # a file, which later commands shall find from anywhere
        words["protocol"] = str(Path(str(words["protocol"])).absolute())
    listed = dict.fromkeys(word.strip() for word in str(words["study"]).split(","))
    words["study"] = ",".join(word if word in shipped("studies") else str(Path(word).absolute()) for word in listed)
    return _Asked(words, protocol, parts, joined([part.plan for part in parts]))


def _cluster_config(args: argparse.Namespace) -> ClusterConfig:
    """What jobs get: from --cluster-config or the user's file, --jobs and --processes before both; the defaults off Slurm."""
    from benchmark.cluster import ClusterConfig, load_config
    from benchmark.protocol import validated

    if args.cluster != "slurm":
        if args.cluster_config:
            raise UserError("--cluster-config goes with --cluster slurm")
        return ClusterConfig()
    chosen = {"parallel": args.jobs, "processes": args.processes}
    given = load_config(args.cluster_config).model_dump(exclude_unset=True)
    overruled = given | {name: value for name, value in chosen.items() if value is not None}
    return validated(ClusterConfig, overruled, "--jobs and --processes with the cluster's settings")


def _lead(args: argparse.Namespace, launcher: Launcher, asked: _Asked) -> int:
    """Train what is missing and show the leaderboard; on Slurm submit it, and that only with --wait."""
    from benchmark.files import ensure_all_writable

    todo = launcher.survey()
    _check_device(args.device, here=not launcher.detached)
    reports = _reports_folder(args)
    cells = sorted({launcher.results.path(cell).parent for cell in launcher.plan.cells})
    given = (("--reports", reports), ("--work", args.work), ("--results", args.results))
    ensure_all_writable([*given, *(("--results", folder) for folder in cells)])
    console = _console()
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

        return nullcontext(SimpleNamespace(first=True, tell=lambda said: said))
    from benchmark.ranks import joined
    from benchmark.work import torch_device

    if args.cluster != "debug":
        raise UserError("under torchrun it is --cluster debug: the processes are there already")
    return joined(torch_device(args.device))


def _help_out(ranks: Any) -> int:
    """Take part in what the first process orders, until it is done."""
    from benchmark.work import share_work

    while (order := ranks.tell(None)) is not None:
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

    from benchmark.data import Place, check
    from benchmark.work import data_of, place_of, torch_device

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
        share = _cores() // beside if on_gpus else 0
    root = None if args.data is None else args.data.absolute()
    place = Place(root, args.work.absolute(), share if args.workers is None else args.workers)
    weights = args.weights or args.work / "weights"
    setup = replace(
        setup, place=place, weights=weights.absolute(), micro_batch=args.micro_batch, tensorboard=args.tensorboard
    )  # fmt: skip
    if not todo:
        return setup
    with _counting(console) as progress:
        items = {data_of(item.run): item for item in launcher.plan.items.values()}
        everywhere = replace(place, workers=_cores())
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
        from families.weights import file_digest, load_pretrained

        path = _fetched(family, size, folder, console)
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


@contextmanager
def _counting(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar that `progress(what, done, of)` moves; nothing off a terminal."""
    from rich.progress import Progress

    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=of)

        yield progress


def _train(launcher: Launcher, todo: list[Any], console: Console, wait: bool) -> Outcome:
    from benchmark.progress import Board

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
        with Board(console, todo, launcher.workspace):
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


def _close(results: Path, reports: Path, asked: _Asked, console: Console) -> None:
    from benchmark.board import leaderboard, sort_results
    from benchmark.plan import Definitions, spelt_out
    from benchmark.report import gather, show
    from benchmark.store import read_results

    plan = asked.plan
    found = sort_results(*read_results(results), {plan.protocol: Definitions(asked.protocol)})
    wanted = set(plan.cells)
    current = [result for result in found.current if result.cell in wanted]
    for part in asked.parts:
        spelt = spelt_out(asked.protocol, part.study, part.teachers)
        whole = plan.distinct_comparisons  # of the request
        board = leaderboard((plan.protocol, asked.protocol.says), (part.name, spelt), current, whole, part.teachers)
        show(board, console)
    console.print(asked.protocol.says.strip(), style="dim", markup=False, highlight=False)
    given = {part.name: part.study for part in asked.parts}
    _write_reports(gather(results, (plan.protocol, asked.protocol), given), reports, console)


def _reports_folder(args: argparse.Namespace) -> Path:
    """Beside the results and of their name, so that results elsewhere never overwrite another folder's reports."""
    results: Path = args.results if args.results.name not in ("", "..") else args.results.resolve()
    return args.reports or results.with_name("reports" if results.name == "results" else f"{results.name}-reports")


def _seeds(text: str | None, protocol: Protocol) -> list[int]:
    if text is None:
        return list(protocol.seeds)
    if not re.fullmatch(r"[0-9]+(,[0-9]+)*", text):
        raise UserError(f"--seeds {quoted(text)}: whole numbers from 0 on with commas between them, as in 0,1,2")
    seeds = [bounds.SEED.read("--seeds", word) for word in text.split(",")]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {quoted(text)}: each once")
    return seeds


def _check_device(name: str, here: bool = True) -> None:
    """Whether it can be used, or at least (a cluster's nodes may have what is not `here`) is the name of one."""
    if name in ("auto", "cpu") or (name == "cuda" and not here):
        return
    if not here:
        raise UnknownName("device", name, ("auto", "cpu", "cuda"))
    import torch

    if ":" in name:
        raise UserError(f"--device {quoted(name)}: GPUs are chosen by CUDA_VISIBLE_DEVICES; valid: auto, cpu, cuda")
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        told = " ".join(str(error).split())[:MOST_SHOWN]
        raise UserError(f"--device {quoted(name)}: {told}; valid: auto, cpu, cuda") from None


def _preview(launcher: Launcher, as_json: bool) -> None:
    from benchmark.preview import preview, show
    from benchmark.store import uncollected

    with uncollected():
        found = preview(launcher)
        if as_json:
            print(json.dumps(found, indent=1))
        else:
            show(found, launcher, _console())


# ---- fetch


def _fetch(args: argparse.Namespace) -> int:
    from rich.table import Table

    from benchmark.files import ensure_writable
    from benchmark.plan import teachers_of
    from families.weights import WeightsError, record_of

    folder = (args.weights or args.work / "weights").absolute()
    wanted = teachers_of(args.family, args.sizes)
    ensure_writable("--weights", folder)
    console = _console()
    table = Table(title=f"weights in {folder}", header_style="bold")
    for column in ("teacher", "file", "MB", "source", "revision", "sha256", "licence"):
        table.add_column(column, overflow="fold")
    failed = []
    for family, size in wanted:
        teacher = families.spec(family).teacher(size)
        try:
            path = _fetched(family, size, folder, console)
        except WeightsError as error:  # the others may be there for the taking
            failed.append(str(error))
            console.print(f"failed: {family} {size}: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
            continue
        record = record_of(teacher, path)
        table.add_row(
            f"{family} {size}", str(path.relative_to(folder)), f"{path.stat().st_size / 1e6:.0f}", record["source"],
            (record["revision"] or "not known")[:12], (record["sha256"] or "")[:12], teacher.licence,
        )  # fmt: skip
    if table.row_count:
        console.print(table)
    if any("NC" in families.spec(family).teacher(size).licence for family, size in wanted):
        console.print("NC: not for commercial use; each licence is its authors', and holds for what is made with the weights.")
    return SOME_FAILED if failed else DONE


def _fetched(family: str, size: str, folder: Path, console: Console) -> Path:
    """The file of a teacher, downloaded where it is not there. Raises WeightsError."""
    from families.fetch import fetch

    with _counting(console) as progress:
        return fetch(families.spec(family).teacher(size), f"{family}-{size}", folder, lambda done, of: progress(
            f"fetching {family} {size}", done, of or 0
        ))  # fmt: skip


# ---- speed


def _speed(args: argparse.Namespace) -> int:
    from benchmark.protocol import load_protocol

    name, protocol = load_protocol(args.protocol) if args.protocol else (None, None)
    spec = families.spec(args.family)
    size = args.size or spec.sizes[0]
    precisions = ("float32", "bfloat16")
    given = ("batch", "img_size", "blocks", "precision", "teacher_precision", "compile_teacher", "formulation", "threads")
    for option in given:
        if protocol is not None and getattr(args, option):
            raise UserError(f"--{option.replace('_', '-')} goes without --protocol, which says it")
    for option, word, valid in (
        ("--precision", args.precision, (None, *precisions)),
        ("--teacher-precision", args.teacher_precision, (None, *precisions)),
        ("--formulation", args.formulation, (None, "maps", "parts")),
    ):
        if word not in valid:
            raise UnknownName(option, word, [each for each in valid if each])
    spec.teacher(size)
    _check_device(args.device)
    from benchmark.data import Place
    from benchmark.files import ensure_writable
    from benchmark.speed import limits, measure, measure_data, measure_images, protocol_setting, save, setting_of
    from benchmark.store import Workspace
    from benchmark.work import torch_device

    device = torch_device(args.device)
    if protocol is not None:
        setting = protocol_setting(protocol, args.family, size, args.matched, device)
    else:
        setting = setting_of(
            args.family,
            size,
            args.batch,
            args.img_size,
            matched=args.matched,
            blocks=args.blocks,
            device=device,
            precision=args.precision or "float32",
            teacher_precision=args.teacher_precision,
            compile_teacher=args.compile_teacher,
            threads=args.threads or _cores(),
            held=None if args.formulation is None else args.formulation == "maps",
        )
    pipeline = None if args.images is None else measure_images(args.images, setting.geometry["img_size"])
    if protocol is not None:
        ensure_writable("--work", args.work)
        pipeline = pipeline or measure_data(protocol, Place(args.data))
    console = _console(stderr=args.json)
    with console.status("measuring") as status:
        found = measure(setting, args.rounds, not args.no_yardstick, lambda doing: status.update(f"measuring: {doing}"))
    found["data"] = None if pipeline is None else pipeline | {"workers_needed": limits(found, pipeline)}
    if name is not None:
        save(Workspace(args.work), name, found)
    if args.json:
        print(json.dumps(found, indent=1))
        return DONE
    _show_speed(found, console)
    return DONE


def _show_speed(found: dict[str, Any], console: Console) -> None:
    from rich.table import Table

    setting = found["setting"]
    geometry = setting["geometry"]
    table = Table(
        title=f"{setting['family']} {setting['size']} ({'matched' if setting['matched'] else 'standard'} student), "
        f"{geometry['img_size']} px, {found['tokens']} tokens, batch {setting['batch']}, {setting['device']}, "
        f"{setting['precision']}, {setting['threads']} threads; {found['rounds']} rounds",
        header_style="bold",
    )
    columns = ("step", "ms (quartiles)", "ratio to plain (quartiles)", "images/s", "memory MiB", "teacher", "forward", "backward")
    for column in (*columns, "update"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for kind, title in SPEED_ROWS.items():
        row = found.get(kind)
        if row is None:
            continue
        low, high = (f"{1000 * value:.1f}" for value in row["quartiles"])
        near, far = (f"{value:.2f}" for value in row["ratio_quartiles"])
        memory = f"{row['peak_memory_mb']:.0f} ({row['memory_ratio']:.2f}x)" if "memory_ratio" in row else ""
        phases = [f"{1000 * row['phases'][name]:.1f}" if "phases" in row else "" for name in ("teacher", *columns[6:], "update")]
        table.add_row(
            title, f"{1000 * row['seconds']:.1f} ({low}–{high})", f"{row['ratio']:.3f} ({near}–{far})",
            f"{row['images_per_second']:.1f}", memory, *phases,
        )  # fmt: skip
    console.print(table)
    how = "maps are built once and held" if found["formulation"] == "maps" else "no map is held"
    console.print(f"Medians. {how}. Memory: peak above what importing takes, in a process of its own.", highlight=False)
    pipeline = found["data"]
    if pipeline is not None:
        needed = pipeline["workers_needed"]
        console.print(
            f"data: {pipeline['images_per_second_per_worker']:.0f} images/s a loader worker ({pipeline['source']}); one step "
            f"after the other needs {needed['plain']:.2f} workers for plain, {needed['copy']:.2f} for copy, "
            f"{needed['distill']:.2f} for distill. " + _advice(max(needed.values())),
            highlight=False,
        )


SPEED_ROWS = {
    "plain": "plain",
    "copy": "copy",
    "distill": "distill",
    "second_copy": "copy beside another arm",
    "second_distill": "distill beside another arm",
    "teacher": "teacher alone",
    "explicit_copy": "copy, maps written out",
    "explicit_distill": "distill, maps written out",
}


def _advice(workers: float) -> str:
    if workers < 0.5:
        return "The loader is not the limit."
    return (
        "The loader is the limit below that many: more workers, images stored at the size that is trained on, "
        "and arms that train together (they share each batch) help."
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- inspect


def _inspect(args: argparse.Namespace) -> int:
    from benchmark.protocol import load_protocol

    spec = families.spec(args.family)
    size = args.size or spec.sizes[0]
    spec.teacher(size)
    protocol = load_protocol(args.protocol)
    if args.weights is not None and (args.random or protocol[1].teacher is not None):
        raise UserError("--weights goes with a protocol of pre-trained teachers, as imagenet, and without --random")
    from benchmark.inspection import Request, as_json, check_format, draw, look, show

    path = args.out or args.work / "inspect" / f"{args.family}-{size}.png"
    check_format(path)
    words = (args.blocks, args.heads, args.query, args.image, args.weights, args.random)
    seen = look(Request(args.family, size, protocol, args.protocol, args.work, *words))
    found = as_json(seen)
    draw(seen, found, path)
    if args.json:
        print(json.dumps(found | {"picture": str(path)}, indent=1))
        return DONE
    console = _console()
    show(found, console)
    console.print(f"picture: {path}", highlight=False, soft_wrap=True)
    return DONE


# ---- status, cancel, logs


def _status(args: argparse.Namespace) -> int:
    from benchmark.overview import as_json, show, watch

    overview = _overview(args)
    if args.json:
        print(json.dumps(as_json(overview.look()), indent=1))
        return DONE
    (watch if args.watch else show)(overview, _console())
    return DONE


def _cancel(args: argparse.Namespace) -> int:
    from benchmark.overview import cancel

    known = _jobs(args.work)
    jobs, runs, mixed = cancel(known, _wanted(args, known) if _names_something(args) else None)
    console = _console()
    if jobs:
        what = f"cancelled {jobs} jobs with {runs} runs; what they had is in their checkpoints, bench run goes on from there"
        console.print(what, highlight=False, soft_wrap=True)
    if mixed:
        console.print(f"{mixed} jobs go on, since they have other runs too", highlight=False)
    if not jobs and not mixed:
        console.print("nothing is queued or running", highlight=False)
    return DONE


def _logs(args: argparse.Namespace) -> int:
    from benchmark.overview import find_run, log_of

    overview = _overview(args)
    for line in log_of(overview, find_run(overview, args.run), args.follow):
        print(line, flush=True)
    return DONE


def _export(args: argparse.Namespace) -> int:
    from benchmark.overview import find_run, names_cell
    from benchmark.work import weights_of

    overview = _overview(args)
    workspace = overview.workspace
    key = find_run(overview, args.run)
    item = next((item for (each, _), (item, _) in overview.entries.items() if each == key), None)
    payload, weights = workspace.payload(key), workspace.run(key) / "weights.pt"
    if weights.is_file():
        weights_of(workspace, key)
    if item is None or payload is None:
        raise UserError(f"{args.run}: not finished in {args.work}, or of a protocol that has changed since")
    from benchmark.export import export

    cell = next((cell for cell in item.cells if names_cell(args.run, cell)), item.cells[0])
    made, told = payload["provenance"], {"top-1 in % on the protocol's test set": payload["metrics"]["top1"], "key": key}
    told |= {"teacher": (payload["teacher"] or {}).get("source"), "commit": made["commit"], "finished": made["finished"]}
    default = args.work / "export" / cell.name.replace("/", "-")
    folder = export(item.run, cell, weights, args.out or default, told)
    _console().print(f"{cell.name}: {folder}; loads back with equal outputs", highlight=False, soft_wrap=True)
    return DONE


def _names_something(args: argparse.Namespace) -> bool:
    return any(getattr(args, name) is not None for name in REQUEST)


def _overview(args: argparse.Namespace) -> Overview:
    from benchmark.overview import Overview

    jobs = _jobs(args.work)
    return Overview(jobs.workspace, _wanted(args, jobs), jobs)


def _jobs(work: Path) -> Jobs:
    """What was submitted from a work folder. Raises UserError for what is no folder."""
    from benchmark.jobs import Jobs
    from benchmark.store import Workspace

    if os.path.lexists(work) and not work.is_dir():
        raise UserError(f"--work {work}: not a folder")
    return Jobs(Workspace(work))


def _wanted(args: argparse.Namespace, jobs: Jobs) -> list[Any]:
    """What status and others look at: all requests made in the work folder, or what is named of them; else what is named."""
    from benchmark.overview import Wanted
    from benchmark.store import Results

    requests = {json.dumps(each.request, sort_keys=True): each.request for each in jobs.submissions()}
    made = []
    for request in requests.values():
        try:
            made.append(Wanted(_asked(request).plan, Results(args.results or Path(request.get("results", "results")))))
        except UserError as error:  # a protocol file that is gone, say
            print(f"bench: a request made before can not be read again: {error}", file=sys.stderr)
    if not _names_something(args):
        if not made:
            raise UserError(f"nothing was submitted from --work {args.work} yet; or name a request, as in --family deit3")
        return made
    named = _asked(vars(args)).plan  # also tells what is no family, size or study
    within = {"family": args.family, "size": args.sizes, "seed": args.seeds}
    only = {label: {getattr(cell, label) for cell in named.cells} for label, given in within.items() if given is not None}
    if args.seeds is not None:
        only["seed"] = {
            bounds.SEED.read("--seeds", word) for word in args.seeds.split(",")
        }  # a teacher's own seed is 0, whatever was asked for
    studies = set(named.study.split(","))
    made = [each for each in made if args.protocol is None or each.plan.protocol == named.protocol]
    made = [each for each in made if args.study is None or studies & set(each.plan.study.split(","))]
    arms = {"arm": {cell.arm for cell in named.cells}}  # of a request of several studies those of the named ones
    several = [args.study is not None and not set(each.plan.study.split(",")) <= studies for each in made]
    found = [each.narrowed(only | (arms if more else {})) for each, more in zip(made, several, strict=True)]
    return [each for each in found if each.plan.items] or [Wanted(named, Results(args.results or Path("results")))]


# ---- report


def _report(args: argparse.Namespace) -> int:
    from benchmark.store import uncollected

    with uncollected():
        try:
            return _reported(args)
        finally:
            gc.freeze()  # or the interpreter looks through ten thousand results for garbage when it ends


def _reported(args: argparse.Namespace) -> int:
    from benchmark.files import ensure_writable
    from benchmark.page import finding_data
    from benchmark.protocol import load_protocol, load_studies
    from benchmark.report import FEW, as_json, gather, show

    for one, other in (*(("json", other) for other in ("check", "open", "readme", "claims")), ("check", "open")):
        if getattr(args, one) and getattr(args, other):
            raise UserError(f"--{one} goes without --{other}")
    protocol = load_protocol(args.protocol) if args.protocol else None
    studies = load_studies(args.study) if args.study else {}
    if not args.results.is_dir():
        raise UserError(f"--results {args.results}: no such folder")
    found, reports = gather(args.results, protocol, studies), _reports_folder(args)
    if args.json:
        invalid = {each.path.relative_to(args.results).as_posix(): each.reason for each in found.found.rejected}
        stale = [each.cell.path for each in found.found.stale]
        boards = [as_json(each) for each in found.boards]
        claims = [finding_data(each, found.published) for each in found.findings]
        print(json.dumps({"boards": boards, "findings": claims, "stale": stale, "invalid": invalid}, indent=1))
        return DONE
    documents = _documents(found, reports, args)
    if args.check:
        return _check_reports(found, reports, documents)
    ensure_writable("--reports", reports)
    console = _console()
    if not found.boards:
        console.print(f"no results to compare in {args.results}")
    if args.tables:
        _show_tables(found, args.tables, console)
    else:
        for board in found.boards:
            show(board, console, FEW)
    _write_reports(found, reports, console)
    _write_documents(documents)
    if args.open:
        import webbrowser

        webbrowser.open((reports / "index.html").absolute().as_uri())
    return DONE


def _show_tables(found: Report, names: str, console: Console) -> None:
    from benchmark.report import shared_tables, show, show_claims, show_table
    from benchmark.tables import CLAIMS, tables

    shared, claimed = shared_tables(found), [finding for finding in found.findings if finding.measured]
    own = {board.stem: [table.name for table in tables(board)] for board in found.boards}
    others = [*([CLAIMS] if claimed else []), *(table.name for table in shared)]
    known = list(dict.fromkeys([*(name for each in own.values() for name in each), *others]))
    wanted = known if names == "all" else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise UnknownName("table", name, known)
    for board in found.boards:
        if set(wanted) & set(own[board.stem]):
            show(board, console, names=wanted)
    for finding in claimed if CLAIMS in wanted else []:
        show_claims(finding, console)
    for table in shared:
        if table.name in wanted:
            show_table(table, console)


@dataclass(frozen=True)
class _Document:
    """A file beside the reports that holds some of them: the option that names it, what of it is rendered, the whole text."""

    option: str
    path: Path
    part: str
    text: str


def _documents(found: Report, reports: Path, args: argparse.Namespace) -> list[_Document]:
    """Those that were asked for, as they are to be."""
    from benchmark.report import claims_page, readme_block, with_block

    documents = []
    if args.readme is not None:
        block = readme_block(found, _beside(args.readme, reports))
        documents.append(_Document("--readme", args.readme, "leaderboard", with_block(args.readme, block)))
    if args.claims is not None:
        documents.append(_Document("--claims", args.claims, "table", claims_page(found, _beside(args.claims, reports))))
    return documents


def _check_reports(found: Report, reports: Path, documents: Sequence[_Document]) -> int:
    """Whether the reports, and what was rendered beside them, are what the results give: 0, or 1 with a line for each that is
    not."""
    from benchmark.report import differences

    lines = [f"{reports}/{line}" for line in differences(found, reports)]
    for each in documents:
        there = each.path.read_text("utf-8", errors="replace") if each.path.is_file() else ""
        lines += [f"{each.path}: its {each.part} is not what the results give"] if there != each.text else []
    for line in lines:
        print(line)
    if lines:
        print("the same command without --check writes anew what is not to be removed")
    return SOME_FAILED if lines else DONE


def _write_documents(documents: Sequence[_Document]) -> None:
    for each in documents:
        try:
            each.path.write_text(each.text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise UserError(f"{each.option} {each.path}: {error.strerror}") from None


def _beside(readme: Path, reports: Path) -> str:
    return Path(os.path.relpath(reports.absolute(), readme.absolute().parent)).as_posix()


def _write_reports(found: Report, reports: Path, console: Console) -> None:
    from benchmark.report import BOOK, FEW, left_out_lines, render
    from benchmark.tables import printable

    lines = left_out_lines(found.found, found.folder)
    for line in lines[:FEW]:
        console.print(f"left out: {line}", style="yellow", highlight=False, soft_wrap=True)
    if len(lines) > FEW:
        console.print(f"left out: {len(lines) - FEW} more, named in {reports / BOOK}", style="yellow", highlight=False)
    written = render(found, reports)
    whole = ", ".join(f"{board.comparisons} ({board.protocol} {board.study})" for board in found.boards)
    told = printable(f"reports: {reports / 'index.html'} and {len(written) - 1} other files")
    console.print(told, highlight=False, soft_wrap=True)
    console.print(
        f"In the reports, simultaneous intervals allow for all comparisons of a whole study: {printable(whole) or 'none yet'}.",
        style="dim", highlight=False,
    )  # fmt: skip


# ---- list, check

LISTS = ("families", "teachers", "studies", "protocols")


def _list(args: argparse.Namespace) -> int:
    if args.what not in LISTS:
        raise UnknownName("list", args.what, LISTS)
    catalogue = _catalogue()
    if args.json:
        print(json.dumps(catalogue, indent=1))
        return DONE
    from rich.table import Table

    table = Table(header_style="bold")
    if args.what == "families":
        _fill(table, ("family", "title", "sizes", "native components", "paper"), (
            (f["name"], f["title"], ", ".join(t["size"] for t in f["teachers"]),
             ", ".join(c["name"] for c in f["native"]) or "none", f["paper"]) for f in catalogue["families"]
        ))  # fmt: skip
    elif args.what == "teachers":
        listed = [(f, kind, t) for f in catalogue["families"] for kind in ("teachers", "alternatives") for t in f[kind]]
        _fill(table, ("family", "size", "", "model", "weights", "dim/depth/heads", "patch", "licence"), (
            (f["name"], t["size"], "alternative" if kind == "alternatives" else "", t["model"], t["weights"],
             f"{t['embed_dim']}/{t['depth']}/{t['num_heads']}", str(t["patch_size"]), t["licence"]) for f, kind, t in listed
        ))  # fmt: skip
    else:
        _fill(table, (args.what[:-1] if args.what == "protocols" else "study", "title"),
              ((entry["name"], entry["title"]) for entry in catalogue[args.what]))  # fmt: skip
    _console().print(table)
    return DONE


def _fill(table: Any, columns: Sequence[str], rows: Any) -> None:
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)


def _catalogue() -> dict[str, Any]:
    import yaml

    def told(kind: str, *keys: str) -> list[dict[str, Any]]:
        found = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in (Path(__file__).parent / kind).glob("*.yaml")}
        return [{"name": name} | {key: found[name][key] for key in keys if key in found[name]} for name in sorted(found)]

    return {
        "families": [_described(name) for name in families.names()],
        "studies": told("studies", "title", "teachers", "arms", "choose", "tables"),
        "protocols": told("protocols", "title"),
    }


def _described(name: str) -> dict[str, Any]:
    spec = families.spec(name)
    teachers, alternatives = (
        [
            {
                "size": teacher.size,
                "model": teacher.model,
                "weights": "timm" if teacher.official is None else teacher.official.url,
                **teacher.geometry,
                "licence": teacher.licence,
            }
            for teacher in group
        ]
        for group in (spec.teachers, spec.alternatives)
    )
    native = [
        {"name": c.name, "description": c.description, "source": c.source, "inert_under_copy": c.inert_under_copy}
        for c in spec.native
    ]
    about = {"name": name, "title": spec.title, "paper": spec.paper, "recipe": spec.recipe}
    return about | {"teachers": teachers, "alternatives": alternatives, "native": native}


def _check(args: argparse.Namespace) -> int:
    if (args.family is None) == (args.protocol is None):
        raise UserError("check takes --family NAME, or --protocol NAME with --data DIR")
    return _check_data(args) if args.family is None else _check_family(args)


def _check_data(args: argparse.Namespace) -> int:
    from benchmark.data import Place, check
    from benchmark.protocol import load_protocol

    name, protocol = load_protocol(args.protocol)
    console = _console()
    with _counting(console) as progress:
        found = check(protocol.data, Place(args.data, args.work.absolute(), _cores()), progress)
    told = "protocol {} needs no images" if found is None else "the images are those of protocol {}, and can be read"
    console.print(told.format(name), highlight=False)
    return DONE


def _check_family(args: argparse.Namespace) -> int:
    spec = families.spec(args.family)
    from rich.table import Table
    from rich.text import Text

    from benchmark.check import contract

    table = Table(title=f"{args.family}: {spec.title}", header_style="bold")
    for column in ("size", "contract", "", "found"):
        table.add_column(column, overflow="fold")
    rows = [row for size in spec.sizes for row in contract(args.family, size)]
    for row in rows:
        holds = Text("holds", "green") if row.holds else Text("fails", "red")
        table.add_row(row.size, row.claim, holds, row.found)
    console = _console()
    console.print(table)
    return DONE if all(row.holds for row in rows) else SOME_FAILED


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    # Off a terminal nothing wraps at 80 columns, so that logs and pipes keep whole lines. Names in brackets are no markup.
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, markup=False) if terminal else Console(width=160, stderr=stderr, markup=False)


if __name__ == "__main__":
    sys.exit(main())
