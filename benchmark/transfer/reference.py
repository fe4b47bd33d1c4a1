"""The reference formulation with explicit maps: timm without fused attention, whose `attn_drop`
gets the map.

It shares no code with the rest. The contract is checked against it, and `bench speed` measures it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def unfused(model: nn.Module) -> nn.Module:
    """A copy of a model with its own classes of attention, and without fused attention."""
    model = copy.deepcopy(model)
    for block in model.blocks:  # type: ignore[union-attr]
        block.attn.fused_attn = False  # type: ignore[union-attr]
        block.attn.__class__ = next(c for c in type(block.attn).__mro__ if c.__module__ != "families.core.attention")
    return model


@contextmanager
def kept_maps(explicit: nn.Module) -> Iterator[list[Tensor]]:
    """Within: forwards of an unfused model append the map [B, heads, tokens, tokens] of each block."""
    kept: list[Tensor] = []
    hooks = [
        block.attn.attn_drop.register_forward_hook(lambda module, args, output: kept.append(args[0]))
        for block in explicit.blocks  # type: ignore[union-attr]
    ]
    yield kept
    for hook in hooks:
        hook.remove()


def reference_maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The maps of a model, one a block, for normalised input [B, 3, H, W]."""
    explicit = unfused(model)
    with torch.no_grad(), kept_maps(explicit) as kept:
        explicit.forward_features(x)  # type: ignore[operator]
    return list(kept)


@contextmanager
def replaced_maps(explicit: nn.Module, maps: Sequence[Tensor | None], tokens: Sequence[int] | None = None) -> Iterator[None]:
    """Within: an unfused model multiplies v by the given map of each block (None: its own), among
    `tokens` where not all are meant."""

    def put(given: Tensor | None) -> Callable[..., Tensor | None]:
        def hook(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor | None:
            if given is None or tokens is None:
                return given
            own = output.clone()
            own[..., list(tokens), :] = 0
            for row, token in enumerate(tokens):
                own[..., token, list(tokens)] = given[..., row, :]
            return own

        return hook

    hooks = [
        block.attn.attn_drop.register_forward_hook(put(given))
        for block, given in zip(explicit.blocks, maps, strict=True)  # type: ignore[arg-type]
    ]
    yield
    for hook in hooks:
        hook.remove()


def renormalised(full: Tensor, keep: Sequence[int] | None) -> Tensor:
    """A map [..., tokens, tokens] among the tokens kept."""
    if keep is None:
        return full
    kept = full[..., list(keep), :][..., list(keep)]
    return kept / kept.sum(-1, keepdim=True)
