"""A teacher's attention on one image: maps of blocks and heads drawn over it, and numbers by block and head.

Whatever is told of tokens comes from their names (`families.attention.layout`), whatever is told of native components from
the family's file: a new family needs nothing here.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageFile
from torch import Tensor, nn

import families
from benchmark.data import DataLocation, load
from benchmark.data.augmentation import evaluation_transform
from benchmark.data.image_files import ensure_regular
from benchmark.reporting.drawing.style import COLOURS, MARKERS, STYLE
from benchmark.spec.data_sets import Images
from benchmark.spec.definitions import architecture, teacher_run
from benchmark.spec.protocol import DEFAULT_PROTOCOL, Protocol
from benchmark.storage.files import ensure_writable
from benchmark.storage.work_folder import Workspace
from benchmark.training.models import timm_args, trained
from benchmark.training.state_files import weights_of
from families.core.adapter import normalised
from families.core.attention import layout
from families.core.initialise import canonical
from families.core.weights import file_digest, find_weights
from families.spec import Component, UserError, one_line, quoted

if TYPE_CHECKING:
    from rich.console import Console

KINDS = {"cls": "class", "dist": "distillation", "reg": "registers", "patch": "patches"}  # of tokens, by how names begin


FEW_HEADS, CHOSEN_HEADS = 6, 4  # up to how many heads all are drawn; how many of more


FORMATS = (".png", ".svg", ".pdf")


# Of a protocol whose own images have the teacher's size already: the whole of the shorter side is kept.
WHOLE: Any = Images.model_construct(**{"crop_pct": 1.0, "interpolation": "bicubic"})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Request:
    """What is to be looked at; None leaves the choice here.

    Attributes:
        protocol: its name and content: geometry, normalisation, image, and whose teachers are meant.
        word: by which the user named the protocol.
        blocks, heads: which are drawn, as in "0,5,11", or "all".
        query: cls, mean, centre, or ROW,COLUMN of a patch.
        image: an image file; None: the first test image of embedded data.
        weights: the folder of pre-trained teachers; None: weights in `work`.
        random: look at random weights instead.
    """

    family: str
    size: str
    protocol: tuple[str, Protocol]
    word: str
    work: Path
    blocks: str | None = None
    heads: str | None = None
    query: str | None = None
    image: Path | None = None
    weights: Path | None = None
    random: bool = False


@dataclass(frozen=True)
class Query:
    """Whose attention is drawn: the mean over `tokens`, `told` in words; `patch` is its (row, column) where it is one."""

    told: str
    tokens: tuple[int, ...]
    patch: tuple[int, int] | None = None


@dataclass(frozen=True)
class Look:
    """What was seen.

    Attributes:
        weights: `told` in words; `kind` trained, file or random; where they lie.
        image: `told` in words, and its path where it is a file.
        pixels: [3, H, W] in 0..1, as the teacher got them before normalisation.
        names: of the tokens, in order.
        maps: of every block, [heads, tokens, tokens], rows sum to 1.
        blocks, heads: to draw.
        native: the family's native components, with the size of what was learnt.
    """

    request: Request
    weights: dict[str, str | None]
    image: dict[str, str | None]
    pixels: Tensor
    names: list[str]
    grid: tuple[int, int]
    query: Query
    maps: list[Tensor]
    blocks: list[int]
    heads: list[int]
    native: list[dict[str, Any]]


def look(request: Request) -> Look:
    """Load the teacher and the image, and read every attention map. Raises UserError, WeightsError and UnknownName: a size that
    is none, weights or image that are not there or cannot be read, blocks, heads or a query that the teacher has not."""
    adapter = families.load(request.family)
    image, pixels = _image(request)
    weights, model = _teacher(request)
    names, (rows, columns) = layout(model), model.patch_embed.grid_size  # type: ignore[union-attr, misc]
    depth, heads = len(list(model.blocks)), int(model.blocks[0].attn.num_heads)  # type: ignore[arg-type, index, union-attr]
    drawn = {"blocks": _chosen("blocks", request.blocks, depth, _ends(depth)), "heads": _heads(request.heads, heads)}
    query = query_of(request.query, names, reads_class=getattr(model, "global_pool", "token") == "token")
    maps = adapter.attention_maps(model, _normalised(request, pixels)[None])
    components = adapter.spec.components(request.size).values()
    native = [_described(each) | {"learned": magnitudes(model, each)} for each in components]
    maps = [each[0] for each in maps]
    return Look(request, weights, image, pixels, names, (rows, columns), query, maps, **drawn, native=native)


def _teacher(request: Request) -> tuple[dict[str, str | None], nn.Module]:
    """Where its weights come from, and the frozen teacher."""
    protocol = request.protocol[1]
    if request.random:
        return {"kind": "random", "told": "random weights, seed 0"}, _random(request)
    return _pretrained(request) if protocol.teacher is None else _trained(request)


def _random(request: Request) -> nn.Module:
    protocol, adapter = request.protocol[1], families.load(request.family)
    if protocol.teacher is not None:
        args = timm_args(teacher_run(protocol, request.family, request.size, 0))
    else:
        args = architecture(protocol, adapter.spec, request.size, {}).geometry.model_dump()
    return adapter.teacher(request.size, pretrained=False, **args)


def _pretrained(request: Request) -> tuple[dict[str, str | None], nn.Module]:
    name, folder = f"{request.family}-{request.size}", request.weights or request.work / "weights"
    path = find_weights(folder, request.family, request.size)
    if path is None:
        place = f" --weights {request.weights}" if request.weights else _work_option(request)
        command = f"bench fetch --family {request.family} --sizes {request.size}{place}"
        raise UserError(f"{folder}: no weights of {name}; `{command}` brings them (--random looks at random ones)")
    model = families.load(request.family).teacher(request.size, weights=path)
    digest = file_digest(path)
    told = f"weights {path.name} (sha256 {digest[:12]})"
    return {"kind": "file", "told": told, "path": str(path), "sha256": digest}, model


def _trained(request: Request) -> tuple[dict[str, str | None], nn.Module]:
    name, protocol = request.protocol
    run = teacher_run(protocol, request.family, request.size, 0)
    workspace = Workspace(request.work)
    path = workspace.run(run.key).weights
    if not path.exists():
        command = f"bench run --family {request.family} --sizes {request.size}{_protocol_option(request)}{_work_option(request)}"
        raise UserError(
            f"{request.work}: no teacher {request.family} {request.size} of protocol {name} was trained there; `{command}` trains"
            " it, then its students (--random looks at random weights)"
        )
    model = trained(run, weights_of(workspace, run.key))
    payload = workspace.payload(run.key)
    result = f"top-1 {payload['metrics']['top1']:.1f} %" if payload else workspace.error(run.key) or "without a result"
    return {
        "kind": "trained",
        "told": f"trained by protocol {name} (run {run.key}; {result})",
        "path": str(path),
        "run": run.key,
    }, model


def _protocol_option(request: Request) -> str:
    return "" if request.word == DEFAULT_PROTOCOL else f" --protocol {request.word}"


def _work_option(request: Request) -> str:
    return "" if request.work == Path(".bench") else f" --work {request.work}"


def _image(request: Request) -> tuple[dict[str, str | None], Tensor]:
    """What it is, and its pixels [3, H, W] in 0..1 at the teacher's size."""
    name, protocol = request.protocol
    settings = protocol.data
    size = architecture(protocol, families.spec(request.family), request.size, {}).geometry.img_size
    if request.image is not None:
        how = settings if isinstance(settings, Images) else WHOLE
        told: dict[str, str | None] = {"told": request.image.name, "path": str(request.image)}
        return told, evaluation_transform(how, size)(_opened(request.image))
    if isinstance(settings, Images):
        raise UserError(f"protocol {name} has no images of its own: name one by --image FILE")
    images, labels = next(load(settings, DataLocation(), size, protocol.normalisation).evaluate("test", 1))
    return {"told": f"first test image of {name} (class {int(labels[0])})", "path": None}, images[0]


def _opened(path: Path) -> Image.Image:
    """An RGB image. Raises UserError, one line that names the file."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # another library may have switched it on: half a picture, and no error
    try:
        ensure_regular(path)
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:
        raise UserError(f"--image {path}: not readable as an image: {one_line(error)}") from None


def _normalised(request: Request, pixels: Tensor) -> Tensor:
    """As the teacher was trained: by the protocol where it trains its teachers, else by the family."""
    protocol, spec = request.protocol[1], families.spec(request.family)
    return normalised(pixels, spec if protocol.teacher is None else protocol.normalisation)


def _ends(depth: int) -> list[int]:
    return sorted({0, (depth - 1) // 2, depth - 1})


def _heads(text: str | None, heads: int) -> list[int]:
    few = heads if heads <= FEW_HEADS else CHOSEN_HEADS
    spread = [round(i * (heads - 1) / max(1, few - 1)) for i in range(few)]
    return _chosen("heads", text, heads, spread)


def _chosen(what: str, text: str | None, there: int, default: list[int]) -> list[int]:
    """The numbers that a word as "0,5,11" or "all" names, ascending. Raises UserError for any that is not below `there`."""
    if text is None:
        return default
    if text == "all":
        return list(range(there))
    if not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", text):
        raise UserError(f"--{what} {quoted(text)}: numbers with commas between them, as in 0,1, or all")
    numbers = sorted({int(word) for word in text.split(",")})
    if numbers[-1] >= there:
        raise UserError(f"--{what} {quoted(text)}: this teacher's {what} are 0 to {there - 1}")
    return numbers


def query_of(word: str | None, names: Sequence[str], reads_class: bool) -> Query:
    """The query that a word names; by default the class token, or the mean over the patches where there is none or the head does
    not read it. Raises UserError for a word that names no token."""
    patches = {_place(name): i for i, name in enumerate(names) if kind_of(name) == "patches"}
    rows, columns = (1 + max(place[axis] for place in patches) for axis in (0, 1))
    if word is None:
        word = "cls" if reads_class and "cls" in names else "mean"
    if word == "cls" and "cls" in names:
        return Query("the class token", (names.index("cls"),))
    if word == "mean":
        return Query("the patches (mean over them)", tuple(patches.values()))
    place = (rows // 2, columns // 2) if word in ("centre", "center") else _numbers(word)
    if place not in patches:
        other = "cls, mean, centre" if "cls" in names else "mean, centre"
        raise UserError(f"--query {quoted(word)}: valid: {other}, or ROW,COLUMN of a patch from 0,0 to {rows - 1},{columns - 1}")
    return Query(f"patch {place[0]},{place[1]}", (patches[place],), (place[0], place[1]))


def _numbers(word: str) -> tuple[int, ...]:
    return tuple(map(int, word.split(","))) if re.fullmatch(r"[0-9]{1,9},[0-9]{1,9}", word) else ()


def kind_of(name: str) -> str:
    """Of a token by its name: class, distillation, registers or patches."""
    return KINDS[name.rstrip("0123456789,")]


def _place(name: str) -> tuple[int, int]:
    row, column = name.removeprefix("patch").split(",")
    return int(row), int(column)


def measures(maps: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """What a block's maps [heads, tokens, tokens] are like, one number [heads] each, in float64.

    entropy: of a query's attention in nats, mean over queries; normalised_entropy: over that of uniform attention, log tokens.
    mass.itself: a token's attention to itself, mean over queries; mass.<kind>: to the other tokens of a kind; they sum to 1.
    distance: of the patches' attention to patches, in patches (Euclidean, weighted by the attention).
    """
    maps = maps.double()
    tokens = maps.shape[-1]
    entropy = -torch.special.xlogy(maps, maps).sum(-1).mean(-1)
    found = {"entropy": entropy, "normalised_entropy": entropy / max(math.log(tokens), 1e-12)}
    others = (maps * (1 - torch.eye(tokens, dtype=maps.dtype))).mean(-2)
    for kind in dict.fromkeys(map(kind_of, names)):
        found[f"mass.{kind}"] = others[:, [i for i, name in enumerate(names) if kind_of(name) == kind]].sum(-1)
    found["mass.itself"] = maps.diagonal(dim1=-2, dim2=-1).mean(-1)
    patches = [i for i, name in enumerate(names) if kind_of(name) == "patches"]
    among = maps[:, patches][:, :, patches]
    found["distance"] = (among * distances(names)).sum((-2, -1)) / among.sum((-2, -1)).clamp_min(1e-12)
    return found


def distances(names: Sequence[str]) -> Tensor:
    """[patches, patches]: between the patches among these tokens, in patches, in float64."""
    places = torch.tensor([_place(name) for name in names if kind_of(name) == "patches"], dtype=torch.float64)
    return torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")


def magnitudes(model: nn.Module, component: Component) -> dict[str, list[float]]:
    """Mean absolute value of the parameters for which a native component has an initial value, by their pattern: a number a
    block, or a single one where they belong to none."""
    found = {}
    for pattern in component.initial:
        by_place: dict[str, list[Tensor]] = {}
        for name, parameter in model.named_parameters():
            if fnmatchcase(canonical(name), pattern):
                place = name.split(".")[1] if name.startswith("blocks.") else ""
                by_place.setdefault(place, []).append(parameter.detach().abs().flatten())
        found[pattern] = [float(torch.cat(values).mean()) for values in by_place.values()]
    return found


def _described(component: Component) -> dict[str, Any]:
    kept = ("name", "description", "source", "inert_under_copy")
    return {name: getattr(component, name) for name in kept}


def as_json(seen: Look) -> dict[str, Any]:
    """All that was seen, but for the maps themselves: numbers by block, as means over its heads, and by head."""
    request, kinds = seen.request, [kind_of(name) for name in seen.names]
    row, column = seen.grid
    return {
        "family": request.family,
        "size": request.size,
        "protocol": request.protocol[0],
        "weights": seen.weights,
        "image": seen.image,
        "tokens": {"total": len(kinds), "grid": [row, column]} | {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "drawn": {"query": asdict(seen.query), "blocks": seen.blocks, "heads": seen.heads},
        "uniform": {"entropy": math.log(len(kinds)), "distance": float(distances(seen.names).mean())},
        "blocks": [_numbered(number, measures(maps, seen.names)) for number, maps in enumerate(seen.maps)],
        "native": seen.native,
    }


def _numbered(block: int, found: Mapping[str, Tensor]) -> dict[str, Any]:
    heads = range(len(found["entropy"]))
    by_head = [{"head": head} | _nested(found, lambda each, head=head: each[head]) for head in heads]  # type: ignore[misc]
    return {"block": block} | _nested(found, Tensor.mean) | {"heads": by_head}


def _nested(found: Mapping[str, Tensor], one: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    numbers = {name: float(one(values)) for name, values in found.items()}
    masses = {name.removeprefix("mass."): value for name, value in numbers.items() if name.startswith("mass.")}
    return {name: value for name, value in numbers.items() if not name.startswith("mass.")} | {"mass": masses}


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print the numbers by block and the native components of what `as_json` gives."""
    from rich.table import Table

    masses = list(found["blocks"][0]["mass"])
    table = Table(title=f"{found['family']} {found['size']}: {found['weights']['told']}\n{found['image']['told']}")
    for name in ("block", "entropy", "of uniform's", *(f"to {kind}" for kind in masses), "distance"):
        table.add_column(name, justify="right")
    for row in found["blocks"]:
        shares = [f"{row['mass'][kind]:.3f}" for kind in masses]
        entropy = [f"{row['entropy']:.3f}", f"{row['normalised_entropy']:.3f}"]
        table.add_row(str(row["block"]), *entropy, *shares, f"{row['distance']:.2f}")
    console.print(table)
    uniform = found["uniform"]
    console.print(
        "Means over heads and over all tokens as queries. entropy: in nats; uniform attention has"
        f" {uniform['entropy']:.3f}. to ...: share of the attention; to others of a kind, or to itself. distance: of patches'"
        f" attention to patches, in patches; uniform attention has {uniform['distance']:.2f}.",
        style="dim", highlight=False,
    )  # fmt: skip
    _show_native(found, console)


def _show_native(found: Mapping[str, Any], console: Console) -> None:
    from rich.table import Table

    if not found["native"]:
        console.print(f"{found['family']} has no native components", highlight=False)
        return
    table = Table(header_style="bold")
    for name in ("native component", "what it does", "initial value from", "under Copy", "mean |value|"):
        table.add_column(name, overflow="fold")
    for each in found["native"]:
        inert = "inert" if each["inert_under_copy"] else ""
        table.add_row(each["name"], each["description"], each["source"], inert, _learned(each["learned"]))
    console.print(table)


def _learned(values: Mapping[str, Sequence[float]]) -> str:
    """From the first block to the last, where there is one a block."""
    lines = [" … ".join(f"{value:.2g}" for value in dict.fromkeys((each[0], each[-1]))) for each in values.values() if each]
    return "; ".join(lines)


MARGIN, HEADER, GAP, PHOTO, CURVES, LEGENDS = 0.35, 0.85, 0.06, 1.9, 2.6, 1.25


WEIGHT, PALENESS = 0.75, 0.7  # of a map's colour over the image; of the image's contrast below it


COLOUR_MAP = "viridis"  # sequential, even in lightness, for colour-blind readers too


MASSES = ("patches", "class", "itself", "registers", "distillation")  # in the order of colours


LOWEST = 0.1  # times uniform attention: less is not told apart


class _Page:
    """A figure on which axes are placed in inches from the upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes of this place and size."""
        bottom = self.height - top - height
        where = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(where)

    def text(self, left: float, top: float, words: str, **style: Any) -> None:
        """Words whose upper left corner is there."""
        self.figure.text(left / self.width, 1 - top / self.height, words, va="top", **style)


def check_format(path: Path) -> None:
    """Raise UserError for a picture that cannot be written in the format its name asks for."""
    if path.suffix not in FORMATS:
        raise UserError(f"--out {path}: valid endings: {', '.join(FORMATS)}")


def draw(seen: Look, found: Mapping[str, Any], path: Path) -> None:
    """Write the picture; `found` is what `as_json` gives. Raises UserError where it cannot be written."""
    ensure_writable("--out", path.parent)
    with matplotlib.rc_context(STYLE):
        drawn = picture(seen, found)
        try:
            drawn.savefig(path, dpi=130)
        except OSError as error:
            raise UserError(f"--out {path}: {error.strerror or one_line(error)}") from None


def picture(seen: Look, found: Mapping[str, Any]) -> Figure:
    """The image, maps in a row a block with a column for the mean over heads and for each head, and curves over the blocks."""
    rows, columns, panels = len(seen.blocks), 1 + len(seen.heads), len(_panels(found))
    cell = max(0.72, min(1.7, 8.5 / columns, 9 / rows))
    body = max(rows * (cell + GAP), PHOTO + 1.1, 1.35 * panels)
    left = MARGIN + PHOTO + 0.75
    curves = left + columns * (cell + GAP) + 0.75
    page = _Page(curves + CURVES + LEGENDS, HEADER + 0.25 + body + 0.4)
    _title(page, seen)
    values = shown(seen)
    most = max(1 / LOWEST, *(float(each.max()) for each in values.values()))
    _maps(page, seen, values, most, left, cell)
    _photo(page, seen, most)
    _curves(page, seen, found, curves, body)
    return page.figure


def _title(page: _Page, seen: Look) -> None:
    request, kinds = seen.request, [kind_of(name) for name in seen.names]
    prefix = [f"{kinds.count(kind)} {kind} + " for kind in dict.fromkeys(kinds) if kind != "patches"]
    size = f"{''.join(prefix)}{seen.grid[0]} x {seen.grid[1]} patches"
    native = ", ".join(each["name"] for each in seen.native) or "none"
    told = f"{seen.weights['told']} · image: {_cut(seen.image['told'])} · tokens: {size} · native components: {native}"
    page.text(MARGIN, 0.2, f"{request.family} {request.size}: attention of {seen.query.told}", size=13, weight="bold")
    lines = textwrap.wrap(told, round(15 * (page.width - 2 * MARGIN)), max_lines=2)
    page.text(MARGIN, 0.48, "\n".join(lines), color="0.3")


def _cut(text: str | None, most: int = 60) -> str:
    return text if text is not None and len(text) <= most else f"{str(text)[: most - 1]}…"


def shown(seen: Look) -> dict[tuple[int, int | None], Tensor]:
    """The maps to draw by (block, head), head None for the mean: [rows, columns], 1 where it is as uniform attention is."""
    patches = [i for i, name in enumerate(seen.names) if kind_of(name) == "patches"]
    found: dict[tuple[int, int | None], Tensor] = {}
    for block in seen.blocks:
        queried = seen.maps[block][:, list(seen.query.tokens)].mean(1)[:, patches].unflatten(-1, seen.grid) * len(seen.names)
        found[block, None] = queried.mean(0)
        found |= {(block, head): queried[head] for head in seen.heads}
    return found


def _maps(page: _Page, seen: Look, drawn: Mapping[tuple[int, int | None], Tensor], most: float, left: float, cell: float) -> None:
    """A row a block; a column for the mean over heads, then one a head. Colours go up to `most`."""
    grey = 0.5 + PALENESS * (seen.pixels.mean(0).clamp(0, 1).numpy() - 0.5)
    height, width = grey.shape
    for (block, head), values in drawn.items():
        row, column = seen.blocks.index(block), 0 if head is None else 1 + seen.heads.index(head)
        axes = page.axes(left + column * (cell + GAP), HEADER + 0.25 + row * (cell + GAP), cell, cell)
        axes.imshow(grey, cmap="gray", vmin=0, vmax=1)
        where = (-0.5, width - 0.5, height - 0.5, -0.5)
        axes.imshow(
            values.numpy(),
            cmap=COLOUR_MAP,
            norm=LogNorm(LOWEST, most, clip=True),
            alpha=WEIGHT,
            extent=where,
            interpolation="nearest",
        )
        _bare(axes)
        _mark(axes, seen)
        if row == 0:
            axes.set_title("mean of heads" if head is None and cell > 0.9 else "mean" if head is None else f"head {head}", size=8)
        if column == 0:
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


def _photo(page: _Page, seen: Look, most: float) -> None:
    """The image, and below it what the maps' colours mean."""
    axes = page.axes(MARGIN, HEADER + 0.25, PHOTO, PHOTO)
    axes.imshow(seen.pixels.permute(1, 2, 0).clamp(0, 1).numpy())
    axes.set_title("the image", size=8)
    _bare(axes)
    _mark(axes, seen)
    bar = page.axes(MARGIN, HEADER + 0.25 + PHOTO + 0.3, PHOTO, 0.13)
    bar.set_facecolor("0.5")  # the image's mean grey, through which colours are seen
    page.figure.colorbar(ScalarMappable(LogNorm(LOWEST, most), COLOUR_MAP), cax=bar, orientation="horizontal", alpha=WEIGHT)
    ticks = [each for each in (0.1, 1.0, 10.0, 100.0, 1000.0) if each <= most]
    bar.set_xticks(ticks, [f"≤ {ticks[0]:g}", *(f"{each:g}" for each in ticks[1:])])
    bar.minorticks_off()
    bar.tick_params(labelsize=8)
    bar.set_xlabel("attention to a patch,\ntimes that of uniform attention;\none scale for all maps", size=8)


@dataclass(frozen=True)
class _Panel:
    """Lines by name over the blocks, each with its heads' values where it has them; `level` is uniform attention's."""

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


def _curves(page: _Page, seen: Look, found: Mapping[str, Any], left: float, body: float) -> None:
    panels = _panels(found)
    each = min(2.2, body / len(panels))
    for number, panel in enumerate(panels):
        axes = page.axes(left, HEADER + 0.25 + number * each, CURVES, each - 0.42)
        _curve(axes, panel, seen.blocks)
        if number == len(panels) - 1:
            axes.set_xlabel("block", size=8)


def _curve(axes: Axes, panel: _Panel, drawn: Sequence[int]) -> None:
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
