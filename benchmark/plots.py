"""Figures, with matplotlib's file backends; identical data give identical SVG."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmark.board import Leaderboard

# Okabe and Ito's palette, told apart by colour-blind readers; the marker's shape repeats what the colour says.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "o", "s", "o", "s")
STYLE = {"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def gaps(board: Leaderboard, path: Path) -> None:
    """Gap of every transfer arm by teacher, with its simultaneous interval; hollow where there is none. `path` is the
    SVG; a PNG is written beside it."""
    transfers = [i for i, arm in enumerate(board.arms) if "-none" not in arm]
    with plt.rc_context(STYLE):
        height = 1.5 + 0.16 * len(board.rows) * (len(transfers) + 1)
        figure, axes = plt.subplots(figsize=(7.2, height), layout="constrained")
        axes.axvline(0, color="0.3", linewidth=1)
        for order, column in enumerate(transfers):
            _arm(axes, board, column, order, len(transfers))
        axes.set_yticks(range(len(board.rows)), [row.label for row in board.rows])
        axes.set_ylim(len(board.rows) - 0.5, -0.5)
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
        axes.set_xlabel(
            "gap to the same student without transfer (percentage points)\n"
            f"bars: simultaneous 95 % intervals over {board.comparisons} comparisons; hollow: a single run, no verdict"
        )
        axes.set_title(f"protocol {board.protocol}", loc="left", fontsize=9)
        figure.legend(loc="outside upper center", ncols=2 if board.long else 4, frameon=False, fontsize=8)
        figure.savefig(path, metadata={"Date": None})
        figure.savefig(path.with_suffix(".png"), dpi=150)
        plt.close(figure)


def budgets(board: Leaderboard, path: Path) -> None:
    """Top-1 on val against training steps, a panel a teacher, a line a kind of student: the
    mean, and the range over seeds.
    `path` is the SVG; a PNG is written beside it."""
    table = board.table.assign(kind=board.table["arm"].str.split("+").str[0])
    kinds = list(dict.fromkeys(arm.split("+")[0] for arm in board.arms))
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            1, len(board.rows), figsize=(1 + 2.4 * len(board.rows), 3.2), sharey=True, squeeze=False, layout="constrained"
        )
        for axes, row in zip(panels[0], board.rows, strict=True):
            own = table[(table["family"] == row.families[0]) & (table["size"] == row.size)]
            for order, kind in enumerate(kinds):
                points = own[own["kind"] == kind].sort_values("steps")
                if not len(points):
                    continue
                spread = [points["val"] - points["val_min"], points["val_max"] - points["val"]]
                axes.errorbar(
                    points["steps"], points["val"], yerr=spread, color=COLOURS[order], marker=MARKERS[order],
                    markersize=4, capsize=2.5, linewidth=1,
                )  # fmt: skip
            axes.set_title(row.label, fontsize=9)
            axes.set_xscale("log")
            steps = sorted(own["steps"].unique())
            axes.set_xticks(steps, [str(step) for step in steps], rotation=45)
            axes.minorticks_off()
            axes.grid(color="0.9")
        for order, kind in enumerate(kinds):
            panels[0][0].plot([], [], color=COLOURS[order], marker=MARKERS[order], markersize=4, linewidth=1, label=kind)
        panels[0][0].set_ylabel("top-1 on val (%), mean and range over seeds")
        figure.supxlabel("training steps of the student", fontsize=9)
        figure.legend(loc="outside upper center", ncols=len(kinds), frameon=False, fontsize=8)
        figure.savefig(path, metadata={"Date": None})
        figure.savefig(path.with_suffix(".png"), dpi=150)
        plt.close(figure)


def _arm(axes: Axes, board: Leaderboard, column: int, order: int, count: int) -> None:
    colour, marker = COLOURS[order % len(COLOURS)], MARKERS[order % len(MARKERS)]
    axes.plot([], [], marker=marker, color=colour, linestyle="", label=board.arms[column])
    for position, row in enumerate(board.rows):
        gap = row.entries[column].gap
        if gap is None:
            continue
        y = position + 0.8 * ((order + 0.5) / count - 0.5)
        face = colour if gap.simultaneous is not None else "white"
        axes.errorbar(
            gap.value, y, xerr=gap.simultaneous, fmt=marker, color=colour, markerfacecolor=face, markersize=4.5, capsize=2.5
        )
