"""RoPE-ViT, axial (Heo et al. 2024, arXiv 2403.13298).

Native: LayerScale, rotary position embedding (fixed frequencies, half for each axis),
no absolute position embedding. Traps: timm starts LayerScale
at 1e-5, the authors at 1e-4.
"""

from families.spec import Component, Constant, Family, Host, Teacher

FAMILY = Family(
    title="RoPE-ViT, axial",
    paper="Heo et al. 2024, arXiv 2403.13298",
    recipe="supervised (DeiT III's recipe), ImageNet-1k, 400 epochs",
    teachers=(
        Teacher("small", "vit_small_patch16_rope_224.naver_in1k", 384, 12, 6, 16, "Apache-2.0"),
        Teacher("base", "vit_base_patch16_rope_224.naver_in1k", 768, 12, 12, 16, "Apache-2.0"),
        Teacher("large", "vit_large_patch16_rope_224.naver_in1k", 1024, 24, 16, 16, "Apache-2.0"),
    ),
    native=(
        Component(
            "layer_scale",
            "a learned gain per channel on each residual branch",
            "rope-vit/deit/models_v2_rope.py, by the default of DeiT III: init_scale 1e-4",
            args={"init_values": 1e-4},
            initial={"*.ls?.gamma": Constant(1e-4)},
        ),
        Component(
            "rope",
            "rotary position embedding on the patches, along the axes",
            "rope-vit/deit/models_v2_rope.py: base 100",
            args={"use_rot_pos_emb": True, "rope_grid_indexing": "xy", "rope_temperature": 100.0},
            inert_under_copy=True,
        ),
        Component(
            "no_pos_embed", "no absolute position embedding", "rope-vit/deit/models_v2_rope.py: no table",
            args={"use_abs_pos_emb": False},
        ),
    ),
    host=Host("timm.models.eva:Eva", {"attn_type": "rope"}),
)  # fmt: skip
