"""FlexiViT (Beyer et al. 2023, arXiv 2212.08013): trained at many patch sizes.

Native: the position table has no row for the class token. Trap: the weights of patches and
positions are those of patch 16 at 240 pixels; other timm names (`patch16_in21k`, `patch30_in21k`)
are trained at one patch size.
"""

from families.spec import HALF, Component, Family, Teacher

FAMILY = Family(
    title="FlexiViT",
    paper="Beyer et al. 2023, arXiv 2212.08013",
    recipe="supervised at random patch sizes, ImageNet-1k, 300 epochs",
    teachers=(
        Teacher("small", "flexivit_small.300ep_in1k", 384, 12, 6, 16, "Apache-2.0", native_size=240),
        Teacher("base", "flexivit_base.300ep_in1k", 768, 12, 12, 16, "Apache-2.0", native_size=240),
    ),
    alternatives=(
        Teacher("large_in1k", "flexivit_large.300ep_in1k", 1024, 24, 16, 16, "Apache-2.0", native_size=240),
        Teacher("base_in21k", "flexivit_base.300ep_in21k", 768, 12, 12, 16, "Apache-2.0", native_size=240),
    ),
    native=(
        Component(
            "patch_pos_embed",
            "position embedding on the patches alone, not on the class token",
            "big_vision/models/proj/flexi/vit.py: the table is added before the class token",
            args={"no_embed_class": True},
        ),
    ),
    mean=HALF,
    std=HALF,
)
