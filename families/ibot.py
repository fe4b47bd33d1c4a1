"""iBOT: self-distillation with masked image modelling on ImageNet-1k (Zhou et al. 2022, arXiv
2111.07832).

Native: nothing. Trap: timm hosts no iBOT weights, and the authors' files are all called
checkpoint_teacher.pth; the bare timm name below is architecture only. Of the ImageNet-22k models
they give the student.
"""

from families.spec import Family, Layout, Official, Teacher

_FILES = "https://lf3-nlp-opensource.bytetos.com/obj/nlp-opensource/archive/2022/ibot"
_STRIP, _DROP = ("module.", "backbone."), ("masked_embed", "head.*")
_LAYOUT = Layout(containers=("state_dict", "teacher"), strip=_STRIP, drop=_DROP)
_STUDENT = Layout(containers=("state_dict", "student"), strip=_STRIP, drop=_DROP)

FAMILY = Family(
    title="iBOT",
    paper="Zhou et al. 2022, arXiv 2111.07832",
    recipe="self-distillation and masked image modelling, ImageNet-1k",
    sets=("papers",),
    teachers=(
        Teacher(
            "small", "vit_small_patch16_224", 384, 12, 6, 16, "Apache-2.0",
            official=Official(f"{_FILES}/vits_16/checkpoint_teacher.pth", _LAYOUT),
        ),
        Teacher(
            "base", "vit_base_patch16_224", 768, 12, 12, 16, "Apache-2.0",
            official=Official(f"{_FILES}/vitb_16/checkpoint_teacher.pth", _LAYOUT),
        ),
    ),
    alternatives=(
        Teacher(
            "large_in1k", "vit_large_patch16_224", 1024, 24, 16, 16, "Apache-2.0",
            official=Official(f"{_FILES}/vitl_16/checkpoint_teacher.pth", _LAYOUT),
        ),
        Teacher(
            "base_rand", "vit_base_patch16_224", 768, 12, 12, 16, "Apache-2.0",
            official=Official(f"{_FILES}/vitb_16_rand_mask/checkpoint_teacher.pth", _LAYOUT),
        ),
        Teacher(
            "large_rand", "vit_large_patch16_224", 1024, 24, 16, 16, "Apache-2.0",
            official=Official(f"{_FILES}/vitl_16_rand_mask/checkpoint_teacher.pth", _LAYOUT),
        ),
        Teacher(
            "base_in22k", "vit_base_patch16_224", 768, 12, 12, 16, "Apache-2.0",
            official=Official(f"{_FILES}/vitb_16_pt22k/checkpoint_student.pth", _STUDENT),
        ),
        Teacher(
            "large_in22k", "vit_large_patch16_224", 1024, 24, 16, 16, "Apache-2.0",
            official=Official(f"{_FILES}/vitl_16_pt22k/checkpoint_student.pth", _STUDENT),
        ),
    ),
    positions="bicubic_offset",
)  # fmt: skip
