"""The contract of a family: each claim is checked against a formulation that shares no code with ours.

The tests check every family in the registry; `bench check --family NAME` prints a table. Models are
tiny, in float64 and perturbed: fresh LayerScale, bias tables and registers are near zero and would
hide errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import families
from benchmark.spec.run import Transfer
from benchmark.transfer.attention_transfer import AttentionTransfer
from benchmark.transfer.reference import kept_maps, reference_maps, renormalised, replaced_maps, unfused
from benchmark.transfer.teacher_reader import TeacherReader
from families.core.adapter import Adapter
from families.core.attention import align, dropped_mass, layout, read_routes
from families.core.initialise import canonical
from families.spec import Constant, one_line

TINY: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}
CLASSES = 5
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Outcome:
    """The outcome of one claim for one teacher."""

    size: str
    claim: str
    holds: bool
    found: str


Claim = Callable[[Adapter, str], str]


def contract(family: str, size: str) -> Iterator[Outcome]:
    """Check every claim for one teacher of a family."""
    adapter = families.load(family)
    for claim in CLAIMS:
        label = str(claim.__doc__).rstrip(".")
        try:
            yield Outcome(size, label, True, claim(adapter, size))
        except Exception as error:
            yield Outcome(size, label, False, one_line(f"{type(error).__name__}: {error}"))


def geometry_is_timms(adapter: Adapter, size: str) -> str:
    """The file's geometry and normalisation are timm's."""
    teacher = adapter.spec.teacher(size)
    with torch.device("meta"):
        model = timm.create_model(teacher.model, pretrained=False, **teacher.args)
    patch = model.patch_embed
    found = {
        "img_size": patch.img_size[0],
        "patch_size": patch.patch_size[0],
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": model.blocks[0].attn.num_heads,
    }
    _same(found, {**teacher.geometry, "img_size": teacher.native_size}, "geometry (img_size: native_size)")
    if teacher.official is None:
        config = model.pretrained_cfg
        _same((tuple(config["mean"]), tuple(config["std"])), (adapter.spec.mean, adapter.spec.std), "mean and std")
    return f"{found['embed_dim']}/{found['depth']}/{found['num_heads']}, patch {found['patch_size']}"


def maps_are_the_models(adapter: Adapter, size: str) -> str:
    """attention_maps gives the maps that the model computes without fused attention; rows sum to 1."""
    model, x = _teacher(adapter, size), _images(2)
    expected = reference_maps(model, x)
    before = model.forward_features(x)  # type: ignore[operator]
    maps = adapter.attention_maps(model, x)
    _same(len(maps), len(expected), "number of maps")
    worst = max(_close(a, b, "map") for a, b in zip(maps, expected, strict=True))
    for each in maps:
        _close(each.sum(-1), torch.ones_like(each[..., 0]), "row sums")
    _close(model.forward_features(x), before, "output after reading")  # type: ignore[operator]
    return f"largest difference {worst:.0e}"


def copy_is_map_times_v(adapter: Adapter, size: str) -> str:
    """Attention Copy and its gradients equal an explicit map @ v, for the standard and the matched
    student."""
    x = _images(2)
    worst = 0.0
    for student, teacher, reader in _pairs(adapter, size):
        bond = AttentionTransfer(_copy(), student, reader)
        with bond.guiding(x):
            copied = student(x)
        _, gradients = _gradients(student, bond, x, task=True)
        handed = [renormalised(each, bond.alignment.teacher) for each in reference_maps(teacher, x)]
        explicit = unfused(student)
        with replaced_maps(explicit, handed, bond.alignment.student):
            worst = max(worst, _close(copied, explicit(x), "output"))
            explicit.zero_grad()
            _task_loss(explicit(x)).backward()
        worst = max(worst, _close_gradients(gradients, _gradients_of(explicit)))
    return f"largest difference {worst:.0e}"


def distillation_is_cross_entropy(adapter: Adapter, size: str) -> str:
    """Distillation's loss and its gradients, with the task's, equal those of an explicit
    cross-entropy of maps."""
    x = _images(2)
    worst = 0.0
    for student, teacher, reader in _pairs(adapter, size):
        bond = AttentionTransfer(_distil(), student, reader)
        explicit, maps = unfused(student), reference_maps(teacher, x)
        with kept_maps(explicit) as kept:
            task = _task_loss(explicit(x))
        terms = [
            -(renormalised(t, bond.alignment.teacher) * renormalised(s, bond.alignment.student).log()).sum(-1).mean()
            for t, s in zip(maps, kept, strict=True)
        ]
        expected = 2.0 * torch.stack(terms).sum()
        for with_task in (False, True):
            loss, gradients = _gradients(student, bond, x, task=with_task)
            wanted = expected + task if with_task else expected
            explicit.zero_grad()
            wanted.backward(retain_graph=True)
            worst = max(worst, _close(loss, wanted.detach(), "loss"))
            worst = max(worst, _close_gradients(gradients, _gradients_of(explicit)))
    return f"largest difference {worst:.0e}"


def checkpointing_changes_nothing(adapter: Adapter, size: str) -> str:
    """Gradients are the same with and without gradient checkpointing."""
    x = _images(2)
    worst = 0.0
    for transfer in (_copy(0, 1), _distil()):
        for student, _, reader in _pairs(adapter, size):
            student.set_grad_checkpointing(False)  # type: ignore[operator]
            bond = AttentionTransfer(transfer, student, reader)
            plain = _gradients(student, bond, x, task=True)[1]
            student.set_grad_checkpointing(True)  # type: ignore[operator]
            worst = max(worst, _close_gradients(_gradients(student, bond, x, task=True)[1], plain))
    return f"largest difference {worst:.0e}"


def keys_are_timms(adapter: Adapter, size: str) -> str:
    """Students have timm's own state-dict keys, before and after a transfer."""
    teacher, x = _teacher(adapter, size), _images(2)
    plain = timm.create_model("vit_base_patch16_224", **TINY, num_classes=CLASSES, global_pool="token")
    standard, matched = _students(adapter, size)
    _same(set(standard.state_dict()), set(plain.state_dict()), "keys of the standard student")
    before = set(matched.state_dict())
    for student in (standard, matched):
        with AttentionTransfer(_distil(), student, teacher).guiding(x):
            student(x)
    _same(set(matched.state_dict()), before, "keys of the matched student")
    return f"{len(plain.state_dict())} and {len(before)} keys"


def matched_is_the_teachers_architecture(adapter: Adapter, size: str) -> str:
    """Given the teacher's weights, the matched student computes what the teacher computes."""
    teacher, matched, x = _teacher(adapter, size), _students(adapter, size)[1], _images(2)
    head = {name: value for name, value in matched.state_dict().items() if name.startswith("head.")}
    matched.load_state_dict({**teacher.state_dict(), **head})
    worst = _close(matched.forward_features(x), teacher.forward_features(x), "features")  # type: ignore[operator]
    return f"largest difference {worst:.0e}"


def standard_has_no_native_part(adapter: Adapter, size: str) -> str:
    """The standard student has no native component; each alone changes it, and starts at the file's
    value."""
    standard = adapter.student(size, CLASSES, **TINY, global_pool="token")
    plain = families.load("deit").student("base", CLASSES, **TINY, global_pool="token")
    _same(_description(standard), _description(plain), "the standard student and timm's plain ViT")
    for name, component in adapter.spec.components(size).items():
        one = adapter.student(size, CLASSES, native=[name], **TINY, global_pool="token")
        if _description(one) == _description(standard) and all(
            torch.equal(a, b) for a, b in zip(one.parameters(), standard.parameters(), strict=True)
        ):
            raise AssertionError(f"{name} changes nothing")
        for pattern, value in component.initial.items():
            covered = [p for n, p in one.named_parameters() if _matches(n, pattern)]
            if not covered:
                raise AssertionError(f"{name}: no parameter is called {pattern}")
            if isinstance(value, Constant) and any(bool((p != value.value).any()) for p in covered):
                raise AssertionError(f"{name}: {pattern} does not start at {value.value}")
    return ", ".join(adapter.native) or "nothing native"


def shared_parameters_are_equal(adapter: Adapter, size: str) -> str:
    """What two students share starts equal under one seed, whichever class builds them, and differs
    under another."""
    fixed = {pattern for component in adapter.spec.components(size).values() for pattern in component.initial}
    args: dict[str, Any] = {**TINY, "global_pool": "token"}
    standard, matched = (adapter.student(size, CLASSES, 7, native, **args) for native in ((), adapter.native))
    other = adapter.student(size, CLASSES, 8, **args)
    mine, theirs = ({canonical(n): p.detach() for n, p in m.named_parameters()} for m in (standard, matched))
    shared = [name for name in mine if name in theirs and not any(_matches(name, pattern) for pattern in fixed)]
    shared = [name for name in shared if name == "pos_embed" or mine[name].shape == theirs[name].shape]
    everywhere = (
        {"patch_embed.proj.weight", "head.weight"}
        | ({"cls_token"} & theirs.keys())
        | {f"blocks.{i}.attn.proj.weight" for i in range(TINY["depth"])}
    )
    if not everywhere <= set(shared):
        raise AssertionError(f"not shared: {', '.join(sorted(everywhere - set(shared)))}")
    for name in shared:
        a, b = mine[name], theirs[name]
        if a.shape != b.shape:  # position tables with other rows before those of the patches
            a, b = (each[:, -((TINY["img_size"] // TINY["patch_size"]) ** 2) :] for each in (a, b))
        if not torch.equal(a, b):
            raise AssertionError(f"{name} differs")
    weight = "blocks.0.attn.qkv.weight"
    if torch.equal(dict(other.named_parameters())[weight], dict(standard.named_parameters())[weight]):
        raise AssertionError("another seed gives the same weights")
    return f"{len(shared)} parameters"


def tokens_are_aligned(adapter: Adapter, size: str) -> str:
    """What the standard student gets is the teacher's map with the tokens it has not dropped,
    renormalised."""
    teacher, standard, x = _teacher(adapter, size), _students(adapter, size)[0], _images(2)
    aligned = align(layout(teacher), layout(standard))
    routes, maps = read_routes(teacher, x), reference_maps(teacher, x)
    for route, full in zip(routes, maps, strict=True):
        kept = route if aligned.teacher is None else route.select(aligned.teacher)
        _close(kept.map(), renormalised(full, aligned.teacher), "map handed over")
    if not aligned.teacher_extra:
        return "same tokens"
    names = [layout(teacher)[i] for i in aligned.teacher_extra]
    kept_rows = [i for i in range(maps[0].shape[-1]) if i not in aligned.teacher_extra]
    masses = [dropped_mass(route, aligned.teacher_extra) for route in routes]
    wanted = [1 - each[..., kept_rows, :][..., kept_rows].sum(-1).mean() for each in maps]
    _close(torch.tensor(masses).to(wanted[0]), torch.stack(wanted), "dropped mass")
    return f"drops {', '.join(names)}: {', '.join(f'{mass:.2f}' for mass in masses)} of the mass"


CLAIMS: tuple[Claim, ...] = (
    geometry_is_timms,
    maps_are_the_models,
    copy_is_map_times_v,
    distillation_is_cross_entropy,
    checkpointing_changes_nothing,
    keys_are_timms,
    matched_is_the_teachers_architecture,
    standard_has_no_native_part,
    shared_parameters_are_equal,
    tokens_are_aligned,
)


def _teacher(adapter: Adapter, size: str) -> nn.Module:
    return _perturbed(adapter.teacher(size, pretrained=False, **{**TINY, "global_pool": "token"}), 1)


def _students(adapter: Adapter, size: str) -> list[nn.Module]:
    args: dict[str, Any] = {**TINY, "global_pool": "token"}
    return [_perturbed(adapter.student(size, CLASSES, native=native, **args), 2) for native in ((), adapter.native)]


@torch.no_grad()
def _perturbed(model: nn.Module, seed: int) -> nn.Module:
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.2)
    return model.double().eval()


def _images(count: int) -> Tensor:
    draw = torch.Generator().manual_seed(3)
    return torch.randn(count, 3, TINY["img_size"], TINY["img_size"], generator=draw).double()


def _pairs(adapter: Adapter, size: str) -> Iterator[tuple[nn.Module, nn.Module, TeacherReader]]:
    """Each student with the teacher, and with a reader of it in each formulation."""
    teacher = _teacher(adapter, size)
    for student in _students(adapter, size):
        for held in (True, False):
            yield student, teacher, TeacherReader(teacher, range(TINY["depth"]), held=held)


def _copy(*blocks: int) -> Transfer:
    return Transfer(method="copy", blocks=blocks or tuple(range(TINY["depth"])))


def _distil() -> Transfer:
    return Transfer(method="distill", blocks=tuple(range(TINY["depth"])), loss="ce", weight=2.0)


def _gradients(student: nn.Module, bond: AttentionTransfer, x: Tensor, task: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    student.zero_grad()
    student.train()
    with bond.guiding(x):
        logits = student(x)
        loss = bond.loss() + (_task_loss(logits) if task else 0.0)
        torch.as_tensor(loss).backward()
    student.eval()
    return torch.as_tensor(loss).detach(), _gradients_of(student)


def _task_loss(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device) % CLASSES)


def _gradients_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _close(found: Tensor, expected: Tensor, what: str) -> float:
    worst = float((found - expected).detach().abs().max())
    if not worst <= TOLERANCE:
        raise AssertionError(f"{what} differs by {worst:.2e}")
    return worst


def _close_gradients(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    for name in found.keys() ^ wanted.keys():
        gradient = found.get(name, wanted.get(name))
        assert gradient is not None
        _close(gradient, torch.zeros_like(gradient), f"gradient of {name}, which only one formulation has,")
    return max(_close(found[name], wanted[name], f"gradient of {name}") for name in found.keys() & wanted.keys())


def _same(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise AssertionError(f"{what}: {found}, not {expected}")


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(canonical(name), pattern)


def _description(model: nn.Module) -> tuple[str, list[tuple[str, torch.Size]]]:
    shapes = [(name, value.shape) for name, value in model.state_dict().items()]
    return repr(model), shapes
