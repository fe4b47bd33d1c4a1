"""Building models: initial values, fixed tables, official checkpoints, the adapter's own errors."""

import pytest
import timm
import torch
from timm.layers import build_sincos2d_pos_embed

import families
from benchmark.check import TINY
from families.adapter import Adapter
from families.spec import Component, Family, Teacher, UnknownName
from families.weights import WeightsError, load_official

TINY_HEADLESS = {**TINY, "num_classes": 0, "global_pool": "token"}


@pytest.mark.parametrize(("family", "swapped"), [("mae", False), ("mocov3", True)])
def test_sincos_tables(family, swapped):
    """MAE's table is timm's with columns first; MoCo v3's is its transpose. Both are frozen, with a zero class row."""
    model = families.load(family).student("base", 5, native=["sincos_pos_embed"], **TINY)
    table = model.pos_embed
    assert not table.requires_grad
    assert table[0, 0].abs().max() == 0
    rows = columns = 4
    half, dim = TINY["embed_dim"] // 2, TINY["embed_dim"] // 4
    frequency = 10000 ** (-torch.arange(dim) / dim)
    for row in range(rows):
        for column in range(columns):
            first, second = (row, column) if swapped else (column, row)
            patch = table[0, 1 + row * columns + column]
            torch.testing.assert_close(patch[:dim], torch.sin(first * frequency), atol=1e-5, rtol=0)
            torch.testing.assert_close(patch[dim:half], torch.cos(first * frequency), atol=1e-5, rtol=0)
            torch.testing.assert_close(patch[half : half + dim], torch.sin(second * frequency), atol=1e-5, rtol=0)
            torch.testing.assert_close(patch[half + dim :], torch.cos(second * frequency), atol=1e-5, rtol=0)
    reference = build_sincos2d_pos_embed([rows, columns], TINY["embed_dim"], interleave_sin_cos=False)
    theirs = {tuple(row.tolist()) for row in reference.sort(dim=1).values.round(decimals=4)}
    ours = {tuple(row.tolist()) for row in table[0, 1:].detach().sort(dim=1).values.round(decimals=4)}
    assert len(ours) == len(theirs)


def test_layer_scale_starts_at_upstreams_values():
    """Not at timm's: DeiT III 1e-4, BEiT v2 .1 in base and 1e-5 in large, in students and in mini teachers."""
    for family, size, name, value in [
        ("deit3", "base", "ls1.gamma", 1e-4),
        ("dinov2", "small", "ls1.gamma", 1e-5),
        ("beitv2", "base", "gamma_2", 0.1),
        ("beitv2", "large", "gamma_1", 1e-5),
    ]:
        adapter = families.load(family)
        for model in (adapter.student(size, 5, native=adapter.native, **TINY), adapter.teacher(size, pretrained=False, **TINY)):
            gamma = dict(model.named_parameters())[f"blocks.1.{name}"]
            assert bool((gamma == value).all()), (family, size)


def test_teachers_are_frozen_and_need_their_own_geometry():
    adapter = families.load("deit3")
    teacher = adapter.teacher("base", pretrained=False, **TINY)
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    with pytest.raises(ValueError, match="pretrained=False"):
        adapter.teacher("base", img_size=32)


def test_unknown_words_name_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'deit3'"):
        families.load("diet3")
    with pytest.raises(UnknownName, match="valid: base, large"):
        families.load("deit3").student("small", 5)
    with pytest.raises(UnknownName, match="did you mean 'layer_scale'"):
        families.load("deit3").student("base", 5, native=["layerscale"])


def test_normalise_is_the_familys():
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(families.load("augreg").normalise(images), images * 2 - 1)
    clip = families.load("clip").normalise(images)
    torch.testing.assert_close(clip[:, 2], (images[:, 2] - 0.40821073) / 0.27577711)


def test_a_parameter_without_initial_value_is_an_error():
    """A native component whose start value nobody gave: said, not guessed."""
    careless = Family(
        title="Careless",
        paper="-",
        recipe="-",
        teachers=(Teacher("base", "deit3_base_patch16_224", 768, 12, 12, 16, "-"),),
        native=(Component("layer_scale", "-", "-", args={"init_values": 1e-4}),),
    )
    with pytest.raises(ValueError, match=r"no initial value for parameter 'blocks.0.ls1.gamma'"):
        Adapter("careless", careless).student("base", 5, native=["layer_scale"], **TINY)


# ---- official checkpoints, in their authors' layouts, made from a model of our own


def donor(family, size="base"):
    adapter = families.load(family)
    teacher = adapter.spec.teacher(size)
    model = timm.create_model(teacher.model, **{**teacher.args, **TINY_HEADLESS})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    empty = timm.create_model(teacher.model, **{**teacher.args, **TINY_HEADLESS})
    return model.eval(), empty.eval(), teacher.official


def mocov3_layout(state):
    keys = {f"module.base_encoder.{name}": value for name, value in state.items()}
    keys |= {f"module.momentum_encoder.{name}": value + 1 for name, value in state.items()}
    keys |= {f"module.base_encoder.head.{i}.weight": torch.zeros(4, 4) for i in (0, 3, 6)}
    return {"epoch": 300, "state_dict": keys | {"module.predictor.0.weight": torch.zeros(4, 4)}}


def ibot_layout(state):
    keys = {f"module.backbone.{name}": value for name, value in state.items()}
    return {
        "state_dict": keys | {"module.backbone.masked_embed": torch.zeros(1, 48), "module.head.mlp.0.weight": torch.zeros(4, 4)}
    }


def beitv2_layout(state):
    keys = dict(state) | {"mask_token": torch.zeros(1, 1, 48), "lm_head.weight": torch.zeros(8, 48)}
    keys |= {"cls_pt_layers.0.norm1.weight": torch.zeros(48), "rel_pos_bias.relative_position_index": torch.zeros(17, 17)}
    return {"model": keys}


LAYOUTS = {"mocov3": mocov3_layout, "ibot": ibot_layout, "beitv2": beitv2_layout}


@pytest.mark.parametrize("family", LAYOUTS)
def test_official_layouts_load_and_compute_the_same(family, tmp_path):
    model, empty, official = donor(family)
    path = tmp_path / "official.pth"
    torch.save(LAYOUTS[family](model.state_dict()), path)
    load_official(empty, official, path)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(empty.forward_features(x), model.forward_features(x))


@pytest.mark.parametrize("family", LAYOUTS)
def test_a_wrong_official_file_is_refused(family, tmp_path):
    model, empty, official = donor(family)
    good = LAYOUTS[family](model.state_dict())
    container = next(name for name in official.layout.containers if name in good)
    first = next(name for name in good[container] if name.endswith("blocks.0.norm1.weight"))

    def refused(content, words):
        path = tmp_path / "wrong.pth"
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        with pytest.raises(WeightsError, match=words) as caught:
            load_official(empty, official, path)
        assert str(path) in str(caught.value)

    refused(b"<html>404</html>", "not a readable checkpoint")
    refused([good], "a list, not a dictionary")
    refused({container: torch.zeros(3)}, "none of")
    refused({"teacher_weights": good[container]}, "none of")
    refused({container: {k: v for k, v in good[container].items() if k != first}}, "Missing key.*blocks.0.norm1.weight")
    prefix = first.removesuffix("blocks.0.norm1.weight")
    refused({container: good[container] | {f"{prefix}blocks.0.extra": torch.zeros(1)}}, "Unexpected key.*extra")
    refused({container: good[container] | {first: torch.zeros(7)}}, "size mismatch")
