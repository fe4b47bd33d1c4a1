"""Numbers on attention maps: entropy, mass by kind of token and distance; and the size of native
components.

Tokens are told by their names (`families.core.attention.layout`), native components by the family's
file: a new family needs nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from families.core.initialise import canonical
from families.spec import Component

if TYPE_CHECKING:
    from rich.console import Console

KINDS = {"cls": "class", "dist": "distillation", "reg": "registers", "patch": "patches"}  # of tokens, by how names begin


def kind_of(name: str) -> str:
    """The kind of a token by its name: class, distillation, registers or patches."""
    return KINDS[name.rstrip("0123456789,")]


def place_of(name: str) -> tuple[int, int]:
    """The (row, column) of a patch by its name."""
    row, column = name.removeprefix("patch").split(",")
    return int(row), int(column)


def measures(maps: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Measures of a block's maps [heads, tokens, tokens], one number [heads] each, in float64.

    entropy: of a query's attention in nats, mean over queries; normalised_entropy: over that of
    uniform attention, log tokens. mass.itself: a token's attention to itself, mean over queries;
    mass.<kind>: to the other tokens of a kind; they sum to 1. distance: of the patches' attention
    to patches, in patches (Euclidean, weighted by the attention).
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
    places = torch.tensor([place_of(name) for name in names if kind_of(name) == "patches"], dtype=torch.float64)
    return torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")


def magnitudes(model: nn.Module, component: Component) -> dict[str, list[float]]:
    """Mean absolute value of the parameters for which a native component has an initial value, by
    their pattern: a number a block, or a single one where they belong to none."""
    found = {}
    for pattern in component.initial:
        by_place: dict[str, list[Tensor]] = {}
        for name, parameter in model.named_parameters():
            if fnmatchcase(canonical(name), pattern):
                place = name.split(".")[1] if name.startswith("blocks.") else ""
                by_place.setdefault(place, []).append(parameter.detach().abs().flatten())
        found[pattern] = [float(torch.cat(values).mean()) for values in by_place.values()]
    return found


def numbered(block: int, found: Mapping[str, Tensor]) -> dict[str, Any]:
    """The measures of a block as plain numbers: means over its heads, then by head."""
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
