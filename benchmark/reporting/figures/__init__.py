"""The figures: one module each, and its name is the figure's.

A module states its PLACE among the figures and its TITLE. `of_board(board)` or, for the claims of a
study, `of_finding(finding)` returns the rows to draw, and `draw(data)` draws them. A figure without
rows is left out. PNG = True asks for a PNG beside the SVG. BOARDS names the kinds of leaderboard
(drawing.data.kind_of) that a figure is for; default: all.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import pandas as pd

from benchmark.analysis.claims import Finding
from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.drawing.data import kind_of
from benchmark.reporting.drawing.style import styled
from benchmark.reporting.figure import Figure, rounded_data
from benchmark.reporting.registry import modules


def figures(board: Leaderboard) -> list[Figure]:
    """The figures that a leaderboard has data for."""
    kind = kind_of(board)
    every = (module for module in modules(__name__) if hasattr(module, "of_board"))
    fitting = ((module, module.of_board(board)) for module in every if kind in getattr(module, "BOARDS", (kind,)))
    return _drawable(fitting, f"protocol {board.protocol}: {board.title}")


def claims_figures(finding: Finding) -> list[Figure]:
    """The figures of a study's claims."""
    fitting = ((module, module.of_finding(finding)) for module in modules(__name__) if hasattr(module, "of_finding"))
    return _drawable(fitting, f"protocol {finding.protocol}: {finding.title}")


def _drawable(found: Iterable[tuple[ModuleType, list[dict[str, Any]]]], where: str) -> list[Figure]:
    return [
        Figure(
            name=module.__name__.rpartition(".")[2],
            title=f"{module.TITLE}, {where}",
            data=rounded_data(pd.DataFrame(rows)),
            draw=functools.partial(styled, module.draw),
            png=getattr(module, "PNG", False),
        )
        for module, rows in found
        if rows
    ]
