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

import matplotlib.figure
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath
from matplotlib.ticker import MaxNLocator

from benchmark.protocol import Arm
from benchmark.tables import printable

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


def _styled(draw: Callable[[pd.DataFrame], matplotlib.figure.Figure]) -> Callable[[pd.DataFrame], matplotlib.figure.Figure]:
    @functools.wraps(draw)
    def styled(data: pd.DataFrame) -> matplotlib.figure.Figure:
        with style():
            return draw(data)

    return styled


# ---- how verdicts and arms look


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


def _line_styles(arms: Sequence[str]) -> dict[str, dict[str, Any]]:
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


def _named(arm: str) -> str:
    """An arm's name for readers, a line a variant."""
    head, *variants = arm.split("+")
    return "\n".join([head.replace("-", " ", 1), *variants])


# ---- the page, in inches from its upper left corner


@functools.lru_cache(maxsize=4096)
def _inches(text: str, size: float) -> float:
    """The width that a line of text takes at most: hinting widens it by some percent."""
    width, _, _ = TextToPath().get_text_width_height_descent(text, FontProperties(size=size), False)
    return 1.06 * float(width) / 72


def _wrapped(text: str, size: float, width: float) -> str:
    """Text broken between words into lines of at most this width in inches."""
    lines, words = list[str](), text.split()
    while words:
        fitting = _fitting(words, size, width)
        lines, words = [*lines, " ".join(words[:fitting])], words[fitting:]
    return "\n".join(lines)


def _fitting(words: Sequence[str], size: float, width: float) -> int:
    """How many of these words a line of this width holds, if only one."""
    return 1 + bisect.bisect_right(range(2, len(words) + 1), width, key=lambda count: _inches(" ".join(words[:count]), size))


def _tall(texts: Sequence[str], size: float) -> float:
    """The height of the text with the most lines."""
    return max((text.count("\n") + 1 for text in texts), default=0) * size * LINE


class _Page:
    """A figure of fixed width, with a legend above, panels, and a caption below."""

    def __init__(self, height: float, caption: str, legend: Sequence[Line2D], columns: int = 0) -> None:
        """`height` is that of what stands between legend and caption."""
        caption = _wrapped(printable(caption), NOTE, WIDTH - 2 * MARGIN)
        lines = math.ceil(len(legend) / (columns or len(legend) or 1))
        self.top = 0.06 + 0.17 * lines if legend else MARGIN
        self.height = self.top + height + _tall([caption], NOTE) + 2 * MARGIN
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


def _handles(marks: Mapping[str, Mark], used: Any) -> list[Line2D]:
    """A legend's entries for those marks that are used."""
    present = set(used)
    return [Line2D([], [], label=mark.label, **mark.style()) for name, mark in marks.items() if name in present]


def _text_column(data: pd.DataFrame, name: str) -> pd.Series:
    """A column of text, empty where it is missing."""
    return data[name].astype(object).where(data[name].notna(), "")


def _limits(values: pd.Series, low: pd.Series, high: pd.Series) -> tuple[float, float]:
    """Of an axis of differences: every value, 0, and the intervals, but not the far ends of those much wider than the rest."""
    half = ((high - low) / 2).median()
    reach = max(values.abs().max(), 0 if pd.isna(half) else 2 * half, 0.1)
    bottom = max(min([0, *values, *low]), min(0, values.min()) - reach, -100)
    top = min(max([0, *values, *high]), max(0, values.max()) + reach, 100)
    edge = 0.06 * (top - bottom) or 0.1  # where all differences are 0
    return bottom - edge, top + edge


def _beyond(data: pd.DataFrame, limits: tuple[float, float]) -> str:
    """What a caption says where bars are cut."""
    cut = (data["low"] < limits[0]) | (data["high"] > limits[1])
    return " A bar without an end goes on beyond its panel." if cut.any() else ""


def _estimates(axes: Axes, at: pd.Series, found: pd.DataFrame, marks: Mapping[str, Mark], upright: bool = False) -> None:
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


def _row_axes(axes: Axes, labels: Sequence[str], groups: Sequence[str], named: bool, width: float) -> None:
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


def _forest(
    data: pd.DataFrame, value: str, rows: pd.Series, marks: Mapping[str, Mark], label: str, caption: str
) -> matplotlib.figure.Figure:
    """Estimates with bars: a row a label, a panel an arm, at most four beside each other, all on one scale."""
    marked = _text_column(data, "verdict") if "verdict" in data else data["low"].notna().map({True: "estimate", False: ""})
    found = data.assign(value=data[value], mark=marked, row=rows.map(lambda text: _wrapped(text, LABEL, LONGEST)))
    labels, arms = list(dict.fromkeys(found["row"])), list(dict.fromkeys(data["arm"]))
    groups = list(found.drop_duplicates("row")["teacher"])
    limits = _limits(*(found[name].dropna() for name in ("value", "low", "high")))
    left = max(_inches(line, LABEL) for text in labels for line in text.split("\n")) + 0.2
    columns, titles = min(4, len(arms)), [_named(arm) for arm in arms]
    width = (WIDTH - left - MARGIN - 0.08) / columns - 0.16
    head, body = _tall(titles, LABEL) + 0.1, len(labels) * (_tall(labels, LABEL) + 0.05)
    block = head + body + BELOW
    blocks = math.ceil(len(arms) / columns)
    told = caption + _beyond(found, limits)
    used = set(found.loc[found["value"].notna(), "mark"])
    page = _Page(blocks * block, told, _handles(marks, used) if used != {"estimate"} else [])
    for number, (arm, title) in enumerate(zip(arms, titles, strict=True)):
        line, column = divmod(number, columns)
        axes = page.axes(left + column * (width + 0.16), line * block + head, width, body)
        own = found[found["arm"] == arm]
        at = own["row"].map(labels.index)
        _row_axes(axes, labels, groups, named=column == 0, width=width)
        axes.set_xlim(*limits)
        axes.axvline(0, color="0.3", linewidth=0.9)
        _estimates(axes, at, own, marks)
        _notes(axes, own, at, limits)
        axes.set_title(title, linespacing=1.2, pad=4, y=1)
    for line in range(blocks):
        below = page.top + line * block + head + body + 0.23
        page.text(left + (WIDTH - left - MARGIN) / 2, below, label, ha="center", va="top", fontsize=LABEL)
    return page.figure


def _by_teacher(data: pd.DataFrame, marks: Mapping[str, Mark], label: str, caption: str) -> matplotlib.figure.Figure:
    """Estimates with bars: a panel a teacher, a row a label; teachers beside each other, at most four, where they share most of
    their rows, all on one scale. `data` has teacher, label, value, low, high and mark, and where it has any, note."""
    found = data.assign(row=data["label"].map(lambda text: _wrapped(text, LABEL, WIDEST)))
    limits = _limits(*(found[name].dropna() for name in ("value", "low", "high")))
    left = max(_inches(line, LABEL) for text in found["row"] for line in text.split("\n")) + 0.2
    blocks = _sharing_rows({str(name): list(own["row"]) for name, own in found.groupby("teacher", sort=False)})
    columns = max(len(teachers) for teachers, _ in blocks)
    width = (WIDTH - left - MARGIN - 0.08) / columns - 0.16
    titles = {teacher: _wrapped(teacher, LABEL, width) for teachers, _ in blocks for teacher in teachers}
    heads = [_tall([titles[teacher] for teacher in teachers], LABEL) + 0.1 for teachers, _ in blocks]
    bodies = [len(rows) * (_tall(rows, LABEL) + 0.05) for _, rows in blocks]
    total = sum(heads) + sum(bodies) + BELOW * len(blocks)
    page = _Page(total, caption + _beyond(found, limits), _handles(marks, found.loc[found["value"].notna(), "mark"]))
    top = 0.0
    for (teachers, rows), head, body in zip(blocks, heads, bodies, strict=True):
        for column, teacher in enumerate(teachers):
            axes = page.axes(left + column * (width + 0.16), top + head, width, body)
            own = found[found["teacher"] == teacher]
            _row_axes(axes, rows, [row.split("+")[0].split("\n")[0] for row in rows], named=column == 0, width=width)
            axes.set_xlim(*limits)
            axes.axvline(0, color="0.3", linewidth=0.9)
            at = own["row"].map(rows.index)
            _estimates(axes, at, own, marks)
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
    for place, note in zip(at, _text_column(own, "note"), strict=True):
        if note:
            axes.annotate(
                note, (0, place), (3 if right else -3, 0), textcoords="offset points", fontsize=NOTE, color=FAINT,
                ha="left" if right else "right", va="center",
            )  # fmt: skip


# ---- the figures

GAP_LABEL = "gap to the same student without transfer (percentage points)"


def _told(data: pd.DataFrame) -> str:
    """What bars of gaps are."""
    return (
        f"Protocol {data['protocol'].iloc[0]}. Bars: simultaneous 95 % intervals over {data['comparisons'].iloc[0]} comparisons."
    )


@_styled
def draw_gaps(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """Gaps and their simultaneous intervals, the mark by verdict: a panel an arm and a row a teacher, or where there are more
    arms than fit beside each other, a panel a teacher and a row an arm."""
    same = " = standard: the student has no native components." if (_text_column(data, "note") == "= standard").any() else ""
    if data["arm"].nunique() > FEW and data["arm"].str.contains("+", regex=False).any():
        found = data.assign(label=data["arm"].str.replace("-", " ", n=1), value=data["gap"], mark=_text_column(data, "verdict"))
        return _by_teacher(found, VERDICTS, GAP_LABEL, _told(data) + same)
    return _forest(data, "gap", data["teacher"], VERDICTS, GAP_LABEL, _told(data) + same)


@_styled
def draw_claims(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """Differences that claims speak of, with their simultaneous intervals, the mark by outcome: a panel a difference and a row
    a teacher, or where there are more differences than fit beside each other, a panel a teacher and a row a difference."""
    unit = "nats" if (data["on"] == "kl").all() else "percentage points"
    over = " or ".join(map(str, sorted(set(data.loc[data["low"].notna(), "comparisons"])))) or "no"
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. Bars: simultaneous 95 % intervals over {over} comparisons."
        " An arm that stands alone: its gap to the same student without transfer; (reversal): that minus the standard student's."
    )
    outcome, claimed = _text_column(data, "outcome"), _text_column(data, "expect") != ""
    found = data.assign(mark=outcome.mask((outcome == "") & claimed, "without outcome"), decided=outcome != "")
    place = ["label", "teacher"]  # of a difference that has an outcome in one claim and none in another
    found = found[found["decided"] | ~found.groupby(place)["decided"].transform("any")]
    if data["label"].nunique() <= FEW and data["teacher"].nunique() > 1:
        arms = found.assign(arm=found["label"].str.replace(" - ", "\n- ").str.replace(" + ", "\n+ "), verdict=found["mark"])
        return _forest(arms, "value", arms["teacher"], OUTCOMES, f"difference ({unit})", caption)
    return _by_teacher(found, OUTCOMES, f"difference ({unit})", caption)


@_styled
def draw_teachers(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """The same with a row a teacher and seed."""
    rows = data["teacher"] + ", seed " + data["seed"].astype(str)
    return _forest(data, "gap", rows, VERDICTS, GAP_LABEL, _told(data) + " Rows: teachers trained from different seeds.")


@_styled
def draw_control(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A row a teacher: matched-none - standard-none with its plain interval."""
    caption = f"Protocol {data['protocol'].iloc[0]}. Bars: plain 95 % intervals, each by itself; no verdict follows from them."
    label = "matched-none - standard-none, top-1 (percentage points)"
    return _forest(data, "control", data["teacher"], ESTIMATES, label, caption)


@_styled
def draw_sizes(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A panel an arm; in it beside each other the families, each with its sizes."""
    spots = list(dict.fromkeys(zip(data["family"], data["size"], strict=True)))
    members = list(dict.fromkeys(data["family"]))
    x = {spot: number + 0.6 * members.index(spot[0]) for number, spot in enumerate(spots)}
    found = data.assign(value=data["gap"], mark=_text_column(data, "verdict"))
    found["x"] = [x[spot] for spot in zip(data["family"], data["size"], strict=True)]
    ends, arms = (-0.8, max(x.values()) + 0.8), list(dict.fromkeys(data["arm"]))
    left, between, tall, head, span = 0.62, 0.16, 1.15, 0.27, ends[1] - ends[0]
    room = WIDTH - left - MARGIN + between
    columns = next(n for n in (4, 2, 1) if n == 1 or (n <= len(arms) and room / n - between > 0.45 * span))
    width = min(room / columns - between, 0.9 * span)
    unit, middles = width / span, found.groupby("family")["x"].apply(lambda own: (own.min() + own.max()) / 2)
    names = {name: _wrapped(name, LABEL, unit * (sum(spot[0] == name for spot in spots) + 0.5)) for name in members}
    lines = max(name.count("\n") for name in names.values())
    longest = max(_inches(size, NOTE) for size in data["size"])
    upright = longest > 0.92 * unit
    below = 0.16 + (longest if upright else NOTE * LINE) + _tall(list(names.values()), LABEL)
    rows = math.ceil(len(arms) / columns)
    limits = _limits(*(found[name].dropna() for name in ("gap", "low", "high")))
    told = f"{_told(data)}{_beyond(found, limits)} Lines join the sizes of a family."
    page = _Page(rows * (head + tall) + below, told, _handles(VERDICTS, found["mark"]))
    for number, arm in enumerate(arms):
        start = left + number % columns * (width + between)
        axes = page.axes(start, number // columns * (head + tall) + head, width, tall)
        own, last = found[found["arm"] == arm], number + columns >= len(arms)
        axes.set(xlim=ends, ylim=limits)
        axes.set_title(_named(arm).replace("\n", ", "), loc="left", pad=3, y=1)
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
    _estimates(axes, own["x"], own, VERDICTS, upright=True)


@_styled
def draw_native(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A panel a method: each teacher's two gaps, joined, and beside it what lies between them."""
    found = data.assign(row=data["teacher"].map(lambda text: _wrapped(text, LABEL, LONGEST)))
    labels, methods = list(dict.fromkeys(found["row"])), list(dict.fromkeys(data["method"]))
    left = max(_inches(line, LABEL) for text in labels for line in text.split("\n")) + 0.2
    beside = 1.0
    width = (WIDTH - left - MARGIN) / len(methods) - beside
    body = len(labels) * (_tall(labels, LABEL) + 0.05)
    both = pd.concat([data["standard"], data["matched"]])
    limits = _limits(both, both, both)
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. reversal: gap(matched) - gap(standard) in percentage points, ± half the plain 95 %"
        " interval. Teachers with native components."
    )
    page = _Page(0.25 + body + BELOW, caption, _handles(STUDENTS, STUDENTS))
    for column, method in enumerate(methods):
        axes = page.axes(left + column * (width + beside), 0.25, width, body)
        own = found[found["method"] == method]
        at = own["row"].map(labels.index)
        _row_axes(axes, labels, labels, named=column == 0, width=width)
        axes.axvline(0, color="0.3", linewidth=0.9)
        axes.hlines(at, own["standard"], own["matched"], color="0.55", linewidth=1.6, zorder=2)
        for student, mark in STUDENTS.items():
            axes.plot(own[student], at, **mark.style(6.5 if student == "standard" else 4), zorder=4)
        axes.set_xlim(*limits)
        axes.set_title(method, pad=4, y=1)
        beyond: dict[str, Any] = {
            "xycoords": "axes fraction",
            "textcoords": "offset points",
            "fontsize": NOTE,
            "annotation_clip": False,
        }
        axes.annotate("reversal", (1, 1), (6, 4), va="baseline", **beyond)
        for place, (_, row) in zip(at, own.iterrows(), strict=True):
            axes.annotate(_reversal(row), (1, 1 - (place + 0.5) / len(labels)), (6, 0), va="center", **beyond)
    page.text((left + WIDTH - MARGIN) / 2, page.top + 0.25 + body + 0.23, GAP_LABEL, ha="center", va="top", fontsize=LABEL)
    return page.figure


def _reversal(row: pd.Series) -> str:
    if pd.isna(row["reversal"]):
        return ""
    half = "" if pd.isna(row["reversal_plain95"]) else f" ± {row['reversal_plain95']:.1f}"
    return f"{row['reversal']:+z.1f}{half}".replace("-", "−")


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
    wrapped = [_wrapped(title, LABEL, width) for title in titles]
    head, rows = _tall(wrapped, LABEL) + 0.14, math.ceil(len(titles) / columns)
    page = _Page(rows * (head + tall) + BELOW, caption, _in_rows(lines), columns=_columns(lines))
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
        axes.text(x + width / 2, y + tall + 0.07, wrapped[number], ha="center", va="baseline", fontsize=LABEL, linespacing=1.2)
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
    widest = max(_inches(_named(name).replace("\n", ", "), 7.5) for name in lines) + 0.6
    rows = math.ceil(len(lines) / max(1, int(WIDTH / widest)))
    return math.ceil(len(lines) / rows)


def _in_rows(lines: Mapping[str, Mapping[str, Any]]) -> list[Line2D]:
    """A legend's entries so that they read by rows (matplotlib fills columns)."""
    columns = _columns(lines)
    handles = [Line2D([], [], label=_named(name).replace("\n", ", "), **style) for name, style in lines.items()]
    return [handle for column in range(columns) for handle in handles[column::columns]]


def _thousands(steps: pd.Series) -> tuple[pd.Series, str]:
    """Steps and what they are counted in."""
    return (steps / 1000, "thousands of training steps") if steps.max() >= 10_000 else (steps, "training steps")


def _even(low: float, high: float) -> tuple[Scale, list[float]]:
    """A linear scale that holds these two, and its ticks."""
    margin = 0.05 * (high - low or 1)
    start, end = low - margin * (low > 0), high + margin
    ticks = MaxNLocator(4).tick_values(start, end)
    return lambda values: (values - start) / (end - start), [tick for tick in ticks if start <= tick <= end]


@_styled
def draw_curves(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A panel a teacher, a line an arm: mean top-1 on val by step, and its range over seeds."""
    steps, unit = _thousands(data["step"])
    data = data.assign(step=steps)
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. Lines: mean over the runs of an arm; shades: from the lowest run to the highest."
    )
    across, up = _even(0, data["step"].max()), _even(data["low"].min(), data["high"].max())
    return _draw_lines(
        data, "step", (f"{unit} of the student", "top-1 on val (%)"), caption, (across[0], up[0]), (across[1], up[1])
    )


@_styled
def draw_budgets(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A panel a teacher, a line an arm: mean top-1 on val by budget, and its range over seeds."""
    steps, unit = _thousands(data["steps"])
    data = data.assign(steps=steps)
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. Lines: mean over the runs of an arm; bars: from the lowest run to the highest."
    )
    low, high = math.log(steps.min() / 1.15), math.log(steps.max() * 1.15)
    up = _even(data["low"].min(), data["high"].max())
    ticks = _apart(sorted(set(steps)), (high - low) / (5 if data["teacher"].nunique() > 2 else 10))
    labels = (f"{unit} of the student (logarithmic)", "top-1 on val (%)")
    return _draw_lines(
        data, "steps", labels, caption, (lambda values: (np.log(values) - low) / (high - low), up[0]), (ticks, up[1]), True
    )


def _draw_lines(
    data: pd.DataFrame, x: str, labels: tuple[str, str], caption: str, scales: Any, ticks: Any, bars: bool = False
) -> matplotlib.figure.Figure:
    """A panel a teacher, a line an arm; ranges are shades or bars. The lines of an arm are one line with breaks."""
    teachers, styles = list(dict.fromkeys(data["teacher"])), _line_styles(sorted(dict.fromkeys(data["arm"]), key=_arm_order))
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


def _apart(steps: Sequence[float], least: float) -> list[float]:
    """Those steps that differ from the last one kept by a factor of at least exp(least)."""
    kept: list[float] = []
    for step in steps:
        if not kept or math.log(step / kept[-1]) >= least:
            kept.append(step)
    return kept


@_styled
def draw_match(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """A panel an arm, a point a teacher: its gap by how far student and teacher attention lie apart."""
    arms, found = list(dict.fromkeys(data["arm"])), data.assign(mark=_text_column(data, "verdict"))
    left, between = 0.62, 0.2
    width = (WIDTH - left - MARGIN + between) / len(arms) - between
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. Each point is a teacher: mean over transferred blocks and runs. Verdicts:"
        f" simultaneous 95 % intervals over {data['comparisons'].iloc[0]} comparisons. Points without room for a name have none."
    )
    page = _Page(0.25 + 2.6 + BELOW, caption, _handles(VERDICTS, found["mark"]))
    low, high = found["attention_kl"].min(), found["attention_kl"].max()
    wide = low > 0 and high > 10 * low
    round_ones = [digit * 10.0**power for power in range(-4, 3) for digit in (1, 2, 5)]
    ticks = _apart([tick for tick in round_ones if low / 1.4 < tick < high * 1.4], math.log(2 * high / low) / 6) if wide else []
    limits = _limits(found["gap"], found["gap"], found["gap"])
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
        axes.set_title(_named(arm).replace("\n", ", "), pad=4, y=1)
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
        width, half = 72 * _inches(label, NOTE), 0.62 * NOTE
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


@_styled
def draw_dropped(data: pd.DataFrame) -> matplotlib.figure.Figure:
    """One panel, a line a teacher; its key stands at the right."""
    lines = list(data.groupby(["teacher", "arms"], sort=False))
    several = data.groupby("teacher", sort=False)["arms"].nunique().max() > 1
    names = [_wrapped(f"{teacher} ({arms})" if several else str(teacher), 7.5, 1.9) for (teacher, arms), _ in lines]
    tall = max(2.0, sum(_tall([name], 7.5) + 0.08 for name in names))
    caption = (
        f"Protocol {data['protocol'].iloc[0]}. Attention that the teacher pays to tokens which the student has not (registers, a"
        " distillation token), mean over heads, queries, images and runs; the rest is divided by what is left."
    )
    page = _Page(0.1 + tall + BELOW, caption, [])
    axes = page.axes(0.62, 0.1, WIDTH - 0.62 - 2.6, tall)
    handles = []
    for number, ((_, own), name) in enumerate(zip(lines, names, strict=True)):
        colour, marker = COLOURS[number % len(COLOURS)], "osD^vPX"[number % 7]
        dashes = ("-", (0, (4, 1.5)), (0, (1, 1)))[number // len(COLOURS) % 3]
        style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": dashes, "markersize": 4, "linewidth": 1.2}
        axes.plot(own["block"], own["dropped"], **style)
        handles.append(Line2D([], [], label=name, **style))
    axes.set_ylim(0, max(data["dropped"].max() * 1.1, 0.1))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.grid(color="0.9", linewidth=0.6)
    axes.set(xlabel="block", ylabel="attention mass dropped (%)")
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, borderaxespad=0)
    return page.figure
