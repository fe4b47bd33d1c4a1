"""Mask R-CNN (He et al. 2017, arXiv 1703.06870) by torchvision, on a plain ViT with a simple feature
pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from benchmark.data.boxes import Target
from benchmark.spec.detection import Detector as Settings
from benchmark.training.detection.windows import restrict
from families.core.seeds import seed_of

SCALES = (4.0, 2.0, 1.0, 0.5)  # of the pyramid's levels, to the map of the last block
BOX, MASK = 7, 14  # cells a side that a region is pooled to, for the heads of boxes and of masks
RATIOS = (0.5, 1.0, 2.0)  # height to width of anchors


class Pyramid(nn.Module):
    """The simple feature pyramid of ViTDet (Li et al. 2022, arXiv 2203.16527, section 3 and appendix
    A.2): all levels come from the last block's map. A fifth level takes every other place of the
    coarsest one.

    Args:
        body: timm model, whose head and last norm are removed.
        width: channels of each level.
    """

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        model: Any = body
        for name in ("norm", "fc_norm", "head", "head_drop"):
            if hasattr(body, name):
                setattr(body, name, nn.Identity())
        self.body, self.out_channels, self.last = body, width, len(model.blocks) - 1
        self.levels = nn.ModuleList(_level(int(model.embed_dim), scale, width) for scale in SCALES)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Levels by name for normalised images [B, 3, H, W]: `0` to `4`, each [B, width, h, w]."""
        body: Any = self.body
        (features,) = body.forward_intermediates(images, indices=[self.last], norm=False, intermediates_only=True)
        found = [level(features) for level in self.levels]
        found.append(found[-1][:, :, ::2, ::2])
        return {str(number): each.float() for number, each in enumerate(found)}


def _level(dim: int, scale: float, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    if scale == SCALES[0]:
        layers += [nn.ConvTranspose2d(dim, dim // 2, 2, 2), LayerNorm2d(dim // 2), nn.GELU()]
        layers += [nn.ConvTranspose2d(dim // 2, dim // 4, 2, 2)]
        dim = dim // 4
    elif scale == SCALES[1]:
        layers += [nn.ConvTranspose2d(dim, dim // 2, 2, 2)]
        dim = dim // 2
    elif scale == SCALES[-1]:
        layers += [nn.MaxPool2d(2)]
    layers += [nn.Conv2d(dim, width, 1, bias=False), LayerNorm2d(width)]
    layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), LayerNorm2d(width)]
    return nn.Sequential(*layers)


class Anchors(AnchorGenerator):  # type: ignore[misc]
    """Anchors for cells whose sides need not be whole pixels, such as a quarter of a patch of 14;
    torchvision's have whole ones.

    Args:
        strides: side of a cell of each level, in pixels.
        anchor: side of a level's anchors, in strides.
    """

    def __init__(self, strides: Sequence[float], anchor: float) -> None:
        super().__init__(tuple((anchor * stride,) for stride in strides), (RATIOS,) * len(strides))
        self.strides = tuple(strides)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Anchors of each image, [n, 4], level by level."""
        first = feature_maps[0]
        self.set_cell_anchors(first.dtype, first.device)
        strides = [[torch.tensor(stride, device=first.device)] * 2 for stride in self.strides]
        found = self.grid_anchors([list(each.shape[-2:]) for each in feature_maps], strides)
        return [torch.cat(found)] * len(image_list.image_sizes)


def _pooling(levels: list[str], cells: int, patch: int) -> MultiScaleRoIAlign:
    """Pooling of regions from the level whose cells suit their size (Lin et al. 2017, arXiv
    1612.03144, equation 1: 224 pixels for cells of 16), with the true sides of cells: torchvision
    would take them as powers of 2."""
    pool = MultiScaleRoIAlign(levels, cells, 2)
    pool.scales = [scale / patch for scale in SCALES]
    pool.map_levels = LevelMapper(2, 1 + len(SCALES), canonical_scale=14 * patch)
    return pool


class Detector(MaskRCNN):  # type: ignore[misc]
    """Mask R-CNN on a timm model, for square images that are normalised already.

    Regions and heads are computed in float32, whatever the precision of the backbone.

    Args:
        body: timm model, at the detector's input size.
        settings: the rest of the model.
        num_classes: without the background.
        seed: of the parameters that the body does not have.
    """

    def __init__(self, body: nn.Module, settings: Settings, num_classes: int, seed: str) -> None:
        model: Any = body
        restrict(body, settings.windows, settings.global_blocks)
        width, patch = settings.width, int(model.patch_embed.patch_size[0])
        levels = [str(number) for number in range(len(SCALES))]
        strides = [patch / scale for scale in (*SCALES, SCALES[-1] / 2)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "detector"))
            super().__init__(
                Pyramid(body, width),
                rpn_anchor_generator=Anchors(strides, settings.anchor),
                rpn_pre_nms_top_n_train=settings.proposals,
                rpn_pre_nms_top_n_test=settings.proposals,
                rpn_post_nms_top_n_train=settings.proposals,
                rpn_post_nms_top_n_test=settings.proposals,
                box_roi_pool=_pooling(levels, BOX, patch),
                box_head=TwoMLPHead(width * BOX**2, 4 * width),
                box_predictor=FastRCNNPredictor(4 * width, num_classes + 1),
                box_batch_size_per_image=settings.sampled,
                box_detections_per_img=settings.detections,
                mask_roi_pool=_pooling(levels, MASK, patch),
                mask_head=MaskRCNNHeads(width, (width,) * 4, 1),
                mask_predictor=MaskRCNNPredictor(width, width, num_classes + 1),
            )

    @property
    def body(self) -> nn.Module:
        """The timm model."""
        body: nn.Module = self.backbone.body
        return body

    def forward(self, images: Tensor, targets: list[Target]) -> Any:
        """In training the sum of Mask R-CNN's losses; else a record of detections for each image:
        `boxes` [n, 4] in pixels (left, top, right, bottom), `labels`, `scores`, and `masks` [n, 1,
        28, 28] of probabilities over the box.

        Args:
            images: [B, 3, S, S], normalised.
            targets: for each image `shown`, the height and width that are no padding, and in
                training `boxes`, `labels` [n] from 1 on, and `masks` [n, S, S].
        """
        features = self.backbone(images)
        sizes, true = [each["shown"] for each in targets], targets if self.training else None
        with torch.autocast(images.device.type, enabled=False):
            regions, losses = self.rpn(ImageList(images, sizes), features, true)
            found, more = self.roi_heads(features, regions, sizes, true)
        return torch.stack([*losses.values(), *more.values()]).sum() if self.training else found


def body_of(model: nn.Module) -> nn.Module:
    """The timm model in a run's model: a detector's backbone, else the model itself."""
    return model.body if isinstance(model, Detector) else model
