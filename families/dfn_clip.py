"""DFN CLIP, image tower (Fang et al. 2023, arXiv 2309.17425): CLIP on web pairs that a network chose.

Native: as CLIP's. Traps: timm has no QuickGELU name for the base model, and its plain name computes
with GELU on weights trained with QuickGELU, so the activation is an argument here; other DFN
weights (`s39b`) are trained with GELU.
"""

from families.spec import CLIP_MEAN, CLIP_STD, Component, Family, Ref, Teacher

_QUICK = {"act_layer": "quick_gelu"}

FAMILY = Family(
    title="DFN CLIP",
    paper="Fang et al. 2023, arXiv 2309.17425",
    recipe="image-text contrastive, DFN-2B",
    teachers=(Teacher("base", "vit_base_patch16_clip_224.dfn2b", 768, 12, 12, 16, "Apple ASCL", args=_QUICK),),
    alternatives=(Teacher("large_p14", "vit_large_patch14_clip_quickgelu_224.dfn2b", 1024, 24, 16, 14, "Apple ASCL"),),
    native=(
        Component(
            "norm_pre",
            "LayerNorm after the position embedding; the patch embedding has no bias",
            "open_clip/transformer.py: ln_pre, conv1 bias=False",
            args={"pre_norm": True},
        ),
        Component(
            "quick_gelu", "x sigmoid(1.702 x) in the MLP", "open_clip/pretrained.py: quick_gelu", args={"act_layer": "quick_gelu"}
        ),
        Component(
            "norm_eps",
            "LayerNorm epsilon 1e-5 instead of 1e-6",
            "open_clip/transformer.py: torch's LayerNorm default",
            args={"norm_layer": Ref("torch.nn:LayerNorm")},
        ),
    ),
    mean=CLIP_MEAN,
    std=CLIP_STD,
)
