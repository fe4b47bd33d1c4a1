"""Colours, marks and settings of matplotlib that all figures share.

Equal data give equal SVG, whatever the user's settings are. Colours are Okabe and Ito's, which
colour-blind readers can tell apart; the shape and fill of a marker repeat what its colour says, for
print in grey.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib.lines import Line2D

from benchmark.spec.arm import Arm

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "o", "s", "o", "s")
STYLE = {
    "svg.hashsalt": "bench",
    "svg.fonttype": "none",
    "text.parse_math": False,  # names are others' text
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
SIZES = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
}
LABEL, NOTE = 8.0, 7.0  # font sizes in points
FAINT = "0.4"


@contextmanager
def style() -> Iterator[None]:
    """Within it, matplotlib's defaults and ours hold, whatever the user's settings are."""
    with matplotlib.style.context(["default", STYLE | SIZES]):
        yield


def styled(draw: Callable[[pd.DataFrame], matplotlib.figure.Figure], data: pd.DataFrame) -> matplotlib.figure.Figure:
    """What `draw` makes of the data in the style of all figures."""
    with style():
        return draw(data)


@dataclass(frozen=True)
class Mark:
    """How an estimate is drawn; a hollow one has a white face."""

    label: str
    marker: str
    colour: str
    filled: bool = True

    def style(self, size: float = 4.5) -> dict[str, Any]:
        """As arguments of matplotlib's plot."""
        face = self.colour if self.filled else "white"
        return {"marker": self.marker, "color": self.colour, "markerfacecolor": face, "markersize": size, "linestyle": ""}


VERDICTS = {
    "success": Mark("success: interval above 0", "^", COLOURS[0]),
    "failure": Mark("failure: interval below 0", "v", COLOURS[1]),
    "inconclusive": Mark("inconclusive: interval holds 0", "o", "0.35", filled=False),
    "": Mark("no verdict here", "D", "0.1", filled=False),
}
OUTCOMES = {
    "as claimed": Mark("as claimed", "^", COLOURS[0]),
    "not contradicted": Mark("not contradicted", "o", COLOURS[0], filled=False),
    "not testable here": Mark("not testable here", "D", "0.35", filled=False),
    "open": Mark("open: an interval holds 0", "o", "0.35", filled=False),
    "contradicted": Mark("contradicted", "X", COLOURS[1]),
    "without outcome": Mark("claimed, without outcome", "s", "0.35", filled=False),
    "": Mark("nothing claimed", "o", "0.2"),
}
ESTIMATES = {"estimate": Mark("matched-none - standard-none", "o", "0.2"), "": Mark("a single run", "D", "0.1", filled=False)}
STUDENTS = {
    "standard": Mark("standard student", "o", COLOURS[1], filled=False),
    "matched": Mark("matched student", "s", COLOURS[0]),
}
METHODS = {"none": ("0.25", "o"), "copy": (COLOURS[0], "s"), "distill": (COLOURS[4], "D")}
OTHERS = tuple((colour, marker) for marker in "X^vP" for colour in (COLOURS[2], COLOURS[3], COLOURS[5], COLOURS[1]))


def line_styles(arms: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A line style for each arm: colour and marker by method, dashed and hollow for matched
    students, others for variants."""
    styles, others = {}, iter(OTHERS * len(arms))
    for name in arms:
        arm = Arm.parse(name)
        plain = name == f"{arm.student}-{arm.method}" and arm.method in METHODS
        colour, marker = METHODS[arm.method] if plain else next(others)
        matched = arm.student == "matched"
        styles[name] = {
            "color": colour,
            "marker": marker,
            "markersize": 3.2,
            "linewidth": 1.1,
            "linestyle": (0, (3, 1.5)) if matched else "-",
            "markerfacecolor": "white" if matched else colour,
        }
    return styles


def named(arm: str) -> str:
    """An arm's name for readers, each variant on a line of its own."""
    head, *variants = arm.split("+")
    return "\n".join([head.replace("-", " ", 1), *variants])


def handles_of(marks: Mapping[str, Mark], used: Any) -> list[Line2D]:
    """Legend entries of the marks in use."""
    present = set(used)
    return [Line2D([], [], label=mark.label, **mark.style()) for name, mark in marks.items() if name in present]
