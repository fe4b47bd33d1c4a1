"""MoCo v3: contrastive on ImageNet-1k (Chen et al. 2021, arXiv 2104.02057).

Native: a fixed sine-cosine position table. Traps: the small model has 12 heads of 32 channels, and
a 6-head model loads its file without complaint and computes something else; the patch embedding was
a frozen random projection during pre-training (a recipe, not an architecture); the table's axes are
MAE's transposed. The authors tell no rule for another size; they fine-tune by DeiT's code, whose
rule is taken.
"""

from families.spec import Component, Family, Layout, Official, SinCos, Teacher

_FILES = "https://dl.fbaipublicfiles.com/moco-v3"
_LAYOUT = Layout(containers=("state_dict",), only="module.base_encoder.", drop=("head.*",))

FAMILY = Family(
    title="MoCo v3",
    paper="Chen et al. 2021, arXiv 2104.02057",
    recipe="contrastive, ImageNet-1k, 300 epochs",
    sets=("papers",),
    teachers=(
        Teacher(
            "small", "vit_small_patch16_224", 384, 12, 12, 16, "CC-BY-NC-4.0", args={"num_heads": 12},
            official=Official(f"{_FILES}/vit-s-300ep/vit-s-300ep.pth.tar", _LAYOUT),
        ),
        Teacher(
            "base", "vit_base_patch16_224", 768, 12, 12, 16, "CC-BY-NC-4.0",
            official=Official(f"{_FILES}/vit-b-300ep/vit-b-300ep.pth.tar", _LAYOUT),
        ),
    ),
    positions="bicubic",
    native=(
        Component(
            "sincos_pos_embed",
            "fixed 2-D sine-cosine position table, rows first",
            "moco-v3/vits.py: build_2d_sincos_position_embedding",
            initial={"pos_embed": SinCos("row")},
        ),
    ),
)  # fmt: skip
