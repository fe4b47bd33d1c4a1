"""Hosts of native components that no class of timm can hold beside absolute positions."""

from __future__ import annotations

from typing import Any

from timm.layers import Attention, RelPosMlp
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor


class RelPosAttention(Attention):  # type: ignore[misc]
    """timm's attention, with an additive bias by relative position from a small MLP."""

    rel_pos: RelPosMlp

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """[B, tokens, dim] -> the same shape. The bias takes the place of a mask."""
        return super().forward(x, self.rel_pos.get_bias(), is_causal)  # type: ignore[no-any-return]


class RelPosViT(VisionTransformer):  # type: ignore[misc]
    """timm's plain ViT, and with `rel_pos` the relative position bias of timm's
    VisionTransformerRelPos in each block (log coordinates through an MLP: Liu et al. 2022, arXiv
    2111.09883), under the same names of parameters.

    The dropout of .125 in timm's MLP is off: with it a map would be random in training.
    """

    def __init__(self, rel_pos: bool = False, **timm_args: Any) -> None:
        if rel_pos:
            timm_args["attn_layer"] = RelPosAttention
        super().__init__(**timm_args)
        for block in self.blocks if rel_pos else ():
            bias = RelPosMlp(
                window_size=self.patch_embed.grid_size, num_heads=block.attn.num_heads, prefix_tokens=self.num_prefix_tokens
            )
            bias.mlp.drop1.p = 0.0
            block.attn.rel_pos = bias

    def set_input_size(self, img_size: tuple[int, int] | None = None, patch_size: tuple[int, int] | None = None) -> None:
        """Take another input size, in pixels, or patch size; the bias follows the grid."""
        super().set_input_size(img_size, patch_size)
        for block in self.blocks:
            if isinstance(block.attn, RelPosAttention):
                block.attn.rel_pos.set_window_size(self.patch_embed.grid_size)
