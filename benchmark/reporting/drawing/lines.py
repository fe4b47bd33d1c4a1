"""Lines over training steps, in panels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.figure
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from benchmark.reporting.drawing.layout import WIDTH, panels, wrapped
from benchmark.reporting.drawing.style import line_styles, named
from benchmark.spec.arm import Arm
from benchmark.storage.scores import WORDS


def in_thousands(steps: pd.Series) -> tuple[pd.Series, str]:
    """Steps and what they are counted in."""
    return (steps / 1000, "thousands of training steps") if steps.max() >= 10_000 else (steps, "training steps")


def draw_lines(data: pd.DataFrame, x: str, across: str, caption: str, budgets: bool = False) -> matplotlib.figure.Figure:
    """A panel a teacher, a line an arm: mean score on val over the column `x`, with its range over
    seeds as a shade. `budgets` are few points on a logarithmic axis, with their ranges as bars."""
    teachers, styles = list(dict.fromkeys(data["teacher"])), line_styles(sorted(dict.fromkeys(data["arm"]), key=_arm_order))
    columns = min(4, len(teachers))
    heights = [1.0 if columns == 4 else 1.9] * math.ceil(len(teachers) / columns)
    legend = [Line2D([], [], label=named(name).replace("\n", ", "), **style) for name, style in styles.items()]
    word = WORDS["box_ap" if all(Arm.parse(name).task for name in styles) else "top1"]
    titles = [wrapped(teacher, (WIDTH - 0.8) / columns) for teacher in teachers]
    figure, every = panels(
        len(teachers), columns, heights, caption, legend, across, f"{word} on val (%)", titles, sharex=True, sharey=True
    )
    for axes, teacher in zip(every, teachers, strict=True):
        for arm, own in data[data["teacher"] == teacher].groupby("arm", sort=False):
            points, style = own.sort_values(x), styles[str(arm)]
            if budgets:
                axes.vlines(points[x], points["low"], points["high"], color=style["color"], linewidth=1)
            else:
                axes.fill_between(points[x], points["low"], points["high"], color=style["color"], alpha=0.2, linewidth=0)
            axes.plot(points[x], points["val"], **style, markevery=max(1, len(points) // 5), zorder=3)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        if budgets:
            steps = sorted(set(data[x]))
            ticks = apart(steps, math.log(1.3 * steps[-1] / steps[0]) / (5 if columns > 2 else 10))
            axes.set_xscale("log")
            axes.minorticks_off()
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.set_xlim(0, 1.05 * data[x].max())
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
