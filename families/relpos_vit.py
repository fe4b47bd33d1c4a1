"""timm's ViT with relative positions (Wightman 2022; the bias of Swin V2: Liu et al. 2022, arXiv
2111.09883).

Native: LayerScale, a relative position bias from an MLP in each block, no absolute position
embedding, no bias of q, k and v, no class token. Traps: timm's class has no absolute positions, so
its students have a host of ours; its MLP drops 1/8 of the hidden layer in training, which is off in
that host, or a map would be random; the `rpn` names are another kind of block.
"""

from families.spec import HALF, Component, Constant, Family, Host, Teacher

_CODE = "timm/models/vision_transformer_relpos.py"

FAMILY = Family(
    title="ViT with relative positions",
    paper="Wightman 2022 (timm); Liu et al. 2022, arXiv 2111.09883",
    recipe="supervised, ImageNet-1k",
    teachers=(
        Teacher("small", "vit_relpos_small_patch16_224.sw_in1k", 384, 12, 6, 16, "Apache-2.0"),
        Teacher("base", "vit_relpos_base_patch16_224.sw_in1k", 768, 12, 12, 16, "Apache-2.0"),
    ),
    native=(
        Component(
            "layer_scale", "a learned gain per channel on each residual branch", f"{_CODE}: init_values 1e-6",
            args={"init_values": 1e-6}, initial={"*.ls?.gamma": Constant(1e-6)},
        ),
        Component(
            "rel_pos_bias", "an additive attention bias by relative position, from an MLP in each block",
            f"{_CODE}: RelPosMlp, as other linear layers", args={"rel_pos": True}, inert_under_copy=True,
        ),
        Component("no_pos_embed", "no absolute position embedding", _CODE, args={"pos_embed": "none"}),
        Component("no_qkv_bias", "no bias of q, k and v", _CODE, args={"qkv_bias": False}),
        Component(
            "no_class_token", "patches alone; the head reads their mean", _CODE,
            args={"class_token": False, "global_pool": "avg", "fc_norm": False},
        ),
    ),
    host=Host("families.core.hosts:RelPosViT"),
    mean=HALF,
    std=HALF,
)  # fmt: skip
