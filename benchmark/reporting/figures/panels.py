"""Lines over training steps, in panels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from benchmark.reporting.figures.style import (
    BELOW,
    LABEL,
    MARGIN,
    NOTE,
    WIDTH,
    Page,
    height_of,
    inches,
    line_styles,
    named,
    wrapped,
)
from benchmark.spec.arm import Arm

Scale = Callable[[Any], Any]  # from values to 0..1


@dataclass
class _Sheet:
    """Panels on the same scales, at most four beside each other, as one set of axes in inches: quick to draw.

    Attributes:
        axes: from the lower left corner of the page.
        corners: the lower left corner of each panel.
        width, height: of each panel.
        x, y: what maps values to 0..1 along a panel.
    """

    axes: Axes
    corners: list[tuple[float, float]]
    width: float
    height: float
    x: Scale
    y: Scale

    def at(self, panel: int, x: Any, y: Any) -> tuple[Any, Any]:
        """Arrays of places on the page of values in a panel."""
        left, bottom = self.corners[panel]
        return left + self.width * self.x(np.asarray(x, float)), bottom + self.height * self.y(np.asarray(y, float))


def _sheet(
    titles: Sequence[str],
    labels: tuple[str, str],
    caption: str,
    lines: Mapping[str, Mapping[str, Any]],
    scales: tuple[Scale, Scale],
    ticks: tuple[Sequence[float], Sequence[float]],
) -> tuple[matplotlib.figure.Figure, _Sheet]:
    """A page with an empty panel a title; `labels`, `scales` and `ticks` are those of x and y, `lines` the legend's."""
    columns = min(4, len(titles))
    left, between = 0.62, 0.16
    width = (WIDTH - left - MARGIN + between) / columns - between
    tall = 1.0 if columns == 4 else 1.9
    broken = [wrapped(title, LABEL, width) for title in titles]
    head, rows = height_of(broken, LABEL) + 0.14, math.ceil(len(titles) / columns)
    page = Page(rows * (head + tall) + BELOW, caption, _in_rows(lines), columns=_columns(lines))
    axes = page.figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, WIDTH), ylim=(0, page.height))
    top = page.height - page.top
    corners = [
        (left + number % columns * (width + between), top - (number // columns + 1) * (head + tall))
        for number in range(len(titles))
    ]
    sheet = _Sheet(axes, corners, width, tall, *scales)
    frame, grid = [], []
    for number, (x, y) in enumerate(corners):
        frame += [((x, y), (x, y + tall)), ((x, y), (x + width, y))]
        xs, ys = (
            places.tolist() for places in sheet.at(number, ticks[0], ticks[0])[:1] + sheet.at(number, ticks[1], ticks[1])[1:]
        )
        grid += [((place, y), (place, y + tall)) for place in xs] + [((x, place), (x + width, place)) for place in ys]
        axes.text(x + width / 2, y + tall + 0.07, broken[number], ha="center", va="baseline", fontsize=LABEL, linespacing=1.2)
        if number % columns == 0:
            _ticks(axes, [(x - 0.05, place) for place in ys], ticks[1], ha="right", va="center_baseline")
        if number + columns >= len(titles):
            _ticks(axes, [(place, y - 0.05) for place in xs], ticks[0], ha="center", va="top")
    axes.add_collection(LineCollection(grid, colors="0.9", linewidths=0.6, zorder=0), autolim=False)
    axes.add_collection(LineCollection(frame, colors="0.2", linewidths=0.8, zorder=1), autolim=False)
    bottom = page.top + rows * (head + tall)
    page.text(left + (WIDTH - left - MARGIN) / 2, bottom + 0.2, labels[0], ha="center", va="top", fontsize=LABEL)
    page.text(0.17, (page.top + bottom) / 2, labels[1], rotation=90, ha="center", va="center", fontsize=LABEL)
    return page.figure, sheet


def _ticks(axes: Axes, places: Sequence[tuple[float, float]], values: Sequence[float], **style: Any) -> None:
    for place, value in zip(places, values, strict=True):
        axes.text(*place, f"{value:g}", fontsize=NOTE, **style)


def _columns(lines: Mapping[str, Any]) -> int:
    """How many entries of a legend stand beside each other, so that its rows are of one length."""
    widest = max(inches(named(name).replace("\n", ", "), 7.5) for name in lines) + 0.6
    rows = math.ceil(len(lines) / max(1, int(WIDTH / widest)))
    return math.ceil(len(lines) / rows)


def _in_rows(lines: Mapping[str, Mapping[str, Any]]) -> list[Line2D]:
    """A legend's entries so that they read by rows (matplotlib fills columns)."""
    columns = _columns(lines)
    handles = [Line2D([], [], label=named(name).replace("\n", ", "), **style) for name, style in lines.items()]
    return [handle for column in range(columns) for handle in handles[column::columns]]


def in_thousands(steps: pd.Series) -> tuple[pd.Series, str]:
    """Steps and what they are counted in."""
    return (steps / 1000, "thousands of training steps") if steps.max() >= 10_000 else (steps, "training steps")


def even_scale(low: float, high: float) -> tuple[Scale, list[float]]:
    """A linear scale that holds these two, and its ticks."""
    margin = 0.05 * (high - low or 1)
    start, end = low - margin * (low > 0), high + margin
    ticks = MaxNLocator(4).tick_values(start, end)
    return lambda values: (values - start) / (end - start), [tick for tick in ticks if start <= tick <= end]


def draw_lines(
    data: pd.DataFrame, x: str, labels: tuple[str, str], caption: str, scales: Any, ticks: Any, bars: bool = False
) -> matplotlib.figure.Figure:
    """A panel a teacher, a line an arm; ranges are shades or bars. The lines of an arm are one line with breaks."""
    teachers, styles = list(dict.fromkeys(data["teacher"])), line_styles(sorted(dict.fromkeys(data["arm"]), key=_arm_order))
    figure, sheet = _sheet(teachers, labels, caption, styles, scales, ticks)
    for arm, style in styles.items():
        of_arm = data[data["arm"] == arm]
        xs: list[float] = []
        ys: list[float] = []
        marked: list[int] = []
        ranges: list[Any] = []
        for teacher, own in of_arm.groupby("teacher", sort=False):
            panel, points = teachers.index(teacher), own.sort_values(x)
            places, middle = sheet.at(panel, points[x], points["val"])
            low, high = (sheet.at(panel, points[x], points[end])[1] for end in ("low", "high"))
            marked += range(len(xs), len(xs) + len(own), max(1, len(own) // 5))
            xs += [*places, math.nan]
            ys += [*middle, math.nan]
            if bars:
                ranges += [[(at, one), (at, other)] for at, one, other in zip(places, low, high, strict=True)]
            else:
                ranges.append([*zip(places, low, strict=True), *reversed(list(zip(places, high, strict=True)))])
        drawn = LineCollection(ranges, linewidths=1) if bars else PolyCollection(ranges, alpha=0.2, linewidths=0)
        drawn.set(color=style["color"], zorder=2)
        sheet.axes.add_collection(drawn, autolim=False)
        sheet.axes.plot(xs, ys, **style, markevery=marked, zorder=3)
    return figure


def _arm_order(name: str) -> tuple[bool, int, str]:
    arm = Arm.parse(name)
    return arm.student == "matched", ("none", "copy", "distill", "finetune").index(arm.method), name


def apart(steps: Sequence[float], least: float) -> list[float]:
    """Those steps that differ from the last one kept by a factor of at least exp(least)."""
    kept: list[float] = []
    for step in steps:
        if not kept or math.log(step / kept[-1]) >= least:
            kept.append(step)
    return kept
