"""LayerScale is a re-parameterisation: its gains can be folded into the weights before them."""

from __future__ import annotations

import torch
from torch import nn

# Per residual branch: the module and the parameter (of Beit's block itself) that may hold the gain,
# and the layer before it.
BRANCHES = (("ls1", "gamma_1", "attn.proj"), ("ls2", "gamma_2", "mlp.fc2"))


@torch.no_grad()
def fold(model: nn.Module) -> nn.Module:
    """Fold each block's LayerScale (Touvron et al. 2021, arXiv 2103.17239) into the last layer of
    its branch, in place.

    Outputs and attention maps stay the same; the model no longer has LayerScale.

    Raises ValueError for a model without LayerScale.
    """
    folded = 0
    for block in model.blocks:  # type: ignore[union-attr]
        for name, parameter, last in BRANCHES:
            scale = getattr(block, name, None)
            gamma = getattr(scale, "gamma", None) if parameter not in block._parameters else getattr(block, parameter)
            if gamma is None:
                continue
            layer = block.get_submodule(last)
            layer.weight.mul_(gamma[:, None])
            if layer.bias is not None:
                layer.bias.mul_(gamma)
            if parameter in block._parameters:
                setattr(block, parameter, None)
            else:
                setattr(block, name, nn.Identity())
            folded += 1
    if not folded:
        raise ValueError(f"{type(model).__name__} has no LayerScale to fold")
    return model
