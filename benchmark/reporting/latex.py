"""Tables in LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from benchmark.analysis.statistics import Estimate
from benchmark.reporting.table import Difference, Gap, Table, Verdict
from benchmark.reporting.text import printable

PAGE_ROWS = 40  # of a LaTeX table on one page
ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"$\sim$", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "✓": r"$\checkmark$", "✗": r"$\times$", "○": r"$\circ$",
    "□": r"$\square$", "°": r"$^\circ$", "×": r"$\times$",
    "†": r"\dag{}", "≤": r"$\leq$", "≥": r"$\geq$", "<": r"$<$", ">": r"$>$", "|": r"$|$",
}  # fmt: skip


def _tex(text: str) -> str:
    escaped = "".join(ESCAPES.get(letter, letter) for letter in printable(text))
    return "".join(f"$-${rest}" if sign else rest for sign, rest in _minuses(escaped))


def _minuses(text: str) -> Iterable[tuple[bool, str]]:
    """The text in pieces, each with whether a minus sign precedes it."""
    pieces = text.split("-")
    yield False, pieces[0]
    for before, piece in pairwise(pieces):
        sign = piece[:1].isdigit() and (not before or before[-1] in " (")
        yield (True, piece) if sign else (False, f"-{piece}")


def latex(table: Table, label: str) -> str:
    """A table for booktabs, amssymb and graphicx; a long one in pieces that fit on pages."""
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


def spread(key: str, value: Any) -> dict[str, Any]:
    """A value as CSV columns: estimates with interval ends, verdicts with the range of gaps."""
    if isinstance(value, Verdict):
        return {key: value.word, f"{key}_lowest": min(value.gaps, default=None), f"{key}_highest": max(value.gaps, default=None)}
    if isinstance(value, Difference):
        return spread(key, value.estimate)
    if isinstance(value, Gap):
        return spread(key, value.estimate) | {f"{key}_n": value.n, f"{key}_verdict": value.estimate.verdict}
    if isinstance(value, Estimate):
        ends: dict[str, float | None] = {
            f"{key}_{name}95_{end}": None if half is None else value.value + sign * half
            for name, half in (("plain", value.plain), ("simultaneous", value.simultaneous))
            for sign, end in ((-1, "low"), (1, "high"))
        }
        return {key: value.value, **ends}
    return {key: value}
