"""A figure and its files: equal data give equal SVG, and each file holds the digest of its data."""

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

DRAWING = 7  # part of every digest: a new number makes all figures be drawn again


@dataclass(frozen=True)
class Figure:
    """A figure before it is drawn.

    Attributes:
        name: the end of its file names.
        title: one line on its content.
        data: everything that is drawn, tidy, numbers to four decimals.
        draw: makes the figure from such data alone.
        png: write a PNG beside the SVG.
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
        """sha256 of everything that the drawing depends on."""
        text = "\n".join([str(DRAWING), self.name, self.title, self.csv()])
        return hashlib.sha256(text.encode()).hexdigest()


def rounded_data(data: pd.DataFrame) -> pd.DataFrame:
    """The data with numbers to four decimals, and no negative zero."""
    numbers = data.select_dtypes("float").columns
    data[numbers] = data[numbers].round(4) + 0.0
    return data


def save(figure: Figure, folder: Path, stem: str) -> list[Path]:
    """Write <stem>-<name>-drawn.csv, <stem>-<name>.svg and, if asked for, .png, and return their
    paths. Pictures of the same data are kept. Raises OSError where a file cannot be written.
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
    """The digest of the data in an SVG or PNG; None where the file is missing or broken."""
    try:
        if path.suffix == ".png":
            with Image.open(path) as image:
                text = str(image.info.get("Description", ""))
                image.verify()  # every part's checksum, to the end
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
    """Write through a temporary file in the same folder, so that a file is always whole."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
