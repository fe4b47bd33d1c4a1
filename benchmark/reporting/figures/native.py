"""Figure: standard against matched gaps."""

from __future__ import annotations

from typing import Any

import matplotlib.style
import pandas as pd

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.figures.data import in_table
from benchmark.reporting.figures.forest import GAP_LABEL, limits_of, row_axes
from benchmark.reporting.figures.style import (
    BELOW,
    LABEL,
    LONGEST,
    MARGIN,
    NOTE,
    STUDENTS,
    WIDTH,
    Page,
    handles_of,
    height_of,
    inches,
    styled,
    wrapped,
)


@styled
def draw_native(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A panel a method: each teacher's two gaps, joined, and beside it what lies between them."""
    found = data.assign(row=data["teacher"].map(lambda text: wrapped(text, LABEL, LONGEST)))
    labels, methods = list(dict.fromkeys(found["row"])), list(dict.fromkeys(data["method"]))
    left = max(inches(line, LABEL) for text in labels for line in text.split("\n")) + 0.2
    beside = 1.0
    width = (WIDTH - left - MARGIN) / len(methods) - beside
    body = len(labels) * (height_of(labels, LABEL) + 0.05)
    both = pd.concat([data["standard"], data["matched"]])
    limits = limits_of(both, both, both)
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. reversal: gap(matched) - gap(standard) in percentage points, ± half the plain 95 %"
        " interval. Teachers with native components."
    )
    page = Page(0.25 + body + BELOW, caption, handles_of(STUDENTS, STUDENTS))
    for column, method in enumerate(methods):
        axes = page.axes(left + column * (width + beside), 0.25, width, body)
        own = found[found["method"] == method]
        at = own["row"].map(labels.index)
        row_axes(axes, labels, labels, named=column == 0, width=width)
        axes.axvline(0, color="0.3", linewidth=0.9)
        axes.hlines(at, own["standard"], own["matched"], color="0.55", linewidth=1.6, zorder=2)
        for student, mark in STUDENTS.items():
            axes.plot(own[student], at, **mark.style(6.5 if student == "standard" else 4), zorder=4)
        axes.set_xlim(*limits)
        axes.set_title(method, pad=4, y=1)
        beyond: dict[str, Any] = {
            "xycoords": "axes fraction",
            "textcoords": "offset points",
            "fontsize": NOTE,
            "annotation_clip": False,
        }
        axes.annotate("reversal", (1, 1), (6, 4), va="baseline", **beyond)
        for place, (_, row) in zip(at, own.iterrows(), strict=True):
            axes.annotate(_reversal(row), (1, 1 - (place + 0.5) / len(labels)), (6, 0), va="center", **beyond)
    page.text((left + WIDTH - MARGIN) / 2, page.top + 0.25 + body + 0.23, GAP_LABEL, ha="center", va="top", fontsize=LABEL)
    return page.figure


def _reversal(row: pd.Series) -> str:
    if pd.isna(row["reversal"]):
        return ""
    half = "" if pd.isna(row["reversal_plain95"]) else f" ± {row['reversal_plain95']:.1f}"
    return f"{row['reversal']:+z.1f}{half}".replace("-", "−")


def native_data(board: Leaderboard) -> list[dict[str, Any]]:
    rows = []
    for row in board.rows:
        gaps = {entry.arm.name: entry.gap for entry in row.entries}
        for method in ("copy", "distill"):
            standard, matched = (gaps.get(f"{student}-{method}") for student in ("standard", "matched"))
            if standard is None or matched is None:
                continue
            found = in_table(board, row, f"matched-{method}")
            place = {"protocol": board.protocol, "teacher": row.label, "method": method}
            values = {"standard": standard.value, "matched": matched.value}
            rows.append(place | values | {"reversal": found["reversal"], "reversal_plain95": found["reversal_plain95"]})
    return rows
