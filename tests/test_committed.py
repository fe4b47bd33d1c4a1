"""What is committed: valid results of the protocol as it is, and reports, README and docs that are what they give."""

import re

import pandas as pd

from benchmark.cli import main

from .conftest import ROOT


def test_reports_and_readme_are_what_the_results_give(tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text((ROOT / "README.md").read_text())
    assert (
        main(["report", "--results", str(ROOT / "results"), "--reports", str(tmp_path / "reports"), "--readme", str(readme)]) == 0
    )
    assert "left out" not in capsys.readouterr().out
    assert readme.read_text() == (ROOT / "README.md").read_text()
    committed = {path.name: path.read_text() for path in (ROOT / "reports").iterdir() if path.suffix in (".md", ".csv")}
    assert committed == {path.name: (tmp_path / "reports" / path.name).read_text() for path in (ROOT / "reports").glob("*.[mc]*")}


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
