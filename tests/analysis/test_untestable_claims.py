"""Claims that are not testable here: what they need, and what is shown of them."""

import dataclasses

import pytest

from benchmark.reporting.documents import claims_page
from benchmark.reporting.drawing.style import OUTCOMES
from benchmark.reporting.figures import claims_figures
from benchmark.reporting.gather import gather
from benchmark.reporting.page import finding_data
from benchmark.reporting.text_files import texts
from benchmark.spec.study import load_study
from benchmark.spec.yaml_files import shipped

from .. import made
from ..reporting.test_figures import texts_of
from .test_claims import DEIT, GAP, asking, found, outcomes

UNTESTABLE = "not testable here"


def test_what_is_claimed_of_failing_transfers():
    """Nothing of one that does not fail; where none fails, the claim as a whole is not testable."""
    test = {"of": ["matched-copy - matched-none"], "expect": "above", "failing": GAP}
    study = asking(test, teachers={"families": ["dinov2"]})

    def cells(size, copy):
        arms = {"standard-none": 50, "standard-copy": copy, "matched-none": 50, "matched-copy": 80}
        return {("dinov2", size, arm): [v, v + 1.0, v + 2.0] for arm, v in arms.items()}

    for copy, outcome in ((70, UNTESTABLE), (50, UNTESTABLE), (30, "as claimed")):
        finding = found(cells("base", copy), study)
        assert outcomes(finding) == [outcome] and finding.comparisons == (4,) and finding.runs == 12
        (judged,) = finding.judged
        assert judged.outcome == outcome
        told = f"□ {UNTESTABLE} (it needs a transfer that fails)"
        assert judged.word == (told if outcome == UNTESTABLE else "✓ as claimed 1 of 1")
    (judged,) = found(cells("base", 30) | cells("small", 70), study).judged
    assert judged.outcome == "as claimed" and judged.word == f"✓ as claimed 1, {UNTESTABLE} 1"


@pytest.mark.parametrize(
    ("needs", "protocol", "lacking"),
    [
        ("pretrained", "mini", ("pretrained",)),
        (["unsaturated"], "mini", ("unsaturated",)),
        (["pretrained", "unsaturated"], "mini", ("pretrained", "unsaturated")),
        ([], "mini", ()),
        (["pretrained", "unsaturated"], "imagenet", ()),
    ],
)
@pytest.mark.parametrize("expect", ["above", "below", "same", None])
def test_what_a_protocol_lacks_leaves_numbers_without_a_judgement(needs, protocol, lacking, expect):
    """Whatever is claimed, and whether or not it is measured; the numbers are those of the same claim without needs."""
    arms = {"standard-none": 50, "standard-copy": 70, "standard-distill": 80}
    cells = {(*DEIT, arm): [v, v + 1.0, v + 2.0] for arm, v in arms.items()}
    of = {"of": [GAP, "standard-distill - standard-none"], "expect": expect}
    claims = [{"description": "so", "tests": [of], "needs": each} for each in (needs, [])]
    claims.append({"description": "not measured", "tests": [{"of": ["matched-copy - matched-none"]}], "needs": needs})
    limited, free, unmeasured = found(cells, asking(of, claims=claims), protocol).judged
    assert [one.estimate for one in limited.measured] == [one.estimate for one in free.measured]
    assert limited.lacks == lacking and free.lacks == () and not unmeasured.measured
    if lacking:
        assert {one.outcome for one in limited.measured} == {UNTESTABLE} == {limited.outcome, unmeasured.outcome}
        assert limited.counts == {UNTESTABLE: 2} and limited.word.startswith(f"□ {UNTESTABLE} (it needs ")
        assert ("pre-training" in limited.word, "solve" in limited.word) == tuple(
            each in lacking for each in ("pretrained", "unsaturated")
        )
    else:
        assert limited.measured == free.measured and (limited.outcome, limited.word) == (free.outcome, free.word)
        assert unmeasured.word == "not measured"


def test_mini_judges_no_claim_of_a_paper():
    """Only questions of our own, all of them; the shipped protocols with pre-trained teachers judge every claim."""
    claims = [claim for name in shipped("studies") for claim in load_study(name)[1].claims]
    for claim in claims:
        judges = not made.PROTOCOLS["mini"].lacks(claim.needs)
        if any(test.expect for test in claim.tests):
            assert judges == (claim.by is None), claim.description
        assert not made.PROTOCOLS["imagenet"].lacks(claim.needs)
    assert {needed for claim in claims for needed in claim.needs} == {"pretrained", "unsaturated"}


def test_what_is_not_testable_has_one_word_everywhere(tmp_path):
    """In the tables of the report, in text, LaTeX and CSV, in the figure, on the page and on the page of claims."""
    claims = [{"description": "So it is", "tests": [{"of": [GAP]}], "needs": "pretrained"}]
    mine = asking({"of": [GAP]}, claims=claims)
    cells = {(*DEIT, arm): [v, v + 1.0] for arm, v in (("standard-none", 50), ("standard-copy", 70))}
    made.write(tmp_path / "results", made.results(cells))
    report = gather(tmp_path / "results", given={"mine": mine})
    told = f"□ {UNTESTABLE}"
    files = texts(report, tmp_path / "reports")
    row = next(line for line in claims_page(report, "reports").splitlines() if "So it is" in line)
    assert f"**{told} (it needs" in row and "+20.0 points" in row
    section = files["leaderboard.md"].partition("## mine\n")[2].partition("\n## ")[0]
    assert f"1. So it is (a question of our own): **{told}" in section and f"| {told} |" in section
    assert told in files["mini-mine-claims.csv"] and rf"$\square$ {UNTESTABLE}" in files["mini-mine-claims.tex"]
    finding, (figure,) = report.measured["mini", "mine"]
    assert set(figure.data["outcome"]) == {UNTESTABLE} and OUTCOMES[UNTESTABLE].label == UNTESTABLE
    (claim,) = finding_data(finding, report.published)["claims"]
    assert claim["outcome"] == claim["measured"][0]["outcome"] == UNTESTABLE and claim["word"].startswith(told)


def test_a_claim_that_is_not_testable_hides_none_that_is_judged():
    """The same difference in two claims, one of which needs what mini lacks."""
    levels = {"standard-none": [20.0, 21.0, 22.0], "standard-copy": [70.0, 71.0, 72.0]}
    test = {"of": [GAP], "expect": "above"}
    claims = [{"description": "so", "tests": [test], "needs": needs} for needs in ([], "pretrained")]
    cells = {("deit", size, arm): tops for arm, tops in levels.items() for size in ("small", "base")}
    (figure,) = claims_figures(found(cells, asking(test, claims=claims)))
    words = [text for text, *_ in texts_of(figure)[0]]
    assert "as claimed" in words and "not testable here" not in words
    alone = dataclasses.replace(figure, data=figure.data[figure.data["outcome"] != "as claimed"])
    assert "not testable here" in [text for text, *_ in texts_of(alone)[0]] and len(alone.data) == 2
