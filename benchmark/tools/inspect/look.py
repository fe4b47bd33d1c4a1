"""Look at a teacher's attention on one image: load both and read every map."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile
from torch import Tensor, nn

import families
from benchmark.data import DataLocation, load
from benchmark.data.augmentation import evaluation_transform
from benchmark.data.image_files import ensure_regular
from benchmark.spec.architectures import architecture
from benchmark.spec.data_sets import Images
from benchmark.spec.definitions import teacher_run
from benchmark.spec.protocol import DEFAULT_PROTOCOL, Protocol
from benchmark.storage.scores import told
from benchmark.storage.work_folder import Workspace
from benchmark.tools.inspect.measures import distances, kind_of, magnitudes, measures, numbered, place_of
from benchmark.training.models import timm_args, trained
from benchmark.training.state_files import weights_of
from families.core.adapter import normalised
from families.core.attention import layout
from families.core.weights import file_digest
from families.core.weights_folder import find_weights
from families.spec import Component, UserError, one_line, quoted

FEW_HEADS, CHOSEN_HEADS = 6, 4  # all heads are drawn up to the first number, else the second
# For images of a protocol that has none of its own: keep the whole of the shorter side.
WHOLE: Any = Images.model_construct(**{"crop_pct": 1.0, "interpolation": "bicubic"})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Request:
    """The options of a look; None: a default.

    Attributes:
        protocol: its name and content: teacher, geometry, normalisation and image.
        word: the user's word for the protocol.
        blocks, heads: to draw, as in "0,5,11", or "all".
        query: cls, mean, centre, or ROW,COLUMN of a patch.
        image: an image file; None: the first test image of embedded data.
        weights: the folder of pre-trained teachers; None: weights in `work`.
        random: random weights.
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
    """Queries whose mean attention is drawn; `told`: in words, `patch`: (row, column) of one."""

    told: str
    tokens: tuple[int, ...]
    patch: tuple[int, int] | None = None


@dataclass(frozen=True)
class Look:
    """A teacher's attention on one image.

    Attributes:
        weights: `told` in words; `kind` trained, file or random; their path.
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
    """Load the teacher and the image, and read every attention map. Raises UserError, WeightsError
    or UnknownName for an unknown size, for weights or an image that cannot be read, and for blocks,
    heads or a query that the teacher lacks."""
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
    """The origin of the weights, and the frozen teacher."""
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
    model = families.load(request.family).teacher(request.size, weights=path, img_size=request.protocol[1].img_size)
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
    result = f"{told(payload['metrics'], 1)} %" if payload else workspace.error(run.key) or "without a result"
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
    """Its description, and its pixels [3, H, W] in 0..1 at the teacher's size."""
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
    """Normalised by the protocol where it trains its teachers, else by the family."""
    protocol, spec = request.protocol[1], families.spec(request.family)
    return normalised(pixels, spec if protocol.teacher is None else protocol.normalisation)


def _ends(depth: int) -> list[int]:
    return sorted({0, (depth - 1) // 2, depth - 1})


def _heads(text: str | None, heads: int) -> list[int]:
    few = heads if heads <= FEW_HEADS else CHOSEN_HEADS
    spread = [round(i * (heads - 1) / max(1, few - 1)) for i in range(few)]
    return _chosen("heads", text, heads, spread)


def _chosen(what: str, text: str | None, there: int, default: list[int]) -> list[int]:
    """The numbers of a word as "0,5,11" or "all". Raises UserError unless all are below `there`."""
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
    """The query that a word names; by default the class token, or the mean over the patches where
    there is none or the head does not read it. Raises UserError for a word that names no token."""
    patches = {place_of(name): i for i, name in enumerate(names) if kind_of(name) == "patches"}
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


def _described(component: Component) -> dict[str, Any]:
    kept = ("name", "description", "source", "inert_under_copy")
    return {name: getattr(component, name) for name in kept}


def as_json(seen: Look) -> dict[str, Any]:
    """The look without its maps: numbers by block, as means over its heads, and by head."""
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
        "blocks": [numbered(number, measures(maps, seen.names)) for number, maps in enumerate(seen.maps)],
        "native": seen.native,
    }
