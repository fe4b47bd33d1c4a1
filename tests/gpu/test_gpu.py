"""On a GPU: exact in float64 and float32, no worse than written-out maps in half precision, the same batches and trainings.

BENCH_TEST_DEVICE=cpu tries the tests themselves without one.
"""

import copy
import os
import time

import pytest
import torch
import torch.nn.functional as F

import families
from benchmark.data import DataLocation
from benchmark.data.images import load
from benchmark.data.torchvision_files import fetch
from benchmark.spec.data_sets import Images
from benchmark.spec.recipe import Normalisation, Recipe
from benchmark.spec.run import Transfer
from benchmark.tools import check
from benchmark.transfer import flash_distillation
from benchmark.transfer.attention_transfer import AttentionTransfer
from benchmark.transfer.losses import ce
from benchmark.transfer.reference import kept_maps, reference_maps, renormalised, replaced_maps, unfused
from benchmark.transfer.teacher_reader import TeacherReader
from families.core.attention import Route

from ..conftest import WEIGHTS
from ..data.test_torchvision import block
from ..families.test_attention import stand_ins, untried  # noqa: F401 (fixtures)
from ..jpegs import make_folder
from ..standins import Hosted
from ..training.test_train import fit, item_of, plan_of, train_all, training_of

DEVICE = os.environ.get("BENCH_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(DEVICE.startswith("cuda") and not torch.cuda.is_available(), reason="no CUDA device")
CLAIMS = [
    check.maps_are_the_models,
    check.copy_is_map_times_v,
    check.distillation_is_cross_entropy,
    check.checkpointing_changes_nothing,
    check.matched_is_the_teachers_architecture,
    check.tokens_are_aligned,
]
UNIT = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.mark.parametrize("family", families.names())
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float32, 3e-4)])
def test_the_contract_holds(family, dtype, tolerance, monkeypatch):
    """Differences are relative to the largest entry, if that is above 1."""
    perturbed, images = check._perturbed, check._images

    def close(found, expected, what):
        size = max(1.0, float(expected.detach().abs().max()))
        worst = float((found - expected).detach().abs().max()) / size
        assert worst <= tolerance, f"{what} differs by {worst:.2e} of {size:.2g}"
        return worst

    monkeypatch.setattr(check, "_perturbed", lambda model, seed: perturbed(model, seed).to(DEVICE, dtype))
    monkeypatch.setattr(check, "_images", lambda count: images(count).to(DEVICE, dtype))
    monkeypatch.setattr(check, "_close", close)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    adapter = families.load(family)
    for claim in CLAIMS:
        claim(adapter, adapter.spec.teachers[0].size)


@pytest.mark.parametrize("biased", ["", "teacher", "both"])
def test_kernels_give_the_loss_and_its_gradients(biased, request):
    """As close to float64 of the same inputs as the maps written out are. Without a GPU ordinary operators stand in for the
    kernel that takes a bias of the student's."""
    if DEVICE == "cpu" and biased == "both":
        request.getfixturevalue("stand_ins")
    draw = torch.Generator().manual_seed(5)
    shape, dtype = (4, 3, 197, 64), torch.bfloat16
    q, k, v, q_of, k_of, towards = (torch.randn(shape, generator=draw).to(DEVICE, dtype) for _ in range(6))
    bias, own = (torch.randn(3, 197, 197, generator=draw).to(DEVICE, dtype) for _ in range(2))

    def found(kind, compare):
        leaves = [each.to(kind).clone().requires_grad_() for each in (q, k, v, *([own] if biased == "both" else []))]
        teacher = Route(q_of.to(kind), k_of.to(kind), bias.to(kind) if biased else None, 0.125)
        out, loss = compare(Route(*leaves[:2], leaves[3] if biased == "both" else None, 0.125), leaves[2], teacher)
        return [out, loss, *torch.autograd.grad((out * towards.to(kind)).sum() + 9999 * loss, leaves)]

    def written(student, values, teacher):
        return student.map().to(values.dtype) @ values, ce.loss(teacher, student)

    exact = found(torch.float64, written)

    def error(compare):
        pairs = zip(found(dtype, compare), exact, strict=True)
        return [float((a - b).detach().abs().mean() / b.detach().abs().mean()) for a, b in pairs]

    assert flash_distillation.serves(Route(q, k, own if biased == "both" else None, 0.125), v, Route(q_of, k_of, bias, 0.125))
    rough, fused = error(written), error(flash_distillation.attend_and_compare)
    assert all(mine < 1.5 * theirs + 1e-3 for mine, theirs in zip(fused, rough, strict=True)), (fused, rough)


@pytest.mark.parametrize("method", ["copy", "distill"])
@pytest.mark.parametrize("native", [False, True], ids=["standard", "matched"])
@pytest.mark.parametrize("family", ["deit", "dinov2_reg", "beitv2", "clip"])
def test_half_precision_is_no_worse_than_written_out_maps(family, native, method):
    """Loss and gradients against float64, of models of the real token counts under bfloat16 autocast."""
    adapter = families.load(family)
    patch = adapter.spec.teachers[0].patch_size
    size, shape = (
        adapter.spec.teachers[0].size,
        {"img_size": 14 * patch, "patch_size": patch, "embed_dim": 192, "depth": 3, "num_heads": 3},
    )
    teacher = _slightly_perturbed(adapter.teacher(size, False, None, **shape), 1)
    own = adapter.native if native else ()
    student = _slightly_perturbed(adapter.student(size, 10, native=own, **shape, global_pool="avg"), 2).train()
    x = torch.randn(8, 3, 14 * patch, 14 * patch, generator=torch.Generator().manual_seed(3)).to(DEVICE)
    loss = {"loss": "ce", "weight": 3.0} if method == "distill" else {}
    transfer = Transfer(method=method, blocks=(0, 1, 2), **loss)
    exact = _written(teacher, student, x, transfer, torch.float64)
    rough = _written(teacher, student, x, transfer, torch.float32)
    for held in (False, True):
        mine = _distance(_ours(teacher, student, x, transfer, held), exact)
        theirs = _distance(rough, exact)
        assert mine[0] <= 2 * theirs[0] + 0.02 and mine[1] <= 1.5 * theirs[1] + 0.01, (held, mine, theirs)


def test_batches_are_those_of_the_cpu(tmp_path):
    """Augmented, mixed and normalised with the same draws; mixing rounds on the device that does it."""
    make_folder(tmp_path / "data", {"train": 24, "validation": 8}, 3, sizes=(40, 48))
    described = {
        "name": "images",
        "num_classes": 3,
        "train": {"split": "train", "images": 24},
        "test": {"split": "validation", "images": 8},
    }
    augment = {"mixup": 0.8, "cutmix": 1.0, "scale": (0.5, 1.0), "hflip": 0.5, "erase": 0.25}
    settings = Images(**described, held_out=4)
    recipe = Recipe(steps=5, batch_size=8, lr=1e-3, warmup=0, weight_decay=0.05, augment=augment)
    found = []
    for device in ("cpu", DEVICE):
        for workers in (0, 2):
            data = load(settings, DataLocation(tmp_path / "data", None, workers, device=device), 32, UNIT)
            batches = data.train("stream", recipe, 1)
            if device.startswith("cuda"):
                torch.cuda._sleep(10**8)  # copies must not be used before they are there
            found.append([*(tuple(next(batches)) for _ in range(4)), *data.evaluate("val", 3)])
            assert {each.device.type for batch in found[-1] for each in batch} == {torch.device(device).type}
    for other in found[1:]:
        for pairs in zip(found[0], other, strict=True):
            for mine, its in zip(*pairs, strict=True):
                torch.testing.assert_close(its.cpu(), mine, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["FashionMNIST", "CIFAR10"])
def test_views_of_decoded_images_are_those_of_the_cpu(name, tmp_path, monkeypatch):
    """The GPU holds the images and makes a batch's views at once."""
    (tmp_path / "server").mkdir()
    host = Hosted(tmp_path / "server")
    host.patch(monkeypatch)
    settings = Images(**block(host, name))
    fetch(settings, DataLocation(tmp_path), lambda *_: None)
    host.server.shutdown()
    augment = {"scale": (0.5, 1.0), "color_jitter": 0.4, "mixup": 0.8}
    recipe = Recipe(steps=5, batch_size=4, lr=1e-3, warmup=0, weight_decay=0.05, augment=augment)
    found = []
    for device in ("cpu", DEVICE):
        for workers in (0, 2):
            data = load(settings, DataLocation(tmp_path, None, workers, device=device), 112, UNIT)
            batches = data.train("stream", recipe, 1)
            found.append([next(batches) for _ in range(4)])
            assert (data.on_device is not None) == device.startswith("cuda")
    for other in found[1:]:
        for pairs in zip(found[0], other, strict=True):
            for mine, its in zip(*pairs, strict=True):
                torch.testing.assert_close(its.cpu(), mine, atol=1e-6, rtol=0)


@pytest.mark.parametrize("recipe", [{}, {"precision": "bfloat16", "grad_checkpointing": True}], ids=["float32", "bfloat16"])
def test_training_together_alone_and_resumed_agree(recipe, tmp_path):
    """On a GPU to rounding, as atomic additions have no order; on a CPU bit for bit (tests/training)."""
    arms = ["standard-none", "standard-copy", "matched-distill"]
    plan, close = plan_of("dinov2_reg", arms, **recipe), 1e-2 if recipe else 1e-3
    fit(item_of(plan, "teacher"), tmp_path / "teacher", device=DEVICE)
    teacher = tmp_path / "teacher" / WEIGHTS
    items = {arm: item_of(plan, arm) for arm in arms}
    began = time.perf_counter()
    trainings = [training_of(item, tmp_path / f"{arm}-together", teacher, device=DEVICE) for arm, item in items.items()]
    together, failed = train_all(trainings, device=DEVICE)
    took = time.perf_counter() - began
    assert not failed
    assert 0.02 * took < sum(payload["cost"]["seconds"] for payload in together.values()) < 1.02 * took
    for arm, item in items.items():
        folder = tmp_path / f"{arm}-stopped"
        assert fit(item, folder, teacher, stop_at=4, device=DEVICE) is None
        alone = [fit(item, each, teacher, device=DEVICE) for each in (folder, tmp_path / arm)]
        wanted, *others = ([point["loss"] for point in each["curve"]] for each in (together[f"{arm}-together"], *alone))
        for other in others:
            assert other == pytest.approx(wanted, rel=close)


@torch.no_grad()
def _slightly_perturbed(model, seed):
    """Half as much as the contract: logits of about 2, maps that are neither flat nor saturated."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1)
    return model.to(DEVICE).eval()


def _labels(x):
    return torch.arange(len(x), device=x.device) % 10


def _written(teacher, student, x, transfer, dtype):
    """Loss and gradients with the maps written out, under bfloat16 autocast unless in float64."""
    teacher, explicit = copy.deepcopy(teacher).to(dtype), unfused(copy.deepcopy(student).to(dtype))
    alignment = AttentionTransfer(transfer, copy.deepcopy(student), copy.deepcopy(teacher)).alignment
    x, cast = x.to(dtype), dtype == torch.float32
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=cast):
        maps = [renormalised(each.to(dtype), alignment.teacher) for each in reference_maps(teacher, x)]
        if transfer.copies:
            with replaced_maps(explicit, maps, alignment.student):
                loss = F.cross_entropy(explicit(x).to(dtype), _labels(x))
        else:
            with kept_maps(explicit) as kept:
                loss = F.cross_entropy(explicit(x).to(dtype), _labels(x))
            own = [renormalised(each.to(dtype), alignment.student).clamp_min(1e-30).log() for each in kept]
            loss = loss + transfer.weight * sum(-(p * log).sum(-1).mean() for p, log in zip(maps, own, strict=True))
        loss.backward()
    return _found(loss, explicit)


def _ours(teacher, student, x, transfer, held):
    student = copy.deepcopy(student)
    bond = AttentionTransfer(transfer, student, TeacherReader(copy.deepcopy(teacher), transfer.blocks, held=held))
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        reading = bond.read(x)
    with bond.guiding(reading):
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            loss = F.cross_entropy(student(x).float(), _labels(x)) + bond.loss()
        loss.backward()
    return _found(loss, student)


def _found(loss, model):
    return float(loss.detach()), {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}


def _distance(one, exact):
    """Of the loss, and of all gradients relative to their norm."""
    norm = sum(float(each.square().sum()) for each in exact[1].values()) ** 0.5
    off = [one[1][name] - each if name in one[1] else each for name, each in exact[1].items()]
    return abs(one[0] - exact[0]), sum(float(each.square().sum()) for each in off) ** 0.5 / norm
