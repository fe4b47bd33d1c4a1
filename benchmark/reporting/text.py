"""Others' text as text, in Markdown and on the terminal."""

from __future__ import annotations

import re

# Markup of Markdown; not an underscore within a word, nor the mark of inconclusive.
_ACTIVE = re.compile(r"[\\`*\[\]|$#]|~(?=\S)|(?<=\S)~|(?<![^\W_])_|_(?![^\W_])")
_BEGINS = re.compile(r"^(\d*)([-+=*~_.)>])")  # a list, a rule or a quotation, at the start of a line


def as_text(text: str) -> str:
    """Others' text escaped for Markdown, on one line."""
    escaped = _ACTIVE.sub(r"\\\g<0>", printable(text))
    return re.sub(r"<(?! )", "&lt;", escaped.replace("&", "&amp;"))


def as_line(text: str) -> str:
    """The same where a line begins with it."""
    return _BEGINS.sub(r"\1\\\2", as_text(text.strip()))


def printable(text: str) -> str:
    """Text on one line for a terminal: white space as spaces, unprintable characters escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else c.encode("unicode_escape").decode() for c in text)
