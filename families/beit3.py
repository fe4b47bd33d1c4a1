"""BEiT-3, vision expert (Wang et al. 2022, arXiv 2208.10442).

Native: a LayerNorm before the last layer of attention and of MLP (sub-LN), LayerNorm epsilon 1e-5.
Traps: the norm in attention acts after the map, so Copy does not bypass it; timm pools patches,
where the pre-training has a class token; upstream multiplies some starts by sqrt(log(2 depth)),
which is left out.
"""

from families.spec import Component, Family, Ref, Teacher

_CLS = {"global_pool": "token"}

FAMILY = Family(
    title="BEiT-3",
    paper="Wang et al. 2022, arXiv 2208.10442",
    recipe="masked data modelling of images, texts and pairs",
    teachers=(
        Teacher("base", "beit3_base_patch16_224.pt", 768, 12, 12, 16, "MIT", args=_CLS),
        Teacher("large", "beit3_large_patch16_224.pt", 1024, 24, 16, 16, "MIT", args=_CLS),
    ),
    alternatives=(Teacher("base_indomain", "beit3_base_patch16_224.indomain_pt", 768, 12, 12, 16, "MIT", args=_CLS),),
    native=(
        Component(
            "sub_ln",
            "LayerNorm before the last layer of attention and of MLP",
            "torchscale/component/multihead_attention.py and feedforward_network.py: subln",
            args={"scale_attn_norm": True, "scale_mlp_norm": True},
        ),
        Component(
            "norm_eps",
            "LayerNorm epsilon 1e-5 instead of 1e-6",
            "torchscale/architecture/config.py: layernorm_eps 1e-5",
            args={"norm_layer": Ref("torch.nn:LayerNorm")},
        ),
    ),
)
