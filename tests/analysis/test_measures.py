"""What gaps are differences of."""

import numpy as np
import pytest
from scipy import stats

from benchmark.analysis.leaderboard import leaderboard
from benchmark.analysis.measures import MEASURES
from benchmark.reporting.tables.between import of_board
from benchmark.spec.study import load_study
from benchmark.storage.scores import Point

from .. import made

BOARD = ("mini", "A test."), load_study("main")


def test_the_area_by_hand():
    """From chance, 10 % of ten classes, by the trapezoidal rule: a late start costs what it lasted."""
    (result,) = made.results({("deit3", "base", "standard-none"): [50.0]})
    points = [Point(step=step, loss=1.0, val_top1=value) for step, value in ((100, 30), (200, 90), (400, 90))]
    bent = result.model_copy(update={"curve": points})
    assert MEASURES["area"].of(bent) == pytest.approx((20 * 100 + 60 * 100 + 90 * 200) / 400)
    assert MEASURES["top1"].of(bent) == 50


def test_a_leaderboard_of_areas_judges_areas_and_shows_top1_beside():
    """Two arms that end alike, one of them later, differ in area alone."""
    early, late = (Point(step=200, loss=1.0, val_top1=value) for value in (80, 20))
    results = []
    for arm, point in (("standard-none", late), ("standard-copy", early)):
        for each in made.results({("deit3", "base", arm): [79.0, 80.0, 81.0]}):
            end = Point(step=400, loss=1.0, val_top1=each.metrics.top1)
            results.append(each.model_copy(update={"curve": [point, end]}))
    by_area, by_top1 = (leaderboard(*BOARD, results, 4, measure=measure) for measure in ("area", "top1"))
    (row,) = by_area.rows
    copy = row.entries[by_area.arms.index("standard-copy")]
    assert copy.gap.value == pytest.approx((80 - 20) / 2) and copy.gap.verdict == "success"
    assert (copy.top1, copy.score) == pytest.approx((80, (45 * 200 + 80 * 200) / 400))
    (other,) = by_top1.rows
    assert other.entries[by_top1.arms.index("standard-copy")].gap.value == pytest.approx(0)


def test_between_teachers_by_scipy():
    """F and p are scipy's of the runs' scores; a teacher that shares its runs with another counts once."""
    draw = np.random.default_rng(0)
    cells, groups = {}, []
    for family, level in (("deit3", 80), ("dinov2", 82), ("beitv2", 81)):
        groups.append(level + draw.normal(size=4))
        cells |= {(family, "base", "standard-none"): [50.0] * 4, (family, "base", "standard-copy"): groups[-1].tolist()}
    (row,) = of_board(leaderboard(*BOARD, made.results(cells), 4)).rows
    expected = stats.f_oneway(*groups)
    assert (row["F"], row["p"], row["df"]) == (pytest.approx(expected.statistic), f"{expected.pvalue:.2g}", "2, 9")
