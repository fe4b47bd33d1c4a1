"""The mechanism beyond the contract: other token layouts, sources of attention, precision, misuse."""

import functools

import pytest
import timm
import torch
import torch.nn.functional as F
import torch.utils.checkpoint

import families
from benchmark.spec.run import Transfer
from benchmark.tools.check import TINY
from benchmark.transfer import cpu_layout, flash_distillation, map_parts
from benchmark.transfer.attention_transfer import AttentionTransfer
from benchmark.transfer.fused_distillation import attend_and_compare
from benchmark.transfer.losses import ce, kl
from benchmark.transfer.reference import reference_maps
from benchmark.transfer.teacher_reader import TeacherReader, holds_maps
from families.core.attention import Map, Route, align, layout, open_attention, read_routes, recording

from ..conftest import perturbed

ARGS = {**TINY, "global_pool": "token"}
SLIM = {"embed_dim": 48, "depth": 2, "num_heads": 3}


def images(count=3):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def pair(family="deit", size="base", native=()):
    adapter = families.load(family)
    return perturbed(adapter.teacher(size, pretrained=False, **ARGS)), perturbed(
        adapter.student(size, 5, native=native, **ARGS), 1
    )


def copied(student, teacher, x, **transfer):
    bond = AttentionTransfer(Transfer(method="copy", blocks=(0, 1, 2), **transfer), student, teacher)
    with torch.no_grad(), bond.guiding(x):
        return student(x)


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3_qkvb", "eva02_base_patch14_224", "beit_base_patch16_224"])
def test_routes_of_classes_beyond_the_registry(name):
    """Rotary embeddings, split projections and per-block tables all reach the route."""
    extra = {"ref_feat_shape": (4, 4)} if name.startswith("eva02") else {}
    model = perturbed(timm.create_model(name, **TINY, num_classes=0, **extra)).double()
    x = images().double()
    maps = [route.map() for route in read_routes(model, x)]
    for block in model.blocks:
        block.attn.fused_attn = False
    seen = []
    for block in model.blocks:
        block.attn.attn_drop.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    model.forward_features(x)
    for mine, theirs in zip(maps, seen, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_a_student_with_tokens_the_teacher_lacks():
    """Their rows keep the student's own attention; the others get the teacher's, without any mass on them."""
    teacher, student = pair("dinov2_reg")[0], None
    plain = perturbed(families.load("deit").teacher("base", pretrained=False, **ARGS))
    student = perturbed(families.load("dinov2_reg").student("base", 5, native=["layer_scale", "registers"], **ARGS), 1)
    assert layout(teacher)[1:5] == ["reg0", "reg1", "reg2", "reg3"]
    found = align(layout(plain), layout(student))
    assert found.teacher is None
    assert found.student_extra == (1, 2, 3, 4)
    own = Route(torch.randn(1, 3, 21, 16), torch.randn(1, 3, 21, 16), None, 0.25)
    guide = Route(torch.randn(1, 3, 17, 16), torch.randn(1, 3, 17, 16), None, 0.25)
    v = torch.randn(1, 3, 21, 16)
    bond = AttentionTransfer(Transfer(method="copy", blocks=(0,)), student, plain)
    with bond.guiding({0: guide}):
        out = bond.sites[0].attend(own.q, own.k, v)
    expected = own.map()
    core = list(found.student)
    expected[..., core, :] = 0
    for row, token in enumerate(core):
        expected[..., token, core] = guide.map()[..., row, :]
    torch.testing.assert_close(out, expected @ v, atol=1e-5, rtol=0)
    assert copied(student, plain, images()).isfinite().all()


def test_a_teacher_without_class_token():
    teacher = perturbed(timm.create_model("vit_base_patch16_siglip_224", **TINY, num_classes=0))
    student = pair()[1]
    assert layout(teacher)[0] == "patch0,0"
    assert align(layout(teacher), layout(student)).student_extra == (0,)
    assert copied(student, teacher, images()).isfinite().all()


def test_different_grids_and_shapes_are_refused():
    teacher, _ = pair()
    finer = families.load("deit").student("base", 5, **(ARGS | {"patch_size": 4}))
    with pytest.raises(ValueError, match="grids must be equal"):
        AttentionTransfer(Transfer(method="copy", blocks=(0,)), finer, teacher)
    flat = families.load("deit").student("base", 5, **(ARGS | {"img_size": (16, 64)}))
    with pytest.raises(ValueError, match="16 patches to patch3,3 and student 16 to patch1,7"):
        AttentionTransfer(Transfer(method="copy", blocks=(0,)), flat, teacher)
    other = families.load("deit").student("base", 5, **(ARGS | {"num_heads": 6}))
    with pytest.raises(ValueError, match=r"heads \[3, 6\]"):
        AttentionTransfer(Transfer(method="copy", blocks=(0,)), other, teacher)


def test_controls_carry_nothing_of_the_image():
    teacher, student = pair()
    x = images()
    true, shuffled, uniform = (copied(student, teacher, x, source=s) for s in ("teacher", "other-image", "uniform"))
    assert not torch.allclose(true, shuffled, atol=1e-3)
    neighbour = AttentionTransfer(Transfer(method="copy", blocks=(0, 1, 2)), student, teacher)
    with torch.no_grad(), neighbour.guiding(x.roll(1, 0)):
        torch.testing.assert_close(student(x), shuffled)
    for held in (True, False):
        reader = TeacherReader(teacher, (0, 1, 2), held=held)
        bond = AttentionTransfer(Transfer(method="copy", blocks=(0, 1, 2), source="uniform"), student, reader)
        for route in bond.handed_over(bond.read(x)).values():
            torch.testing.assert_close(route.map(), torch.full_like(route.map(), 1 / 17))
    assert not torch.allclose(true, uniform, atol=1e-3)
    with pytest.raises(ValueError, match="at least 2 images"):
        copied(student, teacher, x[:1], source="other-image")


@pytest.mark.parametrize("family", ["deit", "beitv2", "dinov2_reg"])
def test_bfloat16(family):
    """Under autocast, Copy and Distillation stay close to float32 and gradients flow, with a bias in float32 too."""
    teacher, student = pair(family, native=families.load(family).native)
    x = images()
    exact = copied(student, teacher, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = copied(student, teacher, x)
    assert (rough.float() - exact).abs().max() < 0.05 * exact.abs().max()
    bond = AttentionTransfer(Transfer(method="distill", blocks=(0, 1, 2), loss="ce", weight=1.0), student, teacher)
    losses = []
    for enabled in (False, True):
        student.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled), bond.guiding(x):
            student(x)
            loss = bond.loss()
        assert loss.dtype == torch.float32
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    with torch.autocast("cpu", dtype=torch.bfloat16), bond.guiding(x):
        student(x)
        bond.loss().backward()
    assert student.blocks[0].attn.qkv.weight.grad.isfinite().all()


def test_only_the_chosen_blocks():
    """Copy leaves other blocks alone; the distillation loss sums over the chosen ones, times its weight."""
    teacher, student = pair()
    x = images()
    routes = read_routes(teacher, x)
    bond = AttentionTransfer(Transfer(method="distill", blocks=(0, 2), loss="ce", weight=3.0), student, teacher)
    with torch.no_grad():
        own = read_routes(student, x)
        with bond.guiding(x):
            student(x)
            found = bond.loss()
    expected = 3.0 * (ce.loss(routes[0], own[0]) + ce.loss(routes[2], own[2]))
    torch.testing.assert_close(found, expected)
    sites = open_attention(student)
    with AttentionTransfer(Transfer(method="copy", blocks=(1,)), student, teacher).guiding(x):
        assert [site.on_values is not None for site in sites] == [False, True, False]
    assert all(site.on_values is None for site in sites)


def test_kl_divergence_is_zero_between_equal_maps():
    route, other = read_routes(pair()[0], images())[:2]
    assert kl.loss(route, route).item() == pytest.approx(0, abs=1e-6)
    p, q = route.map(), other.map()
    explicit = (p * (p.log() - q.log())).sum(-1).mean()
    torch.testing.assert_close(kl.loss(route, other), explicit)


def test_what_has_no_route_is_refused():
    site, q = open_attention(pair()[1])[0], torch.randn(1, 3, 17, 16)
    with pytest.raises(ValueError, match="causal"):
        site.attend(q, q, q, is_causal=True)
    with pytest.raises(ValueError, match="no blocks"):
        open_attention(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("name", "args", "told"),
    [
        ("xcit_nano_12_p16_224", {"img_size": 64}, "Xcit does not tell its tokens"),  # attention among channels
        ("hiera_tiny_224", {"img_size": 64}, "Hiera does not tell its tokens"),  # pooled queries
        ("samvit_base_patch16", {"img_size": 64, **SLIM}, "VisionTransformerSAM does not tell its tokens"),  # windows
        ("vit_dwee_patch16_reg1_gap_256", {"img_size": 64}, "OpenDiffAttention calls .* 2 times"),  # the difference of two maps
        ("cait_xxs24_224", {"img_size": 64, "depth": 2}, "OpenTalkingHeadAttn calls .* 0 times"),  # maps mixed across heads
        ("vit_pwee_patch16_reg1_gap_256", {"img_size": 64}, "block 0 .* no attention to open"),  # within a parallel block
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 1, 1)}, "no blocks with attention"),
    ],
)
def test_attention_of_another_kind_is_refused(name, args, told):
    """Of these timm models a part of the map, or none, would be read."""
    model, size = timm.create_model(name, num_classes=2, **args), args.get("img_size", 224)
    with pytest.raises(ValueError, match=told):
        read_routes(model, torch.zeros(2, 3, size, size))


def test_attention_across_images_is_refused(monkeypatch):
    """Even where a model tells its tokens: here those of two images attend to each other."""
    teacher = pair()[0]
    attn = teacher.blocks[0].attn
    open_attention(teacher)
    whole = type(attn).forward
    monkeypatch.setattr(attn, "forward", lambda x, **given: whole(attn, x.reshape(1, -1, x.shape[2]), **given).reshape(x.shape))
    with pytest.raises(ValueError, match=r"block 0 attends in \(1, 3, 34, 16\), not among all 17 tokens"):
        read_routes(teacher, images(2))


def test_sites_are_plain_again_after_recording():
    student = pair()[1]
    sites = open_attention(student)
    with recording(sites, (0, 2)) as seen:
        student(images())
    assert sorted(seen) == [0, 2]
    assert all(site.on_route is None and site.on_values is None for site in sites)


# ---- the fast paths

BIASES = [None, (2, 9, 9), (1, 2, 9, 9), (3, 2, 9, 9), (1, 1, 1, 9)]


@pytest.fixture
def untried():
    """As at the first use of flash kernels in a process."""
    flash_distillation._tried.cache_clear()
    yield
    flash_distillation._tried.cache_clear()


def stand_in_forward(q, k, v, bias, scale):
    """As a GPU's kernel: heads of a token side by side, a logsumexp of more rows than asked for, two tensors for backward."""
    wide = torch.promote_types(q.dtype, torch.float32)
    logits = scale * q.to(wide) @ k.to(wide).mT + (0 if bias is None else bias)
    logsumexp = F.pad(logits.logsumexp(-1), (0, -q.shape[-2] % 32))
    out = (logits.softmax(-1) @ v.to(wide)).to(q.dtype).transpose(1, 2).contiguous().transpose(1, 2)
    return [out, logsumexp, torch.zeros(1), torch.ones(1)]


def stand_in_backward(given, scale):
    grad, q, k, v, bias, out, logsumexp, *rest = given
    assert [each.item() for each in rest] == [0, 1] and bias.stride(-2) % flash_distillation.BIAS_ALIGNMENT == 0
    assert out.transpose(1, 2).is_contiguous()  # which the kernel takes for granted
    grad, q, k, v, out = (each.to(logsumexp.dtype) for each in (grad, q, k, v, out))
    weights = (scale * q @ k.mT + bias - logsumexp[..., : q.shape[-2], None]).exp()
    ds = weights * (grad @ v.mT - (grad * out).sum(-1, keepdim=True))
    return tuple(each.to(bias.dtype) for each in (scale * ds @ k, scale * ds.mT @ q, weights.mT @ grad, ds))


@pytest.fixture
def stand_ins(monkeypatch, untried):
    """Ordinary operators in place of a GPU's kernel for a student with a bias."""
    real = flash_distillation._forward
    monkeypatch.setattr(flash_distillation, "BIASED", ["cpu"])
    monkeypatch.setattr(flash_distillation, "_forward", lambda *given: (real if given[3] is None else stand_in_forward)(*given))
    monkeypatch.setattr(flash_distillation, "_biased_backward", stand_in_backward)


@pytest.mark.parametrize("shape", BIASES)
@pytest.mark.parametrize("way", ["held", "parts", "kernels", "stand-ins"])
def test_one_set_of_logits_for_attention_and_loss(shape, way, monkeypatch, request):
    """Output, loss and all gradients equal autograd's of the map written out; unheld maps pass through in small parts, or
    through kernels: a CPU's know no bias of the student, and ordinary operators stand in for a GPU's."""
    monkeypatch.setitem(map_parts.PART_ELEMENTS, "cpu", 50)
    if way == "parts":
        monkeypatch.setattr(flash_distillation, "serves", lambda *given: False)
    if way == "stand-ins":
        request.getfixturevalue("stand_ins")
    draw = torch.Generator().manual_seed(4)

    def random(*size):
        return torch.randn(*size, generator=draw, dtype=torch.float64)

    q, k, v = (part.requires_grad_() for part in random(3, 9, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0))
    bias = None if shape is None or way == "kernels" else random(*shape).requires_grad_()
    teacher = Route(random(3, 2, 9, 4), random(3, 2, 9, 4), None if shape is None else random(*shape), 0.7)
    student, towards = Route(q, k, bias, 0.5), random(3, 2, 9, 4)
    leaves = [each for each in (q, k, v, bias) if each is not None]
    taken = bias is None or (way == "stand-ins" and (bias.dim() < 4 or len(bias) == 1))
    assert flash_distillation.serves(student, v, teacher) == (way != "parts" and taken)
    out, loss = attend_and_compare(student, v, teacher.held() if way == "held" else teacher)
    found = torch.autograd.grad((out * towards).sum() + 3 * loss, leaves)
    bias_of = [0.0 if b is None else b for b in (bias, teacher.bias)]
    mine = (q @ k.transpose(-2, -1) * 0.5 + bias_of[0]).softmax(-1)
    theirs = (teacher.q @ teacher.k.transpose(-2, -1) * 0.7 + bias_of[1]).softmax(-1)
    written = -(theirs * mine.log()).sum(-1).mean()
    torch.testing.assert_close(out, mine @ v)
    torch.testing.assert_close(loss, written)
    wanted = torch.autograd.grad((mine @ v * towards).sum() + 3 * written, leaves)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_kernels_in_half_precision_are_as_close_as_the_maps_written_out():
    """To float64 of the same inputs: output, loss and gradients, with a gradient of the loss that bfloat16 would round."""
    draw = torch.Generator().manual_seed(5)
    q, k, v, q_of, k_of, towards = torch.randn(6, 2, 3, 40, 16, generator=draw).bfloat16().unbind(0)

    def found(dtype, compare):
        leaves = [each.to(dtype).clone().requires_grad_() for each in (q, k, v)]
        out, loss = compare(Route(*leaves[:2], None, 0.3), leaves[2], Route(q_of.to(dtype), k_of.to(dtype), None, 0.3))
        return [out, loss, *torch.autograd.grad((out * towards.to(dtype)).sum() + 333 * loss, leaves)]

    def written(student, values, teacher):
        return student.map().to(values.dtype) @ values, ce.loss(teacher, student)

    exact = found(torch.float64, written)

    def error(compare):
        return [
            float((a - b).detach().abs().mean() / b.detach().abs().mean())
            for a, b in zip(found(torch.bfloat16, compare), exact, strict=True)
        ]

    rough, fused = error(written), error(attend_and_compare)
    assert flash_distillation.serves(Route(q, k, None, 0.3), v, Route(q_of, k_of, None, 0.3))
    assert all(mine < 1.5 * theirs + 1e-3 for mine, theirs in zip(fused, rough, strict=True)), (fused, rough)


@pytest.mark.parametrize("missing", ["absent", "other arguments", "wrong gradients"])
def test_a_torch_with_other_kernels_does_without(missing, monkeypatch, untried, capsys):
    real, route = flash_distillation._backward, Route(*torch.zeros(2, 1, 2, 5, 4), None, 1.0)
    if missing == "absent":
        monkeypatch.setattr(torch.ops, "aten", Absent())
    else:
        wrong = {
            "other arguments": lambda: None,
            "wrong gradients": lambda *given: ([1.01 * each for each in real(*given)[0]], None),
        }
        monkeypatch.setattr(flash_distillation, "_backward", wrong[missing])
    for _ in range(2):
        assert not flash_distillation.serves(route, route.q, route)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("within", [torch.no_grad, torch.inference_mode])
def test_kernels_are_tried_wherever_they_are_first_used(within, untried):
    route = Route(*torch.zeros(2, 1, 2, 5, 4), None, 1.0)
    with within():
        assert flash_distillation.serves(route, route.q, route)


def test_kernels_are_first_used_within_gradient_checkpointing(untried):
    q, k, v, q_of, k_of = torch.randn(5, 1, 2, 5, 8, generator=torch.Generator().manual_seed(6)).unbind(0)

    def loss(v):
        return sum(each.sum() for each in attend_and_compare(Route(q, k, None, 0.3), v, Route(q_of, k_of, None, 0.3)))

    leaves = [v.clone().requires_grad_() for _ in range(2)]
    torch.utils.checkpoint.checkpoint(loss, leaves[0], use_reentrant=False).backward()
    loss(leaves[1]).backward()
    assert flash_distillation._is_usable("cpu", biased=False, width=8) and torch.equal(leaves[0].grad, leaves[1].grad)


def test_held_maps_and_routes_offer_the_same():
    route = read_routes(pair("beitv2")[0].double(), images().double())[1]
    held, v, tokens = route.held(), torch.randn(3, 3, 17, 16, dtype=torch.float64), (0, 3, 5)
    assert isinstance(held, Map)
    for one, other in (
        (route.attend(v), held.attend(v)),
        (route.select(tokens).map(), held.select(tokens).map()),
        (route.other_image().map(), held.other_image().map()),
        (route.uniform().map(), held.uniform().map()),
        (route.rows(slice(1, 3), slice(2, 9)), held.rows(slice(1, 3), slice(2, 9))),
    ):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(route.other_image().map()[1], route.map()[0])


def test_the_teacher_does_no_work_that_nobody_reads():
    """It stops in the last block that is read, before the map's product; no later block, no norm and no head runs."""
    teacher, student = pair()
    ran = []
    for name, module in teacher.named_modules():
        module.register_forward_hook(lambda module, args, output, name=name: ran.append(name))
    reader = TeacherReader(teacher, (1,))
    reading = reader.read(images())
    assert list(reading) == [1]
    assert "blocks.1.attn.qkv" in ran and "blocks.0.mlp.fc2" in ran
    idle = ("blocks.1.attn.proj", "blocks.1.mlp", "blocks.2", "norm.", "fc_norm", "head")
    assert not [name for name in ran if f"{name}.".startswith(idle)]
    with AttentionTransfer(Transfer(method="copy", blocks=(1,)), student, reader).guiding(reading):
        student(images()).sum().backward()
    assert student.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("family", ["deit", "beitv2"])
def test_copied_blocks_compute_no_q_and_k(family, monkeypatch):
    """Only v's share of the projection runs, and no bias table is looked up; another class does all of it, to the same end."""
    native = [name for name in families.load(family).native if name != "rel_pos_bias"]
    teacher, student = pair(family, native=native)
    if family == "beitv2":
        student = timm.create_model("beit_base_patch16_224", **TINY, num_classes=5, use_rel_pos_bias=True)
    bond, x, widths = AttentionTransfer(Transfer(method="copy", blocks=(0, 1, 2)), student, teacher), images(), []
    real = F.linear
    attention, reading = type(student.blocks[0].attn), bond.read(x)

    def counted(given, weight, *args, **kwargs):
        widths.append(len(weight))
        return real(given, weight, *args, **kwargs)

    monkeypatch.setattr(F, "linear", counted)
    monkeypatch.setattr(attention, "_get_rel_pos_bias", None, raising=False)
    with bond.guiding(reading):
        fast = student(x)
    assert 48 in widths and 144 not in widths
    monkeypatch.undo()
    monkeypatch.setattr(attention, "skips_q_and_k", False)
    with bond.guiding(x):
        torch.testing.assert_close(student(x), fast)


def test_a_teacher_in_its_own_precision():
    teacher, _ = pair("beitv2")
    x = images()
    exact, rough = (TeacherReader(teacher, (0, 2), precision).read(x) for precision in (None, "bfloat16"))
    assert not torch.equal(exact[2].weights, rough[2].weights)
    torch.testing.assert_close(exact[2].weights, rough[2].weights.float(), atol=0.05, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(TeacherReader(teacher, (0, 2), "float32").read(x)[2].weights, exact[2].weights)


class Absent:
    """A torch without the operators."""


class Renamed(Absent):
    """With operators of these names that take other arguments."""

    _linear_pointwise = _reorder_linear_weight = staticmethod(lambda weight: weight)


class Different(Absent):
    """With operators that take the same arguments and compute something else."""

    _reorder_linear_weight = staticmethod(lambda weight, rows: weight)
    _linear_pointwise = staticmethod(lambda x, weight, bias, *after: F.linear(x, 2 * weight, bias))


@pytest.mark.parametrize("operators", [Absent, Renamed, Different])
def test_a_torch_with_other_operators_lays_nothing_out(operators, monkeypatch):
    teacher, x = pair("deit")[0], images()
    wanted, state = reference_maps(teacher, x), torch.get_rng_state()
    monkeypatch.setattr(torch.ops, "mkldnn", operators())
    cpu_layout._is_usable.cache_clear()
    try:
        reading = TeacherReader(teacher, (0, 1, 2)).read(x)
    finally:
        cpu_layout._is_usable.cache_clear()
    assert {type(module) for module in teacher.modules() if isinstance(module, torch.nn.Linear)} == {torch.nn.Linear}
    assert torch.equal(torch.get_rng_state(), state), "a random number was drawn, which a training would miss"
    for block, expected in enumerate(wanted):
        torch.testing.assert_close(reading[block].weights, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["deit", "clip", "beitv2"])
def test_a_teacher_laid_out_for_the_cpu_computes_the_same(family):
    """In float32, as runs have it: maps equal those written out; keys stay timm's; float64 and autocast still work."""
    teacher, x = pair(family)[0], images()
    wanted, keys = reference_maps(teacher, x), set(teacher.state_dict())
    reading = TeacherReader(teacher, (0, 1, 2)).read(x)
    assert type(teacher.blocks[0].mlp.fc1) is not torch.nn.Linear
    for block, expected in enumerate(wanted):
        torch.testing.assert_close(reading[block].weights, expected, atol=1e-5, rtol=0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(TeacherReader(teacher, (2,)).read(x)[2].weights.float(), wanted[2], atol=0.05, rtol=0)
    assert set(teacher.state_dict()) == keys
    with torch.no_grad():
        teacher.blocks[0].mlp.fc2.weight.mul_(2)
    assert not torch.allclose(TeacherReader(teacher, (0, 1, 2)).read(x)[2].weights, wanted[2], atol=1e-3)
    with torch.no_grad():
        teacher.blocks[0].mlp.fc2.weight.div_(2)
    doubled = TeacherReader(teacher.double(), (0, 1, 2)).read(x.double())
    torch.testing.assert_close(doubled[2].weights.float(), wanted[2], atol=1e-5, rtol=0)


def test_a_compiled_teacher(monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    teacher, x = pair("beitv2")[0], images()
    wanted = reference_maps(teacher, x)
    for held in (True, False):
        reading = TeacherReader(teacher, (0, 1), compiled=True, held=held).read(x)
        torch.testing.assert_close(reading[1].map(), wanted[1], atol=1e-5, rtol=0)


def test_where_maps_are_held():
    assert holds_maps(torch.device("cpu"), 197)
    assert not holds_maps(torch.device("cpu"), 1370) and not holds_maps(torch.device("cuda"), 197)
