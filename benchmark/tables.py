"""The tables of a leaderboard, each defined once: what is in it; how it looks in a terminal, in Markdown, LaTeX and CSV follows.

A table's rows hold values (text, numbers, estimates); its columns say how many digits are shown. CSV has every value whole.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, stdev
from typing import Any, Literal

import pandas as pd
from pydantic import model_validator
from rich.table import Table as Printed
from rich.text import Text

import families
from benchmark.board import MARKS, SAME, Leaderboard, Row, by_family, code_notes
from benchmark.claims import EXPECTED, SIGNS, Finding, Judged, Measured
from benchmark.costs import forward_flops
from benchmark.protocol import MATCHING, Arm, Claim, Record
from benchmark.stats import (
    CONTROL,
    FAILURE,
    GAP,
    INCONCLUSIVE,
    MIXED,
    REINIT,
    REVERSAL,
    SUCCESS,
    TOTAL,
    TUNED,
    Estimate,
    share_closed,
)
from benchmark.store import Result

STYLES = {SUCCESS: "green", FAILURE: "red", INCONCLUSIVE: "yellow", MIXED: "magenta"}
MISSING = "–"
PAGE_ROWS = 40  # of a LaTeX table on one page


@dataclass(frozen=True)
class Verdict:
    """Success, failure, inconclusive or mixed, with the gaps it is about (percentage points), lowest to highest."""

    word: str | None
    gaps: tuple[float, ...] = ()

    @property
    def text(self) -> str:
        """As readers see it; without a word there is none yet."""
        ends = " to ".join(dict.fromkeys(signed(gap) for gap in (min(self.gaps), max(self.gaps)))) if self.gaps else ""
        word = f"{MARKS[self.word]} {self.word}" if self.word else "no verdict" if self.gaps else MISSING
        return f"{word} ({ends})" if ends else word


@dataclass(frozen=True)
class Gap:
    """An estimate with its simultaneous interval, which decides, its verdict, and its number of runs."""

    estimate: Estimate
    n: int

    @property
    def text(self) -> str:
        """As readers see it; a single run is a number alone."""
        half, verdict = self.estimate.simultaneous, self.estimate.verdict
        if half is None or verdict is None:
            why = "n=1" if self.n == 1 else "baseline n=1" if self.estimate.plain is None else "plain 95 %"
            return f"{shown(self.estimate)} ({why})"
        return f"{signed(self.estimate.value)} ± {rounded(half):.1f} {MARKS[verdict]} {verdict}{self.estimate.weak}"


@dataclass(frozen=True)
class Difference:
    """A difference with its simultaneous interval; `digits` behind the point."""

    estimate: Estimate
    n: int
    digits: int = 1

    @property
    def text(self) -> str:
        """As readers see it; without an interval a number alone."""
        half, value = self.estimate.simultaneous, signed(self.estimate.value, self.digits)
        if half is None:
            return f"{value} ({'n=1' if self.n == 1 else 'no interval'})"
        return f"{value} ± {rounded(half):.{self.digits}f}{self.estimate.weak}"


@dataclass(frozen=True)
class Column:
    """A column: its key in the rows, its heading, and the digits behind the point of its numbers."""

    key: str
    title: str
    digits: int = 1
    left: bool = False


@dataclass(frozen=True)
class Table:
    """A table: `name` is part of its file's name; `notes` say what its numbers mean."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()

    def texts(self) -> list[list[str]]:
        """The rows as readers see them."""
        return [[shown(row.get(column.key), column.digits) for column in self.columns] for row in self.rows]


def rounded(value: float) -> float:
    """To the four decimals that files and page have, before fewer are shown: the same everywhere, also of ties such as .05."""
    return round(value, 4)


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign; zero is positive."""
    return f"{rounded(value):+z.{digits}f}"


def shown(value: Any, digits: int = 1) -> str:
    """A value as readers see it: an estimate with its plain 95 % interval's half-width, a missing one as a dash."""
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


# ---- the four forms


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


def markdown(table: Table) -> str:
    """A table in Markdown, its notes below."""
    head = "| " + " | ".join(as_text(column.title) for column in table.columns) + " |"
    rule = "|" + "".join("---|" if column.left else "---:|" for column in table.columns)
    rows = [
        "| " + " | ".join(_cell(row.get(column.key), text) for column, text in zip(table.columns, texts, strict=True)) + " |"
        for row, texts in zip(table.rows, table.texts(), strict=True)
    ]
    return "\n".join([head, rule, *rows, "", *(f"{as_line(note)}\n" for note in table.notes)])


class Marked(str):
    """A cell that is Markdown already, whatever it holds of others' texts by `as_text`."""

    __slots__ = ()


def _cell(value: Any, text: str) -> str:
    return str(value) if isinstance(value, Marked) else as_text(text)


def printable(text: str) -> str:
    """Text on one line without what a terminal acts on or hides: spaces for white space, escapes for other such characters."""
    return "".join(c if c.isprintable() else " " if c.isspace() else c.encode("unicode_escape").decode() for c in text)


# What Markdown acts on; not an underscore within a word, nor the mark of what is inconclusive.
_ACTIVE = re.compile(r"[\\`*\[\]|$#]|~(?=\S)|(?<=\S)~|(?<![^\W_])_|_(?![^\W_])")
_BEGINS = re.compile(r"^(\d*)([-+=*~_.)>])")  # a list, a rule or a quotation, at the start of a line


def as_text(text: str) -> str:
    """Others' text, on one line that Markdown shows as it is."""
    escaped = _ACTIVE.sub(r"\\\g<0>", printable(text))
    return re.sub(r"<(?! )", "&lt;", escaped.replace("&", "&amp;"))


def as_line(text: str) -> str:
    """The same where a line begins with it."""
    return _BEGINS.sub(r"\1\\\2", as_text(text.strip()))


ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"$\sim$", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "✓": r"$\checkmark$", "✗": r"$\times$", "○": r"$\circ$",
    "°": r"$^\circ$", "×": r"$\times$", "†": r"\dag{}", "≤": r"$\leq$", "≥": r"$\geq$", "<": r"$<$", ">": r"$>$", "|": r"$|$",
}  # fmt: skip


def _tex(text: str) -> str:
    escaped = "".join(ESCAPES.get(letter, letter) for letter in printable(text))
    return "".join(f"$-${rest}" if sign else rest for sign, rest in _minuses(escaped))


def _minuses(text: str) -> Iterable[tuple[bool, str]]:
    """The text in pieces, each with whether a minus sign stands before it."""
    pieces = text.split("-")
    yield False, pieces[0]
    for before, piece in pairwise(pieces):
        sign = piece[:1].isdigit() and (not before or before[-1] in " (")
        yield (True, piece) if sign else (False, f"-{piece}")


def latex(table: Table, label: str) -> str:
    """A table in LaTeX, for the packages booktabs, amssymb and graphicx; a long one in pieces that fit on pages."""
    texts = table.texts()
    pieces = [texts[start : start + PAGE_ROWS] for start in range(0, len(texts), PAGE_ROWS)]
    return "\n".join(_latex(table, f"{label}-{i}" if i else label, piece, bool(i)) for i, piece in enumerate(pieces))


def _latex(table: Table, label: str, texts: Sequence[Sequence[str]], continued: bool) -> str:
    align = "".join("l" if column.left else "r" for column in table.columns)
    rows = [" & ".join(map(_tex, row)) + r" \\" for row in texts]
    notes = [r"\par\smallskip\footnotesize " + _tex(" ".join(table.notes))] if table.notes and not continued else []
    return "\n".join([
        r"\begin{table}", r"\centering", rf"\caption{{{_tex(table.title)}{' (continued)' if continued else ''}}}",
        rf"\label{{tab:{label}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%", rf"\begin{{tabular}}{{{align}}}", r"\toprule",
        " & ".join(_tex(column.title) for column in table.columns) + r" \\", r"\midrule", *rows, r"\bottomrule",
        r"\end{tabular}}", *notes, r"\end{table}", "",
    ])  # fmt: skip


def frame(table: Table) -> pd.DataFrame:
    """The values whole: an estimate becomes its value and the ends of its intervals, a verdict its word and gaps."""
    return pd.DataFrame([{k: v for c in table.columns for k, v in _spread(c.key, row.get(c.key)).items()} for row in table.rows])


def _spread(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Verdict):
        return {key: value.word, f"{key}_lowest": min(value.gaps, default=None), f"{key}_highest": max(value.gaps, default=None)}
    if isinstance(value, Difference):
        half = value.estimate.unpooled
        own = (None, None) if half is None else (value.estimate.value - half, value.estimate.value + half)
        return _spread(key, value.estimate) | dict(zip((f"{key}_own95_low", f"{key}_own95_high"), own, strict=True))
    if isinstance(value, Gap):
        return _spread(key, value.estimate) | {f"{key}_n": value.n, f"{key}_verdict": value.estimate.verdict}
    if isinstance(value, Estimate):
        ends: dict[str, float | None] = {
            f"{key}_{name}95_{end}": None if half is None else value.value + sign * half
            for name, half in (("plain", value.plain), ("simultaneous", value.simultaneous))
            for sign, end in ((-1, "low"), (1, "high"))
        }
        return {key: value.value, **ends}
    return {key: value}


def to_csv(table: pd.DataFrame) -> str:
    """CSV text with numbers to four decimals."""
    buffer = io.StringIO()
    table.to_csv(buffer, index=False, float_format="%.4f", lineterminator="\n")
    return buffer.getvalue()


# ---- what is in them


@functools.lru_cache(maxsize=64)
def tables(board: Leaderboard) -> tuple[Table, ...]:
    """Those that a board has something for, the leaderboard first; made once for the terminal, the files and the README."""
    made = (
        families_table, arms_table, teachers_table, chosen_table, match_table, native_table, components_table, sizes_table,
        closed_table, reinit_table, seeds_table, shifted_table, cost_table,
    )  # fmt: skip
    return tuple(table for make in made for table in [make(board)] if table.rows)


def _transfers(board: Leaderboard) -> list[str]:
    return [arm for arm in board.arms if Arm.parse(arm).transfers]


def families_table(board: Leaderboard) -> Table:
    """Failures and successes by family, those whose standard students gain most first; none for arms with variants."""
    transfers = _transfers(board)
    rows = [] if board.long else [_family_row(board, *each, transfers) for each in by_family(board.rows)]
    ranked = sorted(rows, key=lambda row: (-_lead(row, transfers), row["family"]))
    columns = [Column("family", "family", left=True), Column("teachers", "teachers")]
    return Table(
        "leaderboard",
        "Failures and successes by family",
        (*columns, *(Column(arm, arm.replace("-", " ", 1)) for arm in transfers)),
        tuple(ranked),
        (
            "Verdict of a family's teachers by each method, and their gaps in percentage points, lowest to highest: success or"
            " failure if all have it, mixed if one has each, else inconclusive. Families in one row share every run, and each"
            " has as many teachers as stand there.",
        ),
    )


def _family_row(board: Leaderboard, names: Sequence[str], own: Sequence[Row], transfers: Sequence[str]) -> dict[str, Any]:
    verdicts = next(verdicts for family, _, verdicts in board.verdicts if family == names[0])
    row: dict[str, Any] = {"family": ", ".join(names), "teachers": len(own)}
    for arm in transfers:
        entries = [each.entries[board.arms.index(arm)] for each in own]
        gaps = tuple(entry.gap.value for entry in entries if entry.gap is not None)
        row[arm] = SAME if verdicts[arm] == SAME else Verdict(verdicts[arm], gaps)
    return row


def _lead(row: Mapping[str, Any], transfers: Sequence[str]) -> float:
    gaps = [gap for arm in transfers if isinstance(row[arm], Verdict) and arm.startswith("standard") for gap in row[arm].gaps]
    return mean(gaps) if gaps else float("-inf")


def teachers_table(board: Leaderboard) -> Table:
    """By teacher and arm: top-1 of what does not transfer, gap and verdict of what does; arms with variants have a row each."""
    if board.long:
        columns = [Column("teacher", "teacher", left=True), Column("arm", "arm", left=True), Column("n", "n")]
        columns += [Column("top1", "top-1"), Column("gap", "gap")]
        rows = [
            {"teacher": row.label, "arm": entry.arm.name, "n": entry.n, "top1": entry.top1, "gap": _value(entry, True)}
            for row in board.rows
            for entry in row.entries
            if entry.n  # an arm with variants is not every teacher's
        ]
    else:
        columns = [Column("teacher", "teacher", left=True), *(Column(arm, arm.replace("-", " ", 1)) for arm in board.arms)]
        rows = [
            {"teacher": row.label} | {arm: _value(entry) for arm, entry in zip(board.arms, row.entries, strict=True)}
            for row in board.rows
        ]
    return Table("teachers", "By teacher and arm", tuple(columns), tuple(rows), (board.footnote,))


def arms_table(board: Leaderboard) -> Table:
    """Arms with variants over their teachers: how many have which verdict, and from where to where top-1 and gaps go."""
    rows = []
    for place, arm in enumerate(board.arms if board.long else ()):
        own = [row.entries[place] for row in board.rows if row.entries[place].n and not row.entries[place].note]
        gaps = [entry.gap for entry in own if entry.gap is not None]
        if own:
            counts = {word: sum(gap.verdict == word for gap in gaps) or None for word in (SUCCESS, INCONCLUSIVE, FAILURE)}
            row = {"arm": arm, "teachers": len(own), "top1": _ends([f"{rounded(e.top1):.1f}" for e in _by_top1(own)])}
            rows.append(row | counts | {"gaps": _ends([signed(v) for v in sorted(gap.value for gap in gaps)])})
    columns = [Column("arm", "arm", left=True), Column("teachers", "teachers"), Column("top1", "top-1")]
    columns += [Column(word, f"{MARKS[word]} {word}") for word in (SUCCESS, INCONCLUSIVE, FAILURE)] + [Column("gaps", "gaps")]
    note = (
        "Over teachers that do not share all runs: how many have which verdict, top-1 in % and gaps in percentage points, lowest"
        " to highest. Each teacher's numbers with their intervals stand in the reports."
    )
    return Table("arms", "By arm, over teachers", tuple(columns), tuple(rows), (note,))


def _by_top1(entries: Sequence[Any]) -> list[Any]:
    return sorted(entries, key=lambda entry: float(entry.top1))


def _ends(texts: Sequence[str]) -> str | None:
    return " to ".join(dict.fromkeys((texts[0], texts[-1]))) if texts else None


def _value(entry: Any, alone: bool = False) -> Any:
    """A board's entry as a table's value; `alone`: beside a column of its top-1."""
    if entry.note or entry.top1 is None:
        return entry.note or None
    if not entry.arm.transfers:
        return None if alone else entry.top1 if entry.n > 1 else f"{entry.top1:.1f} (n=1)"
    return Gap(entry.gap, entry.n) if entry.gap is not None else f"top-1 {entry.top1:.1f}, no baseline"


def chosen_table(board: Leaderboard) -> Table:
    """Of arms that differ in what a study sweeps alone, the one that is best on val, against the baseline that is best on val."""
    swept = board.choose
    val = {(r.family, r.size, r.arm): float(r.val) for r in board.table.itertuples()} if swept else {}
    rows = []
    for row in board.rows if swept else ():
        measured = [entry for entry in row.entries if entry.n and not entry.note]
        groups: dict[Arm, list[Any]] = {}
        for entry in measured:
            groups.setdefault(entry.arm.default(str(swept)), []).append(entry)
        best = {arm: max(own, key=lambda entry: val[row.families[0], row.size, entry.arm.name]) for arm, own in groups.items()}
        for arm, entry in best.items():
            base = best.get(arm.baseline)
            gap = board.difference(row, entry.arm.name, base.arm.name) if base is not None and arm.transfers else None
            values = {"teacher": row.label, "arm": arm.name, "of": len(groups[arm])}
            values["value"] = f"x{getattr(entry.arm, str(swept)):g}"
            values |= {"val": val[row.families[0], row.size, entry.arm.name], "top1": entry.top1, "gap": gap}
            rows.append(values)
    columns = [Column("teacher", "teacher", left=True), Column("arm", "arm", left=True), Column("of", "tried")]
    columns += [
        Column("value", f"best {swept}"),
        Column("val", "val top-1"),
        Column("top1", "test top-1"),
        Column("gap", "gap"),
    ]
    note = (
        f"By arm the {swept} that is best on val, as a factor on the usual one, and what that has on the test set. gap: to the"
        " same student without transfer, at its own best where that was swept too, in percentage points with its plain 95 %"
        " interval."
    )
    return Table("chosen", f"The best {swept} of each arm, chosen on val", tuple(columns), tuple(rows), (note,))


def match_table(board: Leaderboard) -> Table:
    """How far students' maps are from their teacher's by block, where a study compares them with references."""
    arms = [arm for arm in board.arms if any(Arm.parse(each).match != "none" for each in board.arms)]
    found: dict[tuple[str, str, str, int | None], list[float]] = {}
    for result in board.results if arms else ():
        cell, divergence = result.cell, result.metrics.attention_kl
        for block, value in zip(result.run.transfer.blocks, divergence or (), strict=False):
            found.setdefault((cell.family, cell.size, cell.arm, block), []).append(value)
        if divergence:
            found.setdefault((cell.family, cell.size, cell.arm, None), []).append(mean(divergence))
    shown_arms = [arm for arm in arms if any(place[2] == arm for place in found)]
    blocks = sorted({place[3] for place in found if place[3] is not None})
    rows = []
    for row in board.rows if found else ():
        same = {entry.arm.name for entry in row.entries if entry.note}
        for at in (*blocks, None):
            values = {arm: found.get((row.families[0], row.size, arm, at)) for arm in shown_arms if arm not in same}
            means = {arm: mean(own) for arm, own in values.items() if own}
            if means:
                rows.append({"teacher": row.label, "block": "mean" if at is None else str(at), **means})
    columns = [Column("teacher", "teacher", left=True), Column("block", "block", left=True)]
    columns += [Column(arm, arm.replace("-", " ", 1), 3) for arm in shown_arms]
    note = (
        "KL of the student's map from the teacher's in nats on the test set, mean over images, heads, queries and runs: of"
        " distilled students, of finished ones that were not shown the teacher (match=end), and as they start (match=start)."
    )
    return Table("match", "How far maps are from the teacher's", tuple(columns), tuple(rows), (note,))


def reinit_table(board: Leaderboard) -> Table:
    """What it costs a teacher that a part of it starts anew before it is fine-tuned."""
    rows = []
    for row in board.rows:
        for entry in (each for each in row.entries if each.arm.reinit != "none" and each.n):
            found = {kind: board.estimate(row, entry.arm.name, kind) for kind in (TUNED, REINIT)}
            rows.append({"teacher": row.label, "part": entry.arm.reinit, "n": entry.n, "top1": entry.top1, **found})
    columns = [Column("teacher", "teacher", left=True), Column("part", "re-initialised", left=True), Column("n", "n")]
    columns += [Column("top1", "top-1"), Column(TUNED, "- from scratch"), Column(REINIT, "- whole teacher fine-tuned")]
    note = "Fine-tuned after this part of the teacher started anew; differences in percentage points with plain 95 % intervals."
    return Table("reinit", "A part of the teacher re-initialised", tuple(columns), tuple(rows), (note,))


NATIVE = (
    ("control", "control", "matched-none"),
    ("reversal_copy", "reversal copy", "matched-copy"),
    ("reversal_distill", "reversal distill", "matched-distill"),
    ("total_copy", "total copy", "matched-copy"),
    ("total_distill", "total distill", "matched-distill"),
)
NATIVE_MEANS = (
    "What native components do, in percentage points with plain 95 % intervals. control: matched-none - standard-none;"
    " reversal: gap(matched) - gap(standard); total: matched arm - standard-none. † inert under Copy: Copy bypasses it in"
    " copied blocks, so it is no part of what Copy shows. A family without native components has no matched student of its own."
)


def native_table(board: Leaderboard) -> Table:
    """What native components do, by teacher; where a study compares matched students."""
    rows: list[dict[str, Any]] = []
    matched = {"matched-none", "matched-copy", "matched-distill"} & set(board.arms)
    for row in board.rows if matched and not board.long else ():
        spec = families.spec(row.families[0])
        names = ", ".join(component.name + "†" * component.inert_under_copy for component in spec.native)
        found = {key: board.estimate(row, arm, key.split("_")[0]) for key, _, arm in NATIVE}
        inert = bool(spec.native) and all(component.inert_under_copy for component in spec.native)
        if not spec.native:
            rows.append({"teacher": row.label, "components": "none"} | {key: SAME for key, *_ in NATIVE})
        elif any(found.values()):
            known = found | ({"reversal_copy": "inert under Copy"} if inert else {})
            rows.append({"teacher": row.label, "components": names} | known)
    columns = [Column("teacher", "teacher", left=True), Column("components", "native components", left=True)]
    columns += [Column(key, title) for key, title, _ in NATIVE]
    return Table("native", "What native components do", tuple(columns), tuple(rows), (NATIVE_MEANS,))


def components_table(board: Leaderboard) -> Table:
    """What each choice of native components does, where a study has several."""
    rows = []
    varied = any(getattr(Arm.parse(arm), name) != Arm.model_fields[name].default for arm in board.arms for name in MATCHING)
    for row in board.rows if varied else ():
        for entry in (each for each in row.entries if each.arm.student == "matched" and each.n and not each.note):
            found = {kind: board.estimate(row, entry.arm.name, kind) for kind in (CONTROL, REVERSAL, TOTAL)}
            if any(found.values()):
                rows.append({"teacher": row.label, "arm": entry.arm.name, "n": entry.n, **found})
    columns = [Column("teacher", "teacher", left=True), Column("arm", "arm", left=True), Column("n", "n")]
    columns += [Column(kind, kind) for kind in (CONTROL, REVERSAL, TOTAL)]
    note = (
        "In percentage points with plain 95 % intervals. control: without transfer, - standard-none; reversal: gap - the standard"
        " student's gap by the same method; total: - standard-none. Where Copy bypasses all components there is no reversal."
    )
    return Table("components", "What each choice of native components does", tuple(columns), tuple(rows), (note,))


def sizes_table(board: Leaderboard) -> Table:
    """The same family across its sizes: by method the verdicts' agreement, and the gap's change from first to last size."""
    columns = [Column("family", "family", left=True), Column("sizes", "sizes", left=True)]
    rows = []
    for arm in () if board.long else _transfers(board):
        columns += [Column(arm, arm.replace("-", " ", 1), left=True), Column(f"{arm}_change", "change")]
    for names, sizes, found in () if board.long else board.sizes:
        row: dict[str, Any] = {"family": ", ".join(names), "sizes": ", ".join(sizes)}
        for arm, (word, change) in found.items():
            row |= {arm: word, f"{arm}_change": change}
        rows.append(row)
    note = (
        "consistent: all sizes have the same success or failure; contradicting: both occur; undecided: one is inconclusive."
        " change: gap at the last size - gap at the first, in percentage points with its plain 95 % interval."
    )
    return Table("sizes", "The same family across sizes", tuple(columns), tuple(rows), (note,))


def closed_table(board: Leaderboard) -> Table:
    """The share of the gap from scratch to fine-tuning that transfers close, where the teacher itself was fine-tuned."""
    rows = []
    for row in board.rows if any(Arm.parse(arm).method == "finetune" for arm in board.arms) else ():
        for arm in (each for each in _transfers(board) if Arm.parse(each).ensemble == "none"):
            kept = {name: getattr(Arm.parse(arm), name) for name in ("budget", "lr", "data", "teacher", "recipe")}
            tuned = board.estimate(row, Arm(student="teacher", method="finetune", **kept).name, TUNED)
            gap = board.estimate(row, arm, GAP)
            if gap is not None and tuned is not None:
                rows.append({"teacher": row.label, "arm": arm, "gap": gap, "tuned": tuned, "closed": share_closed(gap, tuned)})
    columns = [Column("teacher", "teacher", left=True), Column("arm", "arm", left=True), Column("gap", "gap")]
    columns += [Column("tuned", "fine-tuned - scratch"), Column("closed", "share closed, %")]
    note = "In percentage points with plain 95 % intervals; share closed: gap / (fine-tuned - scratch)."
    return Table("closed", "Share of the gap to fine-tuning closed", tuple(columns), tuple(rows), (note,))


def seeds_table(board: Leaderboard) -> Table:
    """Teachers of other seeds: the gap by teacher, and how far teachers lie apart."""
    parsed = [Arm.parse(arm) for arm in _transfers(board)]
    seeds = sorted({arm.teacher for arm in parsed})
    rows = []
    for row in board.rows if len(seeds) > 1 else ():
        for arm in (each for each in parsed if each.teacher == 0):
            gaps = {s: board.estimate(row, arm.model_copy(update={"teacher": s}).name, GAP) for s in seeds}
            values = [gap.value for gap in gaps.values() if gap is not None]
            if len(values) < 2:
                continue
            spread = {"sd": stdev(values), "range": max(values) - min(values)}
            rows.append({"teacher": row.label, "arm": arm.name, **{f"s{s}": gap for s, gap in gaps.items()}, **spread})
    columns = [Column("teacher", "teacher", left=True), Column("arm", "arm", left=True)]
    columns += [Column(f"s{seed}", f"teacher seed {seed}") for seed in seeds]
    columns += [Column("sd", "SD over teachers"), Column("range", "range")]
    note = (
        "Gap in percentage points with its plain 95 % interval, by the seed that trained the teacher. A verdict elsewhere is"
        " conditional on the one teacher of seed 0: its intervals hold what students' seeds vary, and not this. Each arm's"
        " variance is its own, so that intervals of one row differ by that too."
    )
    return Table("teacher-seeds", "Other teachers of one family", tuple(columns), tuple(rows), (note,))


def shifted_table(board: Leaderboard) -> Table:
    """Top-1 on the shifted test sets, and there the difference to the student without transfer."""
    names = [column.removeprefix("shift:") for column in board.table.columns if column.startswith("shift:")]
    columns = [Column("teacher", "teacher", left=True), Column("arm", "arm", left=True), Column("test", "test")]
    columns += [each for name in names for each in (Column(name, name.replace("_", " ")), Column(f"{name}_gap", "gap"))]
    levels = board.table.set_index(["family", "size", "arm"]) if len(board.table) else board.table
    rows = []
    for row in board.rows if names and not board.long else ():
        for entry in row.entries:
            place = (row.families[0], row.size, entry.arm.name)
            if entry.top1 is None or entry.note:
                continue
            values: dict[str, Any] = {"teacher": row.label, "arm": entry.arm.name, "test": entry.top1}
            for name in names:
                gap = board.shifted.get((*place, name))
                values |= {name: float(levels.loc[place, f"shift:{name}"]), f"{name}_gap": gap}
            rows.append(values)
    note = "Top-1 in % on each set; gap to the same student without transfer on that set, with its plain 95 % interval."
    return Table("shifted", "Shifted test sets", tuple(columns), tuple(rows), (note,))


def cost_table(board: Leaderboard) -> Table:
    """What inference costs beside accuracy: Copy runs its teacher, as far as it is read, at test time too."""
    known: dict[tuple[str, str, str], Result] = {}
    for result in board.results:
        known.setdefault((result.cell.family, result.cell.size, result.cell.arm), result)
    rows = []
    for row in () if board.long else board.rows:
        values: dict[str, Any] = {"teacher": row.label}
        for arm in board.arms:
            if arm not in ("standard-none", "standard-copy", "standard-distill"):
                continue
            first = known.get((row.families[0], row.size, arm))
            if first is not None:
                values |= {f"{arm}_top1": row.entries[board.arms.index(arm)].top1, f"{arm}_mmacs": _inference(first) / 1e6}
        if {"standard-none_mmacs", "standard-copy_mmacs"} <= set(values):
            rows.append(values | {"ratio": values["standard-copy_mmacs"] / values["standard-none_mmacs"]})
    columns = [Column("teacher", "teacher", left=True)]
    for arm in ("none", "copy", "distill"):
        columns += [Column(f"standard-{arm}_top1", f"{arm}: top-1"), Column(f"standard-{arm}_mmacs", "MMACs", 1)]
    note = (
        "Million multiply-accumulate operations an image, by arithmetic of a plain ViT (not measured): Copy's student runs with"
        " its teacher, which has its registers, up to the last block that is read; the student's own queries and keys are counted"
        " though unused."
    )
    columns.append(Column("ratio", "copy / none", 2))
    return Table("cost", "Cost at inference", tuple(columns), tuple(rows), (note,))


def _inference(result: Result) -> float:
    """Multiply-accumulate operations of one image."""
    run = result.run.run
    alone = forward_flops(run.student.geometry)
    if run.transfer.method != "copy":
        return alone / 2
    native = families.spec(result.cell.family).components(result.cell.size).values()
    registers = sum(int(component.args.get("reg_tokens", 0)) for component in native)
    return (alone + forward_flops(run.student.geometry, max(run.transfer.blocks) + 1, registers)) / 2


def provenance_table(results: Sequence[Result]) -> Table:
    """Which code made the results, on what, and when."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        made = result.provenance
        versions = ", ".join(f"{name} {version}" for name, version in sorted(made.versions.items()))
        commit = (made.commit or "no commit") + (" with changes" if made.dirty else "")
        groups.setdefault((result.cell.protocol, commit, made.code[:12], result.cost.device, made.host, versions), []).append(
            result
        )
    columns = ("protocol", "commit", "code", "device", "host", "versions")
    rows = [
        dict(zip(columns, key, strict=True))
        | {
            "results": len(own),
            "runs": len({result.key for result in own}),
            "first": min(result.provenance.started for result in own)[:10],
            "last": max(result.provenance.finished for result in own)[:10],
        }
        for key, own in groups.items()
    ]
    shown_columns = [Column("protocol", "protocol", left=True), Column("results", "results"), Column("runs", "runs")]
    shown_columns += [Column(key, key, left=True) for key in (*columns[1:], "first", "last")]
    return Table(
        "provenance", "What made these results", tuple(shown_columns), tuple(rows),
        ("code: digest of the files of benchmark/ and families/. A run that several families share is a result of each.",),
    )  # fmt: skip


class Source(Record):
    """Where published figures come from."""

    cite: str


class Published(Record):
    """A figure as published: of what, and where it is told the protocol, teacher and arm that measure the same thing here.
    `rows` are the numbers of the experiments that it is of, as in the claims of studies, and `families` those that it may be
    of, where one is not told."""

    source: str
    what: str
    metric: Literal["top1", "gap", "closed", "count", "verdict", "sd"]
    value: float | int | str
    rows: tuple[int, ...] = ()
    families: tuple[str, ...] = ()
    protocol: str | None = None
    family: str | None = None
    size: str | None = None
    arm: str | None = None


class PublishedFigures(Record):
    """The content of results/published.yaml."""

    sources: dict[str, Source] = {}
    figures: tuple[Published, ...] = ()

    @model_validator(mode="after")
    def _cited(self) -> PublishedFigures:
        for figure in self.figures:
            if figure.source not in self.sources:
                raise ValueError(f"figures: {figure.what!r} has source {figure.source!r}, which sources has not")
        return self


def _published_value(figure: Published) -> str:
    return f"{figure.value:+}" if figure.metric == "gap" and not isinstance(figure.value, str) else str(figure.value)


def published_table(published: PublishedFigures, boards: Sequence[Leaderboard]) -> Table:
    """The papers' figures with their source, and beside each what was measured here of the same thing."""
    rows = [
        {
            "source": published.sources[figure.source].cite,
            "what": figure.what,
            "value": _published_value(figure),
            "metric": METRICS[figure.metric],
            "measured": next(filter(None, (_measured(figure, board) for board in boards)), "not measured"),
        }
        for figure in published.figures
    ]
    columns = [Column(key, key, left=True) for key in ("source", "what", "metric")]
    columns += [Column("value", "published"), Column("measured", "measured here")]
    return Table("published", "Published figures, beside what was measured here", tuple(columns), tuple(rows))


METRICS = {
    "top1": "top-1, %", "gap": "gap, percentage points", "closed": "share of the gap closed, %", "count": "families",
    "verdict": "verdict", "sd": "standard deviation, percentage points",
}  # fmt: skip


def _measured(figure: Published, board: Leaderboard) -> str | None:
    """What a board has of the same thing as a published figure; None where it has nothing, or the figure does not tell of
    what it is."""
    if figure.protocol != board.protocol:
        return None
    if figure.metric == "verdict":
        found = next((found for family, _, found in board.verdicts if family == figure.family), {})
        told = {arm: found.get(arm) for arm in ("standard-copy", "standard-distill")}
        return "; ".join(f"{arm.split('-')[1]}: {word}" for arm, word in told.items() if word) or None
    row = next((row for row in board.rows if figure.family in row.families and figure.size == row.size), None)
    if row is None or figure.arm not in board.arms:
        return None
    entry = row.entries[board.arms.index(figure.arm)]
    if figure.metric == "top1":
        return None if entry.top1 is None else f"{rounded(entry.top1):.1f} (n={entry.n})"
    if figure.metric == "gap":
        return None if entry.gap is None else Gap(entry.gap, entry.n).text
    closed = share_closed(entry.gap, board.estimate(row, "finetune", TUNED)) if figure.metric == "closed" else None
    return None if closed is None else f"{closed:.1f}"


# ---- what is claimed

CLAIMS = "claims"


def claims_table(finding: Finding) -> Table:
    """A study's claims: each difference that was measured, what was claimed of it, and whether that is so."""
    rows = [
        {
            "claim": number,
            "rows": ", ".join(map(str, judged.claim.rows)),
            "difference": one.difference if dict(one.arms) == one.terms else f"{one.difference} (at its best: {_best(one)})",
            "teacher": one.label,
            "on": one.on,
            "n": one.n,
            "m": one.comparisons,
            "value": Difference(one.estimate, one.n, 3 if one.on == "kl" else 1),
            "expect": EXPECTED[one.expect] if one.expect else None,
            "outcome": f"{SIGNS[one.outcome]} {one.outcome}" if one.outcome else None,
        }
        for number, judged in enumerate(finding.judged, 1)
        for one in judged.measured
    ]
    columns = [Column("claim", "claim"), Column("difference", "difference", left=True), Column("teacher", "teacher", left=True)]
    columns += [Column("on", "on", left=True)] if any(row["on"] != "test" for row in rows) else []
    columns += [Column("n", "n"), Column("m", "m"), Column("value", "measured")]
    if any(row["expect"] for row in rows):
        columns += [Column("expect", "claimed", left=True), Column("outcome", "outcome", left=True)]
    notes = (finding.footnote, *code_notes(finding.made))
    return Table(CLAIMS, "What was measured of the claims", tuple(columns), tuple(rows), notes)


def _best(measured: Measured) -> str:
    return ", ".join(arm for arm, _ in measured.arms)


def summary_of(judged: Judged) -> list[str]:
    """What was measured of a claim: from where to where its differences go, each by itself where they are few."""
    few = len({one.short for one in judged.measured}) <= FEW_DIFFERENCES
    groups: dict[tuple[str, bool], list[float]] = {}
    for one in judged.measured:
        groups.setdefault((one.short if few else "", one.on == "kl"), []).append(one.estimate.value)
    told = []
    for (name, nats), values in groups.items():
        ends = " to ".join(dict.fromkeys(signed(value, 3 if nats else 1) for value in (min(values), max(values))))
        told.append(f"{name or f'{len(values)} differences'}: {ends} {'nats' if nats else 'points'}")
    return told


FEW_DIFFERENCES = 6


def published_of(published: PublishedFigures, claim: Claim) -> list[str]:
    """The papers' figures of a claim's experiments, each with its source: of those who claim it, and of no family that it does
    not speak of."""
    spoken = {family for test in claim.tests for family in test.families or ()}
    names = claim.by.split(" and ") if claim.by else []
    return [
        f"{figure.what}: {_published_value(figure)} ({published.sources[figure.source].cite})"
        for figure in published.figures
        if set(figure.rows) & set(claim.rows)
        and any(name in published.sources[figure.source].cite for name in names)
        and (not spoken or not _families_of(figure) or spoken & _families_of(figure))
    ]


def _families_of(figure: Published) -> set[str]:
    return {*figure.families, *([figure.family] if figure.family else [])}
