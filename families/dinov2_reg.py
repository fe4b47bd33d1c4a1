"""DINOv2 with registers (Darcet et al. 2024, arXiv 2309.16588).

Native: LayerScale and four registers between class token and patches. Traps: registers have no
position embedding; timm folds the class token's row into the class token (`no_embed_class`),
without which registers would get rows of their own; the table is antialiased at another size, that
of DINOv2 without registers is not.
"""

from families.spec import Component, Constant, Family, Normal, Teacher

FAMILY = Family(
    title="DINOv2 with registers",
    paper="Darcet et al. 2024, arXiv 2309.16588",
    recipe="self-distillation, LVD-142M, distilled from ViT-g",
    sets=("papers",),
    teachers=(
        Teacher("small", "vit_small_patch14_reg4_dinov2.lvd142m", 384, 12, 6, 14, "Apache-2.0", native_size=518),
        Teacher("base", "vit_base_patch14_reg4_dinov2.lvd142m", 768, 12, 12, 14, "Apache-2.0", native_size=518),
    ),
    alternatives=(
        Teacher("large_lvd142m", "vit_large_patch14_reg4_dinov2.lvd142m", 1024, 24, 16, 14, "Apache-2.0", native_size=518),
    ),
    positions="bicubic_antialias",
    native=(
        Component(
            "layer_scale",
            "a learned gain per channel on each residual branch",
            "dinov2 training configuration: layerscale 1e-5 (the hub constructor's 1.0 is overwritten by the weights)",
            args={"init_values": 1e-5},
            initial={"*.ls?.gamma": Constant(1e-5)},
        ),
        Component(
            "registers",
            "four learned tokens without position, between class token and patches",
            "dinov2/models/vision_transformer.py: register_tokens normal 1e-6",
            args={"reg_tokens": 4, "no_embed_class": True},
            initial={"reg_token": Normal(1e-6)},
        ),
    ),
)
