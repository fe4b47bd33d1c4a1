"""Perception Encoder, spatial (Bolya et al. 2025, arXiv 2504.13181).

Native: a LayerNorm before the first block (and so no bias in the patch embedding), rotary beside
absolute position embedding, no LayerNorm after the last block, LayerNorm epsilon 1e-5. Traps:
rotary coordinates start at 1, since the authors count the class token, and x comes first; timm
stretches them to the grid of its native size, the authors do not, so here `ref_feat_shape` is the
grid of 224 pixels.
"""

from families.spec import HALF, Component, Family, Host, PerSize, Ref, Teacher

_P16, _P14 = (
    {"ref_feat_shape": 14, "global_pool": "token"},
    {"ref_feat_shape": 16, "global_pool": "token"},
)  # patches of 16 and of 14 pixels

FAMILY = Family(
    title="PE Spatial",
    paper="Bolya et al. 2025, arXiv 2504.13181",
    recipe="PE Core, tuned on its own features and those of SAM 2.1",
    teachers=(
        Teacher("tiny", "vit_pe_spatial_tiny_patch16_512.fb", 192, 12, 3, 16, "Apache-2.0", native_size=512, args=_P16),
        Teacher("small", "vit_pe_spatial_small_patch16_512.fb", 384, 12, 6, 16, "Apache-2.0", native_size=512, args=_P16),
        Teacher("base", "vit_pe_spatial_base_patch16_512.fb", 768, 12, 12, 16, "Apache-2.0", native_size=512, args=_P16),
        Teacher("large", "vit_pe_spatial_large_patch14_448.fb", 1024, 24, 16, 14, "Apache-2.0", native_size=448, args=_P14),
    ),
    native=(
        Component(
            "norm_pre", "LayerNorm after the position embedding; the patch embedding has no bias",
            "perception_models/core/vision_encoder/pe.py: ln_pre, conv1 bias=False", args={"use_pre_transformer_norm": True},
        ),
        Component(
            "rope", "rotary position embedding on the patches, along the axes",
            "perception_models/core/vision_encoder/rope.py: coordinates from 1",
            args={
                "use_rot_pos_emb": True, "rope_grid_indexing": "xy", "rope_grid_offset": 1.0,
                "ref_feat_shape": PerSize({"tiny": 14, "small": 14, "base": 14, "large": 16}),
            },
            inert_under_copy=True,
        ),
        Component(
            "no_final_norm", "no LayerNorm after the last block", "perception_models/core/vision_encoder/config.py: use_ln_post",
            args={"use_post_transformer_norm": False, "use_fc_norm": False},
        ),
        Component(
            "norm_eps", "LayerNorm epsilon 1e-5 instead of 1e-6", "perception_models/core/vision_encoder/pe.py: torch's default",
            args={"norm_layer": Ref("torch.nn:LayerNorm")},
        ),
    ),
    host=Host("timm.models.eva:Eva", {"attn_type": "rope"}),
    mean=HALF,
    std=HALF,
)  # fmt: skip
