"""Teacher and student of different sizes, against written-out maps that are averaged head by head."""

import math

import pytest
import torch
import yaml

import families
from benchmark.spec.arm import Arm
from benchmark.spec.definitions import run_of
from benchmark.spec.plan import make_plan, together
from benchmark.spec.protocol import load_protocol
from benchmark.spec.run import Cell, Transfer
from benchmark.spec.study import Study
from benchmark.training.models import frozen_teacher, student_of
from benchmark.transfer.attention_transfer import AttentionTransfer
from benchmark.transfer.pairing import heads_weights, mixed, teachers_blocks
from benchmark.transfer.reference import kept_maps, reference_maps, renormalised, replaced_maps, unfused
from benchmark.transfer.teacher_reader import TeacherReader
from families.spec import UserError

from ..conftest import perturbed

GRID = {"img_size": 32, "patch_size": 8, "global_pool": "token"}
TEACHER = {"embed_dim": 64, "depth": 4, "num_heads": 4}
STUDENTS = [  # more and fewer heads and blocks, in whole groups and not
    {"embed_dim": 32, "depth": 2, "num_heads": 2},
    {"embed_dim": 48, "depth": 3, "num_heads": 3},
    {"embed_dim": 96, "depth": 6, "num_heads": 6},
    {"embed_dim": 32, "depth": 5, "num_heads": 8},
    {"embed_dim": 64, "depth": 4, "num_heads": 4},
]
PAIRINGS = ("usual", "reversed", "shuffled")


def written_out(pairing, teacher, student):
    """By loops: for each block of the student the teacher's, for each head the weights of the teacher's heads."""
    blocks = []
    for block in range(student["depth"]):
        place = student["depth"] - 1 - block if pairing == "reversed" else block
        blocks.append(math.ceil((place + 1) * teacher["depth"] / student["depth"]) - 1)
    mine, theirs = student["num_heads"], teacher["num_heads"]
    order = list(range(theirs))
    if pairing == "shuffled":
        found = heads_weights(Transfer(pairing="shuffled"), theirs, theirs)
        order = [int(row.argmax()) for row in found]  # of which head the i-th of the shuffled ones is
        assert sorted(order) == list(range(theirs)) != order
    weights = [[0.0] * theirs for _ in range(mine)]
    for fine in range(mine * theirs):  # pieces so small that each lies in one head of both
        weights[fine // theirs][order[fine // mine]] += 1 / theirs
    return blocks, weights


def averaged(maps, blocks, weights, keep):
    found = []
    for block in blocks:
        heads = [sum(w * maps[block][:, head] for head, w in enumerate(row)) for row in weights]
        found.append(renormalised(torch.stack(heads, 1), keep))
    return found


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("held", [True, pytest.param(False, marks=pytest.mark.long)])
@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize(
    ("family", "geometry"),
    [
        *(("dinov2_reg", geometry) for geometry in STUDENTS),
        *((family, STUDENTS[i]) for family in ("beitv2", "rope_vit_mixed", "siglip2") for i in (1, 3)),
    ],
    ids=lambda each: each if isinstance(each, str) else f"{each['depth']}x{each['num_heads']}",
)
def test_copy_and_distillation_equal_averaged_maps(family, geometry, pairing, held):
    """With registers, a bias, rotary embeddings, and without a class token; outputs, losses and gradients."""
    adapter = families.load(family)
    size = adapter.spec.sizes[-1]
    teacher = perturbed(adapter.teacher(size, pretrained=False, **GRID, **TEACHER)).double()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    maps, (blocks, weights) = reference_maps(teacher, x), written_out(pairing, TEACHER, geometry)
    for native in ((), adapter.native):
        student = perturbed(adapter.student(size, 5, native=native, **GRID, **geometry), 3).double()
        depth = tuple(range(geometry["depth"]))
        for method in ("copy", "distill"):
            given = {"loss": "ce", "weight": 2.0} if method == "distill" else {}
            transfer = Transfer(method=method, blocks=depth, pairing=pairing, resized=True, **given)
            bond = AttentionTransfer(transfer, student, TeacherReader(teacher, sorted({*blocks}), held=held))
            handed = averaged(maps, blocks, weights, bond.alignment.teacher)
            student.zero_grad()
            with bond.guiding(x):
                out = student(x)
                (out.square().mean() + bond.loss()).backward()
                loss = bond.loss()
            explicit = unfused(student)
            explicit.zero_grad()
            if method == "copy":
                with replaced_maps(explicit, handed, bond.alignment.student):
                    wanted = explicit(x)
                    wanted.square().mean().backward()
            else:
                with kept_maps(explicit) as kept:
                    wanted = explicit(x)
                own = [renormalised(each, bond.alignment.student) for each in kept]
                terms = [-(t * s.log()).sum(-1).mean() for t, s in zip(handed, own, strict=True)]
                total = 2.0 * torch.stack(terms).sum()
                (wanted.square().mean() + total).backward()
                torch.testing.assert_close(torch.as_tensor(loss).detach(), total.detach(), rtol=0, atol=1e-6)
            torch.testing.assert_close(out, wanted, rtol=0, atol=1e-6)
            mine, theirs = gradients(student), gradients(explicit)
            for name in theirs:
                torch.testing.assert_close(mine.get(name, torch.zeros_like(theirs[name])), theirs[name], rtol=0, atol=2e-6)


def test_weights_are_means():
    for teacher, student in ((4, 4), (4, 2), (2, 4), (5, 3), (12, 16)):
        for pairing in ("usual", "shuffled"):
            found = heads_weights(Transfer(pairing=pairing), teacher, student)
            if found is None:
                assert teacher == student and pairing == "usual"
                continue
            torch.testing.assert_close(found.sum(1), torch.ones(student))
            torch.testing.assert_close(found.sum(0), torch.full((teacher,), student / teacher))
    assert heads_weights(Transfer(), 4, 2).tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    assert heads_weights(Transfer(), 2, 4).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert teachers_blocks(Transfer(blocks=(0, 1, 2)), 12, 3) == {0: 3, 1: 7, 2: 11}
    assert teachers_blocks(Transfer(blocks=(0, 1), pairing="reversed"), 4, 2) == {0: 3, 1: 1}


def test_no_map_is_held_by_a_route(monkeypatch):
    """Copy of a route of other heads attends pair by pair."""
    from families.core.attention import Route

    route = Route(*torch.randn(2, 2, 4, 9, 8), torch.randn(4, 9, 9), 0.3)
    v, weights = torch.randn(2, 3, 9, 5), heads_weights(Transfer(), 4, 3)
    expected = mixed(route, weights).map() @ v
    monkeypatch.setattr(Route, "map", lambda self: pytest.fail("a map was built"))
    torch.testing.assert_close(mixed(route, weights).attend(v), expected)


MINI = load_protocol("mini")[1]


def run(arm, family="deit3", size="large", protocol=MINI):
    return run_of(protocol, Cell("mini", family, size, arm, 0))


def test_the_run_of_another_size():
    """Its own geometry and start value, its teacher's key and geometry; without transfer it is the usual run of its size."""
    copy, usual = run("standard-copy+student=base"), run("standard-copy")
    assert copy.student.geometry == run("standard-none", size="base").student.geometry != usual.student.geometry
    assert copy.taught_by == usual.student.geometry and copy.teacher == usual.teacher and copy.transfer.resized
    assert run("standard-none+student=base").key == run("standard-none", size="base").key
    assert run("standard-copy+student=large").key == usual.key
    matched = run("matched-none+student=base", "beitv2")
    assert matched.student.components == run("matched-none", "beitv2", "base").student.components
    assert matched.student.components != run("matched-none", "beitv2").student.components
    free = run("standard-distill+student=32x3x4").student.geometry
    assert (free.embed_dim, free.depth, free.num_heads) == (32, 3, 4)
    assert "taught_by" not in usual.model_dump(exclude_defaults=True)
    teacher, student = frozen_teacher(run("standard-copy+source=untrained+student=base"), {}), student_of(copy)
    assert (teacher.embed_dim, student.embed_dim) == (usual.student.geometry.embed_dim, copy.student.geometry.embed_dim)


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ("standard-copy+student=giant", "unknown size of DeiT III: 'giant'"),
        ("standard-copy+student=30x2x4", "width 30 is not 4 heads"),
        ("standard-copy+part=q+student=base", "mixed by their maps"),
        ("standard-copy+blocks=first-1+student=base", "has all blocks transferred"),
        ("standard-none+match=end+student=base", "without ensemble and match"),
    ],
)
def test_what_is_refused(arm, words):
    with pytest.raises(UserError, match=words):
        run(Arm.parse(arm).name)


def test_another_grid_is_refused():
    imagenet = load_protocol("imagenet")[1]
    with pytest.raises(UserError, match="the grid of base is not its teacher's: patches of 16 px at 224 px"):
        run("standard-copy+student=base", "pe_core", "large", imagenet)
    assert run("standard-copy+student=base", "deit3", "large", imagenet).taught_by.depth == 24


def test_sizes_train_beside_each_other():
    """Students of two sizes share the reading of one teacher, where they read the same blocks."""
    arms = ["standard-copy", "standard-copy+student=base", "standard-distill+student=base", "standard-copy+student=32x3x4"]
    plan = make_plan("mini", MINI, "s", Study(title="-", arms=arms), [("deit3", "large")], [0])
    groups = [sorted(item.cells[0].arm for item in group) for group in together(plan.stages[1])]
    one = next(group for group in groups if "standard-copy" in group)
    assert "standard-copy+student=base" in one and "standard-distill+student=base" in one
    assert "standard-copy+student=32x3x4" not in one
    assert Arm.parse("standard-copy+student=base").baseline.name == "standard-none+student=base"


def test_they_train_and_have_a_leaderboard(bench, tiny, tmp_path):
    arms = [f"standard-{method}+student=32x1x2" for method in ("none", "copy", "distill")]
    arms += ["standard-distill+pairing=reversed+student=32x1x2", "standard-copy+pairing=shuffled", "standard-none"]
    (tmp_path / "across.yaml").write_text(yaml.safe_dump({"title": "-", "arms": arms}))
    words = ("--study", tmp_path / "across.yaml", "--family", "dinov2_reg", "--sizes", "base", "--seeds", "0", "--protocol", tiny)
    code, _, err = bench("run", *words, "--cluster", "debug", "--results", tmp_path / "results", "--work", tmp_path / "work")
    assert code == 0, err
    assert len(list((tmp_path / "results").rglob("*student=32x1x2*.json"))) == 4
    page = (tmp_path / "reports" / "leaderboard.md").read_text()
    assert "standard-distill+pairing=reversed+student=32x1x2" in page and "n=1" in page
