"""I-JEPA (Assran et al. 2023, arXiv 2301.08243).

Native: a fixed sine-cosine position table, no class token. Traps: timm hosts no weights, so the
file is the authors'; they evaluate the target encoder, timm's converter takes the other; the table
encodes columns first, as MAE's.
"""

from families.spec import Component, Family, Layout, Official, SinCos, Teacher

_AT = "https://dl.fbaipublicfiles.com/ijepa"
_LAYOUT = Layout(containers=("target_encoder",), strip=("module.",))
_CODE, _MODEL = "ijepa/src/models/vision_transformer.py", "vit_huge_patch14_gap_224"

FAMILY = Family(
    title="I-JEPA",
    paper="Assran et al. 2023, arXiv 2301.08243",
    recipe="prediction of masked blocks in feature space, ImageNet-1k, 300 epochs",
    teachers=(
        Teacher(
            "huge", f"{_MODEL}.in1k_ijepa", 1280, 32, 16, 14, "CC-BY-NC-4.0",
            official=Official(f"{_AT}/IN1K-vit.h.14-300e.pth.tar", _LAYOUT),
        ),
    ),
    alternatives=(
        Teacher(
            "huge_in22k", f"{_MODEL}.in22k_ijepa", 1280, 32, 16, 14, "CC-BY-NC-4.0",
            official=Official(f"{_AT}/IN22K-vit.h.14-900e.pth.tar", _LAYOUT),
        ),
    ),
    native=(
        Component(
            "sincos_pos_embed", "a fixed 2-D sine-cosine position table", f"{_CODE}: get_2d_sincos_pos_embed",
            initial={"pos_embed": SinCos("column")},
        ),
        Component(
            "no_class_token", "patches alone; the head reads their mean", _CODE,
            args={"class_token": False, "global_pool": "avg", "fc_norm": False},
        ),
    ),
)  # fmt: skip
