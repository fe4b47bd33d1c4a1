"""MAE: masked autoencoding on ImageNet-1k (He et al. 2022, arXiv 2111.06377).

Native: a fixed sine-cosine position table, columns first (MoCo v3's transposed). Trap: the
checkpoints store it as `pos_embed`, so that it loads like a learned one; at another size the
authors resample it too, and do not compute it anew.
"""

from families.spec import Component, Family, SinCos, Teacher

FAMILY = Family(
    title="MAE",
    paper="He et al. 2022, arXiv 2111.06377",
    recipe="masked autoencoding, ImageNet-1k, 1600 epochs",
    sets=("papers",),
    teachers=(
        Teacher("base", "vit_base_patch16_224.mae", 768, 12, 12, 16, "CC-BY-NC-4.0"),
        Teacher("large", "vit_large_patch16_224.mae", 1024, 24, 16, 16, "CC-BY-NC-4.0"),
    ),
    alternatives=(Teacher("huge_in1k", "vit_huge_patch14_224.mae", 1280, 32, 16, 14, "CC-BY-NC-4.0"),),
    positions="bicubic",
    native=(
        Component(
            "sincos_pos_embed",
            "fixed 2-D sine-cosine position table, columns first",
            "mae/util/pos_embed.py: get_2d_sincos_pos_embed",
            initial={"pos_embed": SinCos("column")},
        ),
    ),
)
