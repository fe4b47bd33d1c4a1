"""How `bench run` trains here, and the checks of data, weights and batches before it does."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import families
from benchmark.cli.support.common import cores, counting_bar, fetch_images_with_bar, fetch_with_bar
from benchmark.cli.support.torchrun import local_process_count
from families.spec import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from benchmark.data import Checked
    from benchmark.execution.launcher import Launch
    from benchmark.execution.setup import Setup
    from benchmark.execution.survey import Survey
    from benchmark.spec.plan import Item, Plan

METER = "codecarbon"


def check_batches(items: Iterable[Item], processes: int, micro_batch: int | None) -> None:
    """Raises UserError where processes or `micro_batch` cannot divide a batch."""
    for item in (each for each in items if each.evaluation is None):
        size = item.run.protocol.recipe.batch_size
        if processes > 1 and size % (2 * processes):
            raise UserError(f"a batch of {size} ({item}) is not a multiple of twice the {processes} processes that share it")
        whole = item.run.transfer.needs_whole_batch or item.run.protocol.recipe.objective == "masked"
        if whole and (processes > 1 or micro_batch):
            raise UserError(f"{item} needs whole batches: no --micro-batch, and one process")


def checked_setup(args: argparse.Namespace, launch: Launch, survey: Survey, console: Console) -> Setup:
    """How runs are trained here, once data and weights were found to be those of the protocol and
    of earlier results.

    Raises UserError for data, and WeightsError for weights, that are not.
    """
    _trackers(args)
    _check_energy(args, launch)
    from benchmark.data import Checked
    from benchmark.execution.earlier_results import other_images
    from benchmark.execution.lacking import lacking

    setup, more = _placed(args, launch, bool(survey.todo)), lacking(survey)
    if not survey.todo and (not more or _without_images(args, launch.plan)):
        survey.add(more, lambda run: Checked(absent=dict.fromkeys(run.settings.data.shifted_sets, "no --data")))
        return setup
    setup = replace(_placed(args, launch, True), data=_checked_data(launch.plan, setup, console))
    other = other_images(survey, setup.checked)
    if other is not None:
        raise UserError(f"the images in {args.data} are not those that made {other}: choose another --results, or those images")
    survey.add(more, setup.checked)
    _check_weights(survey, setup.weights, console)
    return setup


def _without_images(args: argparse.Namespace, plan: Plan) -> bool:
    return args.data is None and not all(item.run.settings.data.is_embedded for item in plan.items.values())


def _placed(args: argparse.Namespace, launch: Launch, trains: bool) -> Setup:
    """The setup with its folders, image loaders and, for GPUs of this machine, jobs."""
    from benchmark.data import DataLocation
    from benchmark.execution.setup import torch_device

    setup, loaders = launch.setup, launch.backend.loaders
    if loaders is None:
        on_gpus = trains and torch_device(args.device) == "cuda"
        if on_gpus:
            import torch

            setup = replace(setup, jobs=launch.backend.at_a_time(torch.cuda.device_count() // setup.processes))
        loaders = cores() // (setup.jobs * setup.processes * local_process_count()) if on_gpus else 0
    root = None if args.data is None else args.data.absolute()
    place = DataLocation(root, args.work.absolute(), loaders if args.workers is None else args.workers)
    weights = (args.weights or args.work / "weights").absolute()
    chosen = {"micro_batch": args.micro_batch, "trackers": _trackers(args), "by": args.by, "energy": args.energy}
    return replace(setup, place=place, weights=weights, **chosen)


def _checked_data(plan: Plan, setup: Setup, console: Console) -> dict[str, Checked]:
    """A check of a plan's images, as in Setup.data; those of torchvision are fetched if missing.
    Absent sets are named."""
    from benchmark.data import check
    from benchmark.execution.setup import data_of, place_of
    from benchmark.spec.data_sets import Images

    place = replace(setup.place, workers=cores())
    items = {data_of(item.run): item for item in plan.items.values()}
    for each in items.values():
        if isinstance(each.run.settings.data, Images):
            fetch_images_with_bar(each.run.settings.data, place_of(each, place), console)
    with counting_bar(console) as progress:
        found = {key: check(each.run.settings.data, place_of(each, place), progress) for key, each in items.items()}
    for reason in dict.fromkeys(reason for each in found.values() for reason in each.absent.values()):
        console.print(f"{reason}: runs are not evaluated on it", highlight=False, soft_wrap=True)
    return found


def _check_weights(survey: Survey, folder: Path, console: Console) -> None:
    """Fetch missing pre-trained teachers, and load each once. Raises WeightsError."""
    wanted = _pretrained(survey.todo)
    if folder.is_file() and len(wanted) > 1:
        raise UserError(f"--weights {folder}: one file, and {len(wanted)} teachers are asked for; give a folder, or ask for one")
    for (family, size), item in wanted.items():
        from benchmark.execution.earlier_results import other_weights
        from families.core.weights import file_digest

        path = fetch_with_bar(family, size, folder, console)
        other = other_weights(survey.launch.results, item, file_digest(path))
        if other is not None:
            raise UserError(f"{path} is not the file that made {other}: choose another --results and --work, or that file")
        with console.status(f"loading {path.name}"):
            families.load(family).teacher(size, weights=path)


def _pretrained(items: Sequence[Item]) -> dict[tuple[str, str], Item]:
    """(family, size) -> a run that learns from its pre-trained teacher."""
    return {(item.cells[0].family, item.cells[0].size): item for item in items if item.teacher and item.teacher.pinned}


def _check_energy(args: argparse.Namespace, launch: Launch) -> None:
    """Raise UserError where the energy is asked for and cannot be measured."""
    if not args.energy:
        return
    if find_spec(METER) is None:
        raise UserError(f"--energy: {METER} is not installed; pip install '{METER}>=3'")
    if launch.setup.processes * local_process_count() > 1:
        raise UserError("--energy measures runs of one process each: leave out --processes and torchrun")


def _trackers(args: argparse.Namespace) -> tuple[str, ...]:
    """The trackers that the options name. Raises UserError for one that is unknown or not installed."""
    from benchmark.execution.trackers import load

    given = [] if args.tracker is None else [name.strip() for name in args.tracker.split(",")]
    found = tuple(dict.fromkeys([*given, *(["tensorboard"] if args.tensorboard else [])]))
    for name in found:
        load(name)
    return found
