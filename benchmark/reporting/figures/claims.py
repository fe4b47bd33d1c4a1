"""Figure: what was measured of claims."""

from __future__ import annotations

import matplotlib.style
import pandas as pd

from benchmark.reporting.figures.forest import draw_by_teacher, draw_forest, text_column
from benchmark.reporting.figures.style import FEW, OUTCOMES, styled


@styled
def draw_claims(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """Differences that claims speak of, with their simultaneous intervals, the mark by outcome: a panel a difference and a row
    a teacher, or where there are more differences than fit beside each other, a panel a teacher and a row a difference."""
    unit = "nats" if (data["on"] == "kl").all() else "percentage points"
    over = " or ".join(map(str, sorted(set(data.loc[data["low"].notna(), "comparisons"])))) or "no"
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. Bars: simultaneous 95 % intervals over {over} comparisons."
        " An arm that stands alone: its gap to the same student without transfer; (reversal): that minus the standard student's."
    )
    outcome, claimed = text_column(data, "outcome"), text_column(data, "expect") != ""
    found = data.assign(mark=outcome.mask((outcome == "") & claimed, "without outcome"), decided=outcome != "")
    place = ["label", "teacher"]  # of a difference that has an outcome in one claim and none in another
    found = found[found["decided"] | ~found.groupby(place)["decided"].transform("any")]
    if data["label"].nunique() <= FEW and data["teacher"].nunique() > 1:
        arms = found.assign(arm=found["label"].str.replace(" - ", "\n- ").str.replace(" + ", "\n+ "), verdict=found["mark"])
        return draw_forest(arms, "value", arms["teacher"], OUTCOMES, f"difference ({unit})", caption)
    return draw_by_teacher(found, OUTCOMES, f"difference ({unit})", caption)
