"""C-RADIO v3 (Heinrich et al. 2024, arXiv 2412.07679).

Native: LayerScale, seven registers, no norm after the last block. Traps: upstream has a class token
for each of its four teachers, of which timm calls the first the class token and the others
registers; timm's table is upstream's of 128 x 128, resized once to 32 x 32, so that it is exact at
512 pixels and drifts at other sizes.
"""

from families.spec import CLIP_MEAN, CLIP_STD, Component, Constant, Family, Normal, PerSize, Teacher

_LICENCE = "NVIDIA Open Model License"

FAMILY = Family(
    title="C-RADIO v3",
    paper="Heinrich et al. 2024, arXiv 2412.07679",
    recipe="distilled from DFN CLIP, SigLIP 2, DINOv2 and SAM",
    teachers=(
        Teacher("base", "vit_base_patch16_radio_v3.c_radio", 768, 12, 12, 16, _LICENCE, native_size=512),
        Teacher("large", "vit_large_patch16_radio_v3.c_radio", 1024, 24, 16, 16, _LICENCE, native_size=512),
    ),
    native=(
        Component(
            "layer_scale",
            "a learned gain per channel on each residual branch",
            "RADIO/radio/extra_timm_models.py: init_values 1e-5",
            args={"init_values": 1e-5},
            initial={"*.ls?.gamma": Constant(1e-5)},
        ),
        Component(
            "registers",
            "seven learned tokens without position, between class token and patches",
            "RADIO/radio/cls_token.py: normal of standard deviation dim^-1/2",
            args={"reg_tokens": 7, "no_embed_class": True},
            initial={"reg_token": PerSize({"base": Normal(768**-0.5), "large": Normal(1024**-0.5)})},
        ),
        Component(
            "no_final_norm",
            "no LayerNorm after the last block",
            "RADIO/radio/extra_timm_models.py: final norm is the identity",
            args={"final_norm": False},
        ),
    ),
    mean=CLIP_MEAN,
    std=CLIP_STD,
)
