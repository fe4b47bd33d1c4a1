"""Reports simulated on the design of a real plan: which cells there are, and which of them share runs.

`python -m tests.simulated` prints the tables of docs/statistics.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.analysis.notes import UNEQUAL as UNEQUAL_SPREAD
from benchmark.analysis.statistics import INCONCLUSIVE, Pool, estimates, unequal_spread
from benchmark.spec.arm import Arm
from benchmark.spec.plan import make_plan
from benchmark.spec.protocol import load_protocol
from benchmark.spec.study import load_study
from benchmark.spec.teachers import teachers_of

EQUAL = dict.fromkeys(("none", "copy", "distill"), (0.3, 0.3))
UNEQUAL = {"none": (0.2, 0.5), "copy": (0.1, 0.3), "distill": (0.6, 1.0)}  # standard, matched: points of top-1


@dataclass(frozen=True)
class Design:
    """Cells of study main for all teachers: a row a cell with the number of its run and of its run's group."""

    cells: pd.DataFrame
    runs: pd.DataFrame
    comparisons: int

    @property
    def distinct(self) -> pd.DataFrame:
        """The places of transfers, of those that are the same runs one."""
        groups = self.cells.drop_duplicates(["family", "size", "arm"]).set_index(["family", "size", "arm"])["group"]
        rows = [place for place in groups.index if Arm.parse(place[2]).transfers]
        pairs = [(groups[place], groups[(*place[:2], Arm.parse(place[2]).baseline.name)]) for place in rows]
        found = pd.DataFrame(rows, columns=["family", "size", "arm"])[~pd.Series(pairs).duplicated()]
        assert len(found) == self.comparisons
        return found


def design(protocol: str, seeds: int) -> Design:
    """That of a shipped protocol, with as many seeds."""
    name, content = load_protocol(protocol)
    plan = make_plan(name, content, *load_study("main"), teachers_of("all", None), range(seeds))
    rows, groups = [], {}
    numbers = {key: number for number, key in enumerate(plan.items)}
    for key, item in plan.items.items():
        if item.run.role == "student":
            group = groups.setdefault(item.run.model_copy(update={"seed": 0}).key, len(groups))
            rows += [(c.family, c.size, c.arm, c.seed, numbers[key], group) for c in item.cells]
    cells = pd.DataFrame(rows, columns=["family", "size", "arm", "seed", "key", "group"])
    runs = cells.drop_duplicates("key")[["key", "group", "family", "size", "arm"]].reset_index(drop=True)
    return Design(cells, runs, plan.distinct_comparisons)


def tables(of, sds, reports, rng, gap=0.0, uneven=1.0):
    """A table of simulated reports, told apart by `protocol`: each transfer lies `gap` above its baseline.

    Args:
        of: a Design.
        sds: of top-1 between seeds by method, (standard, matched); or by (family, size, arm).
        uneven: cells' own standard deviations differ by up to this factor, both ways, from their arm's.
    """
    arms = [Arm.parse(arm) for arm in of.runs["arm"]]
    places = of.runs[["family", "size", "arm"]].itertuples(index=False, name=None)
    sd = np.array(
        [sds[p] if p in sds else sds[arm.method][arm.student == "matched"] for p, arm in zip(places, arms, strict=True)]
    )
    factor = np.exp(rng.uniform(-np.log(uneven), np.log(uneven), of.runs["group"].max() + 1))[of.runs["group"]]
    level = np.array([gap * arm.transfers for arm in arms])
    drawn = level + sd * factor * rng.standard_normal((reports, len(of.runs)))
    column = pd.Series(range(len(of.runs)), of.runs["key"])[of.cells["key"]].to_numpy()
    table = pd.concat([of.cells] * reports, ignore_index=True)
    for name in ("family", "size", "arm"):
        table[name] = pd.Categorical(table[name])
    top1 = 70 + drawn[:, column].ravel()
    return table.assign(protocol=np.repeat(np.arange(reports), len(of.cells)), steps=1, top1=top1, val=top1)


def simulated(of, sds, reports, seed, chunk=500, **given):
    """The gaps (see benchmark.stats.estimates) of as many reports, one row a report and distinct comparison."""
    rng, found = np.random.default_rng(seed), []
    for start in range(0, reports, chunk):
        pool = Pool(tables(of, sds, min(chunk, reports - start), rng, **given))
        gaps = estimates(pool, of.comparisons).xs("gap", level="kind")
        gaps = gaps.reset_index().merge(of.distinct, on=["family", "size", "arm"])
        found.append(gaps.assign(protocol=gaps["protocol"] + start))
    return pd.concat(found, ignore_index=True)


def _rates(gaps, reports):
    wrong = gaps.assign(wrong=gaps["verdict"] != INCONCLUSIVE, own=gaps["value"].abs() > gaps["unpooled"])
    by_report = wrong.groupby("protocol")[["wrong", "own"]].any().mean()
    return by_report["wrong"], 1 - (gaps["value"].abs() > gaps["plain"]).mean(), by_report["own"]


def measured():
    """Standard deviations between seeds of mini's committed results, by (family, size, arm)."""
    table = pd.read_csv(Path(__file__).parent.parent / "reports" / "mini-main.csv")
    return table.set_index(["family", "size", "arm"])["sd"].to_dict()


HEAD = "plan", "seeds", "standard deviations", "reports with a verdict", "by cells' own variance", "plain intervals that cover"


def print_calibration(reports=4000):
    """Reports with a verdict where there is no true gap, and coverage of the plain intervals."""
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
    rows = [
        ("equal", EQUAL, 1.0),
        ("by arm", UNEQUAL, 1.0),
        ("by arm and cell, 1.5", UNEQUAL, 1.5),
        ("by arm and cell, 3", UNEQUAL, 3.0),
    ]
    for protocol in ("mini", "imagenet"):
        for seeds in (3, 5):
            of = design(protocol, seeds)
            for told, sds, uneven in [*rows, *([("as measured on mini", measured(), 1.0)] if protocol == "mini" else [])]:
                wrong, covered, own = _rates(simulated(of, sds, reports, seeds, uneven=uneven), reports)
                print(
                    "| " + " | ".join([protocol, str(seeds), told, f"{wrong:.1%}", f"{own:.1%}", f"{covered:.1%}"]) + " |",
                    flush=True,
                )


def print_power(reports=300):
    """The share of teachers whose true gap gets its verdict, by the gap in standard deviations between seeds."""
    ratios = (1, 1.5, 2, 3, 4, 6)
    print("| plan | seeds | " + " | ".join(f"{ratio:g} SD" for ratio in ratios) + " |")
    print("|---" * (len(ratios) + 2) + "|")
    for protocol in ("mini", "imagenet"):
        for seeds in (3, 5, 10):
            of = design(protocol, seeds)
            sd = EQUAL["none"][0]
            found = [simulated(of, EQUAL, reports, seeds, gap=ratio * sd)["verdict"].eq("success").mean() for ratio in ratios]
            print("| " + " | ".join([protocol, str(seeds), *(f"{power:.0%}" for power in found)]) + " |", flush=True)


def print_named(reports=100):
    """The share of reports that name matched-distill as an arm whose teachers spread unequally."""
    place = ("deit3", "base", "matched-distill")
    rows = [
        ("equal", EQUAL, 1.0),
        ("by cell, 3", EQUAL, 3.0),
        ("one teacher at 20 times the others'", EQUAL | {place: 20 * EQUAL["distill"][1]}, 1.0),
        ("as measured on mini", measured(), 1.0),
    ]
    print("| standard deviations | 3 seeds | 5 seeds | 10 seeds |\n|---|---|---|---|")
    for told, sds, uneven in rows:
        named = []
        for seeds in (3, 5, 10):
            table = tables(design("mini", seeds), sds, reports, np.random.default_rng(seeds), uneven=uneven)
            found = [unequal_spread(own).get(place[2], 1.0) < UNEQUAL_SPREAD for _, own in table.groupby("protocol")]
            named.append(f"{np.mean(found):.0%}")
        print("| " + " | ".join([told, *named]) + " |", flush=True)


if __name__ == "__main__":
    print_calibration()
    print_named()
    print_power()
