"""The LaTeX tables of a report compile, warnings of missing letters or references included."""

import re
import subprocess

import families
from benchmark.analysis.leaderboard import leaderboard
from benchmark.reporting.latex import latex
from benchmark.reporting.published import PublishedFigures
from benchmark.reporting.tables import tables
from benchmark.reporting.tables.provenance import provenance_table
from benchmark.reporting.tables.published import published_table
from benchmark.spec.records import validated
from benchmark.spec.study import load_study
from benchmark.spec.yaml_files import read_yaml

from .. import made
from ..conftest import ROOT
from ..reporting.test_tables import SAMPLE

ARMS = load_study("main")[1].arms
EVERY = [(name, size) for name in families.names() for size in families.spec(name).sizes if size in ("small", "base", "large")]


def compiled(folder, text):
    (folder / "tables.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs,amssymb,graphicx}\n\\begin{document}\n" + text + "\\end{document}\n",
        encoding="utf-8",
    )
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def test_every_table_of_all_teachers_compiles(tmp_path):
    cells = {(*place, arm): [70 + seed + len(arm) for seed in range(3)] for place in EVERY for arm in ARMS}
    results = made.results(cells, shift={"noise": 50.0, "unseen_colours": 60.0})
    board = leaderboard(("mini", ""), load_study("main"), results, 56)
    published = validated(PublishedFigures, read_yaml(ROOT / "results" / "published.yaml"), "published.yaml")
    found = [*tables(board), provenance_table(results), published_table(published, [board])]
    assert {table.name for table in found} >= {"leaderboard", "teachers", "native", "sizes", "shifted", "cost", "provenance"}
    said = compiled(tmp_path, "\\clearpage\n".join(latex(table, table.name) for table in [*found, SAMPLE]))
    assert not re.search(r"Missing character|undefined|multiply defined", said)
    assert int(re.search(r"\((\d+) pages", said).group(1)) >= len(found) / 2


def test_committed_tables_compile(tmp_path):
    for path in sorted((ROOT / "reports").glob("*.tex")):
        compiled(tmp_path, path.read_text(encoding="utf-8"))
