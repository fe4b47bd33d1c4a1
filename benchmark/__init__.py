"""The benchmark: how families are compared. Imports families, never the other way.

From Python: `run` trains what a request needs, `results` reads a folder of results, `leaderboard`
compares them. Names, values and defaults are those of the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["leaderboard", "results", "run"]


def run(
    family: str | Sequence[str] | None = None,
    sizes: str | Sequence[str] | None = None,
    study: str | Path | Sequence[str] = "main",
    protocol: str | Path = "mini",
    *,
    seeds: int | Sequence[int] | None = None,
    set: Mapping[str, Any] | None = None,
    results: str | Path = "results",
    **options: Any,
) -> pd.DataFrame:
    """Train the missing runs of a request, as `bench run` does, and return all of its results.

    Args:
        family: one or several, or a set of them such as "papers", which is the default.
        sizes: one or several; None: all that the families have.
        study: names of studies, or a study file.
        protocol: the name of a protocol, or a protocol file.
        seeds: one or several; None: the protocol's.
        set: values of the protocol in place of its own, as in {"recipe.steps": 20}.
        results: the results folder.
        options: any other option of `bench run`, with underscores for dashes: data="/data",
            cluster="slurm", wait=True, teacher=["timm:vit_small_patch16_dinov3"], ...

    Returns: the table of `benchmark.results`, of the request's students and teachers alone. Where
    jobs were submitted without `wait`, those that are finished by now.

    Raises UserError for a wrong request, RuntimeError if a run failed (after the others ended).
    """
    from benchmark.analysis.sorting import read_sorted
    from benchmark.analysis.tidy import tidy
    from benchmark.cli import parse
    from benchmark.cli.support.common import DONE
    from benchmark.cli.support.request import read_request

    given: dict[str, Any] = {"family": family, "sizes": sizes, "study": study, "protocol": protocol, "seeds": seeds}
    given |= {"set": [f"{key}={_as_yaml(value)}" for key, value in (set or {}).items()], "results": results}
    args = parse(["run", *_words(given | options)])
    code = args.verb(args)
    if code != DONE:
        raise RuntimeError(f"a run failed: `bench status --work {args.work}` tells which and why; the others are in {results}")
    asked = read_request(vars(args))
    _, found = read_sorted(Path(results), (asked.plan.protocol, asked.protocol))
    cells = {*asked.plan.cells}
    return tidy(result for result in found.current if result.cell in cells)


def results(results: str | Path = "results", protocol: str | Path | None = None) -> pd.DataFrame:
    """The results of a folder that count, one row a score; columns: benchmark.analysis.tidy.tidy.

    Stale results, damaged files and those of unknown protocols are left out, with a warning.

    Args:
        results: the results folder.
        protocol: a protocol file of yours, beside the shipped ones.

    Raises UserError if the folder, or the protocol, is not there.
    """
    import warnings

    from benchmark.analysis.sorting import read_sorted
    from benchmark.analysis.tidy import tidy
    from benchmark.reporting.text_files import left_out_lines
    from benchmark.spec.protocol import load_protocol

    _, found = read_sorted(_folder(results), None if protocol is None else load_protocol(str(protocol)))
    for line in left_out_lines(found, Path(results)):
        warnings.warn(f"left out: {line}", stacklevel=2)
    return tidy(found.current)


def leaderboard(
    results: str | Path = "results", study: str | Path = "main", protocol: str | Path = "mini", by: str = "family"
) -> pd.DataFrame:
    """The leaderboard of a study by a protocol: what `bench report` writes as CSV.

    Args:
        results: the results folder.
        study: the name of a study, or a study file.
        protocol: the name of a protocol, or a protocol file.
        by: "family": a row a family, with each transfer's verdict and its lowest and highest gap;
            "teacher": a row for each teacher and arm, with gap, intervals, verdict and n.

    Raises UserError for an unknown name, and where no results of this study are there.
    """
    from benchmark.reporting.csv import frame
    from benchmark.reporting.gather import gather
    from benchmark.reporting.tables import tables
    from benchmark.spec.protocol import load_protocol
    from benchmark.spec.study import load_study
    from families.spec import UnknownName, UserError

    if by not in ("family", "teacher"):
        raise UnknownName("row of a leaderboard", by, ("family", "teacher"))
    own, listed = load_protocol(str(protocol)), load_study(str(study))
    found = gather(_folder(results), own, dict([listed]))
    boards = {(board.protocol, board.study): board for board in found.boards}
    if (own[0], listed[0]) not in boards:
        there = ", ".join(f"{study} ({protocol})" for protocol, study in boards) or "none"
        raise UserError(f"no leaderboard of study {listed[0]} by protocol {own[0]} in {results}; there: {there}")
    board = boards[own[0], listed[0]]
    if by == "teacher":
        return board.table
    (table,) = (table for table in tables(board) if table.name == "leaderboard")
    return frame(table)


def _folder(folder: str | Path) -> Path:
    from families.spec import UserError

    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder")
    return Path(folder)


def _words(options: Mapping[str, Any]) -> list[str]:
    """Options as a command line has them; those that are None or False are left out. Raises
    UserError."""
    from families.spec import UserError

    words = list[str]()
    for name, value in options.items():
        if name in ("help", "json"):
            raise UserError(f"{name}: an option of the command line alone")
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif name in ("set", "teacher"):  # repeatable
            words += [f"{option}={each}" for each in ([value] if isinstance(value, str) else value)]
        elif value is not None and value is not False:
            several = isinstance(value, Iterable) and not isinstance(value, str)
            words.append(f"{option}={','.join(map(str, value)) if several else value}")
    return words


def _as_yaml(value: Any) -> str:
    """A value as a protocol file has it; YAML reads no number such as 1e-05."""
    import json
    from decimal import Decimal

    value = value.item() if hasattr(value, "item") else value  # of numpy
    if isinstance(value, float):
        return f"{Decimal(repr(value)):f}"
    return value if isinstance(value, str) else json.dumps(value)
