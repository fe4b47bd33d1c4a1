"""CLIP image tower (Radford et al. 2021, arXiv 2103.00020).

Native: a LayerNorm before the first block (and so no bias in the patch embedding), QuickGELU,
LayerNorm epsilon 1e-5. Traps: the timm name without `quickgelu` loads the same weights and computes
with GELU; the bare name picks MetaCLIP; timm's head is CLIP's projection. The code has no rule for
another size; its authors tell of a bilinear one (openai/CLIP, issue 214), without details.
"""

from families.spec import CLIP_MEAN, CLIP_STD, Component, Family, Ref, Teacher

FAMILY = Family(
    title="CLIP",
    paper="Radford et al. 2021, arXiv 2103.00020",
    recipe="image-text contrastive, WIT-400M",
    sets=("papers",),
    teachers=(Teacher("base", "vit_base_patch16_clip_quickgelu_224.openai", 768, 12, 12, 16, "MIT"),),
    alternatives=(Teacher("large_p14", "vit_large_patch14_clip_quickgelu_224.openai", 1024, 24, 16, 14, "MIT"),),
    positions="bilinear",
    native=(
        Component(
            "norm_pre",
            "LayerNorm after the position embedding; the patch embedding has no bias",
            "CLIP/clip/model.py: ln_pre, conv1 bias=False",
            args={"pre_norm": True},
        ),
        Component(
            "quick_gelu", "x sigmoid(1.702 x) in the MLP", "CLIP/clip/model.py: QuickGELU", args={"act_layer": "quick_gelu"}
        ),
        Component(
            "norm_eps",
            "LayerNorm epsilon 1e-5 instead of 1e-6",
            "CLIP/clip/model.py: torch's LayerNorm default",
            args={"norm_layer": Ref("torch.nn:LayerNorm")},
        ),
    ),
    mean=CLIP_MEAN,
    std=CLIP_STD,
)
