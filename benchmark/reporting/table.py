"""A table and the kinds of values in its cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table as Printed
from rich.text import Text

from benchmark.analysis.leaderboard import MARKS, Leaderboard
from benchmark.analysis.statistics import FAILURE, INCONCLUSIVE, MIXED, SUCCESS, Estimate
from benchmark.reporting.text import as_text, printable
from benchmark.spec.arm import Arm

STYLES = {SUCCESS: "green", FAILURE: "red", INCONCLUSIVE: "yellow", MIXED: "magenta"}
MISSING = "–"


@dataclass(frozen=True)
class Verdict:
    """Success, failure, inconclusive or mixed (None: no verdict), with its gaps in points."""

    word: str | None
    gaps: tuple[float, ...] = ()

    @property
    def text(self) -> str:
        """For readers."""
        ends = " to ".join(dict.fromkeys(signed(gap) for gap in (min(self.gaps), max(self.gaps)))) if self.gaps else ""
        word = f"{MARKS[self.word]} {self.word}" if self.word else "no verdict" if self.gaps else MISSING
        return f"{word} ({ends})" if ends else word


@dataclass(frozen=True)
class Gap:
    """A gap with its simultaneous interval, which decides, its verdict, its number of runs, and the
    reversal that stands beside it (Entry's)."""

    estimate: Estimate
    n: int
    reversal: Estimate | None = None

    @property
    def text(self) -> str:
        """For readers; a single run is a number alone."""
        half, verdict = self.estimate.simultaneous, self.estimate.verdict
        if half is None or verdict is None:
            why = "n=1" if self.n == 1 else "baseline n=1" if self.estimate.plain is None else "plain 95 %"
            return f"{shown(self.estimate)} ({why})"
        beside = "" if self.reversal is None else f"; reversal {shown(self.reversal)}"
        return f"{signed(self.estimate.value)} ± {rounded(half):.1f} {MARKS[verdict]} {verdict}{beside}"


@dataclass(frozen=True)
class Difference:
    """A difference with its simultaneous interval; `digits` behind the point."""

    estimate: Estimate
    n: int
    digits: int = 1

    @property
    def text(self) -> str:
        """For readers; without an interval a number alone."""
        half, value = self.estimate.simultaneous, signed(self.estimate.value, self.digits)
        if half is None:
            return f"{value} ({'n=1' if self.n == 1 else 'no interval'})"
        return f"{value} ± {rounded(half):.{self.digits}f}"


@dataclass(frozen=True)
class Column:
    """A column: key in the rows, heading, digits behind the point, and alignment."""

    key: str
    title: str
    digits: int = 1
    left: bool = False


@dataclass(frozen=True)
class Table:
    """A table; `name`: part of file names, `printed`: on the terminal even if not asked for."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()
    printed: bool = False

    def texts(self) -> list[list[str]]:
        """The rows for readers."""
        return [[shown(row.get(column.key), column.digits) for column in self.columns] for row in self.rows]


def rounded(value: float) -> float:
    """To the four decimals of files and page first, so that ties such as .05 round alike."""
    return round(value, 4)


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign; zero is positive."""
    return f"{rounded(value):+z.{digits}f}"


def shown(value: Any, digits: int = 1) -> str:
    """A value for readers: an estimate with its plain half-width, a missing value as a dash."""
    match value:
        case None:
            return MISSING
        case Estimate(value=number, plain=half):
            return signed(number, digits) + ("" if half is None else f" ± {rounded(half):.{digits}f}")
        case Verdict() | Gap() | Difference():
            return value.text
        case float():
            return f"{rounded(value):,.{digits}f}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def printed(table: Table) -> Printed:
    """For a terminal."""
    out = Printed(title=Text(printable(table.title)), title_style="bold", header_style="bold", title_justify="left")
    for column in table.columns:
        out.add_column(Text(printable(column.title)), justify="left" if column.left else "right", overflow="fold")
    for row, texts in zip(table.rows, table.texts(), strict=True):
        styles = [STYLES.get(_verdict_of(row.get(column.key)) or "", "") for column in table.columns]
        out.add_row(*(Text(printable(text), style=style) for text, style in zip(texts, styles, strict=True)))
    return out


def _verdict_of(value: Any) -> str | None:
    return value.word if isinstance(value, Verdict) else value.estimate.verdict if isinstance(value, Gap) else None


class Marked(str):
    """A cell that is Markdown already; others' texts in it went through `as_text`."""

    __slots__ = ()


def cell_text(value: Any, text: str) -> str:
    """A cell in Markdown: `text` escaped, or the value itself where it is Markdown already."""
    return str(value) if isinstance(value, Marked) else as_text(text)


def transfer_arms(board: Leaderboard) -> list[str]:
    """The arms of a leaderboard that transfer, in its order."""
    return [arm for arm in board.arms if Arm.parse(arm).transfers]


def value_of(entry: Any, alone: bool = False) -> Any:
    """A cell of the leaderboard as a table's value; `alone`: its score has a column of its own."""
    if entry.note or entry.score is None:
        return entry.note or None
    if not entry.arm.transfers:
        return None if alone else entry.score if entry.n > 1 else f"{entry.score:.1f} (n=1)"
    return Gap(entry.gap, entry.n, entry.reversal) if entry.gap is not None else f"{entry.score:.1f}, no baseline"
