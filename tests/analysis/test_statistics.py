"""The statistics against numbers worked out by hand."""

import math
import warnings
from itertools import chain

import numpy as np
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
    arms_variances,
    as_estimates,
    cells,
    contrasts,
    family_verdict,
)
from benchmark.reporting.tables.between import f_of


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
            "score": t,
            "top1": t,
            "val": t,
        }
        for i, t in enumerate(top1s, start=start)
    ]


def test_a_gap_by_hand():
    """Baseline 20, 22, 24 (variance 4), Copy 80, 81, 82 (variance 1), the only cells of their arms: se^2 = 5/3 with 2 degrees."""
    board = Comparisons(pd.DataFrame(rows("standard-none", [20, 22, 24]) + rows("standard-copy", [80, 81, 82])), 4)
    gap = board.gap("p", "f", "base", "standard-copy")
    assert gap.value == pytest.approx(59)
    assert (gap.se, gap.df) == (pytest.approx(math.sqrt(5 / 3)), 2)
    assert gap.plain == pytest.approx(stats.t.ppf(0.975, 2) * math.sqrt(5 / 3))
    assert gap.simultaneous == pytest.approx(stats.t.ppf(1 - 0.05 / 8, 2) * math.sqrt(5 / 3))
    assert gap.verdict == "success"


def test_each_cell_gets_the_larger_of_its_own_variance_and_its_arms():
    """Copy's cells have variances 1 and 9, mean 5: 5 and 9 count. The baselines have 4 and 4. 2 x (3 - 1) degrees."""
    table = [row for family, top1s in (("f", [80, 81, 82]), ("g", [77, 80, 83])) for row in rows("standard-copy", top1s, family)]
    table += [row for family in "fg" for row in rows("standard-none", [20, 22, 24], family)]
    board = Comparisons(pd.DataFrame(table), 2)
    for family, variance in (("f", 5), ("g", 9)):
        gap = board.gap("p", family, "base", "standard-copy")
        assert (gap.se, gap.df) == (pytest.approx(math.sqrt((variance + 4) / 3)), 4)
        assert gap.simultaneous == pytest.approx(stats.t.ppf(1 - 0.05 / 4, 4) * gap.se)


def test_equal_variances_give_the_two_sample_t_test():
    """Where no cell's variance is below its arm's mean, scipy's test with pooled variance has the same interval."""
    a, b = [71.0, 74.0, 73.0, 70.0], [69.0, 72.0, 71.0, 68.0]
    table = [row for family in "fg" for row in rows("standard-none", b, family) + rows("standard-copy", a, family)]
    gap = Comparisons(pd.DataFrame(table), 1).gap("p", "f", "base", "standard-copy")
    low, high = stats.ttest_ind(a, b).confidence_interval(0.95)
    assert (gap.value - gap.plain, gap.value + gap.plain) == pytest.approx((low, high))
    assert gap.plain == pytest.approx(gap.simultaneous)


def test_the_fewest_runs_give_the_degrees_of_freedom():
    table = [row for family in "fg" for row in rows("standard-none", [1, 2, 3, 4, 5], family)]
    table += rows("standard-copy", [11, 12, 13], "f") + rows("standard-copy", [11, 12, 13, 14], "g")
    board = Comparisons(pd.DataFrame(table), 1)
    assert [board.gap("p", family, "base", "standard-copy").df for family in "fg"] == [4, 6]


def test_an_arms_variance_is_the_mean_of_its_cells():
    """Variances 1 and 4, whatever their numbers of runs; a cell of one run has none."""
    table = rows("standard-copy", [1, 2, 3], "f") + rows("standard-copy", [10, 10 + math.sqrt(8)], "g")
    found = arms_variances(pd.DataFrame(table + rows("standard-copy", [5], "h")))
    assert found["home"].tolist() == ["standard-copy"] * 3
    assert found["s2"].tolist() == pytest.approx([2.5] * 3) and found["cells"].tolist() == [2] * 3


def test_shared_runs_count_once():
    """Two families that share their runs are one cell of the arm, and each still has its own."""
    once = pd.DataFrame(rows("standard-none", [1, 2, 3], "f", group="g"))
    twice = pd.concat([once, pd.DataFrame(rows("standard-none", [1, 2, 3], "h", group="g"))])
    assert arms_variances(twice).to_dict("records") == arms_variances(once).to_dict("records")
    assert cells(twice)["n"].tolist() == [3, 3]


def test_a_baseline_that_two_cells_share_cancels_between_their_gaps():
    """What is left are Copy's cells, with variances 1 and 4 (mean 2.5): se^2 = (2.5 + 4) / 3."""
    table = rows("standard-none", [20, 22, 24], "f", group="g") + rows("standard-none", [20, 22], "h", group="g")
    table += rows("standard-copy", [80, 81, 82], "f") + rows("standard-copy", [70, 72, 74], "h")
    signs = {("f", "standard-copy"): 1, ("f", "standard-none"): -1, ("h", "standard-copy"): -1, ("h", "standard-none"): 1}
    parts = [("change", ("p", family, "base", arm), sign) for (family, arm), sign in signs.items()]
    found = as_estimates(contrasts(Pool(pd.DataFrame(table)), parts, 1))["change"]
    assert (found.value, found.se, found.df) == (9, pytest.approx(math.sqrt(6.5 / 3)), 4)


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


def test_two_cells_that_share_their_only_run_under_two_groups():
    """A shifted set can leave such a table, if other seeds named the groups: gaps, but no intervals."""
    one, other = rows("standard-none", [1], "f", group="g"), rows("standard-none", [1], "h", group="n")
    other[0]["key"] = one[0]["key"]
    table = pd.DataFrame(one + rows("standard-copy", [2, 3], "f") + other + rows("standard-copy", [4, 5], "h"))
    board = Comparisons(table, 2)
    for family, value in (("f", 1.5), ("h", 3.5)):
        gap = board.gap("p", family, "base", "standard-copy")
        assert (gap.value, gap.se, gap.simultaneous, gap.verdict) == (value, None, None, None)


def test_a_verdict_is_a_word_or_none():
    table = pd.DataFrame(rows("standard-none", [1, 2]) + rows("standard-copy", [90, 91]) + rows("matched-none", [3]))
    place = ("p", "f", "base")
    parts = [(0, (*place, "standard-copy"), 1.0), (0, (*place, "standard-none"), -1.0), (1, (*place, "matched-none"), 1.0)]
    assert contrasts(Pool(table), parts, 1)["verdict"].tolist() == ["success", None]


@pytest.mark.parametrize("groups", [[[1, 1], [2, 2]], [[0.1] * 3, [0.3] * 3], [[1, 2, 4], [2, 7], [3, 3, 3, 5]]])
def test_f_is_scipys(groups, recwarn):
    groups = [np.array(group, dtype=float) for group in groups]
    found, *degrees = f_of(groups)
    assert not recwarn.list and degrees == [len(groups) - 1, sum(map(len, groups)) - len(groups)]
    with warnings.catch_warnings(action="ignore"):
        assert found == pytest.approx(stats.f_oneway(*groups).statistic)
