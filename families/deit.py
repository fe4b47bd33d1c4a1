"""DeiT: supervised on ImageNet-1k alone (Touvron et al. 2021, arXiv 2012.12877).

Native: nothing; the standard student is a DeiT. Trap: timm's `deit_*_distilled_*` is another model,
with a second prefix token and two heads.
"""

from families.spec import Family, Teacher

FAMILY = Family(
    title="DeiT",
    paper="Touvron et al. 2021, arXiv 2012.12877",
    recipe="supervised, ImageNet-1k, 300 epochs",
    sets=("papers",),
    teachers=(
        Teacher("small", "deit_small_patch16_224.fb_in1k", 384, 12, 6, 16, "Apache-2.0"),
        Teacher("base", "deit_base_patch16_224.fb_in1k", 768, 12, 12, 16, "Apache-2.0"),
    ),
    positions="bicubic",
    alternatives=(Teacher("tiny_in1k", "deit_tiny_patch16_224.fb_in1k", 192, 12, 3, 16, "Apache-2.0"),),
)
