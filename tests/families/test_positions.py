"""Position tables at another input size: every family's, against its authors' formula written out."""

from typing import get_args

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from scipy import interpolate, ndimage

import families
from benchmark.transfer.reference import reference_maps
from families.core.positions import RULES, resize
from families.core.weights import load_pretrained
from families.spec import Positions, UnknownName, UserError

from ..conftest import perturbed

# A family's models of one input size and patch have the same tables, since all are as narrow here.
_EVERY = [(name, families.spec(name).teacher(size)) for name in families.names() for size in reversed(families.spec(name).labels)]
_ONE = {(name, each.patch_size, each.native_size, each.official): (name, each.size) for name, each in _EVERY}
TEACHERS = list(_ONE.values())
NARROW = {"embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 0}
SIZES = (112, 224, "native", 448)


# ---- the rules as [new, old] matrices that act on rows and on columns, in float64


def keys(x, a):
    """The cubic convolution kernel of Keys 1981."""
    x = np.abs(x)
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def point_by_point(old, new, factor, kernel, width):
    """Each new point lies at (i + 1/2) / factor - 1/2 and reads the old ones around it; beyond the edge is the edge's value."""
    matrix = np.zeros((new, old))
    for i in range(new):
        place = (i + 0.5) / factor - 0.5
        for j in range(int(np.floor(place)) + 1 - width, int(np.floor(place)) + 1 + width):
            matrix[i, min(max(j, 0), old - 1)] += kernel(place - j)
    return matrix


def bicubic(old, new, offset=0.0):
    return point_by_point(old, new, (new + offset) / old, lambda x: keys(x, -0.75), 2)


def bicubic_antialias(old, new):
    """The kernel is as much wider as the new grid is coarser; weights beyond the edge are left out, the others sum to 1."""
    stretch = max(old / new, 1)
    places = (np.arange(new) + 0.5) * old / new - 0.5
    matrix = keys((places[:, None] - np.arange(old)) / stretch, -0.5)
    return matrix / matrix.sum(1, keepdims=True)


def geometric_spline(old, new):
    """A not-a-knot cubic spline (another routine of scipy's than ours) through values at 0, 1, 1 + q, 1 + q + q^2, ..."""
    left, right = 1.01, 1.5
    while right - left > 1e-6:
        q = (left + right) / 2
        if sum(q**i for i in range(old // 2)) > new // 2:
            right = q
        else:
            left = q
    far = [sum(q**i for i in range(n)) for n in range(1, old // 2 + 1)]
    known = [-each for each in reversed(far)] + [0, *far]
    wanted = np.clip(np.arange(-(new // 2), new // 2 + 1), known[0], known[-1])
    return interpolate.make_interp_spline(known, np.eye(old), k=3)(wanted)


MATRICES = {
    "bicubic": bicubic,
    "bicubic_offset": lambda old, new: bicubic(old, new, 0.1),
    "bicubic_antialias": bicubic_antialias,
    "bilinear": lambda old, new: point_by_point(old, new, new / old, lambda x: max(0, 1 - abs(x)), 1),
    "bilinear_corners": lambda old, new: ndimage.zoom(np.eye(old), (new / old, 1), order=1),
    "geometric_spline": geometric_spline,
}


def expected(name, table, patches, new_patches, rule):
    """A model's table by its family's rule; as it is where the grid is. Rows without a place are kept."""
    if patches == new_patches:
        return table.numpy()
    values = table.double().numpy()
    if name.endswith("relative_position_bias_table"):
        old, new = 2 * patches - 1, 2 * new_patches - 1
        placed, prefix, suffix = values[: old**2], values[:0], values[old**2 :]
    else:
        old, new = patches, new_patches
        placed, prefix, suffix = values[0, -(old**2) :], values[0, : -(old**2)], values[0, :0]
    matrix = MATRICES[rule](old, new)
    moved = np.einsum("ir,js,rsc->ijc", matrix, matrix, placed.reshape(old, old, -1)).reshape(new**2, -1)
    return np.concatenate([prefix, moved, suffix]).reshape(*table.shape[:-2], -1, table.shape[-1])


# ---- every family's tables, of the true grid


@pytest.mark.parametrize("img_size", SIZES)
@pytest.mark.parametrize(("family", "size"), TEACHERS)
def test_tables_are_resampled_as_the_authors_do(family, size, img_size):
    """And nothing else changes: the model is the one that timm builds at that size with these tables."""
    spec = families.spec(family)
    teacher = spec.teacher(size)
    patch, native = teacher.patch_size, teacher.native_size
    img_size = native if img_size == "native" else img_size
    model = perturbed(timm.create_model(teacher.model, **{**teacher.args, **NARROW}))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tables = [name for name in before if name == "pos_embed" or name.endswith("relative_position_bias_table")]
    assert model.patch_embed.img_size[0] == native
    assert tables or "no_pos_embed" in spec.components(size)

    resize(model, img_size, spec.positions)
    after = model.state_dict()
    for name, value in before.items():
        wanted = value.numpy()
        if name in tables:
            wanted = expected(name, value, native // patch, img_size // patch, spec.positions)
        np.testing.assert_allclose(after[name].numpy(), wanted, rtol=0, atol=0 if img_size == native else 2e-5, err_msg=name)

    if img_size > 600:  # the maps of Sapiens2's native size are large, and no other than at 448
        return
    fresh = timm.create_model(teacher.model, **{**teacher.args, **NARROW, "img_size": img_size}).eval()
    fresh.load_state_dict(after)
    x = torch.randn(1, 3, img_size, img_size, generator=torch.Generator().manual_seed(0))
    maps = families.load(family).attention_maps(model, x)
    for ours, theirs in zip(maps, reference_maps(fresh, x), strict=True):
        assert ours.shape[-1] == (img_size // patch) ** 2 + model.num_prefix_tokens
        torch.testing.assert_close(ours, theirs)


def test_the_words_of_family_files_are_the_rules():
    assert set(get_args(Positions)) == set(RULES) == set(MATRICES)
    with pytest.raises(UnknownName, match="did you mean 'bicubic'"):
        resize(timm.create_model("vit_tiny_patch16_224", **NARROW), 112, "bicubi")


def test_no_rule_can_pass_for_another():
    """They differ by much more than rounding."""
    table = torch.randn(37, 37, 4, generator=torch.Generator().manual_seed(0))
    found = {name: rule(table, (16, 16)) for name, rule in RULES.items()}
    for name, values in found.items():
        for other in set(found) - {name}:
            assert float((values - found[other]).abs().mean()) > 0.05, (name, other)


# ---- files


def test_a_file_is_loaded_at_the_size_that_is_asked_for(tmp_path):
    adapter = families.load("dinov2")
    model = perturbed(timm.create_model(adapter.spec.teacher("small").model), std=0.05)
    path = tmp_path / "dinov2-small.safetensors"
    save_file(model.state_dict(), path)
    for asked, patches in ((None, 16), (112, 8), (224, 16), (518, 37)):
        teacher = adapter.teacher("small", weights=path, img_size=asked)
        wanted = expected("pos_embed", model.pos_embed.detach(), 37, patches, "bicubic_offset")
        np.testing.assert_allclose(teacher.pos_embed.numpy(), wanted, rtol=0, atol=1e-5)
        assert not teacher.training and not teacher.pos_embed.requires_grad


def test_an_official_file_is_loaded_at_another_size(tmp_path):
    spec = families.spec("mocov3")
    teacher = spec.teacher("small")
    model = perturbed(timm.create_model(teacher.model, num_classes=0, **teacher.args), std=0.05)
    path = tmp_path / "mocov3-small.pth"
    torch.save({"state_dict": {f"module.base_encoder.{name}": value for name, value in model.state_dict().items()}}, path)
    loaded = load_pretrained(teacher.at(112), path, spec.positions)
    wanted = expected("pos_embed", model.pos_embed.detach(), 14, 7, "bicubic")
    np.testing.assert_allclose(loaded.pos_embed.detach().numpy(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("img_size", "near"), [(100, "98 and 112"), (225, "224 and 238"), (5, "14"), (0, "14")])
def test_a_size_that_a_teacher_cannot_take_is_one_line(img_size, near):
    with pytest.raises(UserError) as caught:
        families.load("dinov2").teacher("small", img_size=img_size)
    model = "vit_small_patch14_dinov2.lvd142m"
    assert str(caught.value) == f"img_size {img_size}: no multiple of 14, the patch size of {model}; the nearest: {near}"
