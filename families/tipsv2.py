"""TIPSv2, image encoder (arXiv 2604.12012, 2026).

Native: LayerScale and one register. Traps: the register is a second class token upstream, trained
by a loss of its own; images are not normalised at all; the training code is not public, and the
start of LayerScale is that of the inference code.
"""

from families.spec import Component, Constant, Family, Normal, Teacher

FAMILY = Family(
    title="TIPSv2",
    paper="arXiv 2604.12012, 2026",
    recipe="image-text contrastive with self-distillation, WebLI",
    teachers=(
        Teacher("base", "vit_base_patch14_reg1_tipsv2.webli", 768, 12, 12, 14, "Apache-2.0", native_size=448),
        Teacher("large", "vit_large_patch14_reg1_tipsv2.webli", 1024, 24, 16, 14, "Apache-2.0", native_size=448),
    ),
    native=(
        Component(
            "layer_scale",
            "a learned gain per channel on each residual branch",
            "tips/pytorch/run_image_encoder_inference.py: 1.0 (the start in training is unknown)",
            args={"init_values": 1.0},
            initial={"*.ls?.gamma": Constant(1.0)},
        ),
        Component(
            "registers",
            "one learned token without position, between class token and patches",
            "tips/pytorch/image_encoder.py: normal 1e-6",
            args={"reg_tokens": 1, "no_embed_class": True},
            initial={"reg_token": Normal(1e-6)},
        ),
    ),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
