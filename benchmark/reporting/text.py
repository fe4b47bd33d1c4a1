"""Others' text as text, in Markdown and on the terminal."""

from __future__ import annotations

import re

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


def printable(text: str) -> str:
    """Text on one line without what a terminal acts on or hides: spaces for white space, escapes for other such characters."""
    return "".join(c if c.isprintable() else " " if c.isspace() else c.encode("unicode_escape").decode() for c in text)
