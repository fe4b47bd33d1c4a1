"""Claims beside what was measured: differences by an independent formulation, outcomes by hand."""

import math
import re
from statistics import mean, stdev

import pytest
import yaml
from scipy import stats

import families
from benchmark.analysis.findings import findings
from benchmark.reporting.documents import claims_page
from benchmark.reporting.gather import gather
from benchmark.reporting.text_files import texts
from benchmark.spec.arm import Arm
from benchmark.spec.plan import arms_of
from benchmark.spec.records import validated
from benchmark.spec.study import Study, load_study, signed_terms
from benchmark.spec.teachers import filled, teachers_of
from benchmark.spec.yaml_files import shipped
from families.spec import UserError

from .. import made
from ..conftest import ROOT

DEIT, GAP = ("deit", "base"), "standard-copy - standard-none"


def found(cells, study, protocol="mini", **metrics):
    """The one finding of a study on made results of {(family, size, arm): [top-1 by seed]}."""
    (only,) = findings(protocol, made.PROTOCOLS[protocol], made.results(cells, protocol, **metrics), {"mine": study})
    return only


def asking(*tests, **given):
    arms = dict.fromkeys(arm for test in tests for of in test["of"] for arm in signed_terms(of))
    content = {"title": "mine", "arms": list(arms), "claims": [{"description": "so", "tests": list(tests)}]} | given
    return validated(Study, content, "mine")


def outcomes(finding):
    return [one.outcome for judged in finding.judged for one in judged.measured]


def test_a_difference_of_one_teacher():
    """By its own variances, and widened for all that the claims compare by the plan: two differences at two sizes, one of which
    has no results."""
    copy, none = [61.0, 64.0, 66.0, 61.5], [50.0, 50.5, 53.0]
    cells = {(*DEIT, "standard-copy"): copy, (*DEIT, "standard-none"): none, (*DEIT, "standard-distill"): [40.0, 42.0]}
    study = asking({"of": [GAP, "standard-distill - standard-copy"]}, teachers={"families": ["deit"]})
    finding = found(cells, study)
    assert finding.comparisons == (4,) and finding.runs == 9
    one = finding.judged[0].measured[0]
    se = math.sqrt(sum(stdev(own) ** 2 / len(own) for own in (copy, none)))
    assert one.estimate.value == pytest.approx(mean(copy) - mean(none)) and one.n == 3
    assert one.estimate.plain == pytest.approx(stats.t.ppf(0.975, 2) * se)
    assert one.estimate.simultaneous == pytest.approx(stats.t.ppf(1 - 0.05 / 4 / 2, 2) * se)


def test_four_arms_of_two_teachers():
    """A reversal of dinov2: of each cell the larger of its own variance and its arm's mean, weights 1 and -1."""
    matched, distilled = [[30.0, 34.0], [31.0, 31.5]], [[60.0, 61.0], [70.0, 76.0]]
    cells = {}
    for size, own, other in zip(("small", "base"), matched, distilled, strict=True):
        cells |= {("dinov2", size, "matched-none"): own, ("dinov2", size, "matched-distill"): other}
        cells |= {("dinov2", size, arm): [20.0, 20.0] for arm in ("standard-none", "standard-distill")}
    reversal = "matched-distill - matched-none - standard-distill + standard-none"
    small, base = found(cells, asking({"of": [reversal]})).judged[0].measured
    assert (small.label, base.label) == ("dinov2 small", "dinov2 base")
    assert base.estimate.value == pytest.approx(73 - 31.25) and small.estimate.value == pytest.approx(60.5 - 32)
    for number, one in enumerate((small, base)):
        variances = [max(stdev(arm[number]) ** 2, mean(stdev(own) ** 2 for own in arm)) for arm in (matched, distilled)]
        assert one.estimate.se == pytest.approx(math.sqrt(sum(variances) / 2)) and one.estimate.df == 2


@pytest.mark.parametrize(
    ("expect", "above", "level", "below"),
    [
        ("above", "as claimed", "open", "contradicted"),
        ("below", "contradicted", "open", "as claimed"),
        ("not-above", "contradicted", "not contradicted", "as claimed"),
        ("not-below", "as claimed", "not contradicted", "contradicted"),
        (None, None, None, None),
    ],
)
def test_outcomes(expect, above, level, below):
    for values, outcome in (([70.0, 71.0, 72.0], above), ([49.0, 50.0, 52.0], level), ([30.0, 31.0, 32.0], below)):
        cells = {(*DEIT, "standard-copy"): values, (*DEIT, "standard-none"): [49.0, 50.0, 51.0]}
        finding = found(cells, asking({"of": [GAP], "expect": expect}))
        assert outcomes(finding) == [outcome]
        (judged,) = finding.judged
        assert judged.outcome == outcome and (outcome or "numbers alone") in judged.word
    one = {(*DEIT, "standard-copy"): [70.0], (*DEIT, "standard-none"): [50.0, 51.0]}
    assert outcomes(found(one, asking({"of": [GAP], "expect": expect}))) == [None]  # a single run decides nothing


def test_one_side():
    """Of a teacher, and of a family over its sizes."""

    def judged(per, small, base):
        cells = {("deit", size, "standard-copy"): [v, v + 1, v + 2] for size, v in (("small", small), ("base", base))}
        cells |= {("deit", size, "standard-none"): [50.0, 51.0, 52.0] for size in ("small", "base")}
        return outcomes(found(cells, asking({"of": [GAP], "expect": "same", "per": per})))

    assert judged("family", 70, 80) == ["as claimed"] * 2 == judged("family", 20, 30)
    assert judged("family", 70, 30) == ["contradicted"] * 2
    assert judged("family", 70, 50) == ["open"] * 2
    assert judged("teacher", 70, 30) == [None] * 2  # of one teacher each, there is nothing to compare with
    assert judged("size", 70, 30) == [None] * 2
    other = {("clip", "base", arm): [v, v + 1, v + 2] for arm, v in (("standard-none", 50), ("standard-copy", 30))}
    cells = {
        ("deit", size, arm): [v, v + 1, v + 2]
        for size in ("small", "base")
        for arm, v in (("standard-none", 50), ("standard-copy", 70))
    }
    size = found(cells | other, asking({"of": [GAP], "expect": "same", "per": "size"}))
    assert {one.label: one.outcome for one in size.measured} == {"deit small": None} | dict.fromkeys(
        ("deit base", "clip base"), "contradicted"
    )
    cells = {
        (*DEIT, arm): [v, v + 1, v + 2] for arm, v in (("standard-none", 50), ("standard-copy", 70), ("standard-distill", 20))
    }
    same = asking({"of": [GAP, "standard-distill - standard-none"], "expect": "same"})
    assert outcomes(found(cells, same)) == ["contradicted"] * 2


def test_one_side_of_teachers_that_share_some_runs():
    """deit and dino share all but the longest training, which fails for deit alone."""
    arms = {"standard-none": 50, "standard-copy": 70, "standard-none+budget=x2": 60, "standard-copy+budget=x2": 80}
    cells = {(family, "base", arm): [v, v + 0.2, v + 0.4] for family in ("deit", "dino") for arm, v in arms.items()}
    cells |= {(*DEIT, f"standard-{m}+budget=x4"): [v, v + 0.2, v + 0.4] for m, v in (("none", 90), ("copy", 60))}
    gaps = [f"standard-copy{b} - standard-none{b}" for b in ("", "+budget=x2", "+budget=x4")]
    assert outcomes(found(cells, asking({"of": gaps, "expect": "same"}))) == ["contradicted"] * 3


def test_a_single_run_beside_is_no_agreement():
    """One decided difference and one of a single run are nothing to compare."""
    arms = {"standard-none": [50.0, 51.0, 52.0], "standard-copy": [70.0, 71.0, 72.0], "standard-distill": [80.0]}
    same = asking({"of": [GAP, "standard-distill - standard-none"], "expect": "same"})
    finding = found({(*DEIT, arm): values for arm, values in arms.items()}, same)
    assert outcomes(finding) == [None, None] and finding.judged[0].word == "without outcome 2 of 2"


def test_the_best_of_a_part_of_a_sweep_is_none():
    cells = {(*DEIT, arm): [v, v + 1.0] for arm, v in (("standard-none", 20), ("standard-copy", 60), ("standard-copy+lr=x2", 50))}
    study = asking({"of": [GAP]}).model_copy(
        update={"arms": (*(arm for *_, arm in cells), "standard-none+lr=x2"), "choose": "lr"}
    )
    assert not found(cells, study).judged[0].measured


def test_what_copy_bypasses_is_no_reversal():
    reversal = "matched-copy+native=rel_pos_bias - matched-none+native=rel_pos_bias - standard-copy + standard-none"
    cells = {("beitv2", "base", arm): [20.0, 21.0] for arm in signed_terms(reversal)}
    assert not found(cells, asking({"of": [reversal]})).judged[0].measured
    assert found(cells, asking({"of": [" - ".join(reversal.split(" - ")[:2])]})).judged[0].measured


def test_what_copy_bypasses_is_none_in_any_order():
    """beitv2's bias under Copy: neither a reversal that begins with another arm, nor the difference to the standard student."""
    matched, base = "matched-copy+native=rel_pos_bias", "matched-none+native=rel_pos_bias"
    cells = {("beitv2", "base", arm): [20.0, 21.0] for arm in ("standard-copy", "standard-none", matched, base)}
    for of in (f"standard-none - standard-copy + {matched} - {base}", f"{matched} - standard-copy"):
        assert not found(cells, asking({"of": [of]})).judged[0].measured


@pytest.mark.parametrize(
    ("protocol", "blocks", "compared"), [("mini", "", 0), ("imagenet", "", 1), ("mini", "+blocks=first-2", 1)]
)
def test_what_acts_where_nothing_is_copied_is_a_reversal(protocol, blocks, compared):
    """BEiT v2's bias in the blocks that Copy leaves alone: imagenet's last three, or those that the arm leaves."""
    alone = "native=rel_pos_bias"
    arms = (f"matched-copy{blocks}+{alone}", f"matched-none+{alone}", f"standard-copy{blocks}", "standard-none")
    cells = {("beitv2", "base", arm): [50.0, 51.0, 52.0] for arm in arms}
    study = asking({"of": ["{} - {} - {} + {}".format(*arms)]}, teachers={"families": ["beitv2"]})
    assert len(found(cells, study, protocol).measured) == compared


def test_values_of_a_star_that_make_both_arms_one_are_left_out():
    cells = {(*DEIT, f"standard-copy+blocks=only-{k}"): [20.0 + k, 21.0 + k] for k in range(3)}
    of = "standard-copy+blocks=only-* - standard-copy+blocks=only-0"
    study = validated(
        Study,
        {
            "title": "-",
            "arms": list(dict.fromkeys(a for *_, a in cells)),
            "claims": [{"description": "so", "tests": [{"of": [of]}]}],
        },
        "-",
    )
    assert [one.estimate.value for one in found(cells, study).judged[0].measured] == [1, 2]


def test_a_star_is_one_value_throughout():
    of = "matched-copy+native=* - matched-none+native=*"
    names = [component.name for component in families.spec("dinov2_reg").native]
    cells = {("dinov2_reg", "base", f"matched-{m}+native={name}"): [1.0, 2.0] for m in ("copy", "none") for name in names}
    study = validated(
        Study, {"title": "-", "arms": of.split(" - "), "claims": [{"description": "so", "tests": [{"of": [of]}]}]}, "-"
    )
    measured = found(cells, study).judged[0].measured
    assert [one.difference for one in measured] == [of.replace("*", name) for name in names]


def test_what_is_swept_is_chosen_on_val():
    """Of arm and baseline, by val alone, whose order is the other one here."""
    cells = {"standard-none": 20, "standard-none+lr=x2": 30, "standard-copy": 60, "standard-copy+lr=x2": 50}
    results = made.results({(*DEIT, arm): [top1, top1 + 1.0] for arm, top1 in cells.items()})
    results = [each.model_copy(update={"val": each.val.model_copy(update={"top1": 100 - each.metrics.top1})}) for each in results]
    study = asking({"of": [GAP]}).model_copy(update={"arms": tuple(cells), "choose": "lr"})
    (finding,) = findings("mini", made.PROTOCOLS["mini"], results, {"mine": study})
    (one,) = finding.judged[0].measured
    assert dict(one.arms) == {"standard-copy+lr=x2": 1, "standard-none": -1} and one.estimate.value == pytest.approx(30)


def test_teachers_that_share_all_runs_are_one_and_what_cancels_is_none():
    cells = {(family, "base", arm): [20.0, 21.0] for family in ("deit", "dino") for arm in ("standard-none", "matched-none")}
    cells |= {(family, "base", "standard-copy"): [30.0, 31.0] for family in ("deit", "dino")}
    finding = found(cells, asking({"of": [GAP, "matched-none - standard-none"]}, teachers={"families": ["deit", "dino"]}))
    assert finding.comparisons == (2,)  # one at each size
    (one,) = finding.judged[0].measured
    assert one.label == "deit, dino base" and one.difference == GAP and finding.runs == 4


def test_maps_and_shifted_sets():
    arms = {"standard-distill": [0.1, 0.3], "standard-none+match=end": [2.0, 1.0]}
    results = [one for arm, kl in arms.items() for one in made.results({(*DEIT, arm): [9.0, 8.0]}, attention_kl=kl)]
    kl = asking({"of": ["standard-distill - standard-none+match=end"], "metric": "kl"})
    ((one,),) = (judged.measured for judged in findings("mini", made.PROTOCOLS["mini"], results, {"mine": kl})[0].judged)
    assert one.on == "kl" and one.estimate.value == pytest.approx(0.2 - 1.5)
    shifted = asking({"of": [GAP], "metric": "shifted", "expect": "above"})
    results = [
        one
        for arm, value in (("standard-copy", 40.0), ("standard-none", 30.0))
        for one in made.results({(*DEIT, arm): [50.0, 51.0]}, shift={"noise": value})
    ]
    ((one,),) = (judged.measured for judged in findings("mini", made.PROTOCOLS["mini"], results, {"mine": shifted})[0].judged)
    assert one.on == "noise" and one.estimate.value == pytest.approx(10) and one.outcome == "as claimed"


def test_a_study_is_about_teachers_that_have_what_it_adds():
    """A teacher of which main alone was run is none of the schedule's."""
    cells = {(family, "base", arm): [20.0, 21.0] for family in ("deit", "clip") for arm in ("standard-none", "standard-copy")}
    cells |= {(*DEIT, f"standard-{method}+budget=x2"): [30.0, 31.0] for method in ("none", "copy")}
    finding = found(cells, load_study("schedule")[1])
    assert {one.label for judged in finding.judged for one in judged.measured} == {"deit base"}
    results = made.results(cells)
    (again,) = findings("mini", made.PROTOCOLS["mini"], results, {"schedule": load_study("schedule")[1]})
    assert again.commands == ("bench run --study schedule --family deit --sizes base --seeds 0,1",)
    assert finding.commands == ()  # a file of the user's


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ({"description": "so", "tests": [{"of": ["standard-copy"]}]}, "is no difference"),
        ({"description": "so", "tests": [{"of": ["standard-copy - standard-copy"]}]}, "is no difference"),
        ({"description": "so", "tests": [{"of": ["standard-copy * standard-none"]}]}, "is no difference"),
        ({"description": "so", "tests": [{"of": ["standard-copi - standard-none"]}]}, "standard-copi"),
        ({"description": "so", "tests": [{"of": [GAP], "expect": "upwards"}]}, "expect"),
        ({"tests": []}, "description"),
        ({"description": "so", "needs": "pretraind"}, "claims.0.needs.0: Input should be 'pretrained' or 'unsaturated'"),
        ({"description": "so", "needs": ["pretrained", "big"]}, "claims.0.needs.1: Input should be 'pretrained' or 'unsat"),
        ({"description": "so", "need": "pretrained"}, "unknown key 'claims.0.need'; did you mean 'needs'"),
        ({"description": "so", "asks": "why"}, "unknown key 'claims.0.asks'"),
        (
            {"description": "so", "tests": [{"of": [GAP], "expects": "above"}]},
            "unknown key 'claims.0.tests.0.expects'; did you mean",
        ),
    ],
)
def test_a_wrong_claim_is_one_line(claim, words):
    with pytest.raises(UserError) as error:
        validated(Study, {"title": "-", "arms": ["standard-copy"], "claims": [claim]}, "mine.yaml")
    assert words in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", shipped("studies"))
def test_shipped_claims_speak_of_what_their_study_trains(name):
    """Each arm of each difference is one that the study, or main, trains for a teacher; what mini can say is told."""
    protocol, study = made.PROTOCOLS["mini"], load_study(name)[1]
    assert study.asks.endswith("?") and study.claims and study.limits["mini"].endswith(".")
    tests = [test for claim in study.claims for test in claim.tests]
    assert tests
    teachers = [pair for pair in teachers_of("papers", None, study.teachers) if pair[1] in protocol.scale.sizes]
    trained = {arm for teacher in teachers for text in study.arms for arm in filled(protocol, text, *teacher)}
    trained |= {Arm.parse(arm).baseline.name for arm in trained}
    if study.choose:
        trained |= {Arm.parse(arm).default(study.choose).name for arm in trained}
    for test in tests:
        for family in test.families or ():
            families.spec(family)
        texts = [text for of in test.of for teacher in teachers for text in filled(protocol, of, *teacher)]
        assert texts and {arm for text in texts for arm in signed_terms(text)} <= trained
    assert all(arms_of(protocol, study, *teacher) for teacher in teachers)


def test_a_family_that_is_none_is_told_as_the_file_is_read(tmp_path):
    path = tmp_path / "mine.yaml"
    claims = [{"description": "so", "tests": [{"of": [GAP], "families": ["diet"]}]}]
    path.write_text(yaml.safe_dump({"title": "-", "arms": ["standard-copy"], "claims": claims}))
    with pytest.raises(UserError, match=r"mine\.yaml: claims: .*diet.*deit"):
        load_study(str(path))


def test_a_study_is_not_called_as_the_page_of_claims(tmp_path):
    (tmp_path / "claims.yaml").write_text("title: x\narms: [standard-copy]\n")
    with pytest.raises(UserError, match="page of claims"):
        load_study(str(tmp_path / "claims.yaml"))


def test_every_experiment_of_the_papers_is_a_claim():
    studies = [load_study(name)[1] for name in shipped("studies")]
    assert {row for study in studies for claim in study.claims for row in claim.rows} == {*range(1, 19)}


def test_experiments_have_the_numbers_of_the_list_of_studies():
    table = re.findall(r"^\| `(\w+)` \|.*\| ([\d, ]+|–) \|$", (ROOT / "docs" / "studies.md").read_text("utf-8"), re.M)
    listed = {name: {int(number) for number in numbers.split(",")} if numbers != "–" else set() for name, numbers in table}
    assert listed == {name: {row for claim in load_study(name)[1].claims for row in claim.rows} for name in shipped("studies")}


def test_a_gap_has_the_interval_of_the_board_that_judges_it(tmp_path):
    """In each study that speaks of it; a reversal, which no board judges, that of its own plan."""
    arms = {"standard-none": 50, "standard-copy": 70, "matched-none": 51, "matched-copy": 75}
    cells = {("dinov2_reg", size, arm): [v, v + 1.0, v + 2.0] for size in ("base", "small") for arm, v in arms.items()}
    made.write(tmp_path, made.results(cells))
    report = gather(tmp_path)
    board = next(board for board in report.boards if board.study == "main")
    shown = {finding.study: {one.difference: one for one in finding.measured} for finding in report.findings}
    for study in ("main", "sizes"):
        gap = shown[study][GAP]
        assert (
            gap.comparisons == board.comparisons and gap.estimate == board.rows[0].entries[board.arms.index("standard-copy")].gap
        )
    reversal = shown["native"]["matched-copy - matched-none - standard-copy + standard-none"]
    assert reversal.estimate.simultaneous is not None and reversal.comparisons != board.comparisons


def test_differences_have_short_names():
    arms = {"standard-none": 50, "standard-copy": 70, "matched-none": 51, "matched-copy": 75}
    arms |= {f"{arm}+budget=x2": value + 5 for arm, value in arms.items()}
    copy, none, other = "standard-copy+budget=x2", "standard-none+budget=x2", "standard-none"
    names = {
        GAP: "standard-copy",
        "matched-none - standard-none": "matched-none (control)",
        "matched-copy - matched-none - standard-copy + standard-none": "matched-copy (reversal)",
        f"{copy} - {none} - standard-copy + {other}": f"{copy} - standard-copy (gaps)",
        **{each: each for each in (f"{copy} - standard-copy", f"{copy} - {none} + standard-copy - {other}")},
        **{each: each for each in (f"{copy} - {other} - standard-copy + {none}", f"{copy} - {none} - standard-copy")},
    }
    finding = found({("clip", "base", arm): [v, v + 1.0] for arm, v in arms.items()}, asking({"of": list(names)}))
    assert [one.short for one in finding.measured] == list(names.values())


def test_a_study_of_ones_own_has_a_section(tmp_path):
    """Without what it does not say, and without commands, since its file may lie anywhere."""
    content = {"title": "Mine", "arms": ["standard-copy"], "claims": [{"description": "So it is.", "tests": [{"of": [GAP]}]}]}
    mine = validated(Study, content, "mine")
    cells = {(*DEIT, arm): [v, v + 1.0, v + 2.0] for arm, v in (("standard-none", 50), ("standard-copy", 70))}
    made.write(tmp_path / "results", made.results(cells))
    report = gather(tmp_path / "results", given={"mine": mine})
    book = texts(report, tmp_path / "reports")["leaderboard.md"]
    section = book.partition("## Mine\n")[2].partition("\n## ")[0]
    assert "1. So it is (a question of our own): **numbers alone**" in section and "6 runs of protocol mini" in section
    assert "****" not in section and "```" not in section
    row = next(line for line in claims_page(report, "reports").splitlines() if "So it is" in line)
    assert "bench run" not in row


def test_the_page_of_claims(tmp_path):
    cells = {
        (*DEIT, arm): [v, v + 0.5, v + 1.0] for arm, v in (("standard-none", 50), ("standard-copy", 70), ("standard-distill", 20))
    }
    for protocol in ("mini", "imagenet"):
        made.write(tmp_path, made.results(cells, protocol))
    page = claims_page(gather(tmp_path), "../reports")
    there, here = (line for line in page.splitlines() if "DeiT and DINO give their" in line)
    assert (
        "□ not testable here (it needs teachers with their own pre-training)" in here and "contradicted 1, as claimed 1" in there
    )
    for row in (here, there):
        assert row.startswith("| 8 |") and "standard-copy: +20.0 points; standard-distill: -30.0 points" in row
    assert "`bench run --study main --family deit --sizes base`" in here and "--protocol imagenet" in here
    *measured, nowhere = page.split("\n## ")[1:]
    (asked,) = (line for line in page.splitlines() if "Fine-tuning the teacher on the task first" in line)
    assert nowhere.startswith("Not measured\n") and asked in nowhere and all(each.startswith("Protocol ") for each in measured)
    assert "imagenet: not measured; mini: □ not testable here (it needs" in asked
