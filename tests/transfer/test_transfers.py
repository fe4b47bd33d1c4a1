"""Every part, loss, choice of blocks and source against attention written out by matrix products, on perturbed tiny models."""

import functools
from contextlib import suppress
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

import families
from benchmark.spec.run import Transfer
from benchmark.tools.check import TINY
from benchmark.transfer.attention_transfer import AttentionTransfer
from benchmark.transfer.losses import kl
from benchmark.transfer.reference import reference_maps, unfused
from benchmark.transfer.teacher_reader import NoReader, TeacherReader
from families.core.attention import Map, layout
from families.core.layer_scale import fold

from ..conftest import perturbed
from ..families.test_attention import ARGS, copied, images, pair

BLOCKS = tuple(range(TINY["depth"]))
PARTS = ("q", "k", "v", "output")
# Teacher's family, student's native components of another one's: the same tokens; registers of the teacher's alone; of the
# student's alone; a bias table in both.
PAIRS = {
    "plain": ("deit", "deit", ()),
    "teacher's registers": ("dinov2_reg", "dinov2_reg", ()),
    "student's registers": ("dinov2", "dinov2_reg", ("layer_scale", "registers")),
    "bias": ("beitv2", "beitv2", ("layer_scale", "rel_pos_bias", "no_pos_embed")),
}


@functools.cache
def models(name):
    taught, learning, native = PAIRS[name]
    teacher = perturbed(families.load(taught).teacher("base", pretrained=False, **ARGS)).double()
    return teacher, perturbed(families.load(learning).student("base", 5, native=native, **ARGS), 1).double()


def common(one, other):
    """Positions in `one` of the tokens that both have."""
    return [i for i, name in enumerate(layout(one)) if name in layout(other)]


class Explicit:
    """A model whose attention is written out; `given` maps a block to the parts that replace its own, among `tokens`."""

    def __init__(self, model, given=None, tokens=None):
        self.model, self.given, self.tokens = unfused(model), given or {}, tokens
        self.seen = {}
        for number, block in enumerate(self.model.blocks):
            block.attn.forward = functools.partial(self._attend, number, block.attn)

    def _attend(self, number, attn, x, shared_rel_pos_bias=None, **kwargs):
        own = {}
        bias = attn.qkv.bias
        if getattr(attn, "q_bias", None) is not None:
            bias = torch.cat([attn.q_bias, torch.zeros_like(attn.q_bias), attn.v_bias])
        qkv = (x @ attn.qkv.weight.T + bias).reshape(len(x), x.shape[1], 3, attn.num_heads, -1)
        for name, tensor in zip("qkv", qkv.permute(2, 0, 3, 1, 4), strict=True):
            own[name] = self._put(number, name, tensor)
        own["logits"] = own["q"] @ own["k"].transpose(-2, -1) / own["q"].shape[-1] ** 0.5
        if shared_rel_pos_bias is not None:
            own["logits"] = own["logits"] + shared_rel_pos_bias
        own["map"] = own["logits"].exp() / own["logits"].exp().sum(-1, keepdim=True)
        own["output"] = self._put(number, "output", own["map"] @ own["v"])
        self.seen[number] = own
        return attn.proj(own["output"].transpose(1, 2).flatten(2))

    def _put(self, number, name, tensor):
        other = self.given.get(number, {}).get(name)
        if other is None:
            return tensor
        rows = list(tensor.unbind(-2))
        for row, token in enumerate(self.tokens):
            rows[token] = other[..., row, :]
        return torch.stack(rows, dim=-2)

    def __call__(self, x):
        return self.model(x)


def taught(name, x):
    """The teacher's parts by block, those of [B, heads, tokens, head_dim] among the tokens that the student has too."""
    teacher, student = models(name)
    explicit, keep = Explicit(teacher), common(teacher, student)
    with torch.no_grad():
        explicit.model.forward_features(x)
    return {b: {part: own[part][..., keep, :] for part in PARTS} for b, own in explicit.seen.items()}, explicit


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def close(found, expected):
    for name, gradient in expected.items():
        torch.testing.assert_close(found.get(name, torch.zeros_like(gradient)), gradient, atol=1e-9, rtol=1e-6, msg=name)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", PAIRS)
def test_copy_of_a_part(name, part):
    """The student's own attention with the teacher's q, k, v or output in place of its own, and the gradients of that."""
    x = images().double()
    teacher, student = models(name)
    given, _ = taught(name, x)
    explicit = Explicit(student, {b: {part: parts[part]} for b, parts in given.items()}, common(student, teacher))
    expected = explicit(x)
    expected.square().sum().backward()
    bond = AttentionTransfer(Transfer(method="copy", blocks=BLOCKS, part=part), student, teacher)
    student.zero_grad()
    with bond.guiding(x):
        found = student(x)
        found.square().sum().backward()
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-6)
    close(gradients(student), gradients(explicit.model))
    assert not torch.allclose(found, student(x), atol=1e-3)


def written_out(loss, part, teacher, student, keeps):
    """One block's loss, from the parts of both that Explicit has seen."""
    theirs, own = (side[part] for side in (teacher, student))
    if part in PARTS:
        theirs, own = theirs[..., keeps[0], :], own[..., keeps[1], :]
    else:
        theirs, own = (each[..., keep, :][..., keep] for each, keep in zip((theirs, own), keeps, strict=True))
        if part == "map":
            theirs, own = (each / each.sum(-1, keepdim=True) for each in (theirs, own))
    if loss == "mse":
        return (theirs - own).square().mean()
    if loss == "cosine":
        return (1 - (theirs * own).sum(-1) / (theirs.norm(dim=-1) * own.norm(dim=-1))).mean()
    entropy = (theirs * theirs.log()).sum(-1) if loss == "kl" else 0
    return (entropy - (theirs * own.log()).sum(-1)).mean()


LOSSES = [("ce", "map"), ("kl", "map"), ("mse", "map"), ("cosine", "map"), ("mse", "logits"), ("cosine", "logits")]
LOSSES += [(loss, part) for part in PARTS for loss in ("mse", "cosine")]


@pytest.mark.parametrize(("loss", "part"), LOSSES)
@pytest.mark.parametrize("name", PAIRS)
def test_each_loss_of_each_part(name, loss, part):
    """Weight times the sum over blocks, with the task's gradients too."""
    x = images().double()
    teacher, student = models(name)
    theirs, own = Explicit(teacher), Explicit(student)
    with torch.no_grad():
        theirs.model.forward_features(x)
    task = own(x).square().sum()
    keeps = (common(teacher, student), common(student, teacher))
    expected = 3.0 * sum(written_out(loss, part, theirs.seen[b], own.seen[b], keeps) for b in (0, 2))
    (task + expected).backward()
    bond = AttentionTransfer(Transfer(method="distill", blocks=(0, 2), loss=loss, weight=3.0, part=part), student, teacher)
    student.zero_grad()
    with bond.guiding(x):
        out = student(x)
        found = bond.loss()
        (out.square().sum() + found).backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert expected.item() > 1e-3
    close(gradients(student), gradients(own.model))


@pytest.mark.parametrize(("method", "part"), [("copy", "q"), ("copy", "output"), ("distill", "k"), ("distill", "logits")])
def test_gradient_checkpointing_of_parts(method, part):
    """The recomputed forward is guided too."""
    x = images().double()
    teacher, student = models("student's registers")
    found = []
    for checkpointing in (False, True):
        student.zero_grad()
        student.train().set_grad_checkpointing(checkpointing)
        loss = "mse" if method == "distill" else None
        bond = AttentionTransfer(Transfer(method=method, blocks=BLOCKS, part=part, loss=loss, weight=2.0), student, teacher)
        with bond.guiding(x):
            (student(x).square().sum() + bond.loss()).backward()
        found.append({name: gradient.clone() for name, gradient in gradients(student).items()})
    student.set_grad_checkpointing(False)
    student.eval()
    close(found[1], found[0])
    assert max(gradient.abs().max() for gradient in found[0].values()) > 0.1


@pytest.mark.parametrize("blocks", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), BLOCKS])
def test_each_choice_of_blocks(blocks):
    """Copy replaces the maps of these blocks alone, Distillation compares these alone."""
    x = images().double()
    teacher, student = models("plain")
    _, explicit = taught("plain", x)
    guided = Explicit(student)
    for block in blocks:  # a map is put in place by the logits that give it: only for layouts that agree
        attn, other = guided.model.blocks[block].attn, explicit.seen[block]["map"]

        def attend(x, attn=attn, other=other, **kwargs):
            v = (x @ attn.qkv.weight.T + attn.qkv.bias).reshape(len(x), x.shape[1], 3, attn.num_heads, -1)[:, :, 2]
            return attn.proj((other @ v.transpose(1, 2)).transpose(1, 2).flatten(2))

        attn.forward = attend
    with torch.no_grad():
        expected = guided(x)
        with AttentionTransfer(Transfer(method="copy", blocks=blocks), student, teacher).guiding(x):
            torch.testing.assert_close(student(x), expected, atol=1e-9, rtol=1e-6)
    own = Explicit(student)
    own(x)
    losses = [written_out("ce", "map", explicit.seen[b], own.seen[b], (range(17), range(17))) for b in blocks]
    bond = AttentionTransfer(Transfer(method="distill", blocks=blocks, loss="ce", weight=2.0), student, teacher)
    with bond.guiding(x):
        student(x)
        assert bond.loss().item() == pytest.approx(2 * sum(losses).item(), rel=1e-6)


@pytest.mark.parametrize("name", ["plain", "teacher's registers", "student's registers"])
@pytest.mark.parametrize("how", ["drop", "redistribute"])
def test_sinks(name, how):
    """Nothing is paid to class token and registers; rows sum to 1 again, or to what the patches had."""
    x = images().double()
    teacher, student = models(name)
    keep, patches = common(teacher, student), [i for i, each in enumerate(layout(teacher)) if each.startswith("patch")]
    for held in (True, False):
        bond = AttentionTransfer(
            Transfer(method="copy", blocks=BLOCKS, sinks=how), student, TeacherReader(teacher, BLOCKS, held=held)
        )
        for block, handed in bond.handed_over(bond.read(x)).items():
            whole = reference_maps(teacher, x)[block]
            for row, token in enumerate(keep):
                mass = whole[..., token, patches].sum(-1, keepdim=True)
                expected = whole[..., token, patches] / (mass if how == "redistribute" else 1)
                torch.testing.assert_close(handed.map()[..., row, -len(patches) :], expected, atol=1e-9, rtol=1e-6)
                assert handed.map()[..., row, : -len(patches)].abs().max() == 0
    for method, loss in (("copy", None), ("distill", "ce")):
        transfer = Transfer(method=method, blocks=BLOCKS, loss=loss, weight=1.0, sinks=how)
        bond = AttentionTransfer(transfer, student, teacher)
        with bond.guiding(x):
            student(x)
            if method == "distill":
                own = Explicit(student)
                own(x)
                keeps = common(student, teacher)
                expected = 0.0
                for block, handed in bond.maps.items():
                    mine = own.seen[block]["map"][..., keeps, :][..., keeps]
                    mine = mine / mine.sum(-1, keepdim=True)
                    expected -= (handed.map() * mine.log()).sum(-1).mean()
                assert bond.loss().item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_average_map():
    """Of all images that were shown, whatever the batches were; the same for every image afterwards."""
    teacher, student = pair("dinov2_reg")
    x = images(5)
    expected = [each.mean(0) for each in reference_maps(teacher, x)]
    for held in (True, False):
        reader, said = TeacherReader(teacher, BLOCKS, held=held), []

        def told(own, said=said):
            said.append(own)
            raise InterruptedError

        for part in ([x[:2], x[2:4]], [x[4:]]):
            with suppress(InterruptedError):
                reader.learn_average(part, told)
        reader.learn_average([], lambda own, said=said: [*said, own])  # a third process, which has no image at all
        for block, average in reader.average.items():
            torch.testing.assert_close(average.map()[0], expected[block], atol=1e-5, rtol=1e-4)
        bond = AttentionTransfer(Transfer(method="copy", blocks=BLOCKS, source="average"), student, reader)
        handed = bond.handed_over(bond.read(x[:3]))
        assert isinstance(handed[0], Map) and len(handed[0].weights) == 3
        assert torch.equal(handed[1].weights[0], handed[1].weights[2])
        torch.testing.assert_close(handed[1].map().sum(-1), torch.ones(3, 3, 17), atol=1e-5, rtol=0)
        with torch.no_grad(), bond.guiding(x[:3]):
            out = student(x[:3])
        assert not torch.allclose(out, copied(student, teacher, x[:3]), atol=1e-3)


def test_maps_that_are_only_compared():
    """Without transfer the student computes what it does alone, and its maps' KL from the teacher's is known."""
    x = images().double()
    for name in ("plain", "teacher's registers", "student's registers"):
        teacher, student = models(name)
        theirs, own = Explicit(teacher), Explicit(student)
        with torch.no_grad():
            theirs.model.forward_features(x)
            plain = student(x)
            own(x)
        keeps = (common(teacher, student), common(student, teacher))
        bond = AttentionTransfer(Transfer(blocks=(0, 2)), student, teacher)
        with torch.no_grad(), bond.comparing(bond.read(x)) as routes:
            torch.testing.assert_close(student(x), plain)
            found = bond.divergence(routes)
        expected = [written_out("kl", "map", theirs.seen[b], own.seen[b], keeps).item() for b in (0, 2)]
        assert found == pytest.approx(expected, rel=1e-5)
        assert bond.loss() == 0.0


def test_kl_is_cross_entropy_less_entropy():
    teacher, student = (torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(n)).softmax(-1) for n in (0, 1))
    expected = F.kl_div(student.log(), teacher, reduction="none").sum(-1).mean()

    class Own:
        def logits(self):
            return student.log()

    torch.testing.assert_close(kl.loss(Map(teacher), Own()), expected)


@pytest.mark.parametrize("family", ["dinov2", "dinov2_reg", "deit3", "beitv2"])
def test_folding_layer_scale_changes_nothing(family):
    """Outputs and maps stay, in float32 too; what is left has no LayerScale."""
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        model = perturbed(families.load(family).teacher("base", pretrained=False, **ARGS)).to(dtype)
        x = images().to(dtype)
        with torch.no_grad():
            before, maps = model.forward_features(x), reference_maps(model, x)
            assert fold(model) is model
            after = model.forward_features(x)
        assert (after - before).abs().max() < tolerance
        for one, other in zip(reference_maps(model, x), maps, strict=True):
            assert (one - other).abs().max() < tolerance
        assert not [name for name, _ in model.named_parameters() if "gamma" in name]


def test_there_is_nothing_to_fold():
    with pytest.raises(ValueError, match="has no LayerScale"):
        fold(pair()[0])


@pytest.mark.parametrize("method", ["copy", "distill"])
def test_uniform_attention_needs_no_teacher(method):
    """Each token attends to all of the student's own tokens alike; losses and gradients as with a teacher of these tokens."""
    x = images().double()
    for name in ("plain", "student's registers"):
        given = {"loss": "ce", "weight": 2.0} if method == "distill" else {}
        transfer = Transfer(method=method, blocks=(0, 2), source="uniform", **given)
        found = []
        for beside in (None, perturbed(deepcopy(models(name)[1]), 7)):
            student = deepcopy(models(name)[1])
            bond = AttentionTransfer(transfer, student, beside)
            with bond.guiding(bond.read(x)):
                out = student(x)
                (out.square().mean() + bond.loss()).backward()
            found.append(gradients(student) | {"output": out.detach()})
        close(*found)
        assert found[0].keys() == found[1].keys()
        tokens = len(layout(student))
        weights = NoReader(student, (0, 2)).read(x)[2].weights
        assert weights.shape == (len(x), *weights.shape[1:2], tokens, tokens) and torch.all(weights == 1 / tokens)
