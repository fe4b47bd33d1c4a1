"""Write the reports, or compare them with the results. Equal results give equal files."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from benchmark.reporting.figure import Figure, digest_in, save
from benchmark.reporting.gather import Report
from benchmark.reporting.text_files import texts
from families.spec import UserError

FEW = 30  # rows that `bench report` prints of a table
TEXTS, PICTURES = (".md", ".csv", ".tex", ".html"), (".svg", ".png")


def pictures(report: Report) -> Iterator[tuple[str, Figure]]:
    """The figures of a report, by the stem of their files."""
    for board, drawn in report.figures:
        for figure in drawn:
            yield f"{board.stem}-{figure.name}", figure
    for finding, drawn in report.measured.values():
        for figure in drawn:
            yield f"{finding.stem}-{figure.name}", figure


def render(report: Report, folder: Path) -> list[Path]:
    """Write all files of a report; returns their paths. Raises UserError if it cannot write."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [(figure, folder, stem.removesuffix(f"-{figure.name}")) for stem, figure in pictures(report)]
        with _painters(len(jobs)) as painters:
            saved = painters.map(save, *zip(*jobs, strict=True)) if jobs else iter(())
            files = texts(report, folder)
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8", newline="\n")
            written = [*(folder / name for name in files), *(path for paths in saved for path in paths)]
    except OSError as error:
        raise UserError(f"--reports {error.filename}: {error.strerror}") from None
    return written


def _painters(jobs: int) -> Executor:
    """The executor that draws: a process a processor, or a thread where none can be forked."""
    if sys.platform != "linux":
        return ThreadPoolExecutor(1)
    alone = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)  # the waiting process reports an interrupt
    return ProcessPoolExecutor(max(1, min(jobs, len(os.sched_getaffinity(0)))), get_context("fork"), alone)


def differences(report: Report, folder: Path) -> list[str]:
    """A line for each file that differs from the results: text by bytes, figures by digest."""
    expected = {name: text.encode() for name, text in texts(report, folder).items()}
    drawn: dict[str, str] = {}
    for stem, figure in pictures(report):
        expected[f"{stem}-drawn.csv"] = figure.csv().encode()
        drawn |= {f"{stem}{ending}": figure.digest for ending in (PICTURES if figure.png else PICTURES[:1])}
    lines = []
    for name, content in sorted(expected.items()):
        path = folder / name
        if not path.is_file():
            lines.append(f"{name}: missing")
        elif path.read_bytes() != content:
            lines.append(f"{name}: not what the results give")
    for name, digest in sorted(drawn.items()):
        path = folder / name
        if not path.is_file() or digest_in(path) != digest:
            lines.append(f"{name}: {'drawn from other data' if path.is_file() else 'missing'}")
    known = {*expected, *drawn}
    there = sorted(path.name for path in folder.glob("*") if path.suffix in (*TEXTS, *PICTURES))
    return lines + [f"{name}: no file of this report, to be removed" for name in there if name not in known]
