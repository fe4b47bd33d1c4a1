"""Building models: initial values, fixed tables, alternatives, the adapter's own errors."""

import json
from typing import get_args

import pytest
import timm
import torch
from timm.layers import build_sincos2d_pos_embed

import families
from benchmark.spec.architectures import architecture
from benchmark.spec.arm import Start
from benchmark.spec.definitions import run_of
from benchmark.spec.protocol import load_protocol
from benchmark.spec.run import Cell
from benchmark.tools.check import TINY, geometry_is_timms
from benchmark.training.models import frozen_teacher, model_of, student_of, timm_args
from families.core.adapter import Adapter
from families.core.initialise import initialise
from families.core.positions import resize
from families.core.starts import STARTS, start_attention
from families.spec import Component, Constant, Family, Teacher, UnknownName, UserError

from .. import made
from ..conftest import perturbed


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


def test_a_run_starts_its_attention_weights_as_its_arm_says():
    """The two starts are equal for students of one geometry, whoever would teach them."""
    _, mini = load_protocol("mini")
    usual, mimetic, impulse, other = (
        run_of(mini, Cell("mini", family, "base", f"standard-none{start}", 3))
        for family, start in (("deit", ""), ("deit", "+start=mimetic"), ("deit", "+start=impulse"), ("clip", "+start=impulse"))
    )
    assert impulse.key == other.key and len({usual.key, mimetic.key, impulse.key}) == 3
    for run in (mimetic, impulse):
        assert get_args(Start) == ("usual", *STARTS)
        expected = start_attention(student_of(usual), run.student.start, 3).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in model_of(run, {}).state_dict().items())
    for arm, reason in (
        ("standard-copy+start=mimetic", "start goes with none"),
        ("matched-none+start=mimetic", "a standard student"),
    ):
        with pytest.raises(UserError, match=reason):
            run_of(mini, Cell("mini", "deit3", "base", arm, 3))


def test_teachers_are_frozen_and_need_their_own_geometry():
    adapter = families.load("deit3")
    teacher = adapter.teacher("base", pretrained=False, **TINY)
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    with pytest.raises(ValueError, match="pretrained=False"):
        adapter.teacher("base", patch_size=8)


def test_all_models_of_a_run_have_its_input_size(tmp_path):
    """Student, teacher and the teacher that is fine-tuned, which starts with the resampled table of positions."""
    published = perturbed(timm.create_model("deit_tiny_patch16_224.fb_in1k"), std=0.05)
    path = tmp_path / "deit-tiny_in1k.pth"
    torch.save(published.state_dict(), path)
    protocol = load_protocol("imagenet")[1].model_copy(update={"img_size": 112})
    copied, tuned = (run_of(protocol, Cell("imagenet", "deit", "tiny_in1k", arm, 0)) for arm in ("standard-copy", "finetune"))
    teacher, fine = frozen_teacher(copied, {"weights": path}), model_of(tuned, {"weights": path})
    assert student_of(copied).pos_embed.shape == teacher.pos_embed.shape == fine.pos_embed.shape == (1, 50, 192)
    wanted = resize(published, 112, "bicubic").pos_embed
    assert torch.equal(teacher.pos_embed, wanted) and torch.equal(fine.pos_embed, wanted)
    assert fine.pos_embed.requires_grad and not teacher.pos_embed.requires_grad
    assert tuned.teacher.positions == copied.teacher.positions == "bicubic"


def test_unknown_words_name_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'deit3'"):
        families.load("diet3")
    with pytest.raises(UnknownName, match="did you mean 'small_in1k'.*valid: base, large, small_in1k, small_in22k"):
        families.load("deit3").student("smal", 5)
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


def test_a_table_without_initial_value_is_an_error():
    """Rotary frequencies are no weights: drawn as those they would nearly switch the rotation off."""
    model = timm.create_model("vit_small_patch16_rope_mixed_224", **TINY)
    with pytest.raises(ValueError, match=r"no initial value for parameter 'rope.freqs'"):
        initialise(model, 0, {})


def test_a_component_is_described_as_json_gives_it_back():
    """Else each result of a family with a tuple among its arguments would be stale."""
    component = Component("rope", "-", "-", {"ref_feat_shape": (16, 16)}, {"*.gamma": Constant(0.1)})
    described = architecture(made.PROTOCOLS["mini"], families.spec("deit"), "base", {"rope": component}).model_dump()
    assert json.loads(json.dumps(described)) == described


def equal(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("family", ["deit3", "beitv2"])
def test_the_adapters_student_is_the_benchmarks(family, seed):
    adapter = families.load(family)
    for student, native in (("standard", ()), ("matched", adapter.native)):
        run = run_of(made.PROTOCOLS["mini"], Cell("mini", family, "base", f"{student}-distill", seed))
        args = timm_args(run)
        theirs = student_of(run)
        assert equal(adapter.student("base", seed=seed, native=native, **args), theirs)
        assert not equal(adapter.student("base", seed=seed + 1, native=native, **args), theirs)


def test_the_adapters_student_is_imagenets_unless_told_otherwise():
    run = run_of(made.PROTOCOLS["imagenet"], Cell("imagenet", "deit3", "base", "standard-copy", 0))
    assert equal(families.load("deit3").student("base", num_classes=1000, seed=0), student_of(run))


ALTERNATIVES = [(name, teacher.size) for name in families.names() for teacher in families.spec(name).alternatives]


@pytest.mark.parametrize(("family", "size"), ALTERNATIVES, ids=lambda value: value)
def test_an_alternative_is_what_timm_builds(family, size):
    """Its geometry and normalisation are timm's, and no request for all sizes meets it."""
    adapter = families.load(family)
    assert size not in adapter.spec.sizes
    assert geometry_is_timms(adapter, size)
    teacher = adapter.spec.teacher(size)
    if teacher.official is None:
        assert timm.get_pretrained_cfg(teacher.model).hf_hub_id.startswith("timm/")


def test_an_alternative_starts_as_its_size_does():
    beitv2 = families.spec("beitv2")
    for size in ("base", "large"):
        assert beitv2.components(f"{size}_ft") == beitv2.components(size)
    teacher = families.load("beitv2").teacher("base_ft", pretrained=False, **TINY)
    assert bool((teacher.blocks[0].gamma_1 == 0.1).all())


def test_a_label_names_one_teacher():
    for name in families.names():
        spec = families.spec(name)
        assert len(spec.labels) == len(set(spec.labels)), name
        assert ["_" in label for label in spec.labels] == [label not in spec.sizes for label in spec.labels], name
