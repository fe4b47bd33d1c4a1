"""DINOv3 (Simeoni et al. 2025, arXiv 2508.10104).

Native: LayerScale, four registers, rotary position embedding in coordinates from -1 to 1, no
absolute position embedding, no bias of q, k and v, LayerNorm epsilon 1e-5; SwiGLU in S+. Traps: the
authors train biases of q and v and mask that of k, and publish zeros, so that timm's model without
them is the same function; timm pools patches, the authors read the class token.
"""

from families.spec import Component, Constant, Family, Host, Normal, Ref, Teacher

_LICENCE, _ARGS = "DINOv3", {"global_pool": "token"}
_ROPE = {"use_rot_pos_emb": True, "rope_type": "dinov3", "rope_temperature": 100, "rope_rotate_half": True}
_CONFIG = "dinov3/configs/train/dinov3_vitl16_lvd1689m_distilled.yaml"

FAMILY = Family(
    title="DINOv3",
    paper="Simeoni et al. 2025, arXiv 2508.10104",
    recipe="self-distillation, LVD-1689M, distilled from a ViT-7B",
    teachers=(
        Teacher("small", "vit_small_patch16_dinov3.lvd1689m", 384, 12, 6, 16, _LICENCE, native_size=256, args=_ARGS),
        Teacher("base", "vit_base_patch16_dinov3.lvd1689m", 768, 12, 12, 16, _LICENCE, native_size=256, args=_ARGS),
        Teacher("large", "vit_large_patch16_dinov3.lvd1689m", 1024, 24, 16, 16, _LICENCE, native_size=256, args=_ARGS),
    ),
    alternatives=(
        Teacher("small_plus", "vit_small_plus_patch16_dinov3.lvd1689m", 384, 12, 6, 16, _LICENCE, native_size=256, args=_ARGS),
    ),
    native=(
        Component(
            "layer_scale", "a learned gain per channel on each residual branch", f"{_CONFIG}: layerscale 1e-5",
            args={"init_values": 1e-5}, initial={"*.ls?.gamma": Constant(1e-5)},
        ),
        Component(
            "registers", "four learned tokens without position, between class token and patches",
            "dinov3/models/vision_transformer.py: storage tokens normal .02",
            args={"num_reg_tokens": 4, "no_embed_class": True}, initial={"reg_token": Normal(0.02)},
        ),
        Component("rope", "rotary position embedding on the patches", f"{_CONFIG}: base 100", args=_ROPE, inert_under_copy=True),
        Component("no_pos_embed", "no absolute position embedding", f"{_CONFIG}: RoPE alone", args={"use_abs_pos_emb": False}),
        Component("no_qkv_bias", "no bias of q, k and v", "dinov3: published biases are zero", args={"qkv_bias": False}),
        Component(
            "norm_eps", "LayerNorm epsilon 1e-5 instead of 1e-6", "dinov3/models/vision_transformer.py: layernormbf16",
            args={"norm_layer": Ref("torch.nn:LayerNorm")},
        ),
        Component(
            "swiglu", "SwiGLU in the MLP, 4 times as wide as the model", "dinov3/hub/backbones.py: ffn_ratio 6, times 2/3",
            args={"swiglu_mlp": True, "swiglu_align_to": 8}, sizes=("small_plus",),
        ),
    ),
    host=Host("timm.models.eva:Eva", {"attn_type": "rope"}),
)  # fmt: skip
