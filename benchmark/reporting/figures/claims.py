"""Figure: measured differences of claims, in percentage points."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.figure
import pandas as pd

from benchmark.analysis.claims import NOT_TESTABLE, Finding, Measured
from benchmark.reporting.drawing.forest import FEW, draw_by_teacher, draw_forest, text_column
from benchmark.reporting.drawing.style import OUTCOMES

PLACE = 100
TITLE = "Measured differences of the claims"


def of_finding(finding: Finding) -> list[dict[str, Any]]:
    """A row a difference of top-1."""
    return [row for row in differences(finding) if row["on"] != "kl"]


def differences(finding: Finding) -> list[dict[str, Any]]:
    """A row a claim, difference and teacher: estimate, simultaneous interval and outcome."""
    return [
        {"protocol": finding.protocol, "claim": number, "label": one.short, "difference": one.difference, "teacher": one.label}
        | {"on": one.on, "n": one.n, "value": one.estimate.value}
        | {"low": one.estimate.value - half, "high": one.estimate.value + half}
        | {"expect": _group(one), "outcome": one.outcome or "", "comparisons": one.comparisons}
        for number, judged in enumerate(finding.judged, 1)
        for one in judged.measured
        for half in [math.nan if one.estimate.simultaneous is None else one.estimate.simultaneous]
    ]


def _group(one: Measured) -> str:
    """The claim with its group, where that is not the teacher: same-family."""
    return f"{one.expect or ''}{'' if one.per == 'teacher' else f'-{one.per}'}"


def draw(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """Differences with their simultaneous intervals, the mark by outcome: a panel a difference and
    a row a teacher, or, of more differences than fit beside each other, a panel a teacher and a row
    a difference."""
    unit = "nats" if (data["on"] == "kl").all() else "percentage points"
    over = " or ".join(map(str, sorted(set(data.loc[data["low"].notna(), "comparisons"])))) or "no"
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. Bars: simultaneous 95 % intervals over {over} comparisons."
        " An arm alone: its gap to the same student without transfer; (reversal): that gap minus the standard student's."
    )
    outcome, claimed = text_column(data, "outcome"), text_column(data, "expect") != ""
    found = data.assign(
        mark=outcome.mask((outcome == "") & claimed, "without outcome"), decided=~outcome.isin(("", NOT_TESTABLE))
    )
    place = ["label", "teacher"]  # of a difference that is judged in one claim and not in another
    found = found[found["decided"] | ~found.groupby(place)["decided"].transform("any")]
    if data["label"].nunique() <= FEW and data["teacher"].nunique() > 1:
        arms = found.assign(arm=found["label"].str.replace(" - ", "\n- ").str.replace(" + ", "\n+ "), verdict=found["mark"])
        return draw_forest(arms, "value", arms["teacher"], OUTCOMES, f"difference ({unit})", caption)
    return draw_by_teacher(found, OUTCOMES, f"difference ({unit})", caption)
