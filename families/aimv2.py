"""AIMv2 (Fini et al. 2024, arXiv 2411.14402).

Native: SwiGLU of ratio 2.75, RMSNorm in place of LayerNorm, a norm after the patch embedding, no
biases, no class token. Traps: 8 heads of 128 channels where other large models have 16 of 64; the
training code is not public, so that nothing is known of starts (nothing native has one of its own).
"""

from families.spec import CLIP_MEAN, CLIP_STD, Component, Family, Partial, Ref, Teacher

_RMS, _CODE = Partial("timm.layers:RmsNorm", {"eps": 1e-5}), "ml-aim/aim-v2/aim/v2/torch/models.py"

FAMILY = Family(
    title="AIMv2",
    paper="Fini et al. 2024, arXiv 2411.14402",
    recipe="autoregressive on patches and captions, image-text pairs",
    teachers=(Teacher("large", "aimv2_large_patch14_224.apple_pt", 1024, 24, 8, 14, "Apple ASCL"),),
    alternatives=(Teacher("large_dist", "aimv2_large_patch14_224.apple_pt_dist", 1024, 24, 8, 14, "Apple ASCL"),),
    native=(
        Component(
            "swiglu", "SwiGLU in the MLP, 2.75 times as wide as the model", _CODE,
            args={"mlp_layer": Ref("timm.layers:SwiGLU"), "act_layer": "silu", "mlp_ratio": 2.75},
        ),
        Component("rms_norm", "RMSNorm of epsilon 1e-5 in place of LayerNorm", _CODE, args={"norm_layer": _RMS}),
        Component("patch_norm", "RMSNorm of the patch embedding", _CODE, args={"embed_norm_layer": _RMS}),
        Component("no_qkv_bias", "no bias of q, k and v", _CODE, args={"qkv_bias": False}),
        Component("no_proj_bias", "no bias of the output and of the MLP", _CODE, args={"proj_bias": False}),
        Component(
            "no_class_token", "patches alone; the head reads their mean", _CODE,
            args={"class_token": False, "global_pool": "avg", "fc_norm": False},
        ),
    ),
    mean=CLIP_MEAN,
    std=CLIP_STD,
)  # fmt: skip
