"""How figures are drawn, each from its data alone (benchmark/figures.py).

Equal data give equal SVG, whatever the user's settings of matplotlib are. Colours are Okabe and Ito's, told apart by
colour-blind readers; the marker's shape and fill repeat what the colour says, for print in grey.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath

from benchmark.reporting.text import printable
from benchmark.spec.arm import Arm

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


MARKERS = ("o", "s", "o", "s", "o", "s")


STYLE = {"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


SIZES = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
}


WIDTH, MARGIN = 7.2, 0.08  # of every figure and at its edges, in inches


LABEL, NOTE = 8.0, 7.0  # font sizes in points


LINE = 1.35 / 72  # inches a line of text takes, for each point of its size


BELOW = 0.45  # inches below panels, for their ticks and label


LONGEST, WIDEST = 2.3, 3.4  # inches of a row's label before it is broken: of a teacher, of an arm


FAINT = "0.4"


FEW = 4  # panels that stand beside each other


SHARED = 0.6  # of their rows that teachers in panels beside each other have in common


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's defaults and ours, whatever the user's settings are."""
    with matplotlib.style.context(["default", STYLE | SIZES]):
        yield


def styled(draw: Callable[[pd.DataFrame], matplotlib.figure.Figure]) -> Callable[[pd.DataFrame], matplotlib.figure.Figure]:
    @functools.wraps(draw)
    def styled(data: pd.DataFrame) -> matplotlib.figure.Figure:
        with style():
            return draw(data)

    return styled


@dataclass(frozen=True)
class Mark:
    """How an estimate is drawn; a hollow one has a white face."""

    label: str
    marker: str
    colour: str
    filled: bool = True

    def style(self, size: float = 4.5) -> dict[str, Any]:
        """Matplotlib's words for it."""
        face = self.colour if self.filled else "white"
        return {"marker": self.marker, "color": self.colour, "markerfacecolor": face, "markersize": size, "linestyle": ""}


VERDICTS = {
    "success": Mark("success: interval above 0", "^", COLOURS[0]),
    "failure": Mark("failure: interval below 0", "v", COLOURS[1]),
    "inconclusive": Mark("inconclusive: interval holds 0", "o", "0.35", filled=False),
    "": Mark("no verdict on this board", "D", "0.1", filled=False),
}


OUTCOMES = {
    "as claimed": Mark("as claimed", "^", COLOURS[0]),
    "not contradicted": Mark("not contradicted", "o", COLOURS[0], filled=False),
    "no failure": Mark("no failure, so nothing is claimed", "D", "0.35", filled=False),
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
    """A line for each arm: colour and marker by method, dashed and hollow for matched students; variants get what is left."""
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
    """An arm's name for readers, a line a variant."""
    head, *variants = arm.split("+")
    return "\n".join([head.replace("-", " ", 1), *variants])


@functools.lru_cache(maxsize=4096)
def inches(text: str, size: float) -> float:
    """The width that a line of text takes at most: hinting widens it by some percent."""
    width, _, _ = TextToPath().get_text_width_height_descent(text, FontProperties(size=size), False)
    return 1.06 * float(width) / 72


def wrapped(text: str, size: float, width: float) -> str:
    """Text broken between words into lines of at most this width in inches."""
    lines, words = list[str](), text.split()
    while words:
        fitting = _fitting(words, size, width)
        lines, words = [*lines, " ".join(words[:fitting])], words[fitting:]
    return "\n".join(lines)


def _fitting(words: Sequence[str], size: float, width: float) -> int:
    """How many of these words a line of this width holds, if only one."""
    return 1 + bisect.bisect_right(range(2, len(words) + 1), width, key=lambda count: inches(" ".join(words[:count]), size))


def height_of(texts: Sequence[str], size: float) -> float:
    """The height of the text with the most lines."""
    return max((text.count("\n") + 1 for text in texts), default=0) * size * LINE


class Page:
    """A figure of fixed width, with a legend above, panels, and a caption below."""

    def __init__(self, height: float, caption: str, legend: Sequence[Line2D], columns: int = 0) -> None:
        """`height` is that of what stands between legend and caption."""
        caption = wrapped(printable(caption), NOTE, WIDTH - 2 * MARGIN)
        lines = math.ceil(len(legend) / (columns or len(legend) or 1))
        self.top = 0.06 + 0.17 * lines if legend else MARGIN
        self.height = self.top + height + height_of([caption], NOTE) + 2 * MARGIN
        self.figure = matplotlib.figure.Figure(figsize=(WIDTH, self.height), facecolor="white")
        self.text(MARGIN, self.height - MARGIN, caption, fontsize=NOTE, va="bottom", linespacing=1.25)
        if legend:
            place = (0.5, 1 - 0.04 / self.height)
            self.figure.legend(
                handles=legend, loc="upper center", bbox_to_anchor=place, ncols=columns or len(legend), frameon=False,
                borderaxespad=0, borderpad=0.2, columnspacing=1.4, handletextpad=0.4,
            )  # fmt: skip

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """A panel; `top` counts from below the legend."""
        bottom = self.height - self.top - top - height
        return self.figure.add_axes((left / WIDTH, bottom / self.height, width / WIDTH, height / self.height))

    def text(self, left: float, top: float, text: str, **style: Any) -> None:
        """Text, `top` from the page's edge."""
        self.figure.text(left / WIDTH, 1 - top / self.height, text, parse_math=False, **style)


def handles_of(marks: Mapping[str, Mark], used: Any) -> list[Line2D]:
    """A legend's entries for those marks that are used."""
    present = set(used)
    return [Line2D([], [], label=mark.label, **mark.style()) for name, mark in marks.items() if name in present]
