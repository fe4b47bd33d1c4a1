"""Figures: what they show is what the board says, readable, and drawn once."""

import dataclasses
import functools
import io
import math
import sys
from itertools import combinations

import matplotlib
import matplotlib.text
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from scipy import stats

import families
from benchmark.analysis.findings import findings
from benchmark.analysis.leaderboard import leaderboard
from benchmark.reporting import figures as figures_folder
from benchmark.reporting.drawing.style import OUTCOMES, styled
from benchmark.reporting.figure import Figure, digest_in, save
from benchmark.reporting.figures import claims, claims_figures, figures
from benchmark.reporting.registry import modules
from benchmark.spec.arm import Arm
from benchmark.spec.evaluations import measured_on
from benchmark.spec.plan import make_plan
from benchmark.spec.protocol import load_protocol
from benchmark.spec.study import load_study
from benchmark.spec.teachers import spelt_out, teachers_of
from benchmark.storage.result_file import Result, labelled

from ..made import without_needs

SCORE = {"top5": 90.0, "loss": 1.0}
MADE = {
    "teacher": None,
    "cost": {"seconds": 1.0, "device": "cpu", "images_per_second": 1.0, "peak_memory_mb": 1.0},
    "provenance": {"commit": None, "dirty": None, "code": "", "versions": {}, "host": "", "started": "", "finished": ""},
}
FEW = (("deit3", "base"), ("deit3", "large"), ("dinov2_reg", "small"), ("deit", "base"))
MAIN = ["gaps", "sizes", "native", "control", "curves", "match", "dropped"]
NONE, COPY = (20.0, 21.0, 22.0), (70.0, 71.0, 72.0)


def payload(run, family, size, top1, kl):
    """What a run of this top-1 leaves."""
    transfer, steps = run.transfer, run.protocol.recipe.steps
    metrics = SCORE | {
        "top1": top1,
        "attention_kl": [kl / (1 + block) for block in transfer.blocks] if transfer.method == "distill" else None,
    }
    if family == "dinov2_reg" and transfer.blocks and not run.student.components:
        metrics["dropped_mass"] = [0.1 + 0.05 * math.sin(block + len(size)) for block in transfer.blocks]
    curve = [{"step": round(steps * part), "loss": 1.0, "val_top1": top1 * part**0.5} for part in (0.25, 0.5, 0.75, 1)]
    on = {name: {"on": measured_on(run, name)} for name in ("val", "test")}
    return MADE | {"metrics": metrics | on["test"], "val": SCORE | {"top1": top1} | on["val"], "curve": curve}


def drawn_top1(cell, rng):
    """Some families fail with standard students; native components repair that."""
    arm, size = Arm.parse(cell.arm), {"small": 0.4, "base": 1, "large": 1.6}[cell.size]
    fails = arm.student == "standard" and cell.family in ("beitv2", "dinov2", "dinov2_reg", "clip")
    return 60 + rng.normal(0, 0.4) + arm.transfers * size * (-2.5 if fails else 2.5) + 0.8 * (arm.student == "matched")


def parts(protocol="mini", study="main", teachers=FEW, seeds=3, top1=None, kept=None):
    """What `leaderboard` takes, of made-up results on a real plan. `top1` is that of a cell, `kept` chooses among cells."""
    name, content = load_protocol(protocol)
    listed, pairs = load_study(study), list(teachers or teachers_of("papers", None))
    plan = make_plan(name, content, *listed, pairs, range(seeds))
    rng, results = np.random.default_rng(0), []
    for item in plan.items.values():
        student = item.run.role == "student" and item.evaluation is None
        value, kl = drawn_top1(item.cells[0], rng) if student else 0, 10 ** rng.uniform(-2, 0)
        for cell in item.cells if student else ():
            if kept is None or kept(cell):
                made = payload(item.run, cell.family, cell.size, top1(cell) if top1 else value, kl)
                results.append(Result.model_validate(labelled(cell, item.run, made)))
    return (name, content.description), (study, spelt_out(content, listed[1], pairs)), results, plan.distinct_comparisons, pairs


@functools.cache
def drawn(protocol="mini", study="main", **given):
    """The figures of such a board, by name; made once."""
    return {figure.name: figure for figure in figures(leaderboard(*parts(protocol, study, **given)))}


TWO = functools.partial(drawn, "mini", "main", seeds=2)


def texts_of(figure):
    """Every text that is really drawn, with its box in pixels; and the page's."""
    texts, original = [], matplotlib.text.Text.draw

    def draw(self, renderer):
        original(self, renderer)
        if self.get_visible() and self.get_text().strip():
            texts.append((self.get_text(), matplotlib.text.Text.get_window_extent(self, renderer), self.get_fontsize()))

    page = figure.draw(figure.data)
    page.set_dpi(150)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matplotlib.text.Text, "draw", draw)
        FigureCanvasAgg(page).draw()
    return texts, page.bbox


def overlapping(figure):
    """Pairs of texts that meet, texts that leave the page, and small ones."""
    texts, page = texts_of(figure)
    small = [(text, size) for text, _, size in texts if size < 7]
    outside = [text for text, box, _ in texts if box.x0 < 0 or box.y0 < 0 or box.x1 > page.x1 or box.y1 > page.y1]
    met = []
    for (one, a, _), (other, b, _) in combinations(texts, 2):
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1:
            met.append((one, other))
    return small + outside + met


def svg_of(figure, folder, data=None):
    """The bytes of a figure drawn of `data`, or its own."""
    given = figure if data is None else dataclasses.replace(figure, data=data)
    return next(path for path in save(given, folder, "x") if path.suffix == ".svg").read_bytes()


@pytest.mark.parametrize(
    ("protocol", "study", "names"),
    [
        ("mini", "main", MAIN),
        ("mini", "nulls", ["gaps"]),
        ("mini", "budget", ["budgets"]),
        ("imagenet", "finetuned", ["gaps"]),
    ],
)
def test_each_study_has_its_figures(protocol, study, names, tmp_path):
    found = drawn(protocol, study, seeds=2)
    assert list(found) == names
    for figure in found.values():
        assert overlapping(figure) == [], figure.name
        assert "\n" not in figure.title and figure.title
        assert [path.name for path in save(figure, tmp_path, "a-b")] == [
            f"a-b-{figure.name}{ending}" for ending in ("-drawn.csv", ".svg", ".png")[: 3 if figure.png else 2]
        ]
    assert [figure.name for figure in found.values() if figure.png] == (["gaps"] if "gaps" in names else [])


def test_a_board_without_results_has_no_figures():
    assert drawn(seeds=1, kept=lambda cell: False) == {}
    assert list(drawn(seeds=1, kept=lambda cell: cell.arm == "standard-none")) == ["curves"]


@pytest.mark.parametrize("protocol", [pytest.param("mini", marks=pytest.mark.long), "imagenet"])
def test_twenty_teachers_are_readable(protocol):
    """Names that share a row on mini, a row each on imagenet: no two texts meet, none is small or leaves the page."""
    found = drawn(protocol, "main", teachers=None, seeds=2)
    assert list(found) == MAIN
    for name in MAIN if protocol == "mini" else ("gaps", "sizes", "match"):
        assert overlapping(found[name]) == [], name
    rows = set(found["gaps"].data["teacher"])
    assert "augreg, deit, dino, ibot base" in rows if protocol == "mini" else len(rows) == 20
    shown = {name for label in rows for name in label.rsplit(" ", 1)[0].split(", ")}
    assert shown == {family for family, _ in teachers_of("papers", None)} <= set(families.names())


def test_values_are_those_worked_out_by_hand():
    """Variances of 1, 3 runs: se^2 = 2/3 and 4 degrees of freedom for a gap."""
    levels = {"standard-none": NONE, "standard-copy": COPY, "standard-distill": NONE, "matched-none": COPY, "matched-copy": NONE}
    levels["matched-distill"] = COPY
    given = {"teachers": (("deit3", "base"),), "top1": lambda cell: levels[cell.arm][cell.seed]}
    only = drawn(**given)
    found = {name: figure.data for name, figure in only.items()}
    assert list(found) == ["gaps", "native", "control", "curves", "match"]
    se, df = math.sqrt(2 / 3), 2
    gaps = found["gaps"].set_index("arm")
    half = stats.t.ppf(1 - 0.05 / 2 / 4, df) * se
    assert gaps["gap"].to_dict() == {"standard-copy": 50, "standard-distill": 0, "matched-copy": -50, "matched-distill": 0}
    assert gaps["low"].tolist() == pytest.approx((gaps["gap"] - half).tolist(), abs=1e-4)
    assert gaps["high"].tolist() == pytest.approx((gaps["gap"] + half).tolist(), abs=1e-4)
    assert gaps["verdict"].tolist() == ["success", "inconclusive", "failure", "inconclusive"]
    assert set(gaps["comparisons"]) == {4} and set(gaps["n"]) == {3}
    native = found["native"].set_index("method")
    assert native[["standard", "matched", "reversal"]].loc["copy"].tolist() == [50, -50, -100]
    assert native["reversal_plain95"]["copy"] == pytest.approx(stats.t.ppf(0.975, 2) * math.sqrt(4 / 3), abs=1e-4)
    (control,) = found["control"].to_dict("records")
    assert control["control"] == 50
    assert control["high"] - 50 == pytest.approx(stats.t.ppf(0.975, df) * se, abs=1e-4)
    curve = found["curves"].query("arm == 'standard-copy'").sort_values("step").iloc[-1]
    assert curve[["val", "low", "high", "n"]].tolist() == [71, 70, 72, 3]
    kl = {arm: [r.metrics.attention_kl for r in parts(**given)[2] if r.cell.arm == arm] for arm in found["match"]["arm"]}
    assert found["match"]["gap"].tolist() == [0, 0] and found["match"]["arm"].tolist() == ["standard-distill", "matched-distill"]
    assert found["match"]["attention_kl"].tolist() == pytest.approx([np.mean(each) for each in kl.values()], rel=1e-3)


def test_a_legend_of_all_verdicts_fits():
    levels = {"standard-copy": COPY, "matched-none": COPY}
    only = drawn(
        teachers=FEW[:2],
        top1=lambda cell: levels.get(cell.arm, NONE)[cell.seed],
        kept=lambda cell: cell.size == "base" or cell.seed == 0,
    )
    assert set(only["gaps"].data["verdict"]) == {"success", "failure", "inconclusive", ""}
    assert overlapping(only["gaps"]) == []


def test_a_claim_without_outcome_hides_none_that_has_one():
    """Of teachers of one size: one that has nothing beside it here, and is open with others of its own."""
    levels = {"standard-none": NONE, "standard-copy": COPY, "standard-copy+recipe=masked": NONE}
    name, content = load_protocol("mini")
    pairs = [("deit", "base"), ("dinov2_reg", "base")]
    given = parts(study="recipes", teachers=pairs, top1=lambda cell: levels.get(cell.arm, NONE)[cell.seed])
    (finding,) = findings(name, content, given[2], {"recipes": without_needs(load_study("recipes")[1])})
    (figure,) = claims_figures(finding)
    words = [text for text, *_ in texts_of(figure)[0]]
    assert "" in set(figure.data["outcome"]) and "open: an interval holds 0" in words
    assert not {"nothing claimed", "claimed, without outcome"} & set(words) and overlapping(figure) == []
    alone = dataclasses.replace(figure, data=figure.data[figure.data["outcome"] == ""])
    assert "claimed, without outcome" in [text for text, *_ in texts_of(alone)[0]]


def test_dropped_mass_is_a_line_a_teacher():
    data = TWO()["dropped"].data
    assert set(data["teacher"]) == {"dinov2_reg small"} and set(data["arms"]) == {"standard-copy, standard-distill"}
    expected = [100 * (0.1 + 0.05 * math.sin(block + 5)) for block in data["block"]]
    assert data["dropped"].tolist() == pytest.approx(expected, abs=1e-4)


def test_sizes_are_in_order_and_families_of_the_same_runs_one():
    data = drawn("mini", "main", teachers=None, seeds=2)["sizes"].data
    sizes = {family: list(dict.fromkeys(own["size"])) for family, own in data.groupby("family")}
    assert sizes["deit, dino, ibot"] == ["small", "base"] and sizes["deit3"] == ["base", "large"]
    assert not {"augreg", "clip"} & set(sizes)


def test_what_is_missing_is_named():
    """A single run has no interval, an arm without results or baseline no gap, and = standard is said."""
    found = drawn(
        kept=lambda cell: (
            (cell.size, cell.arm) != ("large", "matched-copy")
            and (cell.family, cell.arm) != ("dinov2_reg", "standard-none")
            and (cell.family != "deit3" or cell.size != "base" or cell.seed == 0)
        )
    )
    gaps = found["gaps"].data.fillna({"note": ""}).set_index(["teacher", "arm"])
    assert gaps["note"]["deit3 large", "matched-copy"] == "no result"
    assert gaps["note"]["dinov2_reg small", "standard-copy"] == "no baseline"
    assert gaps["note"]["deit base", "matched-distill"] == "= standard"
    single = gaps.loc["deit3 base", "standard-copy"]
    assert (single["n"], single["verdict"], math.isnan(single["low"]), math.isnan(single["gap"])) == (1, "", True, False)
    words = [text for text, *_ in texts_of(found["gaps"])[0]]
    assert words.count("= standard") == 2 and "no result" in words and "no verdict here" in words
    for name in ("gaps", "sizes", "native"):
        assert overlapping(found[name]) == [], name
    alone = drawn(seeds=1)
    assert list(alone) == MAIN
    assert set(alone["gaps"].data["verdict"]) == {""} and overlapping(alone["gaps"]) == overlapping(alone["control"]) == []


def test_what_is_missing_is_named_where_each_teacher_has_a_panel():
    """Without its only component a student is the standard one."""
    gaps = drawn("mini", "components", teachers=(("dinov2", "base"), ("dinov2_reg", "base"), ("clip", "base")), seeds=2)["gaps"]
    words = [text for text, *_ in texts_of(gaps)[0]]
    assert words.count("= standard") == (gaps.data["note"] == "= standard").sum() == 2
    assert overlapping(gaps) == []


@pytest.mark.parametrize(("study", "name"), [("main", name) for name in MAIN] + [("budget", "budgets")])
def test_drawn_from_the_data_alone(study, name, tmp_path):
    """What the CSV holds gives the same bytes, whatever the user's settings of matplotlib are."""
    figure = dataclasses.replace(drawn("mini", study, seeds=2)[name], png=False)
    read = pd.read_csv(io.StringIO(figure.csv()))
    assert dataclasses.replace(figure, data=read).csv() == figure.csv()
    one = svg_of(figure, tmp_path / "one")
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9, "svg.hashsalt": "mine", "axes.grid": True}):
        assert svg_of(figure, tmp_path / "two", read) == one


def test_the_digest_is_of_the_data():
    (_, _, results, *_) = given = parts(seeds=2)
    found = figures(leaderboard(*given))
    assert [figure.digest for figure in figures(leaderboard(*given[:2], results[::-1], *given[3:]))] == [f.digest for f in found]
    assert len({figure.digest for figure in found}) == len(found)
    gaps = found[0]
    changed = gaps.data.assign(gap=gaps.data["gap"] + 0.01)
    assert dataclasses.replace(gaps, data=changed).digest != gaps.digest
    assert dataclasses.replace(gaps, data=gaps.data.assign(gap=gaps.data["gap"] + 1e-9)).digest == gaps.digest
    assert dataclasses.replace(gaps, title="another").digest != gaps.digest


def test_csv_has_four_decimals_and_unix_lines():
    data = pd.DataFrame({"a": [1 / 3, math.nan], "b": ["x, y", ""], "n": [3, 4]})
    assert Figure("gaps", "a title", data, lambda data: None).csv() == 'a,b,n\n0.3333,"x, y",3\n,,4\n'
    assert "-0.0000" not in "".join(figure.csv() for figure in TWO().values())


def test_what_is_drawn_already_stays(tmp_path):
    figure = TWO()["gaps"]
    table, svg, png = save(figure, tmp_path / "new", "x")
    assert table.read_text(encoding="utf-8") == figure.csv()
    assert digest_in(svg) == digest_in(png) == figure.digest
    assert Image.open(png).text["Description"] == f"data sha256:{figure.digest}"
    before = {path: path.stat().st_mtime_ns for path in (svg, png)}

    def never(data):
        raise AssertionError("drawn again")

    assert save(dataclasses.replace(figure, draw=never), tmp_path / "new", "x") == [table, svg, png]
    assert {path: path.stat().st_mtime_ns for path in (svg, png)} == before
    other = dataclasses.replace(figure, data=figure.data.head(4))
    with pytest.raises(AssertionError, match="drawn again"):
        save(dataclasses.replace(other, draw=never), tmp_path / "new", "x")
    save(other, tmp_path / "new", "x")
    assert digest_in(svg) == digest_in(png) == other.digest != figure.digest
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["x-gaps-drawn.csv", "x-gaps.png", "x-gaps.svg"]


def test_broken_files_have_no_digest_and_are_drawn_again(tmp_path):
    figure = TWO()["gaps"]
    paths = save(figure, tmp_path, "x")[1:]
    whole = [path.read_bytes() for path in paths]
    assert digest_in(tmp_path / "none.svg") is None and digest_in(tmp_path / "none.png") is None
    for path, content in zip(paths, whole, strict=True):
        for broken in (b"", b"nonsense", content[: len(content) // 2]):
            path.write_bytes(broken)
            assert digest_in(path) is None
    save(figure, tmp_path, "x")
    assert [path.read_bytes() for path in paths] == whole


def test_a_bar_far_wider_than_the_rest_does_not_hide_them():
    data = TWO()["gaps"].data
    wide = data.assign(low=data["low"].where(data.index != 0, -500), high=data["high"].where(data.index != 0, 500))
    figure = dataclasses.replace(TWO()["gaps"], data=wide)
    axes = figure.draw(wide).axes
    assert all(each.get_xlim() == axes[0].get_xlim() for each in axes)
    assert -30 < axes[0].get_xlim()[0] < data["gap"].min() and data["gap"].max() < axes[0].get_xlim()[1] < 30
    assert any("goes on beyond its panel" in text.replace("\n", " ") for text, *_ in texts_of(figure)[0])


def test_sixty_rows_and_every_outcome_are_readable():
    gaps = drawn("imagenet", "main", teachers=None, seeds=2)["gaps"]
    many = pd.concat([gaps.data.assign(teacher=gaps.data["teacher"] + f" of weights {i}") for i in range(3)], ignore_index=True)
    assert many["teacher"].nunique() == 60 and overlapping(dataclasses.replace(gaps, data=many)) == []
    place = {"protocol": "mini", "claim": 1, "teacher": "deit3 base", "on": "test", "n": 3, "comparisons": 56}
    outcomes = [*(name for name in OUTCOMES if name != "without outcome"), ""]
    rows = [
        place | {"label": f"standard-copy+budget=x3.5+source=untrained - standard-none {i}", "value": i}
        | {"low": i - 2, "high": i + 2, "outcome": outcome, "expect": "above" if i else ""} for i, outcome in enumerate(outcomes)
    ]  # fmt: skip
    rows[-1]["expect"], rows[-2]["expect"] = "", "above"
    figure = Figure("claims", "a title", pd.DataFrame(rows), functools.partial(styled, claims.draw))
    words = [text for text, *_ in texts_of(figure)[0]]
    assert {mark.label for mark in OUTCOMES.values()} <= set(words) and overlapping(figure) == []


NEW_FIGURE = """
import matplotlib.figure

PLACE = 35
TITLE = "Runs by teacher"


def of_board(board):
    return [{"teacher": row.label, "runs": sum(entry.n for entry in row.entries)} for row in board.rows]


def draw(data):
    figure = matplotlib.figure.Figure()
    figure.subplots().plot(data["runs"])
    return figure
"""


def test_a_new_figure_is_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(figures_folder, "__path__", [*figures_folder.__path__, str(tmp_path)])
    (tmp_path / "runcount.py").write_text(NEW_FIGURE, encoding="utf-8")
    modules.cache_clear()
    try:
        found = figures(leaderboard(*parts(seeds=2)))
    finally:
        modules.cache_clear()
        monkeypatch.delitem(sys.modules, "benchmark.reporting.figures.runcount")
    assert [figure.name for figure in found] == ["gaps", "runcount", *MAIN[1:]]
    (figure,) = (figure for figure in found if figure.name == "runcount")
    assert figure.title.startswith("Runs by teacher, protocol mini: ")
    assert [path.name for path in save(figure, tmp_path / "out", "x")] == ["x-runcount-drawn.csv", "x-runcount.svg"]


def test_every_figure_has_a_place_of_its_own():
    places = [module.PLACE for module in modules("benchmark.reporting.figures")]
    assert len(set(places)) == len(places)
