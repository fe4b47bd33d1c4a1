"""One initialisation rule for every class of model: timm's Beit and Eva start differently from its
VisionTransformer, and that difference must not pass for an effect of a native component.

Each parameter has its own generator, seeded by (seed, canonical name), so two students start equal
in all that they share. Fused parts are drawn in pieces (q, k and v of `qkv`; prefix and patch rows
of `pos_embed`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from families.core.seeds import seed_of
from families.spec import Constant, Initial, Normal, RopeFrequencies, SinCos

STD = 0.02  # truncated normal of weights, tokens and position embeddings: DeiT (Touvron et al. 2021), timm's default
TOKENS = ("cls_token", "pos_embed.prefix", "pos_embed.patches", "attn_pool.latent")  # beside weights; the last of a pooling head
_RENAMED = {"gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}  # BEiT keeps LayerScale on the block


def canonical(name: str) -> str:
    """A parameter's name in timm's VisionTransformer."""
    head, _, last = name.rpartition(".")
    return f"{head}.{_RENAMED[last]}" if last in _RENAMED else name


@torch.no_grad()
def initialise(model: nn.Module, seed: int | str, initial: Mapping[str, Initial]) -> nn.Module:
    """Initialise every parameter of a timm model in place; `initial` maps name patterns to native
    components' values.

    Tables given by SinCos are frozen. Raises ValueError for a parameter that neither the rule nor
    `initial` covers.
    """
    for name, parameter in model.named_parameters():
        value = next((v for pattern, v in initial.items() if fnmatchcase(canonical(name), pattern)), None)
        if isinstance(value, SinCos):
            parameter.copy_(sincos_table(parameter.shape, model, value.first))
            parameter.requires_grad_(False)
            continue
        for piece, part in _pieces(canonical(name), parameter, model):
            _fill(part, piece, seed, value)
    return model


def _pieces(name: str, parameter: Tensor, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    if name.endswith("attn.qkv.weight"):
        for letter, part in zip("qkv", parameter.chunk(3), strict=True):
            yield name.replace("qkv", f"{letter}_proj"), part
    elif name == "pos_embed":
        prefix = parameter.shape[1] - int(model.patch_embed.num_patches)  # type: ignore[union-attr, arg-type]
        yield "pos_embed.prefix", parameter[:, :prefix]
        yield "pos_embed.patches", parameter[:, prefix:]
    else:
        yield name, parameter


def _fill(part: Tensor, name: str, seed: int | str, value: Initial | None) -> None:
    generator = torch.Generator().manual_seed(seed_of(seed, name))
    if isinstance(value, Constant):
        part.fill_(value.value)
    elif isinstance(value, Normal):
        part.copy_(torch.randn(part.shape, generator=generator) * value.std)
    elif isinstance(value, RopeFrequencies):
        part.copy_(_rope_frequencies(part.shape, value.base, generator))
    elif name.endswith(("bias", "relative_position_bias_table")):
        part.zero_()
    elif name == "patch_embed.proj.weight":
        bound = part[0].numel() ** -0.5  # torch's default of a convolution, which DeiT, DINO and timm keep
        part.copy_((torch.rand(part.shape, generator=generator) * 2 - 1) * bound)
    elif part.ndim >= 2 and (name.endswith("weight") or name in TOKENS):
        draw = torch.empty(part.shape)
        nn.init.trunc_normal_(draw, std=STD, generator=generator)
        part.copy_(draw)
    elif name.endswith("weight"):
        part.fill_(1.0)  # norms
    else:
        raise ValueError(f"no initial value for parameter {name!r}: give it in the family's file")


def _rope_frequencies(shape: torch.Size, base: float, generator: torch.Generator) -> Tensor:
    """[2 axes, blocks, heads, head_dim / 2]: see RopeFrequencies."""
    _, blocks, heads, half = shape
    lengths = base ** (-2 * torch.arange(half // 2) / half)
    angle = torch.rand(blocks, heads, 1, generator=generator) * 2 * torch.pi
    directions = torch.cat([(angle + turn).expand(-1, -1, half // 2) for turn in (0.0, torch.pi / 2)], dim=-1)
    return torch.stack([directions.cos(), directions.sin()]) * lengths.repeat(2)


def sincos_table(shape: torch.Size, model: nn.Module, first: str) -> Tensor:
    """[1, prefix + patches, dim]: zero prefix rows, then for each patch [sin, cos] of the `first`
    axis, [sin, cos] of the other; frequencies 10000^(-i / (dim/4)) (MAE: He et al. 2022; MoCo v3:
    Chen et al. 2021)."""
    _, length, dim = shape
    rows, columns = model.patch_embed.grid_size  # type: ignore[union-attr, misc]
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    axes = (row, column) if first == "row" else (column, row)
    frequency = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    angles = [axis.reshape(-1, 1) * frequency for axis in axes]
    patches = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)
    return torch.cat([patches.new_zeros(length - len(patches), dim), patches])[None].float()
