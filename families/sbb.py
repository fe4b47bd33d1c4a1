"""SBB ViT with registers (Wightman 2024, timm; registers: Darcet et al. 2024, arXiv 2309.16588).

Native: LayerScale, four registers, no class token. Traps: not all SBB names are plain blocks
(`pwee` parallel, `dwee` and `dlittle` differential attention); `little` and `wee` have other widths
of the MLP.
"""

from families.spec import HALF, Component, Constant, Family, Normal, Teacher

FAMILY = Family(
    title="SBB ViT with registers",
    paper="Wightman 2024 (timm); Darcet et al. 2024, arXiv 2309.16588",
    recipe="supervised, ImageNet-1k",
    teachers=(
        Teacher("medium", "vit_medium_patch16_reg4_gap_256.sbb_in1k", 512, 12, 8, 16, "Apache-2.0", native_size=256),
        Teacher("betwixt", "vit_betwixt_patch16_reg4_gap_256.sbb_in1k", 640, 12, 10, 16, "Apache-2.0", native_size=256),
    ),
    alternatives=(
        Teacher("betwixt_in12k", "vit_betwixt_patch16_reg4_gap_256.sbb_in12k", 640, 12, 10, 16, "Apache-2.0", native_size=256),
    ),
    native=(
        Component(
            "layer_scale",
            "a learned gain per channel on each residual branch",
            "timm/models/vision_transformer.py: init_values 1e-5",
            args={"init_values": 1e-5},
            initial={"*.ls?.gamma": Constant(1e-5)},
        ),
        Component(
            "registers",
            "four learned tokens without position, before the patches",
            "timm/models/vision_transformer.py: normal 1e-6",
            args={"reg_tokens": 4, "no_embed_class": True},
            initial={"reg_token": Normal(1e-6)},
        ),
        Component(
            "no_class_token",
            "no class token; the head reads the patches' mean",
            "timm/models/vision_transformer.py: class_token=False",
            args={"class_token": False, "global_pool": "avg", "fc_norm": False},
        ),
    ),
    mean=HALF,
    std=HALF,
)
