"""DeiT III: supervised on ImageNet-1k with 3-Augment and BCE (Touvron et al. 2022, arXiv 2204.07118).

Native: LayerScale, and position embeddings on the patches alone. Trap: timm starts LayerScale at
1e-6, the authors' training code (models_v2.py) at 1e-4. The missing class position is functionally
vacuous: it merges into the class token.
"""

from families.spec import Component, Constant, Family, Teacher

FAMILY = Family(
    title="DeiT III",
    paper="Touvron et al. 2022, arXiv 2204.07118",
    recipe="supervised, ImageNet-1k, 800 epochs; base and large at 192 px, then 20 epochs at 224 px",
    sets=("papers",),
    teachers=(
        Teacher("base", "deit3_base_patch16_224.fb_in1k", 768, 12, 12, 16, "Apache-2.0"),
        Teacher("large", "deit3_large_patch16_224.fb_in1k", 1024, 24, 16, 16, "Apache-2.0"),
    ),
    alternatives=(
        Teacher("small_in1k", "deit3_small_patch16_224.fb_in1k", 384, 12, 6, 16, "Apache-2.0"),
        Teacher("small_in22k", "deit3_small_patch16_224.fb_in22k_ft_in1k", 384, 12, 6, 16, "Apache-2.0"),
        Teacher("base_in22k", "deit3_base_patch16_224.fb_in22k_ft_in1k", 768, 12, 12, 16, "Apache-2.0"),
        Teacher("large_in22k", "deit3_large_patch16_224.fb_in22k_ft_in1k", 1024, 24, 16, 16, "Apache-2.0"),
    ),
    positions="bicubic",
    native=(
        Component(
            "layer_scale",
            "a learned gain per channel on each residual branch",
            "deit/models_v2.py: init_scale 1e-4 (timm: 1e-6)",
            args={"init_values": 1e-4},
            initial={"*.ls?.gamma": Constant(1e-4)},
        ),
        Component(
            "patch_pos_embed",
            "position embedding on the patches, none on the class token",
            "deit/models_v2.py: pos_embed of num_patches rows",
            args={"no_embed_class": True},
        ),
    ),
)
