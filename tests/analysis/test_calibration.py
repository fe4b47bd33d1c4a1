"""What the intervals promise, on simulated tables of the design of the real plans: 20 teachers, shared baselines, both methods.
Seeds are fixed: a failure is a change of the statistics."""

import numpy as np
import pytest
from scipy import stats

from benchmark.analysis.statistics import INCONCLUSIVE

from ..simulated import EQUAL, UNEQUAL, design, rows, simulated

ALPHA, LEVEL = 0.01, 0.05


def not_above(wrong, trials):
    """One-sided binomial test at 1 %: that wrong ones are no more than 5 % is not refuted."""
    return stats.binomtest(wrong, trials, LEVEL, alternative="greater").pvalue > ALPHA


def check(protocol, seeds, sds, reports, uneven=1.0):
    gaps = simulated(design(protocol, seeds), sds, reports, seed=seeds, uneven=uneven)
    assert gaps["protocol"].nunique() == reports and gaps["verdict"].notna().all()
    wrong = gaps.groupby("protocol")["verdict"].agg(lambda verdicts: (verdicts != INCONCLUSIVE).any())
    assert not_above(int(wrong.sum()), reports), f"{wrong.mean():.2%} of tables have a verdict without any true gap"
    # Comparisons of one table depend on each other: one of each table, in turn, are independent trials.
    comparisons = len(gaps) // reports
    missed = (gaps["value"].abs() > gaps["plain"]).to_numpy().reshape(reports, comparisons)
    one = missed[np.arange(reports), np.arange(reports) % comparisons]
    assert not_above(int(one.sum()), reports), f"plain intervals miss {one.mean():.2%}"
    return missed.mean()


@pytest.mark.parametrize("seeds", [3, 5])
def test_verdicts_without_a_true_gap(seeds):
    check("mini", seeds, UNEQUAL, 1000)


@pytest.mark.long
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("told", rows("mini"))
def test_verdicts_of_ten_thousand_tables(told, seeds):
    """Equal spreads or not, between arms and within them by factors of 1.5 and 3 both ways, or as mini's are."""
    sds, uneven = rows("mini")[told]
    check("mini", seeds, sds, 10_000, uneven)


@pytest.mark.long
@pytest.mark.parametrize("seeds", [3, 5])
def test_verdicts_on_imagenets_plan(seeds):
    check("imagenet", seeds, UNEQUAL, 10_000, 3.0)


def test_the_check_can_fail():
    """Intervals at twice their level would be found out, and large gaps are found."""
    assert not not_above(100, 1000) and not_above(50, 1000)
    gaps = simulated(design("mini", 3), EQUAL, 200, seed=0, gap=3.0)
    assert (gaps["verdict"] == "success").mean() > 0.8
