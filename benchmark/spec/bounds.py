"""Bounds of the numbers that users give, shared by protocols, cluster settings, arms and
command-line options.

A number outside is a typing mistake or has the wrong unit. It is refused before anything is built
from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from families.spec import UserError, quoted

LARGEST = 1e30  # of floats: far above any use, and within float32


@dataclass(frozen=True)
class Whole:
    """The whole numbers from `least` to `most`."""

    least: int
    most: int

    def read(self, option: str, text: str) -> int:
        """The number that an option gives, in the digits 0 to 9. Raises UserError, one line."""
        if not re.fullmatch(r"-?[0-9]+", text):
            raise UserError(f"{option} {quoted(text)}: not a whole number")
        number = int(text) if len(text) <= 20 else (self.least - 1 if text.startswith("-") else self.most + 1)
        if not self.least <= number <= self.most:
            least = f"at least {self.least}" if number < self.least else f"at most {self.most}"
            raise UserError(f"{option} {text if len(text) <= 20 else quoted(text)}: {least}")
        return number


STEPS = Whole(1, 10**9)
BATCH = Whole(1, 2**20)  # images
IMAGES = Whole(1, 10**10)
CLASSES = Whole(2, 10**6)
CATEGORIES = Whole(1, CLASSES.most)
PIXELS = Whole(1, 8192)  # of a side
WIDTH = Whole(1, 2**16)  # of tokens
DEPTH = Whole(1, 1024)  # blocks
SEED = Whole(0, 2**31 - 1)
POINTS = Whole(1, 10**4)  # of a learning curve
RUNS = Whole(1, 10**6)  # in one process or job
JOBS = Whole(1, 10**5)  # at a time
NODES = Whole(1, 10**4)
PROCESSES = Whole(1, 4096)  # on a node; GPUs and cores too
WORKERS = Whole(0, 4096)  # image loaders of a process
MINUTES = Whole(1, 10**6)  # two years
ROUNDS = Whole(1, 10**6)
MEGABYTE = 2**20


def no_bool(value: Any) -> Any:
    """The value, which pydantic would read as 0 or 1 were it true or false. Raises ValueError then."""
    if isinstance(value, bool):
        raise ValueError(f"Input should be a number, not {str(value).lower()}")
    return value
