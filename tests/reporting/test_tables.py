"""Tables against numbers worked out by hand, in each of their forms."""

import csv
import io
import math
from dataclasses import replace

import pytest
from rich.console import Console
from scipy import stats

import families
from benchmark.analysis.leaderboard import SAME, leaderboard
from benchmark.analysis.notes import teacher_notes
from benchmark.analysis.statistics import Estimate
from benchmark.reporting.csv import frame, to_csv
from benchmark.reporting.gather import gather
from benchmark.reporting.latex import latex
from benchmark.reporting.markdown import markdown
from benchmark.reporting.published import PublishedFigures
from benchmark.reporting.table import Column, Gap, Table, Verdict, printed, shown
from benchmark.reporting.tables import tables
from benchmark.reporting.tables.published import published_table
from benchmark.reporting.text import as_line, as_text, printable
from benchmark.spec.records import validated
from benchmark.spec.run import Cell
from benchmark.spec.study import Study, load_study
from benchmark.storage.result_file import Result
from families.spec import UserError

from .. import hostile, made

# Arms of DeiT III base: variances 4, 1, 1, 4, 1, 1 over three seeds.
DEIT3 = {
    ("deit3", "base", "standard-none"): [68, 70, 72],
    ("deit3", "base", "standard-copy"): [89, 90, 91],
    ("deit3", "base", "standard-distill"): [49, 50, 51],
    ("deit3", "base", "matched-none"): [58, 60, 62],
    ("deit3", "base", "matched-copy"): [84, 85, 86],
    ("deit3", "base", "matched-distill"): [59, 60, 61],
}
MAIN = [arm for _, _, arm in DEIT3]
TERM = math.sqrt(4 / 3 + 1 / 3)  # standard error of each gap
DF = 2  # of arms with one cell
COMPARISONS = 4
HALF = stats.t.ppf(1 - 0.05 / COMPARISONS / 2, DF) * TERM
PLAIN = stats.t.ppf(0.975, DF) * TERM


def board_of(cells, study="main", comparisons=COMPARISONS, protocol="mini", **metrics):
    listed = load_study(study) if isinstance(study, str) else ("mine", study)
    return leaderboard((protocol, "A test."), listed, made.results(cells, protocol, **metrics), comparisons)


def by_name(board):
    return {table.name: table for table in tables(board)}


def only_row(table):
    assert len(table.rows) == 1
    return table.rows[0]


def test_the_leaderboard_by_hand():
    row = only_row(by_name(board_of(DEIT3))["leaderboard"])
    assert (row["family"], row["teachers"]) == ("deit3", 1)
    assert row["standard-copy"] == Verdict("success", (20.0,))
    assert row["standard-distill"] == Verdict("failure", (-20.0,))
    assert row["matched-copy"] == Verdict("success", (25.0,))
    assert row["matched-distill"] == Verdict("inconclusive", (0.0,))
    assert [shown(row[arm]) for arm in ("standard-copy", "standard-distill", "matched-distill")] == [
        "✓ success (+20.0)", "✗ failure (-20.0)", "~ inconclusive (+0.0)",
    ]  # fmt: skip


def test_families_in_two_ways_by_hand():
    """Every teacher counts in its own group alone; a group of failing and gaining teachers is mixed; without results, a dash."""
    fails = {("dinov2", "base", arm): values for (_, _, arm), values in DEIT3.items()}
    plain = {("deit", size, arm): DEIT3["deit3", "base", arm] for size in ("small", "base") for arm in MAIN if "standard" in arm}
    fails["dinov2", "base", "standard-copy"] = [49, 50, 51]
    by_hand = Study(
        title="Two ways",
        arms=tuple(MAIN),
        ways={
            "blocks": {"plain": ("deit",), "native": ("deit3", "dinov2")},
            "data": {"one": ("deit", "deit3", "dinov2"), "web": ("clip",)},
        },
    )
    rows = by_name(board_of(DEIT3 | fails | plain, by_hand))["two-way"].rows
    assert [(row["group"], row["arm"]) for row in rows] == [
        ("plain", "standard-copy"), ("plain", "standard-distill"), ("native", "standard-copy"), ("native", "standard-distill"),
    ]  # fmt: skip
    assert [shown(row["of one"]) for row in rows] == [
        "✓ success (+20.0)", "✗ failure (-20.0)", "± mixed (-20.0 to +20.0)", "✗ failure (-20.0)",
    ]  # fmt: skip
    assert {row["of web"] for row in rows} == {None}
    assert "two-way" not in by_name(board_of(DEIT3))


def test_starts_by_hand():
    """Beside the usual start, with intervals; they have no gap, for nothing is transferred. Students of one geometry share a row,
    and a teacher whose students have no such start has none."""
    arms = {"standard-none": [68, 70, 72], "standard-none+start=mimetic": [72, 75, 78], "standard-none+start=impulse": [60]}
    cells = {(family, "base", arm): values for family in ("deit", "clip") for arm, values in arms.items()}
    copies = {(family, "base", "standard-copy"): [90 + n, 91 + n] for n, family in enumerate(("deit", "clip"))}
    main = ["standard-copy", "standard-distill"]
    results = made.results(cells | copies | DEIT3)
    report = leaderboard(("mini", "A test."), load_study("starts"), results, COMPARISONS, elsewhere=main)
    assert [row.families for row in report.rows] == [("deit",), ("clip",)]
    found = by_name(report)
    mimetic, impulse = found["starts"].rows
    assert mimetic["teachers"] == impulse["teachers"] == "deit base, clip base"
    assert (mimetic["start"], mimetic["n"], mimetic["score"]) == ("mimetic", 3, 75)
    half = stats.t.ppf(0.975, DF) * math.sqrt(9 / 3 + 4 / 3)
    assert shown(mimetic["difference"]) == f"+5.0 ± {half:.1f}"
    assert (impulse["start"], impulse["n"], shown(impulse["difference"])) == ("impulse", 1, "-10.0")
    gaps = {(row["teacher"], row["arm"]): row["gap"] for row in found["teachers"].rows}
    assert gaps["deit base", "standard-none+start=mimetic"] is None and gaps["clip base", "standard-copy"] is not None


def test_notes_on_pre_trained_weights():
    """Weights put there by hand are told, and two files of one teacher, whatever their origins."""
    made_of = made.results({("dinov2", "small", "standard-copy"): [80, 81]}, "fashion")
    records = [
        {"source": "hub:timm/vit_small_patch14_dinov2.lvd142m", "sha256": "a" * 64},
        {"source": "a colleague", "sha256": "b" * 64},
    ]
    changed = [
        validated(Result, {**each.model_dump(), "teacher": record}, "made") for each, record in zip(made_of, records, strict=True)
    ]
    assert teacher_notes(changed, "fashion") == [
        "dinov2 small: its students learnt from 2 different weights of one teacher (pre-trained)",
        "weights of dinov2 small: a colleague",
    ]
    assert teacher_notes(changed[:1], "fashion") == []


def test_teachers_by_hand():
    row = only_row(by_name(board_of(DEIT3))["teachers"])
    assert row["standard-none"] == 70 and row["matched-none"] == 60
    gap = row["standard-copy"]
    assert isinstance(gap, Gap) and gap.n == 3
    assert (gap.estimate.value, gap.estimate.simultaneous, gap.estimate.plain) == pytest.approx((20, HALF, PLAIN))
    assert shown(gap) == f"+20.0 ± {HALF:.1f} ✓ success"


def test_native_components_by_hand():
    row = only_row(by_name(board_of(DEIT3))["native"])
    assert row["components"] == "layer_scale, patch_pos_embed"
    values = {key: row[key].value for key in ("control", "reversal_copy", "reversal_distill", "total_copy", "total_distill")}
    assert values == pytest.approx(
        {"control": -10, "reversal_copy": 25 - 20, "reversal_distill": 0 - -20, "total_copy": 15, "total_distill": -10}
    )
    four = math.sqrt(2 * (4 / 3 + 1 / 3))
    assert row["reversal_copy"].plain == pytest.approx(stats.t.ppf(0.975, DF) * four)
    assert row["control"].plain == pytest.approx(stats.t.ppf(0.975, DF) * math.sqrt(8 / 3))


def lost(standard):
    """DeiT III, with Distillation that gives the matched student nothing."""
    return DEIT3 | {("deit3", "base", "standard-distill"): [standard - 1, standard, standard + 1]}


def test_a_reversal_stands_beside_an_inconclusive_gap():
    """With its plain interval, as in the table of native components; in each form."""
    board = board_of(lost(90))
    table = by_name(board)["teachers"]
    gap = only_row(table)["matched-distill"]
    half = stats.t.ppf(0.975, DF) * math.sqrt(2) * TERM
    assert gap.reversal == board.native(board.rows[0])["reversal_distill"] and gap.reversal.plain == pytest.approx(half)
    assert shown(gap) == f"+0.0 ± {HALF:.1f} ~ inconclusive; reversal -20.0 ± {half:.1f}"
    assert shown(only_row(table)["matched-copy"]).endswith("✓ success") and board.footnote.count("reversal: gap(matched)") == 1
    assert f"~ inconclusive; reversal -20.0 ± {half:.1f} |" in markdown(table)
    assert rf"$\sim$ inconclusive; reversal $-$20.0 $\pm$ {half:.1f} \\" in latex(table, "x")
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(printed(table))
    assert f"reversal -20.0 ± {half:.1f}" in console.export_text()
    long = by_name(board_of(lost(90), "init"))["teachers"].rows[-1]
    assert long["arm"] == "matched-distill" and long["gap"] == gap


@pytest.mark.parametrize(("standard", "comparisons"), [(50, 4), (80, 4), (90, 40)])
def test_a_reversal_that_is_not_below_0_stands_nowhere(standard, comparisons):
    """Above 0; below it by the plain interval alone; and where the table has more comparisons."""
    board = board_of(lost(standard), comparisons=comparisons)
    gap = only_row(by_name(board)["teachers"])["matched-distill"]
    assert gap.estimate.verdict == "inconclusive" and gap.reversal is None
    assert "reversal" not in board.footnote + shown(gap)


def test_a_family_without_native_components_is_its_own_match():
    """The same runs under two names: shown as such, counted as no test, and cells of the standard arms alone."""
    deit = {("deit", "base", arm.replace("matched", "standard")): tops for (_, _, arm), tops in list(DEIT3.items())[:3]}
    twins = {("deit", size, arm.replace("standard", "matched")): tops for (_, size, arm), tops in deit.items()}
    board = board_of(deit | twins)
    found = by_name(board)
    assert only_row(found["leaderboard"])["matched-copy"] == SAME
    assert only_row(found["teachers"])["matched-distill"] == SAME
    assert only_row(found["native"]) == {"teacher": "deit base", "components": "none"} | dict.fromkeys(
        ("control", "reversal_copy", "reversal_distill", "total_copy", "total_distill"), SAME
    )
    both = board_of(deit | twins | {("deit3", "base", "matched-none"): [10, 30, 50]})
    twin = both.comparisons_of.gap("mini", "deit", "base", "matched-copy")
    assert twin == board.comparisons_of.gap("mini", "deit", "base", "standard-copy")


def test_what_copy_bypasses_is_marked():
    """BEiT v2's bias is one of several components; a family of which it were all gets no reversal by Copy."""
    cells = {("beitv2", "base", arm): tops for (_, _, arm), tops in DEIT3.items()}
    row = only_row(by_name(board_of(cells))["native"])
    assert "rel_pos_bias†" in row["components"] and "layer_scale," in row["components"]
    assert isinstance(row["reversal_copy"], Estimate)


def test_one_run_is_a_number_and_missing_arms_are_dashes():
    cells = {("deit3", "base", "standard-none"): [70.0], ("deit3", "base", "standard-copy"): [80.0]}
    found = by_name(board_of(cells))
    row = only_row(found["teachers"])
    assert [shown(row[arm]) for arm in ("standard-none", "standard-copy", "matched-copy")] == ["70.0 (n=1)", "+10.0 (n=1)", "–"]
    lead = only_row(found["leaderboard"])
    assert [shown(lead[arm]) for arm in ("standard-copy", "matched-copy")] == ["no verdict (+10.0)", "–"]
    assert only_row(by_name(board_of({("deit3", "base", "standard-copy"): [80.0]}))["teachers"])["standard-copy"] == (
        "80.0, no baseline"
    )


def test_a_tie_is_inconclusive():
    cells = {("deit3", "base", "standard-none"): [70, 70, 70], ("deit3", "base", "standard-copy"): [70, 70, 70]}
    assert shown(only_row(by_name(board_of(cells))["teachers"])["standard-copy"]) == "+0.0 ± 0.0 ~ inconclusive"


def test_teachers_that_share_a_baseline():
    """DeiT III and CLIP base have one standard student, the only cell of its arm; each gap has its own Copy runs."""
    base = [68, 70, 72]
    cells = {(family, "base", "standard-none"): base for family in ("deit3", "clip")}
    cells |= {("deit3", "base", "standard-copy"): [79, 80, 81], ("clip", "base", "standard-copy"): [60, 64, 65]}
    rows = {row["teacher"]: row["standard-copy"].estimate for row in by_name(board_of(cells))["teachers"].rows}
    assert rows["deit3 base"].value == 10 and rows["clip base"].value == pytest.approx(-7)
    # Copy's variances are 1 and 7, mean 4.
    assert rows["deit3 base"].se == pytest.approx(math.sqrt((4 + 4) / 3))
    assert rows["clip base"].se == pytest.approx(math.sqrt((4 + 7) / 3))
    assert rows["deit3 base"].df == rows["clip base"].df == 2


def test_families_that_share_their_runs_share_rows():
    arms = {"standard-none": [68, 70, 72], "standard-copy": [79, 80, 81]}
    cells = {(family, size, arm): tops for family in ("deit", "dino") for size in ("small", "base") for arm, tops in arms.items()}
    found = by_name(board_of(cells))
    assert [row["family"] for row in found["leaderboard"].rows] == ["deit, dino"]
    assert found["leaderboard"].rows[0]["teachers"] == 2
    assert [row["teacher"] for row in found["teachers"].rows] == ["deit, dino small", "deit, dino base"]
    assert [row["family"] for row in found["sizes"].rows] == ["deit, dino"]


def test_sizes_that_contradict_each_other():
    def at(size, copy, distill):
        arms = {"standard-none": 70, "standard-copy": 70 + copy, "standard-distill": 70 + distill}
        return {("deit3", size, arm): [level - 1, level, level + 1] for arm, level in arms.items()}

    row = only_row(by_name(board_of(at("base", 20, 25) | at("large", -20, 20)))["sizes"])
    assert (row["family"], row["sizes"]) == ("deit3", "base, large")
    assert (row["standard-copy"], row["standard-distill"], row["matched-copy"]) == ("contradicting", "consistent", None)
    change = row["standard-copy_change"]
    assert change.value == pytest.approx(-40)
    assert change.se == pytest.approx(math.sqrt(4 / 3)) and change.df == 4  # of four cells with variance 1
    lead = only_row(by_name(board_of(at("base", 20, 25) | at("large", -20, 20)))["leaderboard"])
    assert shown(lead["standard-copy"]) == "± mixed (-20.0 to +20.0)"
    assert only_row(by_name(board_of(at("base", 20, 0) | at("large", 20, 20)))["sizes"])["standard-distill"] == "undecided"


def test_the_leaderboard_is_ranked():
    def of(family, gap):
        return {
            (family, "base", arm): [level - 1, level, level + 1]
            for arm, level in (("standard-none", 50), ("standard-copy", 50 + gap))
        }

    ranked = by_name(board_of(of("clip", -5) | of("deit3", 12) | of("mae", 3)))["leaderboard"]
    assert [row["family"] for row in ranked.rows] == ["deit3", "mae", "clip"]


def test_a_noisy_teacher_is_judged_by_its_own_variance():
    """CLIP's seeds lie far apart: among many quiet teachers its gap of 8 is no success, theirs of 10 are."""
    quiet = ["deit3", "mae", "mocov3", "beitv2"]
    cells = {("dinov2", "small", "standard-none"): [69.9, 70, 70.1]}  # so that the arm has two cells
    cells |= {(family, "base", "standard-none"): [69.9, 70, 70.1] for family in (*quiet, "clip")}
    cells |= {(family, "base", "standard-copy"): [79.9, 80, 80.1] for family in quiet}
    cells |= {("clip", "base", "standard-copy"): [73, 78, 83]}
    board = board_of(cells)
    rows = {row["teacher"]: row["standard-copy"] for row in by_name(board)["teachers"].rows}
    assert shown(rows["clip base"]).endswith("~ inconclusive") and shown(rows["deit3 base"]).endswith("✓ success")
    assert "all 4 comparisons of this table at once" in board.footnote


def test_groups_with_other_sets_share_a_board(tmp_path):
    """One had no ImageNet-A, the other no ImageNet-R: the same runs under equal keys, and gaps where nobody measured."""
    groups = {
        "one": ({"imagenet_v2": 60.0, "imagenet_r": 30.0}, (0, 1)),
        "other": ({"imagenet_v2": 62.0, "imagenet_a": 9.0}, (2,)),
    }
    defined = made.DEFINED["imagenet"]
    for name, (sets, seeds) in groups.items():
        for arm, more in (("standard-none", 0), ("standard-copy", 2)):
            scores = {each: value + more for each, value in sets.items()}
            for seed in seeds:
                result = made.result(Cell("imagenet", "dino", "base", arm, seed), 80 + more + seed / 10, scores)
                assert result.key == defined.run_of(result.cell).key
                made.write(tmp_path / name, [result])
                made.write(tmp_path / "both", [result])
    (board,) = gather(tmp_path / "both").boards
    assert [entry.n for entry in board.rows[0].entries[:2]] == [3, 3]
    rows = {row["arm"]: row for row in by_name(board)["shifted"].rows}
    none, copy = rows["standard-none"], rows["standard-copy"]
    assert [none[f"{name}_n"] for name in ("imagenet_v2", "imagenet_r", "imagenet_a")] == [3, 2, 1]
    assert none["imagenet_v2"] == pytest.approx((60 + 60 + 62) / 3) and none["imagenet_a"] == 9.0
    assert copy["imagenet_r_gap"].value == pytest.approx(2) and copy["imagenet_a_gap"].plain is None
    titles = [column.title for column in by_name(board)["shifted"].columns]
    assert titles.count("n") == 2  # of the sets that some runs lack
    (alone,) = gather(tmp_path / "one").boards
    assert "imagenet_a" not in {column.key for column in by_name(alone)["shifted"].columns}


def test_shifted_sets_by_hand():
    cells = {("deit3", "base", "standard-none"): [70, 70, 70], ("deit3", "base", "standard-copy"): [80, 80, 80]}
    results = made.results({next(iter(cells)): [70, 70, 70]}, shift={"noise": 40.0})
    results += made.results({("deit3", "base", "standard-copy"): [80, 80, 80]}, shift={"noise": 35.0})
    board = leaderboard(("mini", ""), load_study("main"), results, 4)
    rows = by_name(board)["shifted"].rows
    assert [(row["arm"], row["test"], row["noise"]) for row in rows] == [("standard-none", 70, 40), ("standard-copy", 80, 35)]
    assert rows[0]["noise_gap"] is None and rows[1]["noise_gap"].value == -5


def test_the_cost_of_training_by_hand():
    """Two processes share a GPU run; a matched student that is the standard one is not counted again."""
    cells = {("deit", "base", "standard-none"): [70, 70, 70], ("deit", "base", "standard-copy"): [80, 80, 80]}
    results = made.results(cells)
    again = made.results({("deit", "base", "matched-none"): [70, 70, 70]})
    assert {result.key for result in again} < {result.key for result in results}
    costs = [{"seconds": 1800.0, "kwh": 0.5}, {"seconds": 5400.0}, {"seconds": 3600.0, "kwh": 0.3}]
    costs += [{"seconds": 7200.0, "device": "GPU", "ranks": 2, "peak_memory_mb": 1500.0}] * 3
    for number, cost in enumerate(costs):
        results[number] = results[number].model_copy(update={"cost": results[number].cost.model_copy(update=cost)})
    none, copy = by_name(leaderboard(("mini", ""), load_study("main"), [*results, *again], 4))["training"].rows
    assert none == {"arm": "standard-none", "device": "cpu", "runs": 3, "each": 1.0, "total": 3.0, "memory": 0.01} | {
        "kwh": 0.4,
        "metered": 2,
    }
    assert copy == {"arm": "standard-copy", "device": "GPU", "runs": 3, "each": 4.0, "total": 12.0, "memory": 1.5}


def test_the_share_of_the_gap_closed():
    """Li et al.: scratch 83.0, fine-tuned 85.7, Copy 85.1 is 77.8 % of it."""
    cells = {
        ("mae", "large", arm): [top1] * 3 for arm, top1 in (("standard-none", 83.0), ("finetune", 85.7), ("standard-copy", 85.1))
    }
    board = board_of(cells, "finetuned", protocol="li2024")
    row = only_row(by_name(board)["closed"])
    assert row["closed"] == pytest.approx(77.8, abs=0.05)
    share = {"source": "L", "what": "share", "metric": "closed", "value": 77.8, "protocol": "li2024", "family": "mae"}
    share |= {"size": "large", "arm": "standard-copy"}
    others = [{"metric": "top1"}, {"metric": "gap"}, {"arm": "standard-distill"}, {"protocol": "mini"}, {"metric": "sd"}]
    content = {"sources": {"L": {"cite": "Li"}}, "figures": [share, *(share | other for other in others)]}
    table = published_table(validated(PublishedFigures, content, "here"), [board])
    measured = [row["measured"] for row in table.rows]
    assert measured == ["77.8", "85.1 (n=3)", "+2.1 ± 0.0 ✓ success", "not measured", "not measured", "not measured"]


def test_published_figures_name_their_source():
    figure = {"source": "X", "what": "share", "metric": "closed", "value": 1}
    for content, words in (
        ({"figures": [figure]}, "source 'X', which"),
        ({"figures": [figure | {"metric": "recall"}]}, "metric"),
    ):
        with pytest.raises(UserError, match=words):
            validated(PublishedFigures, content, "here")


def test_an_ensembles_gap_is_to_the_ensemble_without_transfer():
    """It is better than the student alone, and worse than that student's own ensemble."""
    levels = {"standard-none": 83.0, "finetune": 85.7, "standard-copy": 85.1}
    levels |= {"standard-none+ensemble=finetuned": 86.1, "standard-copy+ensemble=finetuned": 85.9}
    cells = {("mae", "large", arm): [level - 0.1, level, level + 0.1] for arm, level in levels.items()}
    board = board_of(cells, "ensemble", protocol="li2024")
    gaps = {row["arm"]: row["gap"] for row in by_name(board)["teachers"].rows}
    assert gaps["standard-copy+ensemble=finetuned"].estimate.value == pytest.approx(-0.2)
    assert [row["arm"] for row in by_name(board)["closed"].rows] == ["standard-copy"]


def test_other_checkpoints_are_no_sizes():
    def of(size, gap):
        arms = {"standard-none": 50, "standard-copy": 50 + gap}
        return {("beitv2", size, arm): [level - 1, level, level + 1] for arm, level in arms.items()}

    found = by_name(board_of(of("base", 20) | of("large", 20) | of("base_ft", -20), protocol="imagenet"))
    assert len(found["teachers"].rows) == 3
    lead = only_row(found["leaderboard"])
    assert (lead["teachers"], lead["standard-copy"]) == (2, Verdict("success", (20.0, 20.0)))
    assert (only_row(found["sizes"])["sizes"], only_row(found["sizes"])["standard-copy"]) == ("base, large", "consistent")


def test_arms_of_another_board_have_no_verdict_and_bring_no_teacher():
    cells = DEIT3 | {("deit3", "base", "standard-copy+sinks=drop"): [89, 90, 91]}
    cells |= {("clip", "base", arm): tops for (_, _, arm), tops in DEIT3.items()}
    results = made.results(cells)
    elsewhere = {"standard-copy", "standard-distill", "matched-copy", "matched-distill"}
    board = leaderboard(("mini", ""), load_study("sinks"), results, 4, elsewhere=elsewhere)
    assert [row.label for row in board.rows] == ["deit3 base"]
    gaps = {entry.arm.name: entry.gap for entry in board.rows[0].entries}
    assert gaps["standard-copy"].verdict is None
    assert shown(Gap(gaps["standard-copy"], 3)) == f"+20.0 ± {PLAIN:.1f} (plain 95 %)"
    assert gaps["standard-copy+sinks=drop"].verdict == "success"
    assert board.runs == 3 * 6


def test_teachers_share_a_row_by_their_transfers_alone():
    """DeiT III and CLIP have one baseline, and are still two where nothing else is measured."""
    cells = {(family, "base", "standard-none"): [70.0] for family in ("deit3", "clip")}
    places = [("deit3", "base"), ("clip", "base")]
    board = leaderboard(("mini", ""), load_study("main"), made.results(cells), 4, places)
    assert [row.label for row in board.rows] == ["deit3 base", "clip base"]


@pytest.fixture
def of_bias(monkeypatch):
    """A family whose one native component is BEiT v2's bias."""
    spec = families.spec("beitv2")
    bias = tuple(component for component in spec.native if component.inert_under_copy)
    monkeypatch.setattr(families, "spec", lambda name: replace(spec, native=bias))


def test_a_family_of_inert_components_shows_no_reversal_by_copy(of_bias):
    """On mini, where all blocks are copied."""
    board = board_of(DEIT3)
    row = only_row(by_name(board)["native"])
    assert row["components"] == "rel_pos_bias†" and board.notes == ("deit3: rel_pos_bias is inert under Copy",)
    assert row["reversal_copy"] == "inert under Copy" and isinstance(row["reversal_distill"], Estimate)
    table = board.table.set_index("arm")
    assert math.isnan(table.loc["matched-copy", "reversal"]) and table.loc["matched-distill", "reversal"] == 20


def test_what_acts_in_a_block_that_is_not_copied_is_not_inert(of_bias):
    """In imagenet's last three blocks."""
    board = board_of(DEIT3, protocol="imagenet")
    row = only_row(by_name(board)["native"])
    assert row["components"] == "rel_pos_bias" and board.notes == () and board.rows[0].inert == ()
    assert row["reversal_copy"].value == pytest.approx(5)
    assert board.table.set_index("arm").loc["matched-copy", "reversal"] == pytest.approx(5)


def test_an_arm_of_some_blocks_has_no_inert_component():
    some = {("beitv2", "base", "matched-copy+blocks=first-2+native=rel_pos_bias"): [84, 85, 86]}
    some |= {("beitv2", "base", "standard-copy+blocks=first-2"): [89, 90, 91]}
    every = {
        ("beitv2", "base", "standard-none"): [68, 70, 72],
        ("beitv2", "base", "matched-none+native=rel_pos_bias"): [58, 60, 62],
    }
    every |= {
        ("beitv2", "base", "standard-copy"): [89, 90, 91],
        ("beitv2", "base", "matched-copy+native=rel_pos_bias"): [84, 85, 86],
    }
    board = board_of(every | some, Study(title="Mine", arms=tuple(arm for _, _, arm in every | some)))
    rows = {row["arm"]: row for row in by_name(board)["components"].rows}
    assert rows["matched-copy+native=rel_pos_bias"]["reversal"] is None and board.rows[0].inert == () and board.notes == ()
    assert rows["matched-copy+blocks=first-2+native=rel_pos_bias"]["reversal"].value == pytest.approx(5)
    board = board_of(every, Study(title="Mine", arms=tuple(arm for _, _, arm in every)))
    assert board.rows[0].inert == ("rel_pos_bias",) and len(board.notes) == 1


def test_a_baseline_of_one_run():
    cells = {("deit3", "base", "standard-none"): [70.0], ("deit3", "base", "standard-copy"): [79, 80, 81]}
    assert shown(only_row(by_name(board_of(cells))["teachers"])["standard-copy"]) == "+10.0 (baseline n=1)"


def test_ties_of_rounding_are_the_files():
    """What files and page hold with four decimals decides, not the last bit of a sum."""
    assert shown(28.349999999999987) == shown(28.35) and shown(17.650000000000006) == shown(17.65)
    assert shown(Estimate(-0.00001)) == "+0.0"


def test_rows_are_shared_by_runs_and_not_by_their_number():
    """DeiT and DINO have one student; each lacks another seed of it."""
    copies = {("deit", "base", "standard-copy"): [None, 97, 98], ("dino", "base", "standard-copy"): [96, 97, None]}
    base = {(family, "base", "standard-none"): [20, 21, 22] for family in ("deit", "dino")}
    assert [row.label for row in board_of(base | copies).rows] == ["deit base", "dino base"]
    assert [row.label for row in board_of(base | {place: [96, 97, 98] for place in copies}).rows] == ["deit, dino base"]


def test_what_a_teacher_with_registers_costs():
    """14 tokens in the teacher, 10 in the student."""
    cells = {("dinov2_reg", "base", arm): [20, 21] for arm in ("standard-none", "standard-copy")}
    row = only_row(by_name(board_of(cells))["cost"])
    alone, taught = (4 * (12 * n * 64**2 + 2 * n**2 * 64) + 10 * 64 * 3 * 8**2 for n in (10, 14))
    assert row["ratio"] == pytest.approx((alone + taught) / alone)


def test_what_inference_costs():
    """Tokens N = 10, width 64, 4 blocks: 12 N d^2 + 2 N^2 d multiply-accumulates a block, and N d 3 p^2 of the embedding."""
    row = only_row(by_name(board_of(DEIT3))["cost"])
    alone = (4 * (12 * 10 * 64**2 + 2 * 10**2 * 64) + 10 * 64 * 3 * 8**2) / 1e6
    assert row["standard-none_mmacs"] == row["standard-distill_mmacs"] == pytest.approx(alone)
    assert row["standard-copy_mmacs"] == pytest.approx(2 * alone) and row["ratio"] == pytest.approx(2)


# ---- the forms

SAMPLE = Table(
    "sample", "100 % of a_b & c", (Column("name", "name", left=True), Column("gap", "gap", 2), Column("n", "n")),
    ({"name": "x_1 | y", "gap": Estimate(-1.234, plain=0.5, simultaneous=0.75), "n": 1200},
     {"name": "distill-s0 <none>", "gap": None, "n": 3}),
    ("Half of 95 %.",),
)  # fmt: skip


def test_markdown():
    assert markdown(SAMPLE).splitlines() == [
        "| name | gap | n |", "|---|---:|---:|", "| x_1 \\| y | -1.23 ± 0.50 | 1,200 |", "| distill-s0 &lt;none> | – | 3 |", "",
        "Half of 95 %.",
    ]  # fmt: skip


@pytest.mark.parametrize("text", [*hostile.TEXTS, hostile.MORE])
def test_others_text_is_text_in_markdown(text):
    told = printable(text)
    for markdown_text, tags, expected in [
        (f"Said: {as_text(text)} so", ["p"], f"Said: {told} so"),
        (f"- {as_line(text)}", ["ul", "li"], told.strip()),
        (f"1. {as_line(text)}: so", ["ol", "li"], f"{told.strip()}: so"),
        (f"## {as_text(text)}", ["h2"], told.strip()),
        (f"**{as_text(text.strip())}** so", ["p", "strong"], f"{told.strip()} so"),
        (f"[{as_text(text)}](a)", ["p", "a"], told),
    ]:
        found, _, shown_text = hostile.rendered(markdown_text)
        assert (found, " ".join(shown_text.split())) == (tags, " ".join(expected.split()))
    cells = Table("name", "title", (Column("a", text, left=True), Column("b", "b")), ({"a": text, "b": 1},), (text,))
    tags, _, shown_text = hostile.rendered(markdown(cells))
    assert set(tags) == {"table", "thead", "tr", "th", "tbody", "td", "p"} and tags.count("td") == tags.count("th") == 2
    assert " ".join(shown_text.split()) == " ".join(f"{told} b {told} 1 {told}".split())


def test_nothing_that_a_terminal_acts_on_is_printed():
    assert printable(hostile.MORE) == r"line after  # line tab \x1b[31mred\x1b[0m \x07 \u202eback \x00"
    assert printable("\udcff \xa0é✓ 漢") == r"\udcff  é✓ 漢"
    table = Table("name", hostile.MORE, (Column("a", "[red]" + hostile.MORE, left=True),), ({"a": "[bold]" + hostile.MORE},))
    console = Console(width=400, record=True, force_terminal=False, file=io.StringIO())
    console.print(printed(table))
    text = console.export_text()
    assert text.count(printable(hostile.MORE)) == 3 and "[red]" in text and "[bold]" in text
    assert all(c.isprintable() or c == "\n" for c in text)


def test_csv_has_values_whole():
    rows = list(csv.DictReader(io.StringIO(to_csv(frame(SAMPLE)))))
    assert rows[0] == {
        "name": "x_1 | y", "gap": "-1.2340", "gap_plain95_low": "-1.7340", "gap_plain95_high": "-0.7340",
        "gap_simultaneous95_low": "-1.9840", "gap_simultaneous95_high": "-0.4840", "n": "1200",
    }  # fmt: skip
    assert rows[1]["gap"] == ""


def test_latex_escapes():
    text = latex(SAMPLE, "sample")
    assert r"\caption{100 \% of a\_b \& c}" in text and r"\label{tab:sample}" in text
    assert r"x\_1 $|$ y & $-$1.23 $\pm$ 0.50 & 1,200 \\" in text and r"distill-s0 $<$none$>$ & -- & 3 \\" in text
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(rf"\{rule}") == 1


def test_terminal():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(printed(SAMPLE))
    assert "-1.23 ± 0.50" in console.export_text()


def test_a_study_without_the_students_that_others_have():
    """What is measured beside it has no place on its board."""
    study = Study(title="Mine", arms=("standard-copy", "standard-distill"))
    found = by_name(board_of(dict(list(DEIT3.items())[:3]), study))
    assert "cost" not in found and only_row(found["teachers"])["standard-distill"].estimate.value == -20


def test_a_study_of_ones_own():
    study = Study(title="Mine", arms=("standard-none", "standard-copy"))
    found = by_name(board_of(dict(list(DEIT3.items())[:2]), study))
    assert set(found) == {"leaderboard", "teachers", "cost", "training"}
