"""Estimates with their intervals, a row each, in panels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.figure
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from benchmark.reporting.drawing.layout import height_of, panels, right_of, wrapped
from benchmark.reporting.drawing.style import FAINT, NOTE, Mark, handles_of, named

FEW = 4  # panels that stand beside each other
LONGEST, WIDEST = 2.3, 3.4  # inches of a row's label before it is broken: of a teacher, of an arm
SHARED = 0.6  # of their rows that teachers in panels beside each other have in common
GAP_LABEL = "gap to the same student without transfer (percentage points)"


def text_column(data: pd.DataFrame, name: str) -> pd.Series:
    """A column of text, empty where it is missing."""
    return data[name].astype(object).where(data[name].notna(), "")


def limits_of(values: pd.Series, low: pd.Series, high: pd.Series) -> tuple[float, float]:
    """Limits of an axis of differences: all values, 0 and the intervals, but not the far ends of
    intervals much wider than most."""
    half = ((high - low) / 2).median()
    reach = max(values.abs().max(), 0 if pd.isna(half) else 2 * half, 0.1)
    bottom = max(min([0, *values, *low]), min(0, values.min()) - reach, -100)
    top = min(max([0, *values, *high]), max(0, values.max()) + reach, 100)
    edge = 0.06 * (top - bottom) or 0.1  # where all differences are 0
    return bottom - edge, top + edge


def gap_caption(data: pd.DataFrame) -> str:
    """The meaning of the bars of gaps."""
    return (
        f"Protocol {data['protocol'].iloc[0]}. Bars: simultaneous 95 % intervals over {data['comparisons'].iloc[0]} comparisons."
    )


def row_axes(axes: Axes, labels: Sequence[str], groups: Sequence[str], columns: int) -> None:
    """Rows from above, every other group shaded; `columns`: panels beside each other."""
    axes.set_ylim(len(labels) - 0.5, -0.5)
    order = list(dict.fromkeys(groups))
    for number in [number for number, group in enumerate(groups) if order.index(group) % 2]:
        axes.axhspan(number - 0.5, number + 0.5, color="0.955", linewidth=0, zorder=0)
    axes.set_yticks(range(len(labels)), labels, fontsize="medium")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(min(8, 12 // columns), steps=[1, 2, 5, 10]))
    axes.grid(axis="x", color="0.88", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.axvline(0, color="0.3", linewidth=0.9)


def draw_forest(
    data: pd.DataFrame, value: str, rows: pd.Series, marks: Mapping[str, Mark], label: str, caption: str, joined: str = ""
) -> matplotlib.figure.Figure:
    """A row a label, a panel an arm, at most four beside each other, all on one scale. Rows of one
    value of the column `joined` are joined by a line."""
    marked = text_column(data, "verdict") if "verdict" in data else data["low"].notna().map({True: "estimate", False: ""})
    found = data.assign(value=data[value], mark=marked, row=rows.map(lambda text: wrapped(text, LONGEST)))
    labels, arms = list(dict.fromkeys(found["row"])), list(dict.fromkeys(data["arm"]))
    groups = list(found.drop_duplicates("row")[joined or "teacher"])
    limits, columns = _limits(found), min(FEW, len(arms))
    heights = [len(labels) * (height_of(labels) + 0.05)] * math.ceil(len(arms) / columns)
    used = set(found.loc[found["value"].notna(), "mark"])
    legend = handles_of(marks, used) if used != {"estimate"} else []
    titles, told = [named(arm) for arm in arms], caption + _beyond(found, limits)
    figure, every = panels(len(arms), columns, heights, told, legend, label, titles=titles, sharex=True, sharey=True)
    for axes, arm in zip(every, arms, strict=True):
        own = found[found["arm"] == arm]
        row_axes(axes, labels, groups, columns)
        axes.set_xlim(*limits)
        at = own["row"].map(labels.index)
        for _, line in own.groupby(joined, sort=False) if joined else ():
            axes.plot(line["value"], at[line.index], color="0.6", linewidth=0.9, zorder=1)
        _draw_estimates(axes, at, own, marks, limits)
    return figure


def draw_by_teacher(data: pd.DataFrame, marks: Mapping[str, Mark], label: str, caption: str) -> matplotlib.figure.Figure:
    """A panel a teacher and a row a label; teachers that share most of their rows stand beside each
    other, at most four, all on one scale. `data` has teacher, label, value, low, high and mark, and
    where it has any, note."""
    found = data.assign(row=data["label"].map(lambda text: wrapped(text, WIDEST)))
    limits = _limits(found)
    blocks = _sharing_rows({str(name): list(own["row"]) for name, own in found.groupby("teacher", sort=False)})
    columns = max(len(teachers) for teachers, _ in blocks)
    heights = [len(rows) * (height_of(rows) + 0.05) for _, rows in blocks]
    width = right_of(list(found["row"])) / columns
    places = [(teacher, rows) for teachers, rows in blocks for teacher in [*teachers, *[""] * (columns - len(teachers))]]
    legend = handles_of(marks, found.loc[found["value"].notna(), "mark"])
    titles = [wrapped(teacher, width) for teacher, _ in places]
    figure, every = panels(
        len(places), columns, heights, caption + _beyond(found, limits), legend, label,
        titles=titles, sharex=True, sharey="row",
    )  # fmt: skip
    for axes, (teacher, rows) in zip(every, places, strict=True):
        if not teacher:
            axes.remove()
            continue
        own = found[found["teacher"] == teacher]
        row_axes(axes, rows, [row.split("+")[0].split("\n")[0] for row in rows], columns)
        axes.set_xlim(*limits)
        axes.xaxis.set_tick_params(labelbottom=True)
        _draw_estimates(axes, own["row"].map(rows.index), own, marks, limits)
    return figure


def _limits(found: pd.DataFrame) -> tuple[float, float]:
    return limits_of(*(found[name].dropna() for name in ("value", "low", "high")))


def _beyond(data: pd.DataFrame, limits: tuple[float, float]) -> str:
    """The words of a caption where bars are cut."""
    cut = (data["low"] < limits[0]) | (data["high"] > limits[1])
    return " A bar without an end goes on beyond its panel." if cut.any() else ""


def _draw_estimates(
    axes: Axes, at: pd.Series, found: pd.DataFrame, marks: Mapping[str, Mark], limits: tuple[float, float]
) -> None:
    """Estimates (value, low, high, mark) at these rows; where there is none, a faint note."""
    for name, own in found[found["value"].notna()].groupby("mark", sort=False):
        bars = (own["value"] - own["low"], own["high"] - own["value"])
        axes.errorbar(own["value"], at[own.index], xerr=bars, elinewidth=1, capsize=2, zorder=4, **marks[name].style())
    if "note" not in found:
        return
    right = limits[1] > -limits[0]
    for place, note in zip(at, text_column(found, "note"), strict=True):
        if note:
            axes.annotate(
                note, (0, place), (3 if right else -3, 0), textcoords="offset points", fontsize=NOTE, color=FAINT,
                ha="left" if right else "right", va="center",
            )  # fmt: skip


def _sharing_rows(rows: Mapping[str, Sequence[str]]) -> list[tuple[list[str], list[str]]]:
    """Blocks of at most FEW teachers that share most rows, each with all its rows in order."""
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
