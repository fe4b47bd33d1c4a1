"""The picture of a look: the image, maps by block and head over it, and curves over the blocks."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from benchmark.reporting.drawing.style import COLOURS, MARKERS, STYLE
from benchmark.storage.files import ensure_writable
from benchmark.tools.inspect.look import Look
from benchmark.tools.inspect.measures import kind_of
from families.spec import UserError, one_line

FORMATS = (".png", ".svg", ".pdf")
PHOTO, CURVES = 2.3, 4.2  # inches of the columns beside the maps
WEIGHT, PALENESS = 0.75, 0.7  # of a map's colour over the image; of the image's contrast below it
COLOUR_MAP = "viridis"  # sequential, even in lightness, for colour-blind readers too
MASSES = ("patches", "class", "itself", "registers", "distillation")  # in the order of colours
MANY = 9  # heads, from which on maps are narrow
LONGEST = 60  # characters of an image's name
LOWEST = 0.1  # times uniform attention: less is not told apart


def check_format(path: Path) -> None:
    """Raise UserError for a picture that cannot be written in the format its name asks for."""
    if path.suffix not in FORMATS:
        raise UserError(f"--out {path}: valid endings: {', '.join(FORMATS)}")


def draw(seen: Look, found: Mapping[str, Any], path: Path) -> None:
    """Write the picture; `found`: from `as_json`. Raises UserError if it cannot be written."""
    ensure_writable("--out", path.parent)
    with matplotlib.rc_context(STYLE):
        drawn = picture(seen, found)
        try:
            drawn.savefig(path, dpi=130)
        except OSError as error:
            raise UserError(f"--out {path}: {error.strerror or one_line(error)}") from None


def picture(seen: Look, found: Mapping[str, Any]) -> Figure:
    """The image; maps, a row a block, a column the mean and each head; curves over the blocks."""
    rows, columns, panels = len(seen.blocks), 1 + len(seen.heads), _panels(found)
    cell = max(0.72, min(1.7, 8.5 / columns, 9 / rows))
    height = max(rows * (cell + 0.06) + 0.2, PHOTO + 1.1, 1.35 * len(panels))
    widths = [PHOTO, columns * (cell + 0.06) + 0.3, CURVES]
    values = shown(seen)
    most = max(1 / LOWEST, *(float(each.max()) for each in values.values()))
    figure = Figure(figsize=(sum(widths), height + 1), layout="constrained")
    figure.suptitle(f"{seen.request.family} {seen.request.size}: attention of {seen.query.told}", size=13, weight="bold")
    told = textwrap.fill(_told(seen), round(14 * sum(widths)), max_lines=2)
    figure.supxlabel(told, size=9, color="0.3")
    parts: Any = figure.subfigures(1, 3, width_ratios=widths)
    left, middle, right = parts
    _photo(_from_above(left, 1, 1, PHOTO + 1.1, height)[0], seen, most)
    _maps(_from_above(middle, rows, columns, rows * (cell + 0.06) + 0.2, height), seen, values, most)
    for axes, panel in zip(right.subplots(len(panels), 1, squeeze=False, sharex=True).flat, panels, strict=True):
        _curve(axes, panel)
    axes.set_xlabel("block", size=8)
    return figure


def _from_above(figure: Any, rows: int, columns: int, wanted: float, height: float) -> list[Axes]:
    """Axes in rows that together are as high as wanted, with the rest of the height empty."""
    rest = max(height - wanted, 0.01) * rows / wanted
    grid = figure.subplots(rows + 1, columns, squeeze=False, height_ratios=[*[1] * rows, rest])
    for axes in grid[-1]:
        axes.remove()
    return list(grid[:-1].flat)


def _told(seen: Look) -> str:
    kinds = [kind_of(name) for name in seen.names]
    prefix = [f"{kinds.count(kind)} {kind} + " for kind in dict.fromkeys(kinds) if kind != "patches"]
    size = f"{''.join(prefix)}{seen.grid[0]} x {seen.grid[1]} patches"
    native = ", ".join(each["name"] for each in seen.native) or "none"
    image = str(seen.image["told"])
    image = image if len(image) <= LONGEST else f"{image[: LONGEST - 1]}…"
    return f"{seen.weights['told']} · image: {image} · tokens: {size} · native components: {native}"


def shown(seen: Look) -> dict[tuple[int, int | None], Tensor]:
    """Maps by (block, head), head None for the mean: [rows, columns], 1 for uniform attention."""
    patches = [i for i, name in enumerate(seen.names) if kind_of(name) == "patches"]
    found: dict[tuple[int, int | None], Tensor] = {}
    for block in seen.blocks:
        queried = seen.maps[block][:, list(seen.query.tokens)].mean(1)[:, patches].unflatten(-1, seen.grid) * len(seen.names)
        found[block, None] = queried.mean(0)
        found |= {(block, head): queried[head] for head in seen.heads}
    return found


def _maps(every: Sequence[Axes], seen: Look, drawn: Mapping[tuple[int, int | None], Tensor], most: float) -> None:
    """A row a block; a column for the mean over heads, then one a head. Colours go up to `most`."""
    grey = 0.5 + PALENESS * (seen.pixels.mean(0).clamp(0, 1).numpy() - 0.5)
    height, width = grey.shape
    for axes, ((block, head), values) in zip(every, drawn.items(), strict=True):
        axes.imshow(grey, cmap="gray", vmin=0, vmax=1)
        axes.imshow(
            values.numpy(), cmap=COLOUR_MAP, norm=LogNorm(LOWEST, most, clip=True), alpha=WEIGHT,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest",
        )  # fmt: skip
        _bare(axes)
        _mark(axes, seen)
        if block == seen.blocks[0]:
            mean = "mean of heads" if len(seen.heads) < MANY else "mean"
            axes.set_title(mean if head is None else f"head {head}", size=8)
        if head is None:
            axes.set_ylabel(f"block {block}", size=8)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def _mark(axes: Axes, seen: Look) -> None:
    """A frame around the patch whose attention it is."""
    if seen.query.patch is not None:
        row, column = seen.query.patch
        height, width = (size / count for size, count in zip(seen.pixels.shape[1:], seen.grid, strict=True))
        corner = (column * width - 0.5, row * height - 0.5)
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor="white", linewidth=1.8))
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=COLOURS[1], linewidth=0.8))


def _photo(axes: Axes, seen: Look, most: float) -> None:
    """The image, and below it the meaning of the maps' colours."""
    axes.imshow(seen.pixels.permute(1, 2, 0).clamp(0, 1).numpy())
    axes.set_title("the image", size=8)
    _bare(axes)
    _mark(axes, seen)
    colours = ScalarMappable(LogNorm(LOWEST, most), COLOUR_MAP)
    bar = axes.figure.colorbar(colours, ax=axes, orientation="horizontal", alpha=WEIGHT).ax
    bar.set_facecolor("0.5")  # the image's mean grey, through which colours are seen
    ticks = [each for each in (0.1, 1.0, 10.0, 100.0, 1000.0) if each <= most]
    bar.set_xticks(ticks, [f"≤ {ticks[0]:g}", *(f"{each:g}" for each in ticks[1:])])
    bar.minorticks_off()
    bar.tick_params(labelsize=8)
    bar.set_xlabel("attention to a patch,\ntimes that of uniform attention;\none scale for all maps", size=8)


@dataclass(frozen=True)
class _Panel:
    """Lines by name over the blocks, with values by head; `level`: that of uniform attention."""

    title: str
    lines: dict[str, list[float]]
    heads: list[list[float]] | None = None
    top: float | None = None
    level: float | None = None


def _panels(found: Mapping[str, Any]) -> list[_Panel]:
    blocks = found["blocks"]
    kinds = sorted(blocks[0]["mass"], key=MASSES.index)
    masses = {f"to {kind}": [row["mass"][kind] for row in blocks] for kind in kinds}
    panels = [
        _Panel("entropy / that of uniform attention", *_with_heads(blocks, "normalised_entropy"), top=1.0),
        _Panel("share of the attention", masses, top=1.0),
        _Panel("distance (patches)", *_with_heads(blocks, "distance"), level=found["uniform"]["distance"]),
    ]
    for each in found["native"]:
        lines = {pattern: values for pattern, values in each["learned"].items() if len(values) == len(blocks) > 1}
        if lines:
            panels.append(_Panel(f"mean |{each['name']}|", lines))
    return panels


def _with_heads(blocks: Sequence[Mapping[str, Any]], name: str) -> tuple[dict[str, list[float]], list[list[float]]]:
    return {"mean of heads": [row[name] for row in blocks]}, [[head[name] for head in row["heads"]] for row in blocks]


def _curve(axes: Axes, panel: _Panel) -> None:
    axes.set_title(panel.title, size=8, loc="left")
    if panel.level is not None:
        axes.axhline(panel.level, color="0.6", linestyle="--", linewidth=1, label="uniform")
    for block, values in enumerate(panel.heads or []):
        axes.plot([block] * len(values), values, ".", color="0.6", markersize=4)
    for order, (name, values) in enumerate(panel.lines.items()):
        axes.plot(values, marker=MARKERS[order], color=COLOURS[order], markersize=3.5, linewidth=1.3, label=name)
    if panel.heads:
        axes.plot([], [], ".", color="0.6", markersize=4, label="a head")
    axes.set_ylim(0, 1.05 * (panel.top or axes.get_ylim()[1]))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2.5, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=7)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
