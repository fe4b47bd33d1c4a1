"""RoPE-ViT, mixed with absolute positions (Heo et al. 2024, arXiv 2403.13298).

Native: LayerScale, rotary position embedding (learned frequencies, mixing both axes),
and an absolute position table without a row for the class token. Traps: timm starts LayerScale
at 1e-5, the authors at 1e-4; the frequencies are parameters, to which Copy of all blocks gives no
gradient.
"""

from families.spec import Component, Constant, Family, Host, RopeFrequencies, Teacher

FAMILY = Family(
    title="RoPE-ViT, mixed with absolute positions",
    paper="Heo et al. 2024, arXiv 2403.13298",
    recipe="supervised (DeiT III's recipe), ImageNet-1k, 400 epochs",
    teachers=(
        Teacher("small", "vit_small_patch16_rope_mixed_ape_224.naver_in1k", 384, 12, 6, 16, "Apache-2.0"),
        Teacher("base", "vit_base_patch16_rope_mixed_ape_224.naver_in1k", 768, 12, 12, 16, "Apache-2.0"),
        Teacher("large", "vit_large_patch16_rope_mixed_ape_224.naver_in1k", 1024, 24, 16, 16, "Apache-2.0"),
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
            "rotary position embedding on the patches, with learned frequencies in all directions",
            "rope-vit/deit/models_v2_rope.py: base 10, one random direction for each head of a block",
            args={"use_rot_pos_emb": True, "rope_type": "mixed", "rope_grid_indexing": "xy", "rope_temperature": 10.0},
            initial={"rope.freqs": RopeFrequencies(10.0)},
            inert_under_copy=True,
        ),
        Component(
            "patch_pos_embed", "position embedding on the patches alone, not on the class token",
            "rope-vit/deit/models_v2_rope.py: the table is added before the class token", args={"no_embed_class": True},
        ),
    ),
    host=Host("timm.models.eva:Eva", {"attn_type": "rope"}),
)  # fmt: skip
