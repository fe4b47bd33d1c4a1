"""Panels under one legend and over one caption, placed by matplotlib's constrained layout."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from benchmark.reporting.drawing.style import LABEL, NOTE
from benchmark.reporting.text import printable

WIDTH = 7.2  # inches, of every figure
LINE = 1.35 / 72  # inches that a line of text takes, for each point of its size
CHARACTER = 0.55 / 72  # inches that a character takes on average, for each point of its size
LEGEND = 7.5  # points
BELOW = 0.25  # inches of the ticks below a row of panels


def wrapped(text: str, width: float, size: float = LABEL) -> str:
    """Text broken between words into lines of about this width in inches."""
    return textwrap.fill(text, max(8, int(width / (CHARACTER * size))), break_long_words=False, break_on_hyphens=False)


def height_of(texts: Sequence[str], size: float = LABEL) -> float:
    """Inches of the text that has the most lines."""
    return max((text.count("\n") + 1 for text in texts), default=0) * size * LINE


def panels(
    count: int,
    columns: int,
    heights: Sequence[float],
    caption: str,
    legend: Sequence[Line2D] = (),
    across: str = "",
    up: str = "",
    titles: Sequence[str] = (),
    **shared: Any,
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels in rows of `columns`.

    Args:
        count: how many panels.
        columns: how many stand beside each other.
        heights: inches of each row's panels.
        caption: below all, broken into lines here.
        legend: entries above all.
        across: label of the horizontal axes.
        up: label of the vertical axes.
        titles: one a panel, lines broken already.
        shared: `sharex` and `sharey` of matplotlib's subplots.
    """
    caption, beside = wrapped(printable(caption), WIDTH, NOTE), _columns([str(handle.get_label()) for handle in legend])
    rows = [titles[start : start + columns] for start in range(0, count, columns)]
    height = math.ceil(len(legend) / beside) * LEGEND * LINE + height_of([caption], NOTE) + (0.65 if across else 0.4)
    height += sum(heights) + sum(height_of(row) + 0.1 + BELOW for row in rows)
    engine = ConstrainedLayoutEngine(h_pad=0.03, w_pad=0.04, hspace=0, wspace=0)
    figure = Figure(figsize=(WIDTH, height), layout=engine, facecolor="white")
    body: Any = figure.subfigures()  # so that its labels and the figure's legends do not share a margin
    every = list(body.subplots(len(heights), columns, squeeze=False, height_ratios=list(heights), **shared).flat)
    for number, axes in enumerate(every[:count]):
        axes.set_title(titles[number] if titles else "", linespacing=1.2, pad=4)
        axes.xaxis.set_tick_params(labelbottom=number + columns >= count or not shared.get("sharex"))
    for axes in every[count:]:
        axes.remove()
    body.supxlabel(across, fontsize=LABEL)
    body.supylabel(up, fontsize=LABEL)
    _frame(figure, legend, beside, caption)
    return figure, every[:count]


def _frame(figure: Figure, legend: Sequence[Line2D], columns: int, caption: str) -> None:
    """The legend above, in an order that reads by rows, and the caption below."""
    if legend:
        figure.legend(
            handles=[handle for column in range(columns) for handle in legend[column::columns]], ncols=columns,
            loc="outside upper center", frameon=False, borderpad=0.4, borderaxespad=0, columnspacing=1.4, handletextpad=0.4,
        )  # fmt: skip
    figure.legend(
        handles=[], title=caption, title_fontsize=NOTE, loc="outside lower left", alignment="left", frameon=False,
        borderpad=0.4, borderaxespad=0,
    )  # fmt: skip


def _columns(labels: Sequence[str]) -> int:
    """How many entries of a legend stand beside each other, in rows of one length."""
    widths = [len(label) * CHARACTER * LEGEND + 0.35 for label in labels]
    if sum(widths) <= WIDTH - 0.1:
        return max(1, len(labels))
    rows = math.ceil(len(labels) / max(1, int(WIDTH / max(widths))))
    return math.ceil(len(labels) / rows)


def right_of(labels: Sequence[str]) -> float:
    """Inches that are left for panels beside row labels."""
    longest = max((len(line) for text in labels for line in text.split("\n")), default=0)
    return float(np.clip(WIDTH - 0.3 - longest * CHARACTER * LABEL, 1.5, WIDTH))
