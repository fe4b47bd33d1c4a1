"""Teachers without a family file: any plain ViT of timm by its name; all else is refused in one line."""

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file

import families
from benchmark.cli.support.request import read_request
from benchmark.tools.check import CLAIMS, TINY
from families.core.derive import HOSTS, REMARK
from families.core.weights import source_of
from families.core.weights_folder import find_weights
from families.spec import TIMM, Constant, Normal, Partial, RopeFrequencies, UserError, WeightsError

# One of each kind: what differs from the plain ViT is said behind it.
READ = {
    "vit_base_patch16_224": set(),
    "deit3_base_patch16_224": {"layer_scale", "patch_pos_embed"},
    "vit_small_patch14_reg4_dinov2": {"layer_scale", "registers"},
    "vit_base_patch16_clip_quickgelu_224": {"activation", "norm", "norm_pre"},
    "vit_base_patch16_siglip_224": {"no_class_token"},
    "aimv2_large_patch14_224": {"swiglu", "norm", "patch_norm", "no_qkv_bias", "no_proj_bias", "no_class_token"},
    "beit3_base_patch16_224": {"sub_ln", "norm"},
    "vit_base_patch16_radio_v3": {"layer_scale", "registers", "no_final_norm"},
    "vit_small_patch16_rope_mixed_ape_224": {"layer_scale", "rope", "patch_pos_embed"},
    "vit_small_patch16_dinov3": {"layer_scale", "registers", "rope", "no_pos_embed", "norm", "no_qkv_bias", "no_k_bias"},
    "eva02_base_patch14_224": {"swiglu", "sub_ln", "rope", "no_k_bias"},
    "vit_pe_spatial_tiny_patch16_512": {"norm_pre", "rope", "no_final_norm", "norm"},
    "beit_base_patch16_224": {"layer_scale", "rel_pos_bias", "no_pos_embed"},
}
REFUSED = {
    "xcit_small_12_p16_224": "is a Xcit;",
    "samvit_base_patch16": "is a VisionTransformerSAM;",
    "hiera_base_224": "is a Hiera;",
    "cait_s24_224": "is a Cait;",
    "swin_tiny_patch4_window7_224": "is a SwinTransformer;",
    "deit_base_distilled_patch16_224": "is a VisionTransformerDistilled;",
    "vit_relpos_base_patch16_224": "is a VisionTransformerRelPos;",
    "vit_dpwee_patch16_reg1_gap_256": "differs from a plain ViT in block_fn",
    "vit_dlittle_patch16_reg1_gap_256": "differs from a plain ViT in attn_layer",
    "vit_base_patch16_sapiens2": "differs from a plain ViT in num_kv_heads",
    "vit_smal_patch16_224": "timm has no model 'vit_smal_patch16_224'; did you mean timm:vit_small_patch16_224?",
    "vit_base_patch16_224.nope": "nope",
    "": "timm has no model ''",
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] if i > 3 else []) for i, name in enumerate(READ)])
def test_the_contract_holds_without_a_file(name):
    spec = families.spec(f"{TIMM}{name}")
    assert {component.name for component in spec.native} == READ[name]
    assert spec.remark == (REMARK if READ[name] else "")
    (size,) = spec.sizes
    for claim in CLAIMS:
        claim(families.load(f"{TIMM}{name}"), size)


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_in_one_line(name, bench, tmp_path):
    with pytest.raises(UserError) as caught:
        families.spec(f"{TIMM}{name}")
    assert REFUSED[name] in str(caught.value) and "\n" not in str(caught.value)
    code, out, err = bench(
        "run", "--teacher", f"{TIMM}{name}", "--dry-run", "--work", tmp_path / "w", "--results", tmp_path / "r"
    )
    assert (code, out, err.count("\n")) == (2, "", 1) and REFUSED[name] in err
    assert not list(tmp_path.iterdir())


# Which a name cannot tell: heads, a fixed table, another activation or scale of coordinates, which are arguments of the file.
BEYOND_A_NAME = {"mocov3", "mae", "ijepa", "dfn_clip", "pe_core", "pe_spatial", "beitv2", "eva02", "dinov3"}
REFUSED_FAMILIES = {"relpos_vit", "sapiens2"}


@pytest.mark.parametrize("name", [name for name in families.names() if name not in BEYOND_A_NAME | REFUSED_FAMILIES])
def test_it_finds_what_a_family_file_says(name):
    """The same geometry and normalisation, and a matched student that computes the same."""
    teacher = families.spec(name).teachers[0]
    found = families.spec(f"{TIMM}{teacher.model}")
    (ours,) = found.teachers
    assert ours.geometry == replace(teacher, img_size=teacher.native_size).geometry
    assert teacher.official or (found.mean, found.std) == (families.spec(name).mean, families.spec(name).std)
    args = {**TINY, "num_classes": 3, "global_pool": "token"}
    by_file, by_name = families.load(name), families.load(f"{TIMM}{teacher.model}")
    one = by_file.student(teacher.size, native=by_file.native, **args)
    other = by_name.student(ours.size, native=by_name.native, **args)
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(other.eval()(x), one.eval()(x))


def test_starts_are_timms():
    mixed = {each.name: each for each in families.spec(f"{TIMM}vit_base_patch16_rope_mixed_224").native}
    assert mixed["rope"].initial == {"rope.freqs": RopeFrequencies(10.0)} and mixed["rope"].inert_under_copy
    assert mixed["layer_scale"].initial == {"*.ls?.gamma": Constant(1e-5)}  # the authors start at 1e-4
    dinov3 = {each.name: each for each in families.spec(f"{TIMM}vit_small_patch16_dinov3").native}
    assert dinov3["registers"].initial == {"reg_token": Normal(1e-6)}
    assert dinov3["norm"].args == {"norm_layer": Partial("timm.layers.norm:LayerNorm", {"eps": 1e-5})}
    assert families.spec("dinov3").components("small")["registers"].initial == {"reg_token": Normal(0.02)}


def test_recording_leaves_timm_as_it_was():
    before = [host.__init__ for host in HOSTS]
    families.spec(f"{TIMM}vit_tiny_patch16_224")
    with pytest.raises(UserError):
        families.spec(f"{TIMM}vit_nope")
    assert [host.__init__ for host in HOSTS] == before


def test_teachers_join_the_families_of_a_request():
    name = f"{TIMM}vit_tiny_patch16_224"
    assert read_request({"teacher": [name]}).parts[0].teachers == [(name, "tiny")]
    both = read_request({"family": "deit", "sizes": None, "teacher": [name, f"{TIMM}deit_tiny_patch16_224"]}).parts[0].teachers
    assert both == [("deit", "small"), ("deit", "base"), (name, "tiny"), (f"{TIMM}deit_tiny_patch16_224", "tiny")]
    with pytest.raises(UserError, match="--teacher 'deit': a model of timm, such as timm:.*; families go with --family"):
        read_request({"teacher": ["deit"]})


def test_a_file_of_ones_own(tmp_path):
    """`--weights FILE` serves the one teacher; a file of another model is refused."""
    name = f"{TIMM}vit_tiny_patch16_224"
    donor = timm.create_model("vit_tiny_patch16_224")
    save_file(donor.state_dict(), path := tmp_path / "mine.safetensors")
    assert find_weights(path, name, "tiny") == path
    model = families.load(name).teacher("tiny", weights=path)
    assert torch.equal(model.blocks[3].mlp.fc1.weight, donor.blocks[3].mlp.fc1.weight)
    with pytest.raises(WeightsError, match=r"mine\.safetensors: key .* has shape"):
        families.load(f"{TIMM}vit_small_patch16_224").teacher("small", weights=path)


def test_a_model_without_hosted_weights():
    teacher = replace(families.spec("ijepa").teacher("huge"), official=None)
    with pytest.raises(WeightsError, match="timm hosts no weights of it; give a file of them as --weights"):
        source_of(teacher)


def test_mixed_frequencies_are_those_of_the_paper():
    """Lengths 10^(-4i/d), each twice in directions at right angles, one random direction for each head of a block."""
    adapter = families.load("rope_vit_mixed")
    args = {**TINY, "embed_dim": 48, "num_heads": 3, "global_pool": "token"}
    one, other = (
        dict(adapter.student("base", 3, seed, adapter.native, **args).named_parameters())["rope.freqs"] for seed in (0, 1)
    )
    assert one.shape == (2, TINY["depth"], 3, 8) and not torch.equal(one, other)
    first, second = one[..., :4], one[..., 4:]
    lengths = torch.tensor([10 ** (-4 * i / 16) for i in range(4)])
    for half in (first, second):
        torch.testing.assert_close(half.norm(dim=0), lengths.expand(TINY["depth"], 3, 4))
    torch.testing.assert_close((first * second).sum(0), torch.zeros(TINY["depth"], 3, 4), rtol=0, atol=1e-6)
    angles = torch.atan2(first[1], first[0])
    torch.testing.assert_close(angles, angles[..., :1].expand_as(angles), rtol=0, atol=1e-5)
    assert len({round(float(angle), 4) for angle in angles.detach()[..., 0].flatten()}) == TINY["depth"] * 3
