"""AugReg ViT: supervised on ImageNet-21k, then fine-tuned on ImageNet-1k (Steiner et al. 2022,
arXiv 2106.10270).

Native: nothing in the architecture. Traps: inputs are scaled to -1..1, not by ImageNet's
statistics; the JAX original approximates GELU by tanh, timm does not; a bare timm name picks
another tag.
"""

from families.spec import HALF, Family, Teacher

FAMILY = Family(
    title="AugReg ViT",
    paper="Steiner et al. 2022, arXiv 2106.10270",
    recipe="supervised, ImageNet-21k 300 epochs, then ImageNet-1k",
    sets=("papers",),
    teachers=(Teacher("base", "vit_base_patch16_224.augreg_in21k_ft_in1k", 768, 12, 12, 16, "Apache-2.0"),),
    alternatives=(
        Teacher("small_in21k", "vit_small_patch16_224.augreg_in21k_ft_in1k", 384, 12, 6, 16, "Apache-2.0"),
        Teacher("large_in21k", "vit_large_patch16_224.augreg_in21k_ft_in1k", 1024, 24, 16, 16, "Apache-2.0"),
    ),
    positions="bilinear_corners",
    mean=HALF,
    std=HALF,
)
