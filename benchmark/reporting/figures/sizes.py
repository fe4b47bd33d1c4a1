"""Figure: gaps across the sizes of a family."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from benchmark.analysis.leaderboard import Leaderboard, by_family
from benchmark.reporting.figures.data import interval_of
from benchmark.reporting.figures.forest import draw_beyond, draw_estimates, limits_of, text_column, told
from benchmark.reporting.figures.style import (
    LABEL,
    LINE,
    MARGIN,
    NOTE,
    VERDICTS,
    WIDTH,
    Page,
    handles_of,
    height_of,
    inches,
    named,
    styled,
    wrapped,
)


@styled
def draw_sizes(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A panel an arm; in it beside each other the families, each with its sizes."""
    spots = list(dict.fromkeys(zip(data["family"], data["size"], strict=True)))
    members = list(dict.fromkeys(data["family"]))
    x = {spot: number + 0.6 * members.index(spot[0]) for number, spot in enumerate(spots)}
    found = data.assign(value=data["gap"], mark=text_column(data, "verdict"))
    found["x"] = [x[spot] for spot in zip(data["family"], data["size"], strict=True)]
    ends, arms = (-0.8, max(x.values()) + 0.8), list(dict.fromkeys(data["arm"]))
    left, between, tall, head, span = 0.62, 0.16, 1.15, 0.27, ends[1] - ends[0]
    room = WIDTH - left - MARGIN + between
    columns = next(n for n in (4, 2, 1) if n == 1 or (n <= len(arms) and room / n - between > 0.45 * span))
    width = min(room / columns - between, 0.9 * span)
    unit, middles = width / span, found.groupby("family")["x"].apply(lambda own: (own.min() + own.max()) / 2)
    names = {name: wrapped(name, LABEL, unit * (sum(spot[0] == name for spot in spots) + 0.5)) for name in members}
    lines = max(name.count("\n") for name in names.values())
    longest = max(inches(size, NOTE) for size in data["size"])
    upright = longest > 0.92 * unit
    below = 0.16 + (longest if upright else NOTE * LINE) + height_of(list(names.values()), LABEL)
    rows = math.ceil(len(arms) / columns)
    limits = limits_of(*(found[name].dropna() for name in ("gap", "low", "high")))
    caption = f"{told(data)}{draw_beyond(found, limits)} Lines join the sizes of a family."
    page = Page(rows * (head + tall) + below, caption, handles_of(VERDICTS, found["mark"]))
    for number, arm in enumerate(arms):
        start = left + number % columns * (width + between)
        axes = page.axes(start, number // columns * (head + tall) + head, width, tall)
        own, last = found[found["arm"] == arm], number + columns >= len(arms)
        axes.set(xlim=ends, ylim=limits)
        axes.set_title(named(arm).replace("\n", ", "), loc="left", pad=3, y=1)
        axes.set_xticks(list(x.values()) if last else [], [size for _, size in x] if last else [], rotation=90 if upright else 0)
        axes.tick_params(axis="x", length=0)
        axes.tick_params(axis="y", labelleft=number % columns == 0)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="y", color="0.88", linewidth=0.6)
        axes.set_axisbelow(True)
        _families(axes, own, [min(found.loc[found["family"] == member, "x"]) - 0.8 for member in members[1:]])
        for member in members if last else ():
            bottom = page.top + (number // columns + 1) * (head + tall) + below - 0.06
            name = names[member] + "\n" * (lines - names[member].count("\n"))
            at = start + (middles[member] - ends[0]) * unit
            page.text(at, bottom, name, ha="center", va="baseline", fontsize=LABEL, linespacing=1.2)
    centre = page.top + (head + rows * (head + tall)) / 2
    page.text(0.17, centre, "gap (percentage points)", rotation=90, ha="center", va="center", fontsize=LABEL)
    return page.figure


def _families(axes: Axes, own: pd.DataFrame, edges: Sequence[float]) -> None:
    """An arm's estimates, joined within a family; `edges` lie between families."""
    axes.axhline(0, color="0.3", linewidth=0.9)
    axes.vlines(edges, 0, 1, transform=axes.get_xaxis_transform(), color="0.75", linewidth=0.6)
    for _, line in own.groupby("family", sort=False):
        axes.plot(line["x"], line["value"], color="0.6", linewidth=0.9, zorder=1)
    draw_estimates(axes, own["x"], own, VERDICTS, upright=True)


def size_data(board: Leaderboard) -> list[dict[str, Any]]:
    """Families with several sizes; those that share all runs of all their sizes are one."""
    rows = []
    for names, own in by_family(board.rows):
        for row in own if len(own) > 1 else ():
            for entry in row.entries:
                if entry.gap is not None:
                    place = {"protocol": board.protocol, "family": ", ".join(names), "size": row.size, "arm": entry.arm.name}
                    rows.append(place | {"n": entry.n} | interval_of(entry.gap) | {"comparisons": board.comparisons})
    counts = pd.Series([(row["family"], row["arm"]) for row in rows], dtype=object).value_counts()
    return [row for row in rows if counts[(row["family"], row["arm"])] > 1]
