"""Figure: standard against matched gaps."""

from __future__ import annotations

from typing import Any

import matplotlib.figure
import pandas as pd

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.drawing.forest import GAP_LABEL, LONGEST, limits_of, row_axes
from benchmark.reporting.drawing.layout import height_of, panels, wrapped
from benchmark.reporting.drawing.style import NOTE, STUDENTS, handles_of

PLACE = 50
TITLE = "Gap without and with native components"
BOARDS = ("plain",)


def of_board(board: Leaderboard) -> list[dict[str, Any]]:
    """A row a teacher and method: both students' gaps; reversal with its plain half-width."""
    rows = []
    for row in board.rows:
        gaps, native = {entry.arm.name: entry.gap for entry in row.entries}, board.native(row)
        for method in ("copy", "distill"):
            standard, matched = (gaps.get(f"{student}-{method}") for student in ("standard", "matched"))
            if standard is None or matched is None:
                continue
            reversal = native.get(f"reversal_{method}")
            place = {"protocol": board.protocol, "teacher": row.label, "method": method}
            values = {"standard": standard.value, "matched": matched.value, "reversal": reversal and reversal.value}
            rows.append(place | values | {"reversal_plain95": reversal and reversal.plain})
    return rows


def draw(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A panel a method: each teacher's two gaps, joined, with the reversal beside."""
    found = data.assign(row=data["teacher"].map(lambda text: wrapped(text, LONGEST)))
    labels, methods = list(dict.fromkeys(found["row"])), list(dict.fromkeys(data["method"]))
    both = pd.concat([data["standard"], data["matched"]])
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. reversal: gap(matched) - gap(standard) in percentage points, ± half the plain 95 %"
        " interval. Teachers with native components."
    )
    heights, legend = [len(labels) * (height_of(labels) + 0.05)], handles_of(STUDENTS, STUDENTS)
    figure, every = panels(
        len(methods), len(methods), heights, caption, legend, GAP_LABEL, titles=methods, sharex=True, sharey=True
    )
    for axes, method in zip(every, methods, strict=True):
        own = found[found["method"] == method]
        at = own["row"].map(labels.index)
        row_axes(axes, labels, labels, 2 * len(methods))
        axes.hlines(at, own["standard"], own["matched"], color="0.55", linewidth=1.6, zorder=2)
        for student, mark in STUDENTS.items():
            axes.plot(own[student], at, **mark.style(6.5 if student == "standard" else 4), zorder=4)
        axes.set_xlim(*limits_of(both, both, both))
        beside: dict[str, Any] = {"textcoords": "offset points", "fontsize": NOTE, "annotation_clip": False}
        axes.annotate("reversal", (1, 1), (6, 4), xycoords="axes fraction", va="baseline", **beside)
        for place, (_, row) in zip(at, own.iterrows(), strict=True):
            axes.annotate(_reversal(row), (1, place), (6, 0), xycoords=("axes fraction", "data"), va="center", **beside)
    return figure


def _reversal(row: pd.Series) -> str:
    if pd.isna(row["reversal"]):
        return ""
    half = "" if pd.isna(row["reversal_plain95"]) else f" ± {row['reversal_plain95']:.1f}"
    return f"{row['reversal']:+z.1f}{half}".replace("-", "−")
