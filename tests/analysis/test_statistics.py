"""The statistics against numbers worked out by hand."""

import math
from itertools import chain

import pandas as pd
import pytest
from scipy import stats

from benchmark.analysis.statistics import (
    CONTROL,
    REVERSAL,
    TOTAL,
    Comparisons,
    Estimate,
    Pool,
    as_estimates,
    cells,
    contrasts,
    family_verdict,
    pooled,
)


def rows(arm, top1s, family="f", size="base", group=None, start=0):
    group = group or f"{family}-{size}-{arm}"
    return [
        {
            "protocol": "p",
            "family": family,
            "size": size,
            "arm": arm,
            "seed": i,
            "key": f"{group}{i}",
            "group": group,
            "steps": 1,
            "top1": t,
            "val": t,
        }
        for i, t in enumerate(top1s, start=start)
    ]


def test_a_gap_by_hand():
    """Baseline 20, 22, 24 (variance 4), Copy 80, 81, 82 (variance 1): se^2 = 5/3, df = (5/3)^2 / ((4/3)^2/2 + (1/3)^2/2)."""
    board = Comparisons(pd.DataFrame(rows("standard-none", [20, 22, 24]) + rows("standard-copy", [80, 81, 82])), 4)
    gap = board.gap("p", "f", "base", "standard-copy")
    assert gap.value == pytest.approx(59)
    assert gap.se == pytest.approx(math.sqrt(5 / 3))
    df = (25 / 9) / ((16 / 9) / 2 + (1 / 9) / 2)
    assert gap.df == pytest.approx(df)
    assert gap.plain == pytest.approx(stats.t.ppf(0.975, df) * math.sqrt(5 / 3))
    assert gap.simultaneous == pytest.approx(stats.t.ppf(1 - 0.05 / 8, df) * math.sqrt(5 / 3))
    assert gap.verdict == "success"


def test_one_pair_is_welchs_t_test():
    """With a single teacher, nothing is pooled beyond the arm: scipy's Welch test must agree on p and interval."""
    a, b = [71.0, 74.5, 73.2, 70.1], [69.0, 72.5, 68.8, 70.2, 66.1]
    board = Comparisons(pd.DataFrame(rows("standard-none", b) + rows("standard-copy", a)), 1)
    gap = board.gap("p", "f", "base", "standard-copy")
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (gap.value - gap.plain, gap.value + gap.plain) == pytest.approx((low, high))
    assert gap.plain == pytest.approx(gap.simultaneous)


def test_variance_is_pooled_over_the_cells_of_an_arm():
    """Cells with variances 1 (df 2) and 4 (df 1): pooled (2 x 1 + 1 x 4) / 3 = 2."""
    table = pd.DataFrame(rows("standard-copy", [1, 2, 3], "f") + rows("standard-copy", [10, 10 + math.sqrt(8)], "g"))
    found = pooled(table)
    assert found["home"].tolist() == ["standard-copy"] * 2
    assert found["s2"].tolist() == pytest.approx([2, 2])
    assert found["df"].tolist() == [3, 3]


def test_shared_runs_count_once():
    """Two families that share their runs add no degrees of freedom, and each still has its own cell."""
    once = pd.DataFrame(rows("standard-none", [1, 2, 3], "f", group="g"))
    twice = pd.concat([once, pd.DataFrame(rows("standard-none", [1, 2, 3], "h", group="g"))])
    assert pooled(twice).to_dict("records") == pooled(once).to_dict("records")
    assert cells(twice)["n"].tolist() == [3, 3]


def test_a_baseline_that_two_cells_share_cancels_between_their_gaps():
    """What is left are Copy's cells, with variances 1 and 4 (pooled 2.5 with 4 degrees of freedom): se^2 = 2.5 x 2/3."""
    table = rows("standard-none", [20, 22, 24], "f", group="g") + rows("standard-none", [20, 22], "h", group="g")
    table += rows("standard-copy", [80, 81, 82], "f") + rows("standard-copy", [70, 72, 74], "h")
    signs = {("f", "standard-copy"): 1, ("f", "standard-none"): -1, ("h", "standard-copy"): -1, ("h", "standard-none"): 1}
    parts = [("change", ("p", family, "base", arm), sign) for (family, arm), sign in signs.items()]
    found = as_estimates(contrasts(Pool(pd.DataFrame(table)), parts, 1))["change"]
    assert (found.value, found.se, found.df) == (9, pytest.approx(math.sqrt(5 / 3)), pytest.approx(4))


def test_what_else_is_asked_for_changes_no_contrast():
    table = [rows("standard-none", [20, 22, 24], each, group="g") + rows("standard-copy", [80, 81, 85], each) for each in "fh"]
    pool = Pool(pd.DataFrame([*chain(*table)]))
    asked = {
        each: [(each, ("p", each, "base", f"standard-{arm}"), sign) for arm, sign in (("copy", 1), ("none", -1))]
        for each in "fxh"
    }
    together = as_estimates(contrasts(pool, [*chain(*asked.values())], 3))
    assert together == {each: as_estimates(contrasts(pool, asked[each], 3))[each] for each in "fh"}
    assert as_estimates(contrasts(pool, asked["x"], 3)) == {}  # it has no results


def test_one_run_gives_a_number_and_never_a_verdict():
    table = rows("standard-none", [20, 22, 24]) + rows("standard-copy", [80])
    table += rows("standard-none", [20, 22], "g") + rows("standard-copy", [80, 81], "g")
    board = Comparisons(pd.DataFrame(table), 1)
    gap = board.gap("p", "f", "base", "standard-copy")
    assert (gap.value, gap.verdict, gap.plain) == (pytest.approx(58), None, None)
    assert board.gap("p", "g", "base", "standard-copy").verdict is not None


def test_missing_arms():
    board = Comparisons(pd.DataFrame(rows("standard-copy", [80, 81])), 1)
    assert board.gap("p", "f", "base", "standard-copy") is None
    assert Comparisons(pd.DataFrame(), 1).gap("p", "f", "base", "standard-copy") is None


@pytest.mark.parametrize(
    ("copy", "verdict"), [([30.0, 30.1, 30.2], "success"), ([10.0, 10.1, 10.2], "failure"), ([20.0, 20.1, 20.2], "inconclusive")]
)
def test_verdicts(copy, verdict):
    board = Comparisons(pd.DataFrame(rows("standard-none", [20, 20.1, 20.2]) + rows("standard-copy", copy)), 10)
    assert board.gap("p", "f", "base", "standard-copy").verdict == verdict


def test_ties_have_no_width():
    for copy, verdict in ((50, "inconclusive"), (51, "success"), (49, "failure")):
        board = Comparisons(pd.DataFrame(rows("standard-none", [50] * 3) + rows("standard-copy", [copy] * 3)), 5)
        gap = board.gap("p", "f", "base", "standard-copy")
        assert (gap.value, gap.se, gap.simultaneous, gap.verdict) == (copy - 50, 0, 0, verdict)


def test_a_verdict_needs_the_simultaneous_interval():
    assert Estimate(1.0, 0.5, 4, 0.9, 1.5).verdict == "inconclusive"
    assert Estimate(1.0, 0.5, 4, 0.9, 0.95).verdict == "success"
    assert Estimate(-1.0, 0.5, 4, 0.9, 0.95).verdict == "failure"


def test_budgets_and_matched_students_have_their_own_baselines():
    table = []
    for arm, level in [
        ("standard-none", 20), ("matched-none", 10), ("standard-copy", 80), ("matched-copy", 90),
        ("standard-none+budget=x4", 95), ("standard-copy+budget=x4+source=uniform", 25),
    ]:  # fmt: skip
        table += rows(arm, [level - 1, level, level + 1])
    board = Comparisons(pd.DataFrame(table), 1)
    assert board.gap("p", "f", "base", "matched-copy").value == pytest.approx(80)
    assert board.gap("p", "f", "base", "standard-copy+budget=x4+source=uniform").verdict == "failure"
    assert board.estimate("p", "f", "base", "matched-copy", TOTAL).value == pytest.approx(70)
    assert board.estimate("p", "f", "base", "matched-none", CONTROL).value == pytest.approx(-10)
    reversal = board.estimate("p", "f", "base", "matched-copy", REVERSAL)
    assert reversal.value == pytest.approx(80 - 60)
    assert reversal.se == pytest.approx(math.sqrt(4 / 3))


def test_the_same_runs_are_no_comparison():
    """matched = standard: control and reversal are 0 by construction, and have no interval that would say otherwise."""
    table = []
    for student in ("standard", "matched"):
        table += rows(f"{student}-none", [19, 20, 21], group="none") + rows(f"{student}-copy", [79, 80, 81], group="copy")
    board = Comparisons(pd.DataFrame(table), 1)
    assert board.estimate("p", "f", "base", "matched-none", CONTROL) == Estimate(0.0)
    assert board.estimate("p", "f", "base", "matched-copy", REVERSAL) == Estimate(0.0)
    assert board.gap("p", "f", "base", "matched-copy") == board.gap("p", "f", "base", "standard-copy")


def test_family_verdicts():
    assert family_verdict(["success", "success"]) == "success"
    assert family_verdict(["failure", "failure"]) == "failure"
    assert family_verdict(["success", "failure"]) == "mixed"
    assert family_verdict(["success", "inconclusive"]) == "inconclusive"
    assert family_verdict(["success", None]) is None
    assert family_verdict([]) is None
