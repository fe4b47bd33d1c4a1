"""What `bench report` takes on many results: `python -m tests.many` makes 10,080 of them in a temporary folder, of study main by
two protocols, and times the whole command on them, five times from an empty reports folder."""

import random
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmark.spec.run import Cell
from benchmark.spec.study import load_study
from benchmark.spec.teachers import teachers_of
from benchmark.storage.files import write_json

from . import made
from .conftest import python

SEEDS = 42


def write(folder):
    """Put the results into a folder; how many."""
    rng, cells = random.Random(0), [
        Cell(protocol, family, size, arm, seed)
        for protocol in ("mini", "imagenet")
        for family, size in teachers_of("papers", None)
        for arm in load_study("main")[1].arms
        for seed in range(SEEDS)
    ]  # fmt: skip
    levels = {}
    for cell in cells:
        level = levels.setdefault((cell.protocol, made.run_of(made.PROTOCOLS[cell.protocol], cell).key), 70 + 5 * rng.random())
        write_json(folder / cell.path, made.content_of(cell, level))
    return len(cells)


def main():
    """Print the seconds of each time."""
    with TemporaryDirectory() as temporary:
        results, reports = Path(temporary) / "results", Path(temporary) / "reports"
        print(f"{write(results)} results")
        for _ in range(5):
            shutil.rmtree(reports, ignore_errors=True)
            start = time.perf_counter()
            done = python("-m", "benchmark.cli", "report", "--results", results, "--reports", reports)
            print(f"{time.perf_counter() - start:.1f} s", flush=True)
            if done.returncode:
                sys.exit(done.stderr)


if __name__ == "__main__":
    main()
