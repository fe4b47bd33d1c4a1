"""Teachers' weights: found, loaded to the last number, and refused in one line when they are not the teacher's."""

import argparse
import hashlib
import io
import json
import os
import resource
import struct
import time
import zipfile
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

import families
from benchmark.tools.check import TINY
from benchmark.transfer.reference import reference_maps
from families.core.checkpoints import check_plain, read_checkpoint, read_torch
from families.core.weights import file_digest, load_official, load_pretrained, record_of
from families.core.weights_folder import ORIGIN, RECORD, find_weights
from families.spec import Family, Teacher, WeightsError

from ..conftest import perturbed

HEADLESS = {**TINY, "num_classes": 0}


def equal(a, b, x):
    """The same outputs and the same attention maps."""
    torch.testing.assert_close(a.forward_features(x), b.forward_features(x))
    for mine, theirs in zip(reference_maps(a, x), reference_maps(b, x), strict=True):
        torch.testing.assert_close(mine, theirs)


def refused(load, path, words):
    """One line that names the file and says `words`."""
    with pytest.raises(WeightsError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


# ---- which file


def test_one_rule_finds_the_file(tmp_path):
    def put(name):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
        return tmp_path / name

    assert find_weights(tmp_path / "absent", "deit3", "base") is None
    put("deit3-base_in22k.pth"), put("deit3-base-384.pth"), put("deit3-base.pth.part"), put("deit3-base.json")
    assert find_weights(tmp_path, "deit3", "base") is None
    file = put("deit3-base.pth.tar")
    assert find_weights(tmp_path, "deit3", "base") == file
    for suffix in ("safetensors", "pth", "pt", "bin", "pth.tar", "npz"):
        family = f"mae{suffix.replace('.', '_')}"
        put(f"{family}-base/{RECORD}"), put(f"{family}-base/model.pth.incomplete"), put(f"{family}-base/notes.txt")
        put(f"{family}-base.pth{ORIGIN}")
        assert find_weights(tmp_path, family, "base") is None
        inside = put(f"{family}-base/model.{suffix}")
        assert find_weights(tmp_path, family, "base") == inside
    second = put("deit3-base/model.safetensors")
    with pytest.raises(WeightsError, match="keep one") as caught:
        find_weights(tmp_path, "deit3", "base")
    assert str(file) in str(caught.value) and str(second) in str(caught.value)


def test_a_digest_follows_the_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    assert file_digest(path) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert file_digest(path) == hashlib.sha256(b"two").hexdigest()


# ---- authors' files, made key by key from a model of our own


def donor(family, size="base"):
    """(a perturbed model, another one, the authors' file that the first one's weights would stand in)."""
    teacher = families.spec(family).teacher(size)
    first, second = (timm.create_model(teacher.model, **{**teacher.args, **HEADLESS}) for _ in range(2))
    return perturbed(first, std=0.05), perturbed(second, 1, std=0.05), teacher.official


def mocov3_layout(state):
    keys = {f"module.base_encoder.{name}": value for name, value in state.items()}
    keys |= {f"module.momentum_encoder.{name}": value + 1 for name, value in state.items()}
    keys |= {f"module.base_encoder.head.{i}.weight": torch.zeros(4, 4) for i in (0, 3, 6)}
    keys |= {"module.base_encoder.head.1.running_mean": torch.zeros(4), "module.predictor.0.weight": torch.zeros(4, 4)}
    return {"epoch": 300, "arch": "vit_base", "state_dict": keys, "optimizer": {"state": {}, "param_groups": []}}


def ibot_keys(state):
    keys = {f"module.backbone.{name}": value for name, value in state.items()}
    return keys | {"module.backbone.masked_embed": torch.zeros(1, 48), "module.head.mlp.0.weight": torch.zeros(4, 4)}


def ibot_layout(state):
    return {"state_dict": ibot_keys(state)}


def ibot_full_layout(state):
    """The full checkpoint: the student's weights, the optimiser's state and the command line beside the teacher's."""
    student = {name: value + 1 for name, value in state.items()}
    return {"student": ibot_keys(student), "teacher": ibot_keys(state), "epoch": 1, "args": argparse.Namespace(arch="vit")}


def ibot_student_layout(state):
    return {"student": ibot_keys(state), "teacher": ibot_keys({name: value + 1 for name, value in state.items()})}


def beitv2_layout(state):
    keys = dict(state) | {"mask_token": torch.zeros(1, 1, 48), "lm_head.weight": torch.zeros(8, 48)}
    keys |= {"cls_pt_layers.0.norm1.weight": torch.zeros(48), "rel_pos_bias.relative_position_index": torch.zeros(17, 17)}
    return {"model": keys}


def beitv2_module_layout(state):
    return {"module": beitv2_layout(state)["model"]}


def ijepa_layout(state):
    """The target encoder is the teacher; the encoder beside it is another one."""
    target = {f"module.{name}": value for name, value in state.items()}
    other = {name: value + 1 for name, value in target.items()}
    return {
        "encoder": other,
        "predictor": {"module.mask_token": torch.zeros(1, 1, 8)},
        "target_encoder": target,
        "opt": {},
        "epoch": 3,
    }


LAYOUTS = {"mocov3": mocov3_layout, "ibot": ibot_layout, "beitv2": beitv2_layout, "ijepa": ijepa_layout}
ALL_LAYOUTS = [
    ("mocov3", "base", mocov3_layout),
    ("mocov3", "small", mocov3_layout),
    ("ibot", "base", ibot_layout),
    ("ibot", "base", ibot_full_layout),
    ("ibot", "base_in22k", ibot_student_layout),
    ("ibot", "base_in22k", ibot_layout),
    ("beitv2", "base", beitv2_layout),
    ("beitv2", "large", beitv2_module_layout),
    ("ijepa", "huge", ijepa_layout),
    ("ijepa", "huge_in22k", ijepa_layout),
]


@pytest.mark.parametrize(("family", "size", "layout"), ALL_LAYOUTS)
def test_official_layouts_load_and_compute_the_same(family, size, layout, tmp_path):
    model, other, official = donor(family, size)
    path = tmp_path / "official.pth"
    torch.save(layout(model.state_dict()), path)
    x = torch.randn(2, 3, 32, 32)
    with pytest.raises(AssertionError):
        equal(other, model, x)
    load_official(other, official, path)
    equal(other, model, x)


class RunsCode:
    """What a pickle could do to whoever loads it."""

    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        return os.mkdir, (str(self.made),)


def damage(path, good, keys):
    """(words of the message, what it does to the file) of every kind of wrong file; `keys` is where the weights lie in it."""
    victim = next(name for name in keys(good) if name.endswith("blocks.1.norm1.weight"))
    short = victim[victim.index("blocks.") :]

    def save(content):
        torch.save(content, path)

    def changed(**values):
        content = {key: dict(value) if isinstance(value, dict) else value for key, value in good.items()}
        keys(content).update({victim.replace(short, name.replace("__", ".")): value for name, value in values.items()})
        return content

    def without():
        content = changed()
        del keys(content)[victim]
        return content

    bad = torch.ones_like(keys(good)[victim])
    bad[3] = float("nan")
    made = path.parent / "pwned"
    name = short.replace(".", "__")
    yield "an empty file", lambda: path.write_bytes(b"")
    yield "a web page, not a checkpoint", lambda: path.write_bytes(b"\n<!DOCTYPE html><html>404</html>")
    yield "a Git LFS pointer", lambda: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0")
    yield "not a readable checkpoint", lambda: path.write_bytes(b"no checkpoint at all")
    yield "perhaps cut off", lambda: (save(good), path.write_bytes(path.read_bytes()[:-2000]))
    yield r"asks for \w+\.mkdir, which could run code", lambda: save(changed(**{name: RunsCode(made)}))
    yield "a list, not a dictionary", lambda: save([good])
    yield rf"Missing key.*{short}", lambda: save(without())
    yield r"Unexpected key.*blocks\.1\.extra", lambda: save(changed(blocks__1__extra=torch.zeros(1)))
    yield rf"{short}.*shape", lambda: save(changed(**{name: torch.zeros(7)}))
    yield rf"{short}.*not finite", lambda: save(changed(**{name: bad}))
    yield rf"{short}.*a str, not a tensor", lambda: save(changed(**{name: "text"}))
    yield "No such file", path.unlink


@pytest.mark.parametrize("family", LAYOUTS)
def test_a_wrong_official_file_is_refused(family, tmp_path):
    model, empty, official = donor(family, families.spec(family).sizes[-1])
    good, path = LAYOUTS[family](model.state_dict()), tmp_path / "wrong.pth"
    container = next(name for name in official.layout.containers if name in good)
    for words, spoil in damage(path, good, lambda content: content[container]):
        spoil()
        refused(lambda file: load_official(empty, official, file), path, words)
    torch.save({container: torch.zeros(3)}, path)
    refused(lambda file: load_official(empty, official, file), path, "none of")
    torch.save({"weights": good[container]}, path)
    refused(lambda file: load_official(empty, official, file), path, "none of")
    assert not (tmp_path / "pwned").exists()


def test_a_pinned_file_must_have_its_digest(tmp_path):
    model, empty, official = donor("mocov3")
    path = tmp_path / "official.pth"
    torch.save(mocov3_layout(model.state_dict()), path)
    load_official(empty, replace(official, sha256=file_digest(path)), path)
    refused(lambda file: load_official(empty, replace(official, sha256="0" * 64), file), path, f"{file_digest(path)}, not 0000")


def test_another_head_count_is_refused(tmp_path):
    """A 6-head ViT-S takes the weights of MoCo v3's 12-head one, shape by shape, and computes something else."""
    moco = families.spec("mocov3").teacher("small")
    model = perturbed(timm.create_model(moco.model, num_classes=0, num_heads=12), std=0.05)
    path = tmp_path / "mocov3-small.pth.tar"
    torch.save(mocov3_layout(model.state_dict()), path)
    x = torch.randn(1, 3, 224, 224)
    equal(load_pretrained(moco, path), model, x)
    six = timm.create_model(moco.model, num_classes=0)
    load_official(six, moco.official, path)  # the shapes say nothing
    refused(lambda file: load_pretrained(replace(moco, args={}), file), path, "num_heads 12 and timm's .* has 6")


# ---- files that timm hosts, at their real size: ViT-Ti has 5.7 M parameters


TINY_HEADED = families.spec("deit").teacher("tiny_in1k")
SELF_SUPERVISED = Teacher("small", "vit_small_patch16_224.dino", 384, 12, 6, 16, "Apache-2.0")
AUGREG = Teacher("tiny", "vit_tiny_patch16_224.augreg_in21k_ft_in1k", 192, 12, 3, 16, "Apache-2.0")


def published(teacher):
    """The model as it was published, with the head it had."""
    return perturbed(timm.create_model(teacher.model, pretrained=False), std=0.05)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("teacher", [TINY_HEADED, SELF_SUPERVISED, AUGREG], ids=["headed", "headless", "npz by default"])
def test_hosted_files_load_and_compute_the_same(teacher, suffix, tmp_path):
    model, path = published(teacher), tmp_path / f"model{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(model.state_dict(), path)
    loaded = load_pretrained(teacher, path)
    assert not loaded.training
    assert loaded.num_classes == 0
    assert isinstance(loaded.head, torch.nn.Identity)
    equal(loaded, model, torch.randn(1, 3, 224, 224))


def test_a_file_of_another_pooling_has_the_same_norm(tmp_path):
    """timm's EVA-02 pools patches, so its file has the last norm as `fc_norm`; the teacher, with a class token, as `norm`."""
    teacher, path = families.spec("eva02").teacher("tiny"), tmp_path / "model.safetensors"
    model = published(teacher).eval()
    assert "norm.weight" not in model.state_dict()
    save_file(model.state_dict(), path)
    loaded, images = load_pretrained(teacher, path), torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(loaded.forward_features(images), model.fc_norm(model.forward_features(images)))
    save_file({name: value for name, value in model.state_dict().items() if name != "fc_norm.bias"}, path)
    refused(lambda file: load_pretrained(teacher, file), path, r"Missing key.*fc_norm\.bias")


def test_position_embeddings_are_resampled_from_the_published_size(tmp_path):
    """DINOv2's file is of 518 px and loads at 224; a file of 224 px is no file of DINOv2's."""
    teacher = families.spec("dinov2").teacher("small")
    model, path = published(teacher), tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    loaded = load_pretrained(teacher, path)
    assert loaded.pos_embed.shape == (1, 257, 384)
    torch.testing.assert_close(loaded.blocks[3].ls1.gamma, model.blocks[3].ls1.gamma)
    small = {**model.state_dict(), "pos_embed": torch.zeros(1, 257, 384)}
    save_file(small, path)
    refused(lambda file: load_pretrained(teacher, file), path, r"'pos_embed' has shape \(1, 257, 384\), the model's.*1370")


@pytest.fixture(scope="module")
def headed():
    return published(TINY_HEADED).state_dict()


@pytest.mark.long
def test_a_wrong_hosted_file_is_refused(headed, tmp_path):
    path = tmp_path / "wrong.pth"
    for words, spoil in damage(path, dict(headed), lambda content: content):
        spoil()
        refused(lambda file: load_pretrained(TINY_HEADED, file), path, words)
    assert not (tmp_path / "pwned").exists()
    for content, words in [
        ({"teacher": headed}, "no key 'patch_embed.proj.weight'"),
        ({f"visual.{name}": value for name, value in headed.items()}, "no key 'patch_embed.proj.weight'"),
        ({**headed, "patch_embed.proj.weight": torch.zeros(192, 3, 32, 32)}, r"'patch_embed.proj.weight' has shape .*32, 32"),
        ({**headed, "pos_embed": torch.zeros(1, 50, 192)}, r"'pos_embed' has shape \(1, 50, 192\)"),
        ({**headed, "head.weight": torch.zeros(10, 192), "head.bias": torch.zeros(10)}, r"'head\.\w+' has shape"),
        ({name: value for name, value in headed.items() if not name.startswith("head")}, "Missing key.*head.weight"),
        (timm.create_model(SELF_SUPERVISED.model).state_dict(), "has shape"),
        (timm.create_model("deit_tiny_distilled_patch16_224").state_dict(), "has shape"),
    ]:
        torch.save(content, path)
        refused(lambda file: load_pretrained(TINY_HEADED, file), path, words)


def test_a_wrong_safetensors_file_is_refused(headed, tmp_path):
    path = tmp_path / "wrong.safetensors"
    save_file(headed, path)
    path.write_bytes(path.read_bytes()[:-500])
    refused(lambda file: load_pretrained(TINY_HEADED, file), path, "perhaps cut off")
    torch.save(headed, path)
    refused(lambda file: load_pretrained(TINY_HEADED, file), path, "not a readable checkpoint")


def test_a_number_of_classes_in_the_args_does_not_make_loading_lax(headed, tmp_path):
    """At another number of classes timm itself loads whatever fits and passes over the rest."""
    path = tmp_path / "wrong.pth"
    torch.save({name: value for name, value in headed.items() if "blocks.5" not in name}, path)
    lax = replace(TINY_HEADED, args={"num_classes": 0})
    refused(lambda file: load_pretrained(lax, file), path, r"Missing key.*blocks\.5")


def test_the_record_must_be_timms_geometry(headed, tmp_path):
    path = tmp_path / "model.pth"
    torch.save(headed, path)
    for change, words in [({"num_heads": 6}, "num_heads 6"), ({"depth": 11}, "depth 11"), ({"patch_size": 14}, "patch_size 14")]:
        refused(lambda file, change=change: load_pretrained(replace(TINY_HEADED, **change), file), path, words)


# ---- Google's .npz


def npz_arrays(model):
    """A ViT's weights as the JAX checkpoints store them."""
    depth, heads, dim = len(model.blocks), model.blocks[0].attn.num_heads, model.embed_dim
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    arrays = {
        "cls": state["cls_token"],
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for i in range(depth):
        ours, theirs = f"blocks.{i}", f"Transformer/encoderblock_{i}"
        for number, norm in ((0, "norm1"), (2, "norm2")):
            arrays[f"{theirs}/LayerNorm_{number}/scale"] = state[f"{ours}.{norm}.weight"]
            arrays[f"{theirs}/LayerNorm_{number}/bias"] = state[f"{ours}.{norm}.bias"]
        weights = np.split(state[f"{ours}.attn.qkv.weight"], 3)
        biases = np.split(state[f"{ours}.attn.qkv.bias"], 3)
        attention = f"{theirs}/MultiHeadDotProductAttention_1"
        for letter, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            arrays[f"{attention}/{letter}/kernel"] = weight.T.reshape(dim, heads, -1)
            arrays[f"{attention}/{letter}/bias"] = bias.reshape(heads, -1)
        arrays[f"{attention}/out/kernel"] = state[f"{ours}.attn.proj.weight"].T.reshape(heads, -1, dim)
        arrays[f"{attention}/out/bias"] = state[f"{ours}.attn.proj.bias"]
        for number in (0, 1):
            arrays[f"{theirs}/MlpBlock_3/Dense_{number}/kernel"] = state[f"{ours}.mlp.fc{number + 1}.weight"].T
            arrays[f"{theirs}/MlpBlock_3/Dense_{number}/bias"] = state[f"{ours}.mlp.fc{number + 1}.bias"]
    return arrays


def test_googles_npz_loads_and_wrong_ones_are_refused(tmp_path):
    model, path = published(AUGREG), tmp_path / "model.npz"
    good = npz_arrays(model)
    np.savez(path, **good)
    equal(load_pretrained(AUGREG, path), model, torch.randn(1, 3, 224, 224))

    def load(file):
        return load_pretrained(AUGREG, file)

    bias = "Transformer/encoderblock_1/MlpBlock_3/Dense_0/bias"
    for content, words in [
        ({name: value for name, value in good.items() if not name.startswith("head")}, "numbers in .* arrays"),
        ({**good, "Transformer/encoderblock_12/LayerNorm_0/scale": np.ones(192)}, "numbers in .* arrays"),
        ({**good, "embedding/kernel": np.zeros((32, 32, 3, 192), np.float32)}, "numbers in .* arrays"),
        ({**good, bias: np.full_like(good[bias], np.inf)}, f"{bias}.*not finite"),
        ({bias + "2" if name == bias else name: value for name, value in good.items()}, f"{bias}"),
        ({**good, "odd": np.array([{}], dtype=object)}, "not a readable checkpoint"),
    ]:
        np.savez(path, **content)
        refused(load, path, words)
    path.write_bytes(b"<html></html>")
    refused(load, path, "a web page")


# ---- files that are damaged, or claim more than they hold


HUGE = 10**12


def saved(content, path, **options):
    torch.save(content, path, **options)
    return path


def equal_state(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.long
def test_no_flipped_bit_of_a_torch_file_passes(tmp_path):
    """torch checks no checksum: it reads a flipped weight as it stands."""
    good = {"weight": torch.rand(6, 5)}
    path = saved(good, tmp_path / "model.pth")
    whole, refused = path.read_bytes(), 0
    names = whole.index(b"PK\x01\x02")  # from here on stands what the parts are, twice told
    for place, bit in [(i, i % 8) for i in range(names)] + [(i, bit) for i in range(names, len(whole)) for bit in range(8)]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        try:
            assert equal_state(read_torch(path), good)  # a date, or what pads the file
        except WeightsError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error) and str(error).endswith("fetch it again")
    assert refused > names / 3
    start = whole.index(good["weight"].numpy().tobytes())
    path.write_bytes(whole[:start] + bytes([whole[start] ^ 1]) + whole[start + 1 :])
    refused_line(
        lambda: read_torch(path, "delete the folder"), rf"^{path}: .*its part 'model/data/0' is damaged.*; delete the folder$"
    )


def refused_line(load, words):
    with pytest.raises(WeightsError, match=words) as caught:
        load()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_no_cut_torch_file_passes(tmp_path):
    path = saved({"weight": torch.rand(30)}, tmp_path / "model.pth")
    old = saved({"weight": torch.rand(30)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for whole, file in ((path.read_bytes(), path), (old.read_bytes(), old)):
        for length in range(0, len(whole), 7):
            file.write_bytes(whole[:length])
            refused_line(lambda file=file: read_torch(file), f"^{file}: ")


def test_a_file_of_torchs_old_format_is_read(tmp_path):
    content = {"state_dict": {"weight": torch.rand(3)}, "args": argparse.Namespace(arch="vit")}
    path = saved(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)
    assert equal_state(read_checkpoint(path)["state_dict"], content["state_dict"])


@pytest.mark.parametrize(
    ("make", "words"), [(os.mkfifo, "no regular file"), (os.mkdir, "a folder, not a file"), (None, "no regular file")]
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_what_is_no_file_is_refused_at_once(make, words, suffix, tmp_path, at_once):
    path = tmp_path / f"model{suffix}"
    path.symlink_to("/dev/zero") if make is None else make(path)
    refused(lambda file: load_pretrained(AUGREG, file), path, words)
    moco = replace(families.spec("mocov3").teacher("base").official, sha256="0" * 64)
    refused(lambda file: load_official(torch.nn.Linear(1, 1), moco, file), path, words)


@contextmanager
def quickly():
    """Under 5 s and without a GB more of memory."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20


ODD = {
    "expanded": (lambda: torch.zeros(1).expand(HUGE), r"claims 1e\+12 elements and stores 1;"),
    "sparse": (lambda: torch.sparse_coo_tensor(torch.zeros(1, 1).long(), torch.ones(1), (HUGE,)), "a sparse"),
    "compressed": (lambda: torch.eye(3).to_sparse_csr(), "a sparse"),
    "meta": (lambda: torch.empty(HUGE, device="meta"), "a tensor on meta, without its values"),
    "quantised": (lambda: torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.quint8), "a sparse, quantised"),
    "unknown numbers": (lambda: torch.ones(48).to(torch.float8_e4m3fn), r"values of torch\.float8_e4m3fn"),
    "nested": (lambda: {"weight": torch.ones(3)}, "holds a dict, not a tensor; get the file from its authors"),
    "list": (lambda: [torch.ones(3)], "holds a list, not a tensor"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD)
def test_a_key_that_holds_no_plain_tensor_is_named(kind, headed, tmp_path):
    make, words = ODD[kind]
    model, empty, official = donor("beitv2")
    name, path = "blocks.1.norm1.weight", tmp_path / "odd.pth"
    saved({"model": {**model.state_dict(), name: make()}}, path)
    with quickly():
        refused(lambda file: load_official(empty, official, file), path, f"'{name}' .*{words}")
    name = "blocks.1.extra" if kind == "unknown numbers" else name
    saved({**headed, name: make()}, path)
    with quickly():
        refused(lambda file: load_pretrained(TINY_HEADED, file), path, f"'{name}' .*{words}")


def test_plain_tensors_are_told_however_deep_they_lie(tmp_path):
    content = {"model": {"w": torch.ones(3)}, "optimizer": {"state": {0: {"exp_avg": [torch.ones(2), torch.ones(1).expand(9)]}}}}
    content["itself"] = content
    words = r"^file: key 'optimizer\.state\.0\.exp_avg\.1' claims 9 elements and stores 1; start anew$"
    refused_line(lambda: check_plain("file", content, "start anew"), words)
    content["optimizer"]["state"][0]["exp_avg"].pop()
    check_plain("file", content)
    refused_line(
        lambda: check_plain("file", {"a\nb" * 99: torch.empty(1, device="meta")}),
        r"key '(\\n|a|b)+' holds a tensor on m",
    )
    deep = torch.empty(1, device="meta")
    for _ in range(100_000):
        deep = [deep]
    refused_line(lambda: check_plain("file", deep), r"key '[.0]{1,80}' holds a tensor on meta")


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old format"])
@pytest.mark.parametrize("claim", ["elements of the tensor", "elements stored"])
def test_a_torch_file_that_claims_what_it_does_not_hold_is_refused(old, claim, tmp_path):
    path = saved({"weight": torch.ones(77)}, tmp_path / "model.pth", _use_new_zipfile_serialization=not old)
    number, huge = b"KM", b"\x8a\x06" + HUGE.to_bytes(6, "little")
    after = b"\x85" if claim.endswith("tensor") else b"Nt" if old else b"t"

    def stated(pickled):
        assert pickled.count(number + after) == 1
        return pickled.replace(number + after, huge + after)

    if old:
        path.write_bytes(stated(path.read_bytes()))
    else:
        rewritten(path, lambda name, part: stated(part) if name.endswith("data.pkl") else part)
    with quickly():
        if (old, claim) == (False, "elements stored") and torch.__version__.startswith("2.9."):
            assert torch.equal(read_checkpoint(path)["weight"], torch.ones(77))  # it reads what is there, whatever is claimed
        else:
            refused(read_checkpoint, path, "not a readable checkpoint")


def rewritten(path, change, **options):
    """A zip file again with other parts, whose checksums are right."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, part in parts.items():
            file.writestr(name, change(name, part))


def test_a_compressed_torch_file_that_unfolds_is_refused(tmp_path):
    path = saved({"weight": torch.zeros(1000)}, tmp_path / "model.pth")
    rewritten(path, lambda name, part: part, compression=zipfile.ZIP_DEFLATED)
    refused(read_checkpoint, path, "claim more bytes than it has")


def stated_safetensors(path, shape, end, data=b"1234", dtype="F32"):
    header = json.dumps({"patch_embed.proj.weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def test_a_safetensors_file_that_claims_what_it_does_not_hold_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    huge = r"key 'patch_embed\.proj\.weight' claims 1e\+12 numbers, more than the file holds; delete it"
    for shape, end, words in [
        ([HUGE], 4, huge),
        ([HUGE], 4 * HUGE, huge),
        ([10**400], 4, "not a readable checkpoint"),
        ([2], 4, "not a readable checkpoint"),
    ]:
        stated_safetensors(path, shape, end)
        with quickly():
            refused(lambda file: load_pretrained(TINY_HEADED, file), path, words)
    path.write_bytes(struct.pack("<Q", HUGE) + b"{}")
    refused(read_checkpoint, path, "not a readable checkpoint")
    stated_safetensors(path, [1], 4)
    assert read_checkpoint(path)["patch_embed.proj.weight"].shape == (1,)


def test_an_npz_that_claims_what_it_does_not_hold_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    for shape, kind, words in [
        ((HUGE,), "<f4", r"'cls\.npy' claims 1e\+12 of float32 in 132 bytes"),
        ((2 * 10**9,), "<f4", r"'cls\.npy' claims 2e\+09 of float32"),
        ((1,), f"|S{10**9}", "'cls.npy' claims 1 of"),
        ((0, HUGE), "<f4", "0 numbers in 1 arrays"),
    ]:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("cls.npy", header.getvalue() + b"1234")
        with quickly():
            refused(lambda file: load_pretrained(AUGREG, file), path, words)
    np.save(path.open("wb"), np.zeros(3))
    refused(lambda file: load_pretrained(AUGREG, file), path, "not a readable checkpoint")


# ---- what a run writes about what it loaded, and the adapter


def test_the_record_of_a_run(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    digest = file_digest(path)
    clip = families.spec("clip").teacher("base")
    hub = "hub:timm/vit_base_patch16_clip_224.openai"  # shared with the model that computes with GELU
    by_hand = {"source": f"model.safetensors, put there by hand in place of {hub}", "revision": None}
    assert record_of(clip, path) == by_hand | {"sha256": digest}
    fetched = {"source": hub, "revision": "abc", "sha256": digest}
    (tmp_path / RECORD).write_text(json.dumps(fetched))
    assert record_of(clip, path) == fetched
    path.write_bytes(b"others")
    assert record_of(clip, path) == by_hand | {"sha256": file_digest(path)}
    (tmp_path / RECORD).write_text("{")
    assert record_of(clip, path) == by_hand | {"sha256": file_digest(path)}
    (tmp_path / f"{path.name}{ORIGIN}").write_text("from the\x1b[1m authors' page\nsecond line")
    assert record_of(clip, path) == {"source": "from the[1m authors' page", "revision": None, "sha256": file_digest(path)}
    (tmp_path / f"{path.name}{ORIGIN}").write_text("\n")
    assert record_of(clip, path)["source"] == by_hand["source"]


def test_the_adapter_takes_a_folder_or_a_file(headed, tmp_path):
    deit = families.load("deit")
    with pytest.raises(WeightsError, match="no weights of deit-tiny_in1k; run `bench fetch --family deit --sizes tiny"):
        deit.teacher("tiny_in1k", weights=tmp_path)
    path = tmp_path / "deit-tiny_in1k.safetensors"
    save_file(headed, path)
    for where in (tmp_path, str(path)):
        teacher = deit.teacher("tiny_in1k", weights=where)
        assert not teacher.training and not any(parameter.requires_grad for parameter in teacher.parameters())
        torch.testing.assert_close(teacher.blocks[7].mlp.fc1.weight.detach(), headed["blocks.7.mlp.fc1.weight"])
    with pytest.raises(ValueError, match="pretrained=False"):
        deit.teacher("tiny_in1k", weights=tmp_path, patch_size=8)


def test_without_a_folder_the_default_one_is_fetched_into(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    asked = []

    def fetched(teacher, name, folder):
        asked.append((teacher.size, name, folder))
        raise WeightsError("no network")

    monkeypatch.setattr("families.core.adapter.fetch", fetched)
    with pytest.raises(WeightsError, match="no network"):
        families.load("deit").teacher("tiny_in1k")
    assert asked == [("tiny_in1k", "deit-tiny_in1k", tmp_path / "attention-transfer-bench")]


def test_a_family_of_ones_own_may_pin_a_revision():
    pinned = replace(TINY_HEADED, revision="0123abc")
    assert Family(title="-", paper="-", recipe="-", teachers=(pinned,)).teacher("tiny_in1k").revision == "0123abc"
