"""DINOv2: self-distillation on LVD-142M (Oquab et al. 2023, arXiv 2304.07193); small, base and
large distilled from ViT-g.

Native: LayerScale. Patch 14 is geometry: every student of these teachers has it, its baseline too.
Traps: the files are of 518 px (1,370 tokens), and are used at 224 here; timm antialiases their
position table, the authors do not and add an offset, which moves the attention by several percent;
`init_values=None` does not remove LayerScale.
"""

from families.spec import Component, Constant, Family, Teacher

FAMILY = Family(
    title="DINOv2",
    paper="Oquab et al. 2023, arXiv 2304.07193",
    recipe="self-distillation, LVD-142M, distilled from ViT-g",
    sets=("papers",),
    teachers=(
        Teacher("small", "vit_small_patch14_dinov2.lvd142m", 384, 12, 6, 14, "Apache-2.0", native_size=518),
        Teacher("base", "vit_base_patch14_dinov2.lvd142m", 768, 12, 12, 14, "Apache-2.0", native_size=518),
    ),
    alternatives=(Teacher("large_lvd142m", "vit_large_patch14_dinov2.lvd142m", 1024, 24, 16, 14, "Apache-2.0", native_size=518),),
    positions="bicubic_offset",
    native=(
        Component(
            "layer_scale",
            "a learned gain per channel on each residual branch",
            "dinov2 training configuration: layerscale 1e-5 (the hub constructor's 1.0 is overwritten by the weights)",
            args={"init_values": 1e-5},
            initial={"*.ls?.gamma": Constant(1e-5)},
        ),
    ),
)
