"""Starts of attention weights that need no teacher: an alternative to attention transfer.

All else of the model starts as it does otherwise. Sizes: d is the model's width, k that of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from families.core.seeds import seed_of

# alpha and beta of Q K^T and of V O, in vision: Trockman and Kolter 2023, arXiv 2305.09828, as the
# code of Zheng et al. 2025 has them
QK, VO = (0.7, 0.7), (0.4, -0.4)
# Zheng et al. 2025, arXiv 2505.19985, and their code: 3 x 3 filters, a head each in this order;
# factors of position embeddings and of q and k; logits of the neighbour, and of the others' noise
FILTERS = (4, 1, 5, 3, 7, 0, 2, 6, 8)
POSITIONS, NORM = 18.0, 7.0
PEAK, NOISE, NOISE_STD = 1000.0, 3.0, 0.6


@torch.no_grad()
def start_attention(model: nn.Module, start: str, seed: int) -> nn.Module:
    """Start the attention weights of a timm VisionTransformer with position embeddings, in place.
    Returns the model.

    usual: nothing changes.

    mimetic: for each head Q K^T is the best approximation of rank k of .7 Z + .7 I, and V O is
    .4 Z - .4 I, with Z normal of variance 1/d (Trockman and Kolter 2023).

    impulse: Q and K are solved for, so that on position embeddings alone each head attends to one
    neighbour of a 3 x 3 window, as a convolution by an impulse; V O as in mimetic (Zheng et al.
    2025). Position embeddings start 18 times as large.
    """
    if start == "usual":
        return model
    if start == "impulse":
        model.pos_embed.mul_(POSITIONS)  # type: ignore[union-attr, operator]
    heads_of = STARTS[start]
    for number, block in enumerate(model.blocks):  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(seed_of(f"student:{seed}", f"blocks.{number}.attn", start))
        q, k, v = block.attn.qkv.weight.chunk(3)
        first, second = heads_of(model, int(block.attn.num_heads), generator)
        left, right = _factors(_near_identity(len(v), *VO, generator), len(v))
        for weight, value in ((q, first), (k, second), (v, left.T), (block.attn.proj.weight, right.T)):
            weight.copy_(value)
    return model


def _near_identity(size: int, alpha: float, beta: float, generator: torch.Generator) -> Tensor:
    """The matrix alpha Z + beta I [d, d], float64."""
    noise = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return noise.mul(alpha / size**0.5).add(torch.eye(size, dtype=torch.float64), alpha=beta)


def _factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """L [..., d, rank] and R [..., rank, d] of equal norms, with L R the nearest matrix of that rank."""
    u, values, v = torch.linalg.svd(matrix)
    root = values[..., :rank].sqrt()
    return u[..., :rank] * root[..., None, :], root[..., None] * v[..., :rank, :]


def _mimetic(model: nn.Module, heads: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The weights of q and k [d, d], heads one below the other."""
    size = int(model.embed_dim)  # type: ignore[arg-type]
    pairs = [_factors(_near_identity(size, *QK, generator), size // heads) for _ in range(heads)]
    return torch.cat([left.T for left, _ in pairs]), torch.cat([right for _, right in pairs])


def _impulse(model: nn.Module, heads: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The weights of q and k [d, d], heads one below the other."""
    rows, columns = model.patch_embed.grid_size  # type: ignore[union-attr, misc]
    patches = model.pos_embed[0, -rows * columns :].double()  # type: ignore[index]
    seen = nn.functional.layer_norm(patches, patches.shape[-1:])
    rank = seen.shape[1] // heads
    wanted = torch.stack([_neighbours(rows, columns, FILTERS[head % len(FILTERS)]) for head in range(heads)])
    noise = nn.init.trunc_normal_(torch.empty_like(wanted), std=NOISE_STD, generator=generator)
    logits = torch.where(wanted > 0, PEAK, NOISE * noise)
    u, values, v = torch.linalg.svd(seen, full_matrices=False)
    kept = min(rank, len(values), seen.shape[1] - 1)  # normalised rows have d - 1 degrees of freedom
    inverse = (v[:kept].T / values[:kept]) @ u[:, :kept].T
    left, right = _factors(inverse @ logits @ inverse.T, rank)
    q, k = (each / torch.linalg.matrix_norm(each, keepdim=True) * NORM for each in (left.mT, right))
    return q.flatten(0, 1), k.flatten(0, 1)


def _neighbours(rows: int, columns: int, place: int) -> Tensor:
    """[patches, patches]: 1 where a patch (row) has another (column) at a place of a 3 x 3 window,
    counted by rows."""
    down, right = place // 3 - 1, place % 3 - 1
    return torch.kron(
        torch.diag(torch.ones(rows - abs(down), dtype=torch.float64), down),
        torch.diag(torch.ones(columns - abs(right), dtype=torch.float64), right),
    )


STARTS = {"mimetic": _mimetic, "impulse": _impulse}
