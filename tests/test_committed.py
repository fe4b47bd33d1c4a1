"""What is committed: valid results of the protocol as it is, and reports, README and docs that are what they give."""

import re
from pathlib import Path

import pandas as pd
import pytest

from benchmark.cli import main
from benchmark.figures import digest_in
from benchmark.report import gather

from .conftest import ROOT, python


def test_reports_and_readme_are_what_the_results_give(monkeypatch, capsys):
    """By their bytes, figures by the digest of their data; and every result counts."""
    monkeypatch.chdir(ROOT)
    found = gather(Path("results")).found
    assert not (found.stale or found.rejected or found.unknown)
    assert main(["report", "--check", "--readme", "README.md"]) == 0, capsys.readouterr().out


# The one locale that every system has besides its own, with ASCII as its encoding: most of a report's signs are not in it.
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "utf-8"}
ANOTHER_DAY = """
import datetime, locale, sys, time
from datetime import datetime as real
moment = real(2031, 2, 3, 4, 5, tzinfo=datetime.UTC)
class Later(real):
    now = classmethod(lambda cls, tz=None: moment.astimezone(tz) if tz else moment.replace(tzinfo=None))
    today = utcnow = classmethod(lambda cls: moment.replace(tzinfo=None))
datetime.datetime, time.time = Later, moment.timestamp
print(datetime.datetime.now().date(), locale.getpreferredencoding(False))
from benchmark.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.long
def test_reports_come_back_on_another_day_and_in_another_locale(tmp_path):
    """Every text file byte for byte, from an empty folder; figures by the digest of their data."""
    (tmp_path / "results").symlink_to(ROOT / "results")
    words = ["report", "--results", tmp_path / "results", "--reports", tmp_path / "reports"]
    setting = ASCII | {"TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "7", "COLUMNS": "40"}
    done = python("-c", ANOTHER_DAY, *words, env=setting)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2031-02-03 ANSI_X3.4-1968")
    made, committed = ({path.name: path for path in folder.iterdir()} for folder in (tmp_path / "reports", ROOT / "reports"))
    assert made.keys() == committed.keys()
    for name, path in made.items():
        if path.suffix in (".svg", ".png"):
            assert digest_in(path) == digest_in(committed[name]) is not None
        else:
            assert path.read_bytes() == committed[name].read_bytes(), name


def test_the_budget_page_says_what_was_measured():
    """Every number of the table in docs/mini-budget.md, and the criterion that it states."""
    page = (ROOT / "docs" / "mini-budget.md").read_text()
    table = pd.read_csv(ROOT / "reports" / "mini-budget.csv")
    table["kind"] = table["arm"].str.split("+").str[0]
    shown = {(row[0], row[1]): row[2:] for row in rows_of(page)}
    steps = [int(each) for each in shown.pop(("teacher", "student"))]
    assert len(shown) == 9
    for (teacher, kind), texts in shown.items():
        own = table[(table["family"] + " " + table["size"] == teacher) & (table["kind"] == kind)].set_index("steps")
        for step, text in zip(steps, texts, strict=True):
            cell = own.loc[step]
            expected = f"{cell['val']:.1f} ± {cell['val_sd']:.1f} ({cell['val_min']:.1f}–{cell['val_max']:.1f})"
            assert text == expected, (teacher, kind, step)
    chosen = table.query("kind == 'standard-none' and steps == 180")
    assert len(chosen) == 3 and (chosen["n"] == 5).all() and chosen["val_sd"].max() <= 3
    stated = float(re.search(r"at most ([\d.]+) points", page).group(1))
    assert stated >= round(chosen["val_sd"].max(), 1)


def rows_of(page):
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 9:
            yield cells
