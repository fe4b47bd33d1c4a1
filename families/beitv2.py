"""BEiT v2, self-supervised: CLIP-distilled visual tokens (Peng et al. 2022, arXiv 2208.06366).

Native: LayerScale, one relative position bias shared by all blocks, no absolute position embedding.
Traps: timm hosts only fine-tuned weights (the alternatives below: a table in each block and the
patches' mean before the head, while a matched student has the one table, inert under Copy); the
authors start LayerScale at .1 in base and 1e-5 in large, timm at 1e-5 in both; timm's Beit class
has no key bias, which is vacuous under the softmax.
"""

from families.spec import Component, Constant, Family, Host, Layout, Official, PerSize, Teacher

_ARGS = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "global_pool": "token"}
_FILES = "https://github.com/addf400/files/releases/download/BEiT-v2"
_LAYOUT = Layout(containers=("model", "module"), drop=("mask_token", "lm_head.*", "cls_pt_*", "*relative_position_index"))

FAMILY = Family(
    title="BEiT v2",
    paper="Peng et al. 2022, arXiv 2208.06366",
    recipe="masked image modelling (VQ-KD tokens distilled from CLIP), ImageNet-1k, 1600 epochs",
    teachers=(
        Teacher(
            "base", "beitv2_base_patch16_224", 768, 12, 12, 16, "MIT", args={**_ARGS, "init_values": 0.1},
            official=Official(f"{_FILES}/beitv2_base_patch16_224_pt1k.pth", _LAYOUT),
        ),
        Teacher(
            "large", "beitv2_large_patch16_224", 1024, 24, 16, 16, "MIT", args={**_ARGS, "init_values": 1e-5},
            official=Official(f"{_FILES}/beitv2_large_patch16_224_pt1k.pth", _LAYOUT),
        ),
    ),
    alternatives=(
        Teacher("base_ft", "beitv2_base_patch16_224.in1k_ft_in1k", 768, 12, 12, 16, "MIT"),
        Teacher("large_ft", "beitv2_large_patch16_224.in1k_ft_in1k", 1024, 24, 16, 16, "MIT"),
    ),
    positions="geometric_spline", sets=("papers",),
    native=(
        Component(
            "layer_scale",
            "a learned gain per channel on each residual branch",
            "beit2 pre-training commands: layer_scale_init_value .1 (base), 1e-5 (large)",
            args={"init_values": 1e-5},
            initial={"*.ls?.gamma": PerSize({"base": Constant(0.1), "large": Constant(1e-5)})},
        ),
        Component(
            "rel_pos_bias",
            "a learned additive attention bias by relative position, one table for all blocks",
            "beit2/modeling_pretrain.py: use_shared_rel_pos_bias, table of zeros",
            args={"use_shared_rel_pos_bias": True},
            initial={"rel_pos_bias.relative_position_bias_table": Constant(0.0)},
            inert_under_copy=True,
        ),
        Component(
            "no_pos_embed",
            "no absolute position embedding",
            "beit2/modeling_pretrain.py: use_abs_pos_emb=False",
            args={"use_abs_pos_emb": False},
        ),
    ),
    host=Host("beitv2_base_patch16_224", {"use_abs_pos_emb": True, "use_rel_pos_bias": False, "init_values": 0}),
)  # fmt: skip
