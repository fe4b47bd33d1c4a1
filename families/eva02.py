"""EVA-02 (Fang et al. 2023, arXiv 2303.11331).

Native: SwiGLU, a LayerNorm inside the MLP (base and large), rotary beside absolute position
embedding, no bias of k. Traps: no bias of k is not vacuous here, since k is rotated; timm pools
patches, where the pre-training has a class token; the authors multiply the starts of the MLP, of v
and of the output by sqrt(log(2 depth)) in base and large, which is left out.
"""

from families.spec import CLIP_MEAN, CLIP_STD, Component, Family, Host, PerSize, Teacher

_CLS = {"global_pool": "token"}

FAMILY = Family(
    title="EVA-02",
    paper="Fang et al. 2023, arXiv 2303.11331",
    recipe="masked image modelling (EVA-CLIP's features), ImageNet-22k",
    teachers=(
        Teacher("tiny", "eva02_tiny_patch14_224.mim_in22k", 192, 12, 3, 14, "MIT", args=_CLS),
        Teacher("small", "eva02_small_patch14_224.mim_in22k", 384, 12, 6, 14, "MIT", args=_CLS),
        Teacher("base", "eva02_base_patch14_224.mim_in22k", 768, 12, 12, 14, "MIT", args=_CLS),
        Teacher("large", "eva02_large_patch14_224.mim_in22k", 1024, 24, 16, 14, "MIT", args=_CLS),
    ),
    alternatives=(Teacher("large_m38m", "eva02_large_patch14_224.mim_m38m", 1024, 24, 16, 14, "MIT", args=_CLS),),
    native=(
        Component(
            "swiglu", "SwiGLU in the MLP, 8/3 times as wide as the model", "EVA-02/asuka/modeling_pretrain.py: SwiGLU",
            args={"swiglu_mlp": True, "mlp_ratio": 4 * 2 / 3},
        ),
        Component(
            "sub_ln", "LayerNorm before the last layer of the MLP", "EVA-02/asuka/modeling_finetune.py: ffn_ln",
            args={"scale_mlp": True}, sizes=("base", "large"),
        ),
        Component(
            "rope", "rotary position embedding on the patches, along the axes", "EVA-02/asuka/rope.py: base 10000, 16 x 16",
            args={"use_rot_pos_emb": True, "ref_feat_shape": 16}, inert_under_copy=True,
        ),
        Component(
            "no_k_bias", "no bias of k", "EVA-02/asuka/modeling_finetune.py: q_bias and v_bias alone",
            args={"attn_type": "eva", "qkv_fused": PerSize({"tiny": True, "small": True, "base": False, "large": False})},
            inert_under_copy=True,
        ),
    ),
    host=Host("timm.models.eva:Eva", {"attn_type": "rope"}),
    mean=CLIP_MEAN,
    std=CLIP_STD,
)  # fmt: skip
