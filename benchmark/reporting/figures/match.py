"""Figure: gap by the match of attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.figures.data import run_rows
from benchmark.reporting.figures.forest import limits_of, text_column
from benchmark.reporting.figures.panels import apart
from benchmark.reporting.figures.style import BELOW, LABEL, MARGIN, NOTE, VERDICTS, WIDTH, Page, handles_of, inches, named, styled


@styled
def draw_match(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A panel an arm, a point a teacher: its gap by how far student and teacher attention lie apart."""
    arms, found = list(dict.fromkeys(data["arm"])), data.assign(mark=text_column(data, "verdict"))
    left, between = 0.62, 0.2
    width = (WIDTH - left - MARGIN + between) / len(arms) - between
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. Each point is a teacher: mean over transferred blocks and runs. Verdicts:"
        f" simultaneous 95 % intervals over {data['comparisons'].iloc[0]} comparisons. Points without room for a name have none."
    )
    page = Page(0.25 + 2.6 + BELOW, caption, handles_of(VERDICTS, found["mark"]))
    low, high = found["attention_kl"].min(), found["attention_kl"].max()
    wide = low > 0 and high > 10 * low
    round_ones = [digit * 10.0**power for power in range(-4, 3) for digit in (1, 2, 5)]
    ticks = apart([tick for tick in round_ones if low / 1.4 < tick < high * 1.4], math.log(2 * high / low) / 6) if wide else []
    limits = limits_of(found["gap"], found["gap"], found["gap"])
    for number, arm in enumerate(arms):
        axes, own = page.axes(left + number * (width + between), 0.25, width, 2.6), found[found["arm"] == arm]
        if wide:
            axes.set_xscale("log")
            axes.minorticks_off()
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set(xlim=(low / 1.4, high * 1.4) if wide else (0, high * 1.12 or 1), ylim=limits)
        axes.tick_params(labelleft=number == 0)
        axes.axhline(0, color="0.3", linewidth=0.9)
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_title(named(arm).replace("\n", ", "), pad=4, y=1)
        for name, mark in VERDICTS.items():
            chosen = own[own["mark"] == name]
            axes.plot(chosen["attention_kl"], chosen["gap"], **mark.style(5), zorder=4)
        _names(axes, own["attention_kl"], own["gap"], list(own["teacher"]))
    scale = " (nats, logarithmic)" if wide else " (nats)"
    label = "KL divergence of the student's attention from its teacher's" + scale
    page.text(left + (WIDTH - left - MARGIN) / 2, page.top + 2.85 + 0.23, label, ha="center", va="top", fontsize=LABEL)
    page.text(0.17, page.top + 0.25 + 1.3, "gap (percentage points)", rotation=90, ha="center", va="center", fontsize=LABEL)
    return page.figure


Box = tuple[float, float, float, float]  # left, bottom, right, top in points


def _names(axes: Axes, x: pd.Series, y: pd.Series, labels: Sequence[str]) -> None:
    """Names beside points, where neither points nor other names are in the way."""
    scale = 72 / axes.figure.dpi
    points = [tuple(each * scale) for each in axes.transData.transform(list(zip(x, y, strict=True)))]
    taken: list[Box] = [(px - 4, py - 4, px + 4, py + 4) for px, py in points]
    frame = axes.get_window_extent()
    room = (frame.x0 * scale, frame.y0 * scale, frame.x1 * scale, frame.y1 * scale)
    zero = axes.transData.transform((x.iloc[0], 0))[1] * scale
    taken.append((room[0], zero - 0.5, room[2], zero + 0.5))
    for label, (px, py) in zip(labels, points, strict=True):
        width, half = 72 * inches(label, NOTE), 0.62 * NOTE
        beside = [(6, 0), (-6 - width, 0), (-width / 2, 10), (-width / 2, -10)]
        for dx, dy in (*beside, (4, 9), (4, -9), (-4 - width, 9), (-4 - width, -9)):
            box = (px + dx, py + dy - half, px + dx + width, py + dy + half)
            inside = box[0] > room[0] and box[1] > room[1] and box[2] < room[2] and box[3] < room[3]
            if inside and not any(_meet(box, other) for other in taken):
                taken.append(box)
                spot = axes.transData.inverted().transform((px / scale, py / scale))
                axes.annotate(
                    label, (spot[0], spot[1]), (dx, dy), textcoords="offset points", fontsize=NOTE, color="0.25", va="center"
                )
                break


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def match_data(board: Leaderboard) -> list[dict[str, Any]]:
    gaps = {(row.label, entry.arm.name): entry.gap for row in board.rows for entry in row.entries}
    rows = []
    for row, arm, results in run_rows(board):
        found = [sum(kl) / len(kl) for result in results if (kl := result.metrics.attention_kl)]
        gap = gaps[row.label, arm]
        if found and gap is not None:
            place = {"protocol": board.protocol, "teacher": row.label, "arm": arm, "n": len(found)}
            place["attention_kl"] = sum(found) / len(found)
            rows.append(place | {"gap": gap.value, "verdict": gap.verdict or "", "comparisons": board.comparisons})
    return rows
