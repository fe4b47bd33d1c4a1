"""From a results folder to its reports: what counts, where, and what is told of the rest."""

import sys

import pytest

from benchmark.analysis.costs import forward_flops
from benchmark.analysis.statistics import frame
from benchmark.cli import main
from benchmark.reporting import tables as tables_folder
from benchmark.reporting.documents import readme_block
from benchmark.reporting.gather import gather
from benchmark.reporting.registry import modules
from benchmark.reporting.tables.provenance import provenance_table
from benchmark.reporting.text_files import left_out_lines, texts
from benchmark.spec.definitions import Definitions
from benchmark.spec.protocol import Protocol, load_protocol
from benchmark.spec.records import validated
from benchmark.spec.run import Cell
from benchmark.spec.study import Study, load_study
from benchmark.storage.result_file import Result

from .. import made

ARMS = ("standard-none", "standard-copy", "standard-none+budget=x0.5", "standard-copy+budget=x0.5")
TOPS = {arm: [level, level + 1, level + 2] for arm, level in zip(ARMS, (20, 70, 15, 40), strict=True)}


def cells(teachers, arms=ARMS):
    return {(family, size, arm): TOPS[arm] for family, size in teachers for arm in arms}


@pytest.fixture
def folder(tmp_path):
    made.write(tmp_path / "results", made.results(cells([("deit3", "base")])))
    return tmp_path / "results"


def test_a_comparison_is_judged_on_one_board_whichever_study_is_named(folder, tmp_path):
    """Else a run of that study and a report would write different reports of the same results."""
    plain = gather(folder)
    assert texts(gather(folder, given=dict([load_study("budget")])), tmp_path) == texts(plain, tmp_path)
    main_board, budget = plain.boards
    judged = [(board.study, entry.arm.name) for board in plain.boards for row in board.rows for entry in row.entries
              if entry.gap is not None and entry.gap.verdict is not None]  # fmt: skip
    assert judged == [("main", "standard-copy"), ("budget", "standard-copy+budget=x0.5")]
    assert (main_board.comparisons, budget.comparisons) == (56, 215)


def test_values_set_on_the_command_line_have_a_board_of_their_own(folder, monkeypatch):
    """Beside the protocol's; one with a key that there is not is told like any unknown protocol."""
    name, gone = "mini+recipe.steps=20", "mini+recipe.step=20"
    for each in (name, gone):
        monkeypatch.setitem(made.PROTOCOLS, each, load_protocol(name)[1])
        monkeypatch.setitem(made.DEFINED, each, Definitions(made.PROTOCOLS[each]))
        made.write(folder, made.results(cells([("deit", "base")]), protocol=each))
    found = gather(folder)
    of_main = {(board.protocol, board.rows[0].families[0]) for board in found.boards if board.study == "main"}
    assert of_main == {("mini", "deit3"), (name, "deit")}
    assert found.found.unknown == {gone: 12}


def test_the_highest_level_of_evidence_comes_first(folder):
    """And a README shows the two highest."""
    for protocol, (family, size) in {
        "fashion": ("dinov2", "small"),
        "fashion_mini": ("deit", "base"),
        "imagenet": ("deit", "base"),
    }.items():
        made.write(folder, made.results(cells([(family, size)], ARMS[:2]), protocol))
    found = gather(folder)
    shown = [board.protocol for board in found.boards if board.study == "main"]
    assert shown == ["imagenet", "fashion", "fashion_mini", "mini"]
    told = [line for line in readme_block(found, "reports").splitlines() if line.startswith("Protocol ")]
    assert [line.split()[1] for line in told] == ["imagenet:", "fashion:"]


def test_arms_that_no_study_lists_are_told(folder):
    arms = [("deit3", "base", f"standard-{method}+budget=x3") for method in ("none", "copy")]
    made.write(folder, made.results({arm: [30, 31] for arm in arms}))
    found = gather(folder)
    assert left_out_lines(found.found, folder) == [
        f"2 results of standard-{method}+budget=x3 by protocol mini: on no leaderboard, since no study lists it;"
        " give one that does as --study" for method in ("copy", "none")
    ]  # fmt: skip
    mine = Study(title="Mine", arms=["standard-copy+budget=x3"])
    given = gather(folder, given={"mine": mine})
    assert not left_out_lines(given.found, folder) and [board.study for board in given.boards] == ["main", "budget", "mine"]


def test_two_outcomes_of_one_run_are_told(folder):
    """DeiT's and DeiT III's standard student without transfer is one."""
    same = {("deit", "base", "standard-none"): TOPS["standard-none"]}
    made.write(folder, made.results(same))
    assert not gather(folder).found.differing
    made.write(folder, made.results({place: [tops[0], 50, tops[2]] for place, tops in same.items()}))
    (line,) = left_out_lines(gather(folder).found, folder)
    assert line.startswith("mini/deit3/base/standard-none-s1.json: counted, though mini/deit/base/standard-none-s1.json tells")


def test_a_teacher_that_cannot_be_run_takes_no_board_away(tmp_path, monkeypatch):
    """A protocol that transfers four blocks, and has a small size with three: base is compared all the same."""
    content = load_protocol("mini")[1].model_dump(mode="json")
    content["transfer"]["blocks"] = 4
    content["scale"]["sizes"]["small"]["depth"] = 3
    mine = validated(Protocol, content, "mine")
    monkeypatch.setitem(made.PROTOCOLS, "mine", mine)
    monkeypatch.setitem(made.DEFINED, "mine", Definitions(mine))
    made.write(tmp_path, made.results(cells([("deit3", "base")], ARMS[:2]), "mine"))
    (board,) = gather(tmp_path, protocol=("mine", mine)).boards
    assert board.rows[0].label == "deit3 base" and board.rows[0].entries[1].gap.verdict == "success"
    assert 0 < board.comparisons < 56


def test_an_ensembles_runs_are_told_by_all_seeds():
    """Without seed 0 of one arm, standard and matched ensembles of a family without native components are the same still."""
    arms = ("standard-copy+ensemble=finetuned", "matched-copy+ensemble=finetuned")
    found = frame(made.results({("deit", "base", arms[0]): [50, 51, 52], ("deit", "base", arms[1]): [None, 51, 52]}))
    assert found["group"].nunique() == 1 and found["key"].nunique() == 3
    other = frame(made.results({("dino", "base", arms[0]): [50, 51]}, "imagenet"))
    assert set(other["group"]).isdisjoint(frame(made.results({("ibot", "base", arms[0]): [50, 51]}, "imagenet"))["group"])


def test_what_made_the_results_by_hand():
    """Two families share two runs; a third result is of another commit, with changes."""
    shared = [
        made.content_of(Cell("mini", family, "base", "standard-none", seed), 20) for family in ("deit", "dino") for seed in (0, 1)
    ]
    other = made.content_of(Cell("mini", "mae", "base", "standard-copy", 0), 70)
    other["provenance"] = other["provenance"] | {"commit": "e" * 40, "dirty": True, "finished": "2026-03-04T05:06:07+00:00"}
    table = provenance_table([validated(Result, content, "made") for content in [*shared, other]])
    told = [[row[name] for name in ("results", "runs", "commit", "first", "last")] for row in table.rows]
    assert told == [
        [4, 2, "c" * 40, "2026-01-01", "2026-01-02"],
        [1, 1, "e" * 40 + " with changes", "2026-01-01", "2026-03-04"],
    ]


def test_any_table_can_be_printed(folder, capsys):
    words = ["report", "--results", str(folder), "--reports", str(folder.parent / "reports"), "--tables"]
    assert main([*words, "cost,provenance"]) == 0
    out = capsys.readouterr().out
    assert "Cost at inference" in out and "Provenance of the results" in out and "Failures and successes" not in out
    assert main([*words, "all"]) == 0
    assert "Failures and successes" in capsys.readouterr().out
    assert main([*words, "costs"]) == 2
    assert "did you mean 'cost'" in capsys.readouterr().err


def test_registers_cost_where_they_are():
    """A block of N tokens of width d: 24 N d^2 + 4 N^2 d; the embedding has no registers."""
    geometry = made.results({("dinov2_reg", "base", "standard-copy"): [70]})[0].run.run.student.geometry
    width, patch = geometry.embed_dim, geometry.patch_size
    tokens = (geometry.img_size // patch) ** 2 + 1
    block = 24 * (tokens + 4) * width**2 + 4 * (tokens + 4) ** 2 * width
    assert forward_flops(geometry, registers=4) == geometry.depth * block + 6 * tokens * width * patch**2


def test_several_versions_of_the_code_are_announced(tmp_path):
    """In the table that has results of both, and in no other."""
    cells = {("deit", "base", arm): [50.0, 51.0] for arm in ("standard-none", "standard-copy")}
    other = {("dinov2", "small", arm): [40.0, 41.0] for arm in ("standard-none", "standard-copy")}
    newer = []
    for result in made.results(other):
        provenance = result.provenance.model_copy(update={"code": "e" * 64})
        newer.append(result.model_copy(update={"provenance": provenance}))
    told = "made by 2 versions of the code, which alone can change a number: dddddddd (4 runs), eeeeeeee (4 runs)"
    for folder, found, announced in (("one", made.results(cells), 0), ("two", [*made.results(cells), *newer], 1)):
        made.write(tmp_path / folder, found)
        report = gather(tmp_path / folder)
        (board,) = report.boards
        assert sum(note.startswith(told) for note in board.notes) == announced, board.notes
        texts_ = texts(report, tmp_path)
        assert (told in texts_["leaderboard.md"]) == (told in texts_["index.html"]) == bool(announced)


NEW_TABLE = """
from benchmark.reporting.table import Column, Table

PLACE = 25


def of_board(board):
    return Table("runcount", "Counted", (Column("runs", "runs of this leaderboard"),), ({"runs": board.runs},))
"""


@pytest.fixture
def new_table(tmp_path, monkeypatch):
    """One more file in the folder of tables."""
    monkeypatch.setattr(tables_folder, "__path__", [*tables_folder.__path__, str(tmp_path / "plugin")])
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "runcount.py").write_text(NEW_TABLE, encoding="utf-8")
    modules.cache_clear()
    yield
    modules.cache_clear()
    monkeypatch.delitem(sys.modules, "benchmark.reporting.tables.runcount")


def test_a_new_table_is_one_file(new_table, folder, tmp_path, capsys):
    """On the terminal, in leaderboard.md, as CSV and in LaTeX; in its place among the others."""
    words = ["report", "--results", str(folder), "--reports", str(tmp_path / "reports"), "--tables", "runcount"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.count("runs of this leaderboard") == 2 and "Failures and successes" not in out
    reports = tmp_path / "reports"
    assert (reports / "mini-main-runcount.csv").read_text(encoding="utf-8") == "runs\n6\n"
    assert r"\label{tab:mini-main-runcount}" in (reports / "mini-main.tex").read_text(encoding="utf-8")
    book = (reports / "leaderboard.md").read_text(encoding="utf-8")
    assert book.index("### Failures and successes by family") < book.index("### Counted")
    assert book.index("### Counted") < book.index("### By teacher and arm")


def test_every_table_has_a_place_of_its_own():
    places = [module.PLACE for module in modules("benchmark.reporting.tables")]
    assert len(set(places)) == len(places)
