"""Figures of a board: what is drawn, as data; benchmark/plots.py draws it. A file holds the digest of its data.

Equal data give equal SVG, whatever the user's settings of matplotlib are.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib.figure
import pandas as pd
from PIL import Image

from benchmark.board import Leaderboard, Row, by_family
from benchmark.claims import Finding
from benchmark.plots import (
    draw_budgets,
    draw_claims,
    draw_control,
    draw_curves,
    draw_dropped,
    draw_gaps,
    draw_match,
    draw_native,
    draw_sizes,
    draw_teachers,
    style,
)
from benchmark.protocol import Arm
from benchmark.store import Result

DRAWING = 6  # part of every digest: another number where the same data are to be drawn anew
MANY_BUDGETS = 3  # from here on a study is drawn as curves over the budget


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


def figures(board: Leaderboard) -> list[Figure]:
    """The figures that this board has data for.

    Over many budgets it is top-1 by budget, over several teachers' seeds the gap by seed; other studies with variants in their
    arms have gaps, and studies without variants all the others.
    """
    arms = [Arm.parse(name) for name in board.arms]
    if len({arm.budget for arm in arms}) >= MANY_BUDGETS:
        found = [_figure("budgets", "Top-1 by training budget", board, _budget_data, draw_budgets)]
    elif any(arm.teacher for arm in arms):
        found = [_figure("teachers", "Gap by the teacher's seed", board, _teacher_data, draw_teachers)]
    else:
        found = [_figure("gaps", "Gap of each transfer by teacher", board, _gap_data, draw_gaps, png=True)]
        if not board.long:
            found += [_figure(*what[:2], board, *what[2:]) for what in _DETAILS]
    return [figure for figure in found if len(figure.data)]


def claims_figures(finding: Finding) -> list[Figure]:
    """What was measured of a study's claims: differences of top-1, and of maps' KL apart."""
    rows = [
        {"protocol": finding.protocol, "claim": number, "label": one.short, "difference": one.difference, "teacher": one.label}
        | {"on": one.on, "n": one.n, "value": one.estimate.value}
        | {"low": one.estimate.value - half, "high": one.estimate.value + half}
        | {"expect": one.expect or "", "outcome": one.outcome or "", "comparisons": one.comparisons}
        for number, judged in enumerate(finding.judged, 1)
        for one in judged.measured
        for half in [math.nan if one.estimate.simultaneous is None else one.estimate.simultaneous]
    ]
    found = []
    for name, own in (("claims", [row for row in rows if row["on"] != "kl"]), ("kl", [row for row in rows if row["on"] == "kl"])):
        told = f"What was measured of the claims, protocol {finding.protocol}: {finding.title}"
        found += [Figure(name, told, _rounded(pd.DataFrame(own)), draw_claims)] if own else []
    return found


def _figure(
    name: str,
    says: str,
    board: Leaderboard,
    data_of: Callable[[Leaderboard], list[dict[str, Any]]],
    draw: Callable[[pd.DataFrame], matplotlib.figure.Figure],
    png: bool = False,
) -> Figure:
    data = _rounded(pd.DataFrame(data_of(board)))
    return Figure(name, f"{says}, protocol {board.protocol}: {board.title}", data, draw, png)


def _rounded(data: pd.DataFrame) -> pd.DataFrame:
    numbers = data.select_dtypes("float").columns
    data[numbers] = data[numbers].round(4) + 0.0  # no -0.0000
    return data


# ---- files


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


# ---- what is drawn: rows of each figure's data, in the board's order


def _gap_data(board: Leaderboard) -> list[dict[str, Any]]:
    rows = []
    for row in board.rows:
        for entry in row.entries:
            if not entry.arm.transfers or (board.long and not entry.n):
                continue
            note = entry.note or ("" if entry.gap else "no result" if entry.top1 is None else "no baseline")
            place = {"protocol": board.protocol, "teacher": row.label, "arm": entry.arm.name, "n": entry.n}
            rows.append(place | _interval(entry.gap) | {"note": note, "comparisons": board.comparisons})
    return rows if any(row["gap"] is not None for row in rows) else []


def _interval(gap: Any) -> dict[str, Any]:
    """gap, the ends of its simultaneous interval and its verdict, as far as there are."""
    if gap is None:
        return {"gap": None, "low": None, "high": None, "verdict": ""}
    half = math.nan if gap.simultaneous is None else gap.simultaneous
    return {"gap": gap.value, "low": gap.value - half, "high": gap.value + half, "verdict": gap.verdict or ""}


def _teacher_data(board: Leaderboard) -> list[dict[str, Any]]:
    rows = []
    for row in _gap_data(board):
        arm = Arm.parse(row["arm"])
        rows.append(row | {"arm": arm.model_copy(update={"teacher": 0}).name, "seed": arm.teacher})
    measured = {(row["teacher"], row["seed"]) for row in rows if row["note"] != "no result"}
    rows = [row for row in rows if (row["teacher"], row["seed"]) in measured]
    places = {label: number for number, label in enumerate(dict.fromkeys(row["teacher"] for row in rows))}
    return sorted(rows, key=lambda row: (places[row["teacher"]], row["seed"]))


def _size_data(board: Leaderboard) -> list[dict[str, Any]]:
    """Families with several sizes; those that share all runs of all their sizes are one."""
    rows = []
    for names, own in by_family(board.rows):
        for row in own if len(own) > 1 else ():
            for entry in row.entries:
                if entry.gap is not None:
                    place = {"protocol": board.protocol, "family": ", ".join(names), "size": row.size, "arm": entry.arm.name}
                    rows.append(place | {"n": entry.n} | _interval(entry.gap) | {"comparisons": board.comparisons})
    counts = pd.Series([(row["family"], row["arm"]) for row in rows], dtype=object).value_counts()
    return [row for row in rows if counts[(row["family"], row["arm"])] > 1]


def _native_data(board: Leaderboard) -> list[dict[str, Any]]:
    rows = []
    for row in board.rows:
        gaps = {entry.arm.name: entry.gap for entry in row.entries}
        for method in ("copy", "distill"):
            standard, matched = (gaps.get(f"{student}-{method}") for student in ("standard", "matched"))
            if standard is None or matched is None:
                continue
            found = _in_table(board, row, f"matched-{method}")
            place = {"protocol": board.protocol, "teacher": row.label, "method": method}
            values = {"standard": standard.value, "matched": matched.value}
            rows.append(place | values | {"reversal": found["reversal"], "reversal_plain95": found["reversal_plain95"]})
    return rows


def _control_data(board: Leaderboard) -> list[dict[str, Any]]:
    rows = []
    for row in board.rows:
        entry = next((entry for entry in row.entries if entry.arm.name == "matched-none"), None)
        if entry is None or entry.note or entry.top1 is None:
            continue
        found = _in_table(board, row, "matched-none")
        if not pd.isna(found["control"]):
            value, half = found["control"], math.nan if pd.isna(found["control_plain95"]) else found["control_plain95"]
            place = {"protocol": board.protocol, "teacher": row.label, "arm": "matched-none", "n": entry.n}
            rows.append(place | {"control": value, "low": value - half, "high": value + half})
    return rows


def _in_table(board: Leaderboard, row: Row, arm: str) -> Mapping[str, Any]:
    """A cell of the board's long table."""
    table = board.table
    chosen = (table["family"] == row.families[0]) & (table["size"] == row.size) & (table["arm"] == arm)
    found: Mapping[str, Any] = table[chosen].iloc[0]
    return found


def _runs(board: Leaderboard) -> Iterator[tuple[Row, str, list[Result]]]:
    """The results of each row and arm that has some, by seed; a matched student that is the standard one has none of its own."""
    own: dict[tuple[str, str, str], list[Result]] = {}
    for result in sorted(board.results, key=lambda each: each.cell.seed):
        own.setdefault((result.cell.family, result.cell.size, result.cell.arm), []).append(result)
    for row in board.rows:
        for entry in row.entries:
            results = own.get((row.families[0], row.size, entry.arm.name), [])
            if results and not entry.note:
                yield row, entry.arm.name, results


def _curve_data(board: Leaderboard) -> list[dict[str, Any]]:
    rows = []
    for row, arm, results in _runs(board):
        points: dict[int, list[float]] = {}
        for point in (point for result in results for point in result.curve):
            points.setdefault(point.step, []).append(point.val_top1)
        for step, values in sorted(points.items()):
            place = {"protocol": board.protocol, "teacher": row.label, "arm": arm, "step": step, "n": len(values)}
            rows.append(place | {"val": fmean(values), "low": min(values), "high": max(values)})
    return rows


def _match_data(board: Leaderboard) -> list[dict[str, Any]]:
    gaps = {(row.label, entry.arm.name): entry.gap for row in board.rows for entry in row.entries}
    rows = []
    for row, arm, results in _runs(board):
        found = [sum(kl) / len(kl) for result in results if (kl := result.metrics.attention_kl)]
        gap = gaps[row.label, arm]
        if found and gap is not None:
            place = {"protocol": board.protocol, "teacher": row.label, "arm": arm, "n": len(found)}
            place["attention_kl"] = sum(found) / len(found)
            rows.append(place | {"gap": gap.value, "verdict": gap.verdict or "", "comparisons": board.comparisons})
    return rows


def _dropped_data(board: Leaderboard) -> list[dict[str, Any]]:
    """Percent by block, the mean over runs. It is the teacher's alone: arms that have the same are one line."""
    lines: dict[tuple[str, tuple[tuple[int, float], ...]], list[str]] = {}
    for row, arm, results in _runs(board):
        points: dict[int, list[float]] = {}
        for result in results:
            for block, mass in zip(result.run.transfer.blocks, result.metrics.dropped_mass or (), strict=False):
                points.setdefault(block, []).append(mass)
        means = tuple((block, round(100 * fmean(values), 4)) for block, values in sorted(points.items()))
        if means:
            lines.setdefault((row.label, means), []).append(arm)
    return [
        {"protocol": board.protocol, "teacher": label, "arms": ", ".join(arms), "block": block, "dropped": value}
        for (label, means), arms in lines.items()
        for block, value in means
    ]


def _budget_data(board: Leaderboard) -> list[dict[str, Any]]:
    rows = []
    for row in board.rows:
        for entry in row.entries:
            if entry.top1 is None or entry.note:
                continue
            found = _in_table(board, row, entry.arm.name)
            line = entry.arm.model_copy(update={"budget": 1.0}).name
            place = {"protocol": board.protocol, "teacher": row.label, "arm": line, "steps": int(found["steps"]), "n": entry.n}
            rows.append(place | {"val": found["val"], "low": found["val_min"], "high": found["val_max"]})
    return rows


_DETAILS = (
    ("sizes", "Gap by the teacher's size", _size_data, draw_sizes),
    ("native", "Gap without and with native components", _native_data, draw_native),
    ("control", "What native components do without transfer", _control_data, draw_control),
    ("curves", "Learning curves", _curve_data, draw_curves),
    ("match", "Attention's match and gap", _match_data, draw_match),
    ("dropped", "Attention on tokens that the student has not", _dropped_data, draw_dropped),
)
