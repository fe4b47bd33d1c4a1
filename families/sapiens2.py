"""Sapiens2, 0.1B (arXiv 2604.21681, 2026).

Native: LayerScale on the attention branch alone, eight registers, SwiGLU, RMSNorm, norms of q and
k, rotary position embedding, no absolute one. Traps: timm starts LayerScale at 1, the authors at
1e-4; trained on images of 1024 x 768 pixels, far from 224; from 0.4B on, blocks share k and v among
heads.
"""

from families.spec import Component, Constant, Family, Host, Normal, Ref, Teacher

_CODE = "sapiens2/sapiens/backbones/sapiens2.py"

FAMILY = Family(
    title="Sapiens2",
    paper="arXiv 2604.21681, 2026",
    recipe="self-supervised, images of people",
    teachers=(
        Teacher(
            "base", "vit_base_patch16_sapiens2.fb", 768, 12, 12, 16, "Sapiens2", native_size=1024,
            args={"num_kv_heads": 0},  # as many as heads, at any depth
        ),
    ),
    native=(
        Component(
            "layer_scale", "a learned gain per channel on the attention branch", f"{_CODE}: 1e-4",
            args={"init_values": 1e-4, "attn_only_layer_scale": True}, initial={"*.ls1.gamma": Constant(1e-4)},
        ),
        Component(
            "registers", "eight learned tokens without position, between class token and patches", f"{_CODE}: std .02",
            args={"num_reg_tokens": 8, "no_embed_class": True}, initial={"reg_token": Normal(0.02)},
        ),
        Component("swiglu", "SwiGLU in the MLP, 4 times as wide as the model", _CODE, args={"swiglu_mlp": True}),
        Component("rms_norm", "RMSNorm in place of LayerNorm", f"{_CODE}: 1e-6", args={"norm_layer": Ref("timm.layers:RmsNorm")}),
        Component("qk_norm", "a norm of q and of k, in each head", _CODE, args={"qk_norm": True}, inert_under_copy=True),
        Component(
            "rope", "rotary position embedding on the patches", f"{_CODE}: base 100",
            args={"use_rot_pos_emb": True, "rope_type": "dinov3", "rope_temperature": 100, "rope_rotate_half": True},
            inert_under_copy=True,
        ),
        Component("no_pos_embed", "no absolute position embedding", _CODE, args={"use_abs_pos_emb": False}),
    ),
    host=Host("timm.models.eva:Eva", {"attn_type": "rope", "qkv_fused": False}),
)  # fmt: skip
