"""Published figures (results/published.yaml), shown beside measurements."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.analysis.statistics import TUNED, share_closed
from benchmark.reporting.table import Gap, rounded
from benchmark.spec.records import Record
from benchmark.spec.study import Claim


class Source(Record):
    """A source of published figures."""

    cite: str


class Published(Record):
    """A published figure.

    Attributes:
        source: a key of `sources`.
        what: the figure in words.
        metric: what `value` is.
        rows: numbers of its experiments, as in the claims of studies.
        families: those that it may be about, where it names none.
        protocol, family, size, arm: measure the same thing here, where they are known.
    """

    source: str
    what: str
    metric: Literal["top1", "box_ap", "mask_ap", "gap", "closed", "count", "verdict", "sd"]
    value: float | int | str
    rows: tuple[int, ...] = ()
    families: tuple[str, ...] = ()
    protocol: str | None = None
    family: str | None = None
    size: str | None = None
    arm: str | None = None


class PublishedFigures(Record):
    """The content of results/published.yaml."""

    sources: dict[str, Source] = {}
    figures: tuple[Published, ...] = ()

    @model_validator(mode="after")
    def _cited(self) -> PublishedFigures:
        for figure in self.figures:
            if figure.source not in self.sources:
                raise ValueError(f"figures: {figure.what!r} has source {figure.source!r}, which is not in sources")
        return self


def published_value(figure: Published) -> str:
    """A published number as text, a gap with its sign."""
    return f"{figure.value:+}" if figure.metric == "gap" and not isinstance(figure.value, str) else str(figure.value)


METRICS = {
    "top1": "top-1, %", "box_ap": "box AP, %", "mask_ap": "mask AP, %",
    "gap": "gap, percentage points", "closed": "share of the gap closed, %", "count": "families",
    "verdict": "verdict", "sd": "standard deviation, percentage points",
}  # fmt: skip


def measured_value(figure: Published, board: Leaderboard) -> str | None:
    """The measurement on a leaderboard of the same thing as a published figure, as text; None where
    there is none, or where the figure does not name its protocol, teacher and arm."""
    if figure.protocol != board.protocol:
        return None
    if figure.metric == "verdict":
        found = next((found for family, _, found in board.verdicts if family == figure.family), {})
        told = {arm: found.get(arm) for arm in ("standard-copy", "standard-distill")}
        return "; ".join(f"{arm.split('-')[1]}: {word}" for arm, word in told.items() if word) or None
    row = next((row for row in board.rows if figure.family in row.families and figure.size == row.size), None)
    if row is None or figure.arm not in board.arms:
        return None
    entry = row.entries[board.arms.index(figure.arm)]
    if figure.metric == "top1":
        return None if entry.top1 is None else f"{rounded(entry.top1):.1f} (n={entry.n})"
    if figure.metric == "gap":
        return None if entry.gap is None else Gap(entry.gap, entry.n).text
    closed = share_closed(entry.gap, board.estimate(row, "finetune", TUNED)) if figure.metric == "closed" else None
    return None if closed is None else f"{closed:.1f}"


def published_of(published: PublishedFigures, claim: Claim) -> list[str]:
    """Published figures with sources, of a claim's experiments, authors and families."""
    spoken = {family for test in claim.tests for family in test.families or ()}
    names = claim.by.split(" and ") if claim.by else []
    return [
        f"{figure.what}: {published_value(figure)} ({published.sources[figure.source].cite})"
        for figure in published.figures
        if set(figure.rows) & set(claim.rows)
        and any(name in published.sources[figure.source].cite for name in names)
        and (not spoken or not _families_of(figure) or spoken & _families_of(figure))
    ]


def _families_of(figure: Published) -> set[str]:
    return {*figure.families, *([figure.family] if figure.family else [])}
