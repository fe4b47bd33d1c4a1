"""Reports simulated on the design of a real plan: which cells there are, and which of them share runs.

`python -m tests.simulated` prints the tables of docs/statistics.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.analysis.statistics import INCONCLUSIVE, Pool, contrasts
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
    plan = make_plan(name, content, *load_study("main"), teachers_of("papers", None), range(seeds))
    rows, groups = [], {}
    numbers = {key: number for number, key in enumerate(plan.items)}
    for key, item in plan.items.items():
        if item.run.role == "student":
            cell = item.cells[0]
            group = groups.setdefault((cell.family, cell.size, cell.arm), len(groups))
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
    score = 70 + drawn[:, column].ravel()
    return table.assign(protocol=np.repeat(np.arange(reports), len(of.cells)), steps=1, score=score, top1=score, val=score)


def simulated(of, sds, reports, seed, chunk=500, **given):
    """The gaps (see analysis.statistics.contrasts) of as many reports, one row a report and distinct comparison."""
    rng, found = np.random.default_rng(seed), []
    places = [tuple(place) for place in of.distinct.to_numpy()]
    arms = [(number, place, Arm.parse(place[2]).baseline.name) for number, place in enumerate(places)]
    for start in range(0, reports, chunk):
        count = min(chunk, reports - start)
        pool = Pool(tables(of, sds, count, rng, **given))
        parts = [
            (report * len(arms) + number, (report, *place[:2], arm), sign)
            for report in range(count)
            for number, place, base in arms
            for arm, sign in ((place[2], 1.0), (base, -1.0))
        ]
        gaps = contrasts(pool, parts, of.comparisons)
        found.append(gaps.assign(protocol=start + np.arange(len(gaps)) // len(arms)))
    return pd.concat(found, ignore_index=True)


def _rates(gaps):
    wrong = gaps.assign(wrong=gaps["verdict"] != INCONCLUSIVE).groupby("protocol")["wrong"].any().mean()
    return wrong, 1 - (gaps["value"].abs() > gaps["plain"]).mean()


def measured():
    """Standard deviations between seeds of mini's committed results, by (family, size, arm)."""
    table = pd.read_csv(Path(__file__).parent.parent / "reports" / "mini-main.csv")
    return table.set_index(["family", "size", "arm"])["sd"].to_dict()


ROWS = {
    "equal": (EQUAL, 1.0),
    "by arm": (UNEQUAL, 1.0),
    "by arm and cell, 1.5": (UNEQUAL, 1.5),
    "by arm and cell, 3": (UNEQUAL, 3.0),
}
HEAD = "plan", "seeds", "standard deviations", "tables with a verdict", "plain intervals that cover"


def rows(protocol):
    """Standard deviations by name, and how far those of an arm's cells differ."""
    return ROWS | ({"as measured on mini": (measured(), 1.0)} if protocol == "mini" else {})


def print_calibration(reports=10_000):
    """Tables with a verdict where there is no true gap, and coverage of the plain intervals."""
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
    for protocol in ("mini", "imagenet"):
        for seeds in (3, 5):
            of = design(protocol, seeds)
            for told, (sds, uneven) in rows(protocol).items():
                wrong, covered = _rates(simulated(of, sds, reports, seeds, uneven=uneven))
                print("| " + " | ".join([protocol, str(seeds), told, f"{wrong:.1%}", f"{covered:.1%}"]) + " |", flush=True)


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


if __name__ == "__main__":
    print_calibration()
    print_power()
