"""The leaderboard block of a README, and the page of claims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from benchmark.analysis.claims import Finding
from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.book import BOOK, PAGE, linked, listed
from benchmark.reporting.figure import Figure
from benchmark.reporting.gather import Report
from benchmark.reporting.markdown import markdown
from benchmark.reporting.published import published_of
from benchmark.reporting.table import Column, Marked, Table
from benchmark.reporting.tables import tables
from benchmark.reporting.tables.claims import summary_of
from benchmark.reporting.text import as_text
from families.spec import UserError

SHOWN_IN_README = {"main": ("leaderboard", "teachers"), "nulls": ("arms",), "teachers": ("teacher-seeds",)}


BEGIN, END = "<!-- leaderboard -->\n", "<!-- /leaderboard -->"


def readme_block(report: Report, folder: str) -> str:
    """The leaderboard as a README shows it: of study main, under it whether failure could be seen, and how far other teachers
    lie apart. `folder` is the path from the README to the reports."""
    parts = [section for board, drawn in report.figures for section in _readme_section(board, drawn, folder)]
    book, seeds = linked(f"{folder}/{BOOK}"), linked(f"{folder}/{PAGE}")
    return "\n".join([*parts, f"All tables and figures: {book}. With filters, and every seed: {seeds}.", ""])


def _readme_section(board: Leaderboard, drawn: Sequence[Figure], folder: str) -> list[str]:
    names = SHOWN_IN_README.get(board.study, ())
    found = {table.name: table for table in tables(board)}
    if not set(names) & set(found):
        return []
    lines = [f"### {as_text(board.title)}", "", f"Protocol {as_text(board.protocol)}, {board.runs} runs.", ""]
    for name in (name for name in names if name in found):
        lines += [markdown(found[name])]
        if name == "leaderboard":
            stem = quote(f"{folder}/{board.stem}")
            lines += [f"![{as_text(each.title)}]({stem}-{each.name}.png)\n" for each in drawn if each.png]
    return lines + listed(board.notes)


def with_block(path: Path, block: str) -> str:
    """A file's text with `block` between its leaderboard marks. Raises UserError when it cannot be read or has no marks."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--readme {path}: {' '.join(str(error).split())}") from None
    before, found, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise UserError(f"--readme {path}: no block between {BEGIN.strip()} and {END}")
    return "".join([before, BEGIN, block, END, after])


def claims_page(report: Report, folder: str) -> str:
    """Every claim in one table: who says so, the commands that test it, what was measured on mini, what was published.
    `folder` is the path from the page to the reports."""
    parts = [CLAIMS_HEAD.format(book=quote(f"{folder}/{BOOK}"), page=quote(f"{folder}/{PAGE}"))]
    for name in dict.fromkeys(finding.protocol for finding in report.findings):
        own = [finding for finding in report.findings if finding.protocol == name]
        parts += [f"## Protocol {as_text(name)}\n", markdown(_claims_overview(report, own))]
        said = [f"- {_code(finding.study)}: {as_text(finding.limits)}" for finding in own if finding.limits]
        parts += [f"### What {as_text(name)} can and cannot say\n", *said, ""] if said else []
    return "\n".join(parts)


CLAIMS_HEAD = """\
# Claims

Rendered by `bench report --claims` from the studies' files, the result files and `results/published.yaml`; not edited by hand.

What both papers found, and what this suite asks besides: by which command each is tested, and what came out here. Experiments
are numbered through both papers (`docs/studies.md`); number 7, detection on COCO, needs other tools (`bench export`) and was not
measured. A claim is *contradicted* at the scale of the protocol that measured it, and no further; under the table stands what
that scale can and cannot say. Every difference with its interval and a figure: [the report]({book}), or [the page]({page}) (open
it from a clone).

✓ as claimed: the simultaneous 95 % interval lies on the claimed side of 0. ✗ contradicted: on the other side. ~ open: it
contains 0. ○ not contradicted: it contains 0, and the claim is that something is not so. ○ no failure: the claim is about
transfers that fail, and this one is not shown to. Numbers alone: nothing names a side. A claim of several differences is marked
by the first of contradicted, open, not contradicted, as claimed that one of them is; the counts tell of how many. An arm that
stands alone means its gap to the same student without transfer, with (reversal) that minus the standard student's
(`docs/statistics.md`).
"""


def _code(text: str) -> str:
    """Text as code in Markdown; one that would end the code or a cell, as text."""
    return f"`{text}`" if text.isprintable() and not set(text) & set("`|") else as_text(text)


def _claims_overview(report: Report, found: Sequence[Finding]) -> Table:
    rows = [
        {
            "experiment": ", ".join(map(str, judged.claim.rows)) or None,
            "claim": judged.claim.description,
            "by": judged.who,
            "commands": Marked("; ".join(map(_code, finding.commands))) or None,
            "imagenet": Marked(_code(judged.on_imagenet)) if judged.on_imagenet else None,
            "measured": Marked("; ".join([f"**{judged.word}**", *map(as_text, summary_of(judged))]))
            if judged.measured
            else judged.word,
            "published": "; ".join(published_of(report.published, judged.claim)) or None,
        }
        for finding in found
        for judged in finding.judged
    ]
    titles = {"experiment": "experiment", "claim": "claim", "by": "by", "commands": f"command for {found[0].protocol}"}
    titles |= {"imagenet": "command for ImageNet", "measured": f"measured on {found[0].protocol}", "published": "published"}
    return Table("claims", "Claims", tuple(Column(key, title, left=True) for key, title in titles.items()), tuple(rows))
