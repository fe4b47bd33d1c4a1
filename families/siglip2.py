"""SigLIP 2, image tower (Tschannen et al. 2025, arXiv 2502.14786).

Native: no class token; the head reads the patches (upstream by attention pooling, which belongs to
the head and is a protocol's choice; here their mean). Traps: the large model has no version of 224
pixels, but 256 pixels with patches of 16 give the grid of patch 14 at 224; timm's `_gap_` names
hold the same weights without the pooling head; upstream's GELU is the tanh approximation.
"""

from families.spec import HALF, Component, Family, Teacher

FAMILY = Family(
    title="SigLIP 2",
    paper="Tschannen et al. 2025, arXiv 2502.14786",
    recipe="image-text (sigmoid loss, captioning, self-distillation), WebLI",
    teachers=(
        Teacher("base", "vit_base_patch16_siglip_224.v2_webli", 768, 12, 12, 16, "Apache-2.0"),
        Teacher("large", "vit_large_patch16_siglip_256.v2_webli", 1024, 24, 16, 16, "Apache-2.0", img_size=256, native_size=256),
    ),
    native=(
        Component(
            "no_class_token",
            "patches alone; the head reads their mean",
            "big_vision/models/vit.py: no class token under pooling by attention or mean",
            args={"class_token": False, "global_pool": "avg", "fc_norm": False},
        ),
    ),
    mean=HALF,
    std=HALF,
)
