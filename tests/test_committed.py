"""What is committed: valid results of the protocol as it is, and reports, README and docs that are what they give."""

import json
import re
import shlex

import numpy as np
import pytest
from huggingface_hub import DatasetCard
from scipy import integrate, stats

import families
from benchmark.cli import main, parser
from benchmark.cli.support.request import read_request
from benchmark.reporting.figure import digest_in
from benchmark.reporting.gather import gather

from .conftest import ROOT, python


@pytest.fixture(scope="module")
def committed():
    return gather(ROOT / "results")


def test_reports_and_readme_are_what_the_results_give(committed, monkeypatch, capsys):
    """By their bytes, figures by the digest of their data; and every result counts."""
    monkeypatch.chdir(ROOT)
    found = committed.found
    assert not (found.stale or found.rejected or found.unknown)
    assert main(["report", "--check", "--readme", "README.md", "--claims", "docs/claims.md"]) == 0, capsys.readouterr().out


METHODS = [f"{student}-{method}" for student in ("standard", "matched") for method in ("none", "copy", "distill")]


def test_the_board_again_by_numpy_and_scipy_alone(committed):
    """Gaps, half-widths and verdicts of study main, from the result files by docs/statistics.md."""
    runs = {}
    for path in (ROOT / "results" / "mini").glob("*/*/*.json"):
        content = json.loads(path.read_text())
        labels = content["run"]
        if labels["arm"] in METHODS:
            cell = runs.setdefault((labels["family"], labels["size"], labels["arm"]), {})
            steps, heights = [0], [10.0]  # from chance among ten digits
            for point in content["curve"]:
                steps, heights = [*steps, point["step"]], [*heights, point["val_top1"]]
            cell[content["key"]] = integrate.trapezoid(heights, steps) / steps[-1]
    keys = {place: frozenset(cell) for place, cell in runs.items()}
    area = {place: np.array(list(cell.values())) for place, cell in runs.items()}
    spreads = {arm: {} for arm in METHODS}  # an arm's variances, of cells that share their runs one
    for (family, size, arm), own in keys.items():
        plain = (family, size, arm.replace("matched", "standard"))
        if arm.startswith("standard") or keys[plain] != own:
            spreads[arm][own] = area[family, size, arm].var(ddof=1)
    home = {own: arm for arm, cells in spreads.items() for own in cells}
    variance = {own: max(spreads[arm][own], np.mean(list(spreads[arm].values()))) for own, arm in home.items()}
    transfers = {place: (*place[:2], f"{place[2].partition('-')[0]}-none") for place in keys if not place[2].endswith("none")}
    m = len({(keys[place], keys[baseline]) for place, baseline in transfers.items()})
    (board,) = (board for board in committed.boards if (board.protocol, board.study) == ("mini", "main"))
    assert m == board.comparisons
    checked = 0
    for place, baseline in transfers.items():
        gap = board.comparisons_of.gap("mini", *place)
        if keys[place] == keys[baseline]:
            continue
        n = min(len(keys[place]), len(keys[baseline]))
        lone = any(len(spreads[home[keys[each]]]) == 1 for each in (place, baseline))
        terms = [variance[keys[each]] / len(keys[each]) for each in (place, baseline)]
        half = stats.t.ppf(1 - 0.05 / 2 / m, (n - 1) * (1 if lone else 2)) * np.sqrt(sum(terms))
        value = area[place].mean() - area[baseline].mean()
        verdict = "success" if value - half > 0 else "failure" if value + half < 0 else "inconclusive"
        assert (gap.value, gap.simultaneous) == pytest.approx((value, half), abs=1e-6), place
        assert gap.verdict == verdict, place
        checked += 1
    assert checked > 56


def test_studies_were_measured(committed):
    """Of mini: main for the papers' 20 teachers with five seeds; others for two families or more, one of them with native
    components, with three seeds or more."""
    (main,) = (board for board in committed.boards if (board.protocol, board.study) == ("mini", "main"))
    assert sum(len(row.families) for row in main.rows) >= 20
    assert {entry.n for row in main.rows for entry in row.entries} == {5}
    measured = [finding for finding in committed.findings if finding.measured and finding.protocol == "mini"]
    assert {
        "main",
        "sizes",
        "nulls",
        "init",
        "components",
        "starts",
        "sinks",
        "tuning",
        "parts",
        "budget",
        "foreign",
        "layers",
        "losses",
        "cross",
    } <= {finding.study for finding in measured}
    for finding in measured:
        found = {family for one in finding.measured for family, _ in one.teachers}
        assert len(found) > 1 and any(families.spec(family).native for family in found), finding.study
        assert min(one.n for one in finding.measured) >= 3 and finding.limits and finding.commands, finding.study


def test_no_comparison_has_two_intervals(committed):
    """Whichever board and whichever study's claims speak of it."""
    found, counts = {}, {}
    for board in committed.boards:
        for row in board.rows:
            for entry in row.entries:
                if entry.gap is not None and entry.gap.simultaneous is not None:
                    arms = ((entry.arm.name, 1.0), (entry.arm.baseline.name, -1.0))
                    found[board.protocol, row.families[0], row.size, "score", frozenset(arms)] = entry.gap
                    counts[board.protocol, row.families[0], row.size, "score", frozenset(arms)] = entry.n
    boards = len(found)
    for protocol, one in ((finding.protocol, one) for finding in committed.findings for one in finding.measured):
        for family, size in one.teachers:  # that share runs; a board shows each with the seeds that it has
            place = (protocol, family, size, one.on, frozenset(one.arms))
            if (family, size) == one.teachers[0] or place not in found or counts.get(place) == one.n:
                assert found.setdefault(place, one.estimate) == one.estimate, (place, one.comparisons)
    assert len(found) > boards > 50


def test_no_null_is_a_success(committed):
    """Attention that carries nothing of the image: of two teachers, five seeds, at the usual budget and at twice that."""
    (board,) = (board for board in committed.boards if (board.protocol, board.study) == ("mini", "nulls"))
    entries = [(row.label, each) for row in board.rows for each in row.entries if each.arm.transfers]
    gaps = {(label, each.arm.name): each.gap for label, each in entries}
    assert len(board.rows) == 2 and len(gaps) == 2 * 16 and {each.n for _, each in entries} == {5}
    assert all(gap.value < 0 and gap.simultaneous and gap.verdict != "success" for gap in gaps.values())
    usual = [gap.verdict for (_, arm), gap in gaps.items() if arm.startswith("standard-copy") and "budget" not in arm]
    assert usual == ["failure"] * 8


def requests(target):
    """The words of each `bench run` of a target of the Makefile."""
    text = (ROOT / "Makefile").read_text()
    values = dict(re.findall(r"^(\w+) :?= (.*)$", text, re.M))
    (recipe,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", text, re.M)
    for line in recipe.replace("\\\n", "").splitlines():
        yield shlex.split(re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], line.strip().removeprefix("$(AGAIN) ")))


def test_make_studies_trains_what_is_committed(committed):
    """All of mini, and nothing else; and so do the commands that stand beside claims that were measured."""
    there = {result.cell for result in committed.found.current}
    again = {cell for words in requests("studies") for cell in asked_for(words)}
    main = "--protocol fashion_mini --family papers --seeds 0,1,2,3,4"
    nulls = "--protocol fashion_mini --study nulls --family deit,dinov2,beitv2 --sizes base --seeds 0,1,2"
    components = nulls.replace("nulls", "components")
    init = "--protocol fashion_mini --study init --family dinov2,beitv2 --sizes base --seeds 0,1,2"
    one = "--protocol fashion --family dinov2 --sizes small --seeds 0,1,2"
    others = {cell for words in (main, nulls, components, init, one) for cell in asked_for(shlex.split(words))}
    assert again == {cell for cell in there if cell.protocol == "mini"} and there - again == others
    lines = [command for finding in committed.findings if finding.measured for command in finding.commands]
    assert {cell for line in lines for cell in asked_for(shlex.split(line)[2:])} <= there


def asked_for(words):
    parsed = parser().parse_args(["run", *words])
    return read_request(vars(parsed)).plan.cells


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


def test_the_data_set_card_of_the_results():
    card = DatasetCard.load(ROOT / "results" / "README.md").data.to_dict()
    assert card["license"] == "apache-2.0" and not card["viewer"]
    assert 1_000 < len(list((ROOT / "results").glob("*/*/*/*.json"))) < 10_000 and card["size_categories"] == ["1K<n<10K"]
