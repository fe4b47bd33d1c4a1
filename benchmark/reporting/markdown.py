"""Tables in Markdown."""

from __future__ import annotations

from benchmark.reporting.table import Table, cell_text
from benchmark.reporting.text import as_line, as_text


def markdown(table: Table) -> str:
    """A table in Markdown, its notes below."""
    head = "| " + " | ".join(as_text(column.title) for column in table.columns) + " |"
    rule = "|" + "".join("---|" if column.left else "---:|" for column in table.columns)
    rows = [
        "| " + " | ".join(cell_text(row.get(column.key), text) for column, text in zip(table.columns, texts, strict=True)) + " |"
        for row, texts in zip(table.rows, table.texts(), strict=True)
    ]
    return "\n".join([head, rule, *rows, "", *(f"{as_line(note)}\n" for note in table.notes)])
