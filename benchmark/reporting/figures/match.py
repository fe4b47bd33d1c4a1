"""Figure: gap by the divergence of attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.figure
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.drawing.data import run_rows
from benchmark.reporting.drawing.forest import limits_of, text_column
from benchmark.reporting.drawing.layout import panels
from benchmark.reporting.drawing.lines import apart
from benchmark.reporting.drawing.style import NOTE, VERDICTS, handles_of, named

PLACE = 80
TITLE = "Gap by the divergence of attention from the teacher's"
BOARDS = ("plain",)


def of_board(board: Leaderboard) -> list[dict[str, Any]]:
    """A row a teacher and arm: KL from the teacher's maps in nats, over blocks and runs; gap."""
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


def draw(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A panel an arm, a point a teacher: gap by KL."""
    arms, found = list(dict.fromkeys(data["arm"])), data.assign(mark=text_column(data, "verdict"))
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. Each point is a teacher: mean over transferred blocks and runs. Verdicts:"
        f" simultaneous 95 % intervals over {data['comparisons'].iloc[0]} comparisons. Points are named where there is room."
    )
    low, high = found["attention_kl"].min(), found["attention_kl"].max()
    wide = low > 0 and high > 10 * low
    across = f"KL divergence of the student's attention from its teacher's (nats{', logarithmic' if wide else ''})"
    titles, legend = [named(arm).replace("\n", ", ") for arm in arms], handles_of(VERDICTS, found["mark"])
    figure, every = panels(
        len(arms), len(arms), [2.6], caption, legend, across, "gap (percentage points)", titles, sharex=True, sharey=True
    )
    for axes, arm in zip(every, arms, strict=True):
        own = found[found["arm"] == arm]
        if wide:
            _logarithmic(axes, low, high)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.set_xlim(0, high * 1.12 or 1)
        axes.set_ylim(limits_of(found["gap"], found["gap"], found["gap"]))
        axes.axhline(0, color="0.3", linewidth=0.9)
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        for name, points in own.groupby("mark", sort=False):
            axes.plot(points["attention_kl"], points["gap"], **VERDICTS[str(name)].style(5), zorder=4)
    figure.draw_without_rendering()  # names need to know where their points will be
    for axes, arm in zip(every, arms, strict=True):
        own = found[found["arm"] == arm]
        _name_points(axes, own["attention_kl"], own["gap"], list(own["teacher"]))
    return figure


def _logarithmic(axes: Axes, low: float, high: float) -> None:
    round_ones = [digit * 10.0**power for power in range(-4, 3) for digit in (1, 2, 5)]
    ticks = apart([tick for tick in round_ones if low / 1.4 < tick < high * 1.4], math.log(2 * high / low) / 6)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(low / 1.4, high * 1.4)


def _name_points(axes: Axes, x: pd.Series, y: pd.Series, labels: Sequence[str]) -> None:
    """Names beside points, where neither points nor other names are in the way."""
    points, frame = axes.transData.transform(list(zip(x, y, strict=True))), axes.get_window_extent()
    size, zero = axes.figure.dpi / 72, axes.transData.transform((x.iloc[0], 0))[1]
    taken = [Bbox([point - 4 * size, point + 4 * size]) for point in points]
    taken.append(Bbox([(frame.x0, zero - 1), (frame.x1, zero + 1)]))
    beside = [((6, 0), "left"), ((-6, 0), "right"), ((0, 10), "center"), ((0, -10), "center")]
    beside += [((4, 9), "left"), ((4, -9), "left"), ((-4, 9), "right"), ((-4, -9), "right")]
    for label, place in zip(labels, zip(x, y, strict=True), strict=True):
        name = axes.annotate(label, place, (0, 0), textcoords="offset points", fontsize=NOTE, color="0.25", va="center")
        for offset, side in beside:
            name.set(position=offset, horizontalalignment=side)
            box = name.get_window_extent().padded(size)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            if inside and not box.count_overlaps(taken):
                taken.append(box)
                break
        else:
            name.remove()
