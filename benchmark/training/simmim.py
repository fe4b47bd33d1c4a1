"""Masked image modelling, as an alternative pre-training of teachers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SimMIM(nn.Module):
    """The mask token and decoder of SimMIM (Xie et al. 2022, arXiv 2111.09886).

    A learned token replaces the embeddings of masked patches. From the model's last tokens a linear
    layer predicts their normalised pixels; the loss is the mean absolute difference. The model's
    head is trained beside it as a probe on frozen features of the masked images, so that the
    teacher has a top-1.

    Args:
        dim: width of the model.
        patch_size: in pixels.
        ratio: share of the patches that are masked, the same in every image.
    """

    def __init__(self, dim: int, patch_size: int, ratio: float) -> None:
        super().__init__()
        self.patch_size, self.ratio = patch_size, ratio
        draw = torch.Generator().manual_seed(0)
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim), std=0.02, generator=draw))
        self.decoder = nn.Linear(dim, 3 * patch_size**2)
        nn.init.trunc_normal_(self.decoder.weight, std=0.02, generator=draw)
        nn.init.zeros_(self.decoder.bias)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, smoothing: float) -> Tensor:
        """The loss of a timm model for normalised images x [B, 3, H, W] with labels y [B]; torch
        draws the masks."""
        target = patches_of(x, self.patch_size)
        count = round(self.ratio * target.shape[1])
        order = torch.rand(target.shape[:2], device="cpu").argsort(1).to(x.device)
        masked = order < count

        def put_token(module: nn.Module, args: object, embedded: Tensor) -> Tensor:
            return torch.where(masked[..., None], self.token.to(embedded.dtype), embedded)

        handle = model.patch_embed.register_forward_hook(put_token)  # type: ignore[union-attr]
        try:
            tokens = model.forward_features(x)  # type: ignore[operator]
        finally:
            handle.remove()
        logits = model.forward_head(tokens.detach())  # type: ignore[operator]
        predicted = self.decoder(tokens[:, -target.shape[1] :]).float()
        return F.l1_loss(predicted[masked], target[masked]) + F.cross_entropy(logits.float(), y, label_smoothing=smoothing)


def patches_of(x: Tensor, size: int) -> Tensor:
    """Images [B, 3, H, W] -> [B, patches, 3 size^2], patches row by row."""
    return F.unfold(x, size, stride=size).transpose(1, 2)
