"""Claims and what the results of one protocol say of them: records and the rules of outcomes.

The simultaneous interval of a difference decides: the same one that tables and figures show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmark.analysis.statistics import GAP, Estimate, signed_arms
from benchmark.spec.arm import Arm
from benchmark.spec.protocol import Need
from benchmark.spec.study import Claim, Expected, Group, signed_terms

HOLDS, CONTRADICTED, OPEN, NOT_CONTRADICTED = "as claimed", "contradicted", "open", "not contradicted"
NOT_TESTABLE = "not testable here"  # the protocol lacks what the claim needs, or this transfer is not shown to fail
SIGNS = {HOLDS: "✓", CONTRADICTED: "✗", NOT_CONTRADICTED: "○", OPEN: "~", NOT_TESTABLE: "□"}
NEEDS = {"pretrained": "teachers with their own pre-training", "unsaturated": "a task that students do not solve in the end"}
EXPECTED = {
    "above": "above 0",
    "below": "below 0",
    "not-above": "not above 0",
    "not-below": "not below 0",
    "same": "all on one side",
}
OURS = "a question of our own"  # `by` of a claim that names nobody
PENDING = Estimate(math.nan)
Teacher = tuple[str, str]  # family, size


@dataclass(frozen=True)
class Measured:
    """One difference for one teacher, or for several that share all its runs.

    Attributes:
        difference: as the claim writes it, `*` filled in.
        teachers: (family, size) of each.
        on: `score`, a shifted test set, or `kl`.
        arms: with their weights, after what a study sweeps was chosen on val.
        n: runs of the arm that has fewest.
        expect: the claim; None where nothing is claimed.
        per: for `same`, the group that is claimed to have one sign.
        comparisons: m of its simultaneous interval.
        premise: for claims about failing transfers, the difference that is below 0 where a transfer
            fails.
        estimate: in percentage points, of `kl` in nats.
        outcome: None where nothing is claimed, without an interval, or where the group has no
            second difference. Of a claim that is not testable here: that, whatever is claimed.
    """

    difference: str
    teachers: tuple[Teacher, ...]
    on: str
    arms: tuple[tuple[str, float], ...]
    n: int
    expect: Expected | None
    per: Group
    comparisons: int
    premise: Measured | None = None
    estimate: Estimate = PENDING
    outcome: str | None = None

    @property
    def terms(self) -> dict[str, float]:
        """The arms as the claim names them, with their weights."""
        return signed_terms(self.difference)

    @property
    def kind(self) -> str | None:
        """Its name in `signed_arms`: gap, reversal, control, ...; None if it has none."""
        return kind_of(self.terms)

    @property
    def short(self) -> str:
        """The difference in few words: the arm alone for its gap, an arm with the name of another
        estimate of `signed_arms`, two arms for the difference of their gaps."""
        arms, kind = list(self.terms), self.kind
        if kind is not None:
            name = arms[0] if kind == GAP else f"{arms[0]} ({kind})"
        else:
            two = [(arm, Arm.parse(arm).baseline.name) for arm in arms[::2]]
            are_gaps = self.terms == {two[0][0]: 1.0, two[0][1]: -1.0, two[-1][0]: -1.0, two[-1][1]: 1.0}
            name = f"{arms[0]} - {arms[2]} (gaps)" if are_gaps else self.difference
        return name if self.on in ("score", "kl") else f"{name} on {self.on}"

    @property
    def label(self) -> str:
        """The teachers for readers: families, then the size."""
        sizes: dict[str, list[str]] = {}
        for family, size in self.teachers:
            sizes.setdefault(size, []).append(family)
        return "; ".join(f"{', '.join(names)} {size}" for size, names in sizes.items())


@dataclass(frozen=True)
class Judged:
    """A claim with what was measured of it.

    `on_imagenet` is the command that tests the claim on ImageNet, for the families that it names,
    else for all; None where this protocol is imagenet itself or one that adds tasks to it, or where
    none of these can have the study's arms. `lacks` has those of the claim's needs that the
    protocol does not offer.
    """

    claim: Claim
    measured: tuple[Measured, ...]
    on_imagenet: str | None = None
    lacks: tuple[Need, ...] = ()

    @property
    def who(self) -> str:
        """The author of the claim."""
        return self.claim.by or OURS

    @property
    def counts(self) -> dict[str, int]:
        """How many differences have each outcome, in the order that readers need."""
        found = [each.outcome for each in self.measured if each.outcome is not None]
        return {word: found.count(word) for word in (CONTRADICTED, OPEN, NOT_CONTRADICTED, HOLDS, NOT_TESTABLE) if word in found}

    @property
    def outcome(self) -> str | None:
        """The first of the counts: contradicted or open, as soon as one difference is."""
        return NOT_TESTABLE if self.lacks else next(iter(self.counts), None)

    @property
    def word(self) -> str:
        """The outcomes of all differences in words, with their counts; of a claim that is not
        testable here, what it needs."""
        if self.outcome == NOT_TESTABLE:
            needs = " and ".join(NEEDS[need] for need in self.lacks) or "a transfer that fails"
            return f"{SIGNS[NOT_TESTABLE]} {NOT_TESTABLE} (it needs {needs})"
        if not self.measured:
            return "not measured" if self.claim.tests else "nothing to measure"
        if all(each.expect is None for each in self.measured):
            return "numbers alone"
        claimed = [each for each in self.measured if each.expect is not None]
        parts = self.counts | {"without outcome": sum(each.outcome is None for each in claimed)}
        told = [f"{word} {count}" for word, count in parts.items() if count]
        first = f"{SIGNS[self.outcome]} " if self.outcome else ""
        return f"{first}{', '.join(told)}" if len(told) > 1 else f"{first}{told[0]} of {len(claimed)}"


@dataclass(frozen=True)
class Finding:
    """A study's claims, judged by one protocol's results.

    Attributes:
        protocol: its name.
        study: its name.
        title: from the study's file, like `asks` and `limits`.
        judged: its claims.
        made: digest of the code by key of each distinct run behind the differences.
        commands: train the measured arms that the study adds to main; none for a study of the
            user's own.
    """

    protocol: str
    study: str
    title: str
    asks: str
    limits: str
    judged: tuple[Judged, ...]
    made: Mapping[str, str]
    commands: tuple[str, ...]

    @property
    def runs(self) -> int:
        """Number of distinct runs behind the differences."""
        return len(self.made)

    @property
    def on_imagenet(self) -> tuple[str, ...]:
        """The commands that test its claims on ImageNet."""
        return tuple(dict.fromkeys(judged.on_imagenet for judged in self.judged if judged.on_imagenet))

    @property
    def stem(self) -> str:
        """How the names of its files begin."""
        return f"{self.protocol}-{self.study}"

    @property
    def measured(self) -> list[Measured]:
        """The differences of all claims."""
        return [one for judged in self.judged for one in judged.measured]

    @property
    def comparisons(self) -> tuple[int, ...]:
        """The distinct m of its simultaneous intervals."""
        return tuple(sorted({one.comparisons for one in self.measured if one.estimate.simultaneous is not None}))

    @property
    def footnote(self) -> str:
        """The meaning of the numbers."""
        return (
            "Differences of mean scores (the protocol's measure, or top-1 on a shifted set) in percentage points, of kl in nats,"
            " ± half the simultaneous 95 % interval over m comparisons (Bonferroni; Student's t): those of the leaderboard that"
            f" judges a gap, else those that this study's claims add"
            f" ({' or '.join(map(str, self.comparisons)) or 'none'}). {HOLDS}: the whole interval lies on the claimed side of 0;"
            f" {CONTRADICTED}: on the other; {OPEN}: it contains 0. A claim that denies a side is {CONTRADICTED},"
            f" {NOT_CONTRADICTED} or {HOLDS}. {EXPECTED['same']}: the lines of a teacher (a family, a size) are"
            f" judged together: {OPEN} as soon as one contains 0. {NOT_TESTABLE}: the protocol lacks what the claim needs, or the"
            " claim is about failing transfers and this one is not shown to fail. n: runs of the arm with fewest."
        )


def kind_of(parts: Mapping[str, float]) -> str | None:
    """The name of a difference in `signed_arms`, by its first arm; None if it has none."""
    return next((kind for kind, each in signed_arms(Arm.parse(next(iter(parts)))).items() if each == parts), None)


def judge(measured: Sequence[Measured], testable: bool = True) -> list[Measured]:
    """The differences of one test with their outcomes; `testable`: whether the protocol has what
    the claim needs."""
    if not testable:
        return [replace(each, outcome=NOT_TESTABLE) for each in measured]
    return [replace(each, outcome=_outcome(each, [other for other in measured if _akin(each, other)])) for each in measured]


def _akin(one: Measured, other: Measured) -> bool:
    """Whether both belong to one group: a teacher, a family, or a size that they share."""
    of = {"family": lambda teacher: teacher[0], "size": lambda teacher: teacher[1]}.get(one.per, tuple)
    return bool({*map(of, one.teachers)} & {*map(of, other.teachers)})


def side(found: Estimate) -> int | None:
    """1 above 0, -1 below, 0 if the simultaneous interval contains 0; None without one."""
    if found.simultaneous is None:
        return None
    return int(found.value - found.simultaneous > 0) - int(found.value + found.simultaneous < 0)


def _outcome(measured: Measured, akin: Sequence[Measured]) -> str | None:
    """The outcome of a difference; `akin`: the differences of its group, itself among them."""
    at = side(measured.estimate)
    if measured.expect is None or at is None:
        return None
    if measured.premise is not None and side(measured.premise.estimate) != -1:
        return None if side(measured.premise.estimate) is None else NOT_TESTABLE
    if measured.expect == "same":
        sides = [known for each in akin if (known := side(each.estimate)) is not None]
        return None if len(sides) < 2 else CONTRADICTED if {1, -1} <= set(sides) else OPEN if 0 in sides else HOLDS
    claimed = 1 if measured.expect.endswith("above") else -1
    if measured.expect.startswith("not-"):
        return CONTRADICTED if at == claimed else HOLDS if at == -claimed else NOT_CONTRADICTED
    return HOLDS if at == claimed else CONTRADICTED if at == -claimed else OPEN
