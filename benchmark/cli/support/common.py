"""Options, folders and messages that several verbs share."""

from __future__ import annotations

import argparse
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import families
from benchmark.spec import bounds
from families.spec import MOST_SHOWN, UnknownName, UserError, one_line, quoted

if TYPE_CHECKING:
    from rich.console import Console

    from benchmark.data import DataLocation
    from benchmark.spec.bounds import Whole
    from benchmark.spec.data_sets import Images
    from benchmark.spec.protocol import Protocol

DONE, SOME_FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130
MOST_SAID = 1000  # characters of a line
MOST_NAME = 200  # characters of who ran something


class Parser(argparse.ArgumentParser):
    """A parser that raises UserError, for one line without usage."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError with a message of bounded length."""
        shown = " ".join(word if len(word) <= MOST_SHOWN else f"{word[:MOST_SHOWN]}..." for word in message[:MOST_SAID].split())
        raise UserError(f"{shown} (see {self.prog} --help)")


def path_option(text: str) -> Path:
    """An option's path. An empty one (an unset shell variable) is refused: it would mean the
    current folder."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path")
    return Path(text)


def by_option(text: str) -> str:
    """The name of whoever runs something: a line of 1 to 200 printable characters."""
    if not text.strip() or not text.isprintable() or len(text) > MOST_NAME:
        raise argparse.ArgumentTypeError(f"a name of 1 to {MOST_NAME} printable characters")
    return text.strip()


def number_option(parser: argparse.ArgumentParser, option: str, allowed: Whole, **given: Any) -> None:
    """Give a command an option that takes a whole number."""
    parser.add_argument(option, type=functools.partial(allowed.read, option), **given)


DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")  # names; a machine need not have them
REQUEST: dict[str, str | None] = {
    "family": "papers", "sizes": None, "study": "main", "protocol": "mini", "seeds": None, "runs": None, "sets": None,
    "licence": None,
}  # fmt: skip


def request_options(parser: argparse.ArgumentParser, otherwise: str = "", given: bool = True) -> None:
    """Add the options that choose runs; without `given` they have no defaults, and help names
    `otherwise` as the default."""
    for name, shape, told in (
        ("family", "NAMES|papers|all", "as in deit3,dinov2 (default: papers, the 11 families of the papers)"),
        ("sizes", "SIZES", "as in base,large (default: all that the families have)"),
        ("study", "NAMES|FILE", "as in main,parts (default: main)"),
        ("protocol", "NAME|FILE", "default: mini"),
    ):
        note = told if given else f"{told.split(' (')[0].split('default')[0]} (default: {otherwise})".strip()
        parser.add_argument(f"--{name}", default=REQUEST[name] if given else None, metavar=shape, help=note)
    if given:
        parser.set_defaults(family=None)  # papers, unless there is a --teacher
        parser.add_argument(
            "--teacher", action="append", metavar="timm:NAME", help="a ViT of timm without a family file; repeatable"
        )
        licence_option(parser)
        told = "a value of the protocol in place of its own, as in recipe.steps=20; repeatable"
        parser.add_argument("--set", action="append", metavar="KEY=VALUE", help=told)


def licence_option(parser: argparse.ArgumentParser) -> None:
    """Add --licence."""
    told = "commercial: only teachers whose licence does not restrict use (Apache-2.0, MIT)"
    parser.add_argument("--licence", metavar="USE", help=told)


def folder_options(parser: argparse.ArgumentParser) -> None:
    """Add --results and --reports."""
    parser.add_argument("--results", type=path_option, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument(
        "--reports", type=path_option, metavar="DIR", help="default: reports beside results, FOLDER-reports beside FOLDER"
    )


@contextmanager
def counting_bar(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar that `progress(what, done, of)` moves; nothing off a terminal."""
    from rich.progress import Progress

    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=of)

        yield progress


def reports_folder(args: argparse.Namespace) -> Path:
    """The reports folder: by default beside the results and named after them, so that no other
    folder's reports are lost."""
    results: Path = args.results if args.results.name not in ("", "..") else args.results.resolve()
    return args.reports or results.with_name("reports" if results.name == "results" else f"{results.name}-reports")


def read_seeds(text: str | None, protocol: Protocol) -> list[int]:
    """The seeds of an option, as in 0,1,2; None: the protocol's. Raises UserError."""
    if text is None:
        return list(protocol.seeds)
    if not re.fullmatch(r"[0-9]+(,[0-9]+)*", text):
        raise UserError(f"--seeds {quoted(text)}: whole numbers from 0 on with commas between them, as in 0,1,2")
    seeds = [bounds.SEED.read("--seeds", word) for word in text.split(",")]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {quoted(text)}: each once")
    return seeds


def check_device(name: str, here: bool = True) -> None:
    """Raises UserError for a device that is not here or, unless it has to be `here`, is no device's
    name."""
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
        told = one_line(error, MOST_SHOWN)
        raise UserError(f"--device {quoted(name)}: {told}; valid: auto, cpu, cuda") from None


def fetch_with_bar(family: str, size: str, folder: Path, console: Console) -> Path:
    """The file of a teacher, downloaded if it is missing. Raises WeightsError."""
    from families.core.fetch import fetch

    with counting_bar(console) as progress:
        return fetch(families.spec(family).teacher(size), f"{family}-{size}", folder, lambda done, of: progress(
            f"fetching {family} {size}", done, of or 0
        ))  # fmt: skip


def fetch_images_with_bar(settings: Images, place: DataLocation, console: Console) -> None:
    """Put a protocol's images into the data folder, if torchvision has them and they are missing.
    Another process that does so is waited for. Raises UserError."""
    if settings.torchvision is None:
        return
    from benchmark.data.torchvision_files import fetch, is_there, unfinished
    from benchmark.storage.files import ensure_writable
    from benchmark.storage.locks import locked

    if is_there(settings, place):
        return
    mark = unfinished(settings, place)
    ensure_writable("--data", mark.parent)
    with locked(mark, wait=True), counting_bar(console) as progress:
        fetch(settings, place, lambda done, of: progress(f"fetching {settings.source}", done, of))


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_console(stderr: bool = False) -> Console:
    """A console without markup, since names may have brackets. Off a terminal its lines do not wrap
    at 80 columns."""
    from rich.console import Console

    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, markup=False) if terminal else Console(width=160, stderr=stderr, markup=False)
