"""DINO: self-distillation with multi-crop on ImageNet-1k (Caron et al. 2021, arXiv 2104.14294).

Native: nothing; the architecture is DeiT's. Trap: none in the architecture; timm's tag creates it
without a head.
"""

from families.spec import Family, Teacher

FAMILY = Family(
    title="DINO",
    paper="Caron et al. 2021, arXiv 2104.14294",
    recipe="self-distillation, ImageNet-1k",
    sets=("papers",),
    teachers=(
        Teacher("small", "vit_small_patch16_224.dino", 384, 12, 6, 16, "Apache-2.0"),
        Teacher("base", "vit_base_patch16_224.dino", 768, 12, 12, 16, "Apache-2.0"),
    ),
    positions="bicubic_offset",
)
