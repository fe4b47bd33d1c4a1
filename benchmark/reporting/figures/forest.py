"""Gaps with their intervals, in panels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from benchmark.reporting.figures.style import (
    BELOW,
    FAINT,
    FEW,
    LABEL,
    LONGEST,
    MARGIN,
    NOTE,
    SHARED,
    WIDEST,
    WIDTH,
    Mark,
    Page,
    handles_of,
    height_of,
    inches,
    named,
    wrapped,
)


def text_column(data: pd.DataFrame, name: str) -> pd.Series:
    """A column of text, empty where it is missing."""
    return data[name].astype(object).where(data[name].notna(), "")


def limits_of(values: pd.Series, low: pd.Series, high: pd.Series) -> tuple[float, float]:
    """Of an axis of differences: every value, 0, and the intervals, but not the far ends of those much wider than the rest."""
    half = ((high - low) / 2).median()
    reach = max(values.abs().max(), 0 if pd.isna(half) else 2 * half, 0.1)
    bottom = max(min([0, *values, *low]), min(0, values.min()) - reach, -100)
    top = min(max([0, *values, *high]), max(0, values.max()) + reach, 100)
    edge = 0.06 * (top - bottom) or 0.1  # where all differences are 0
    return bottom - edge, top + edge


def draw_beyond(data: pd.DataFrame, limits: tuple[float, float]) -> str:
    """What a caption says where bars are cut."""
    cut = (data["low"] < limits[0]) | (data["high"] > limits[1])
    return " A bar without an end goes on beyond its panel." if cut.any() else ""


def draw_estimates(axes: Axes, at: pd.Series, found: pd.DataFrame, marks: Mapping[str, Mark], upright: bool = False) -> None:
    """Estimates (value, low, high, mark) with their bars, at these places of the other axis."""
    found = found[found["value"].notna()]
    present = set(found["mark"])
    for name, mark in ((name, mark) for name, mark in marks.items() if name in present):
        own = found[found["mark"] == name]
        places, bars = at[own.index], own[own["low"].notna()]
        spots = at[bars.index]
        (axes.vlines if upright else axes.hlines)(spots, bars["low"], bars["high"], color=mark.colour, linewidth=1)
        cap: dict[str, Any] = {"marker": "_" if upright else "|", "color": mark.colour, "markersize": 4, "linestyle": ""}
        for end in ("low", "high"):
            axes.plot(*((spots, bars[end]) if upright else (bars[end], spots)), **cap)
        axes.plot(*((places, own["value"]) if upright else (own["value"], places)), **mark.style(), zorder=4)


def row_axes(axes: Axes, labels: Sequence[str], groups: Sequence[str], named: bool, width: float) -> None:
    """Rows from above, those of every other group shaded; `named` at the left. `width` is the panel's, in inches."""
    axes.set_ylim(len(labels) - 0.5, -0.5)
    order = list(dict.fromkeys(groups))
    for number in [number for number, group in enumerate(groups) if order.index(group) % 2]:
        axes.axhspan(number - 0.5, number + 0.5, color="0.955", linewidth=0, zorder=0)
    if named:
        axes.set_yticks(range(len(labels)), labels, fontsize=LABEL)
    else:
        axes.set_yticks([])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(min(8, int(width / 0.3)), steps=[1, 2, 5, 10]))
    axes.grid(axis="x", color="0.88", linewidth=0.6)
    axes.set_axisbelow(True)


def draw_forest(
    data: pd.DataFrame, value: str, rows: pd.Series, marks: Mapping[str, Mark], label: str, caption: str
) -> matplotlib.figure.Figure:
    """Estimates with bars: a row a label, a panel an arm, at most four beside each other, all on one scale."""
    marked = text_column(data, "verdict") if "verdict" in data else data["low"].notna().map({True: "estimate", False: ""})
    found = data.assign(value=data[value], mark=marked, row=rows.map(lambda text: wrapped(text, LABEL, LONGEST)))
    labels, arms = list(dict.fromkeys(found["row"])), list(dict.fromkeys(data["arm"]))
    groups = list(found.drop_duplicates("row")["teacher"])
    limits = limits_of(*(found[name].dropna() for name in ("value", "low", "high")))
    left = max(inches(line, LABEL) for text in labels for line in text.split("\n")) + 0.2
    columns, titles = min(4, len(arms)), [named(arm) for arm in arms]
    width = (WIDTH - left - MARGIN - 0.08) / columns - 0.16
    head, body = height_of(titles, LABEL) + 0.1, len(labels) * (height_of(labels, LABEL) + 0.05)
    block = head + body + BELOW
    blocks = math.ceil(len(arms) / columns)
    told = caption + draw_beyond(found, limits)
    used = set(found.loc[found["value"].notna(), "mark"])
    page = Page(blocks * block, told, handles_of(marks, used) if used != {"estimate"} else [])
    for number, (arm, title) in enumerate(zip(arms, titles, strict=True)):
        line, column = divmod(number, columns)
        axes = page.axes(left + column * (width + 0.16), line * block + head, width, body)
        own = found[found["arm"] == arm]
        at = own["row"].map(labels.index)
        row_axes(axes, labels, groups, named=column == 0, width=width)
        axes.set_xlim(*limits)
        axes.axvline(0, color="0.3", linewidth=0.9)
        draw_estimates(axes, at, own, marks)
        _notes(axes, own, at, limits)
        axes.set_title(title, linespacing=1.2, pad=4, y=1)
    for line in range(blocks):
        below = page.top + line * block + head + body + 0.23
        page.text(left + (WIDTH - left - MARGIN) / 2, below, label, ha="center", va="top", fontsize=LABEL)
    return page.figure


def draw_by_teacher(data: pd.DataFrame, marks: Mapping[str, Mark], label: str, caption: str) -> matplotlib.figure.Figure:
    """Estimates with bars: a panel a teacher, a row a label; teachers beside each other, at most four, where they share most of
    their rows, all on one scale. `data` has teacher, label, value, low, high and mark, and where it has any, note."""
    found = data.assign(row=data["label"].map(lambda text: wrapped(text, LABEL, WIDEST)))
    limits = limits_of(*(found[name].dropna() for name in ("value", "low", "high")))
    left = max(inches(line, LABEL) for text in found["row"] for line in text.split("\n")) + 0.2
    blocks = _sharing_rows({str(name): list(own["row"]) for name, own in found.groupby("teacher", sort=False)})
    columns = max(len(teachers) for teachers, _ in blocks)
    width = (WIDTH - left - MARGIN - 0.08) / columns - 0.16
    titles = {teacher: wrapped(teacher, LABEL, width) for teachers, _ in blocks for teacher in teachers}
    heads = [height_of([titles[teacher] for teacher in teachers], LABEL) + 0.1 for teachers, _ in blocks]
    bodies = [len(rows) * (height_of(rows, LABEL) + 0.05) for _, rows in blocks]
    total = sum(heads) + sum(bodies) + BELOW * len(blocks)
    page = Page(total, caption + draw_beyond(found, limits), handles_of(marks, found.loc[found["value"].notna(), "mark"]))
    top = 0.0
    for (teachers, rows), head, body in zip(blocks, heads, bodies, strict=True):
        for column, teacher in enumerate(teachers):
            axes = page.axes(left + column * (width + 0.16), top + head, width, body)
            own = found[found["teacher"] == teacher]
            row_axes(axes, rows, [row.split("+")[0].split("\n")[0] for row in rows], named=column == 0, width=width)
            axes.set_xlim(*limits)
            axes.axvline(0, color="0.3", linewidth=0.9)
            at = own["row"].map(rows.index)
            draw_estimates(axes, at, own, marks)
            _notes(axes, own, at, limits)
            axes.set_title(titles[teacher], linespacing=1.2, pad=4, y=1)
        top += head + body + BELOW
    page.text(left + (WIDTH - left - MARGIN) / 2, page.top + top - BELOW + 0.23, label, ha="center", va="top", fontsize=LABEL)
    return page.figure


def _sharing_rows(rows: Mapping[str, Sequence[str]]) -> list[tuple[list[str], list[str]]]:
    """Teachers in blocks of at most FEW that have most of their rows in common, each with all rows of its block in order."""
    blocks: list[tuple[list[str], list[str]]] = []
    for teacher, own in rows.items():
        for teachers, known in blocks:
            if len(teachers) < FEW and len(set(own) & set(known)) >= SHARED * len(set(own) | set(known)):
                teachers.append(teacher)
                known += [row for row in own if row not in known]
                break
        else:
            blocks.append(([teacher], list(own)))
    order: list[str] = []
    for own in rows.values():
        for before, row in zip((None, *own), own, strict=False):
            if row not in order:
                order.insert(order.index(before) + 1 if before is not None else 0, row)
    return [(teachers, sorted(known, key=order.index)) for teachers, known in blocks]


def _notes(axes: Axes, own: pd.DataFrame, at: pd.Series, limits: tuple[float, float]) -> None:
    """Faint words where there is no estimate, on the wider side of 0."""
    if "note" not in own:
        return
    right = limits[1] > -limits[0]
    for place, note in zip(at, text_column(own, "note"), strict=True):
        if note:
            axes.annotate(
                note, (0, place), (3 if right else -3, 0), textcoords="offset points", fontsize=NOTE, color=FAINT,
                ha="left" if right else "right", va="center",
            )  # fmt: skip


GAP_LABEL = "gap to the same student without transfer (percentage points)"


def told(data: pd.DataFrame) -> str:
    """What bars of gaps are."""
    return (
        f"Protocol {data['protocol'].iloc[0]}. Bars: simultaneous 95 % intervals over {data['comparisons'].iloc[0]} comparisons."
    )
