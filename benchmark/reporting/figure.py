"""A figure before it is drawn, and the files that it is saved in.

Equal data give equal SVG. A file holds the digest of its data.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.figure
import pandas as pd
from PIL import Image

from benchmark.reporting.drawing.style import style

DRAWING = 7  # part of every digest: another number where the same data are to be drawn anew


@dataclass(frozen=True)
class Figure:
    """A figure before it is drawn.

    Attributes:
        name: which one it is, as file names end.
        title: one line on what it shows.
        data: everything that is drawn, tidy, numbers to four decimals.
        draw: makes the figure of such data alone.
        png: whether a PNG is wanted beside the SVG.
    """

    name: str
    title: str
    data: pd.DataFrame
    draw: Callable[[pd.DataFrame], matplotlib.figure.Figure]
    png: bool = False

    def csv(self) -> str:
        """The data, numbers to four decimals."""
        return str(self.data.to_csv(index=False, float_format="%.4f", lineterminator="\n"))

    @property
    def digest(self) -> str:
        """sha256 of all that the drawing depends on."""
        text = "\n".join([str(DRAWING), self.name, self.title, self.csv()])
        return hashlib.sha256(text.encode()).hexdigest()


def rounded_data(data: pd.DataFrame) -> pd.DataFrame:
    """The data with numbers to four decimals, and no negative zero."""
    numbers = data.select_dtypes("float").columns
    data[numbers] = data[numbers].round(4) + 0.0
    return data


def save(figure: Figure, folder: Path, stem: str) -> list[Path]:
    """Write <stem>-<name>-drawn.csv, <stem>-<name>.svg and, where it is wanted, .png; all of them. What was drawn of the same
    data stays as it is.

    Raises OSError where a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / f"{stem}-{figure.name}-drawn.csv"
    _replace(table, lambda path: path.write_text(figure.csv(), encoding="utf-8", newline="\n"))
    pictures = [folder / f"{stem}-{figure.name}{suffix}" for suffix in (".svg", ".png")[: 2 if figure.png else 1]]
    missing = [path for path in pictures if digest_in(path) != figure.digest]
    if missing:
        with style():
            drawn = figure.draw(figure.data)
            for path in missing:
                _replace(path, functools.partial(_write, drawn, f"data sha256:{figure.digest}"))
    return [table, *pictures]


def digest_in(path: Path) -> str | None:
    """The digest of the data that an SVG or PNG was drawn of; None where there is no whole file with one."""
    try:
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
                text = str(image.info.get("Description", ""))
        else:
            text = path.read_text(encoding="utf-8", errors="replace")
            text = text if text.rstrip().endswith("</svg>") else ""
    except (OSError, SyntaxError, ValueError):  # Pillow's own for a broken PNG
        return None
    found = re.search(r"data sha256:([0-9a-f]{64})", text)
    return found[1] if found else None


def _write(drawn: matplotlib.figure.Figure, told: str, path: Path) -> None:
    kind = path.suffixes[-2][1:]
    nothing = {"svg": ("Date", "Creator"), "png": ("Software",)}[kind]
    drawn.savefig(path, format=kind, dpi=150, metadata={"Description": told} | dict.fromkeys(nothing))


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write by a temporary file in the same folder, so that what exists is always whole."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
