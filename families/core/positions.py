"""Position tables at another input size, resampled as a teacher's authors do.

The rule is a word in the family's file (`positions`), one of RULES. All of them take a table as
float values on a grid, [rows, columns, channels], and give it on another one. Absolute embeddings
lie on the grid of patches; a table of relative position biases lies on the grid of offsets, 2 rows
- 1 by 2 columns - 1. The rows of tokens without a place (class token, registers) are kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.interpolate import RectBivariateSpline
from torch import Tensor, nn

from families.spec import UnknownName

Grid = tuple[int, int]
Rule = Callable[[Tensor, Grid], Tensor]
RULES: dict[str, Rule] = {}
OFFSET = 0.1  # of a patch
LEAST, MOST, CLOSE = 1.01, 1.5, 1e-6  # of BEiT's ratio, and how closely it is found


def rule(function: Rule) -> Rule:
    """Register a rule by its name."""
    RULES[function.__name__] = function
    return function


@torch.no_grad()
def resize(model: nn.Module, img_size: int, positions: str) -> nn.Module:
    """Give a timm model another input size, in pixels a side, in place: the tables whose shape
    depends on it are resampled by the rule `positions`. At its own size nothing changes.

    Raises UnknownName for an unknown rule.
    """
    if positions not in RULES:
        raise UnknownName("rule of position tables", positions, RULES)
    given: Any = model
    if given.patch_embed.img_size == (img_size, img_size):
        return model
    grid, before = given.patch_embed.grid_size, dict(model.named_parameters())
    with warnings.catch_warnings(action="ignore"):  # of timm's own resampling, which is written over
        given.set_input_size(img_size=(img_size, img_size))
    for name, parameter in model.named_parameters():
        if parameter.shape != before[name].shape:
            relative = parameter.dim() == 2  # else [1, tokens, channels]
            old, new = (_offsets(each) if relative else each for each in (grid, given.patch_embed.grid_size))
            table = before[name].reshape(-1, parameter.shape[-1])
            parameter.copy_(_resampled(table, old, new, RULES[positions], relative).reshape(parameter.shape))
    return model


def _offsets(grid: Grid) -> Grid:
    """The grid of relative positions between the patches of a grid."""
    return 2 * grid[0] - 1, 2 * grid[1] - 1


def _resampled(table: Tensor, old: Grid, new: Grid, by: Rule, last: bool) -> Tensor:
    """A table [tokens, channels] from one grid to another. Its tokens without a place stand last,
    or else first."""
    count = old[0] * old[1]
    placed, others = (table[:count], table[count:]) if last else (table[-count:], table[:-count])
    moved = by(placed.reshape(*old, -1), new).reshape(new[0] * new[1], -1)
    return torch.cat([moved, others] if last else [others, moved])


def _interpolated(table: Tensor, **how: Any) -> Tensor:
    """Torch's interpolation of [rows, columns, channels]."""
    return F.interpolate(table.permute(2, 0, 1)[None], **how)[0].permute(1, 2, 0)


@rule
def bicubic(table: Tensor, grid: Grid) -> Tensor:
    """To the exact size, without antialiasing: DeiT (main.py, --finetune) and MAE
    (util/pos_embed.py)."""
    return _interpolated(table, size=grid, mode="bicubic")


@rule
def bicubic_offset(table: Tensor, grid: Grid) -> Tensor:
    """By the factor (patches + .1) / patches of the table, without antialiasing, so that the points
    lie a little closer than at the exact size: DINO and iBOT (vision_transformer.py,
    interpolate_pos_encoding), DINOv2 without registers (hub/backbones.py, interpolate_offset)."""
    factors = tuple((new + OFFSET) / old for new, old in zip(grid, table.shape[:2], strict=True))
    return _interpolated(table, scale_factor=factors, mode="bicubic")


@rule
def bicubic_antialias(table: Tensor, grid: Grid) -> Tensor:
    """To the exact size, with antialiasing: DINOv2 with registers (hub/backbones.py), and timm for
    every ViT."""
    return _interpolated(table, size=grid, mode="bicubic", antialias=True)


@rule
def bilinear(table: Tensor, grid: Grid) -> Tensor:
    """To the exact size, by torch's defaults: CLIP's authors tell "bilinear" (openai/CLIP, issue
    214), not how corners align nor whether they antialias."""
    return _interpolated(table, size=grid, mode="bilinear")


@rule
def bilinear_corners(table: Tensor, grid: Grid) -> Tensor:
    """Linear, with the outermost points of both grids in the same places: scipy.ndimage.zoom of
    order 1 in google-research/vision_transformer (vit_jax/checkpoint.py)."""
    return _interpolated(table, size=grid, mode="bilinear", align_corners=True)


@rule
def geometric_spline(table: Tensor, grid: Grid) -> Tensor:
    """For relative positions: the known values are put at distances from 0 that grow geometrically,
    1, 1 + q, 1 + q + q^2, ..., and a cubic spline through them is read at whole distances.

    q is that with which the outermost ones coincide, from 1.01 to 1.5; so in a smaller grid near
    values stay, and far ones are left out. BEiT and BEiT v2 (run_class_finetuning.py), where
    scipy.interpolate.interp2d is the spline; scipy 1.14 has dropped it and names
    RectBivariateSpline as the equal. Table [rows, columns, heads].
    """
    known = [_distances(old // 2, new // 2) for old, new in zip(table.shape[:2], grid, strict=True)]
    wanted = [np.arange(new) - new // 2 for new in grid]
    heads = [RectBivariateSpline(*known, values)(*wanted) for values in table.double().permute(2, 0, 1).cpu().numpy()]
    return torch.from_numpy(np.stack(heads, -1)).to(table)


def _distances(count: int, farthest: int) -> np.ndarray[Any, Any]:
    """Where a spline's 2 count + 1 known values lie: from -reach to reach, 0 in the middle."""
    least, most = LEAST, MOST
    while most - least > CLOSE:
        ratio = (least + most) / 2
        reach = (1 - ratio**count) / (1 - ratio)
        least, most = (least, ratio) if reach > farthest else (ratio, most)
    positive = np.cumsum(ratio ** np.arange(count))
    return np.concatenate([-positive[::-1], [0.0], positive])
