"""MetaCLIP, image tower (Xu et al. 2023, arXiv 2309.16671): CLIP on web pairs balanced by metadata.

Native: as CLIP's. Trap: timm's bare name without a tag loads the weights of 2.5 billion pairs.
"""

from families.spec import CLIP_MEAN, CLIP_STD, Component, Family, Ref, Teacher

_MODEL, _LARGE = "vit_base_patch16_clip_quickgelu_224", "vit_large_patch14_clip_quickgelu_224"

FAMILY = Family(
    title="MetaCLIP",
    paper="Xu et al. 2023, arXiv 2309.16671",
    recipe="image-text contrastive, 400M web pairs",
    teachers=(Teacher("base", f"{_MODEL}.metaclip_400m", 768, 12, 12, 16, "CC-BY-NC-4.0"),),
    alternatives=(
        Teacher("base_2pt5b", f"{_MODEL}.metaclip_2pt5b", 768, 12, 12, 16, "CC-BY-NC-4.0"),
        Teacher("large_p14", f"{_LARGE}.metaclip_400m", 1024, 24, 16, 14, "CC-BY-NC-4.0"),
    ),
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
