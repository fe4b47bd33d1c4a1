"""What a recipe says is what is computed: each setting against a formulation of its own, on perturbed tiny models."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
import yaml

import families
from benchmark.data import DataLocation
from benchmark.execution.setup import Setup
from benchmark.execution.unit_trainer import advice_on
from benchmark.spec.definitions import Definitions, run_of
from benchmark.spec.plan import make_plan
from benchmark.spec.protocol import Protocol, load_protocol
from benchmark.spec.recipe import Recipe
from benchmark.spec.records import validated
from benchmark.spec.run import Cell, Transfer
from benchmark.spec.study import Study
from benchmark.tools.check import TINY as GEOMETRY
from benchmark.training.distributed import ALONE, Ranks
from benchmark.training.evaluation import mixed
from benchmark.training.measurement import Measurement
from benchmark.training.models import model_of, teachers_input, timm_args, trained
from benchmark.training.student import Student
from benchmark.transfer.stochastic_depth import StochasticDepth
from benchmark.transfer.teacher_reader import TeacherReader
from families.spec import UserError, WeightsError

from ..conftest import perturbed, tiny_protocol
from .test_train import fit, item_of, plan_of, score_of, training_of

TINY = {**GEOMETRY, "num_classes": 5}
DEPTH = TINY["depth"]


def student_of(family="dinov2", native=True):
    adapter = families.load(family)
    model = adapter.student("base", seed=1, native=adapter.native if native else (), **TINY)
    return perturbed(model, std=0.1).train()


def recipe_of(**changes):
    return Recipe(**{"steps": 10, "batch_size": 4, "lr": 0.01, "warmup": 0, "weight_decay": 0.05} | changes)


def batch(count=4):
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(count, 3, TINY["img_size"], TINY["img_size"], generator=draw)
    return x, torch.randint(TINY["num_classes"], (count,), generator=draw)


def gradients(model):
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def close(ones, others, **given):
    assert len(ones) == len(others)
    for one, other in zip(ones, others, strict=True):
        torch.testing.assert_close(one, other, **given)


# ---- stochastic depth


@pytest.mark.parametrize("family", ["dinov2", "beitv2", "clip"])
def test_stochastic_depth_drops_what_its_numbers_say(family):
    """Each image computes what a model does whose branches' last layers are so scaled: 0 where dropped, else 1/(1 - rate)."""
    model = student_of(family).eval()
    x = batch()[0]
    plain, scaled = model(x), [deepcopy(model) for _ in x]
    depth = StochasticDepth(model, 0.5)
    torch.testing.assert_close(model(x), plain)
    rates = [0.5 * block / (DEPTH - 1) for block in range(DEPTH)]
    assert [branch.rate for branch in depth.branches] == [rate for rate in rates for _ in range(2)]
    draws = torch.rand(2 * DEPTH, len(x), generator=torch.Generator().manual_seed(3))
    with depth.dropping(draws):
        dropped = model(x)
    torch.testing.assert_close(model(x), plain)
    for image, other in enumerate(scaled):
        for number, block in enumerate(other.blocks):
            for branch, last in enumerate((block.attn.proj, block.mlp.fc2)):
                scale = float(draws[2 * number + branch, image] >= rates[number]) / (1 - rates[number])
                with torch.no_grad():
                    last.weight.mul_(scale)
                    last.bias.mul_(scale)
        torch.testing.assert_close(other(x[image : image + 1])[0], dropped[image], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(dropped, plain)


def test_stochastic_depth_survives_gradient_checkpointing():
    found = []
    for checkpointing in (False, True):
        student = Student(student_of(), Transfer(), None, recipe_of(drop_path=0.5, grad_checkpointing=checkpointing))
        draws = torch.rand(2 * DEPTH, 4, generator=torch.Generator().manual_seed(3))
        student.learn(*batch(), {}, draws)
        found.append(gradients(student.model))
    close(*found)


def test_the_teacher_drops_with_the_student_only_where_that_is_set():
    """Deterministic otherwise, whatever the student drops; the masks are those of the student."""
    x, draws = batch()[0], torch.rand(2 * DEPTH, 4, generator=torch.Generator().manual_seed(3))
    maps = {}
    for rate in (0.0, 0.9):
        teacher = perturbed(families.load("dinov2").teacher("base", pretrained=False, **TINY), std=0.1)
        reader = TeacherReader(teacher, range(DEPTH), drop_path=rate)
        maps[rate] = [[reader.read(x, given)[DEPTH - 1].map() for given in each] for each in ((None, draws), (draws, None))]
        model = perturbed(families.load("dinov2").teacher("base", pretrained=False, **TINY), std=0.1)
        with StochasticDepth(model, rate).dropping(draws):
            theirs = TeacherReader(model, range(DEPTH)).read(x)[DEPTH - 1].map()
        torch.testing.assert_close(maps[rate][0][1], theirs)
    (plain, same), _ = maps[0.0]
    torch.testing.assert_close(plain, same)
    (before, dropped), (_, after) = maps[0.9]
    torch.testing.assert_close(before, plain)
    torch.testing.assert_close(after, plain)
    assert (dropped - plain).abs().max() > 1e-3
    protocol = load_protocol("li2024")[1]
    run = run_of(protocol, Cell("li2024", "mae", "large", "standard-distill", 0))
    assert run.transfer.teacher_drop_path and run.protocol.recipe.drop_path == 0.2


# ---- optimiser, targets, averages


def test_layer_decay_scales_the_learning_rate_by_depth():
    """Head at the recipe's rate, each block below it times the decay, the embeddings the lowest; weight decay by one rule."""
    student = Student(student_of(native=False), Transfer(), None, recipe_of(layer_decay=0.5))
    student.begin(5)
    names = {id(parameter): name for name, parameter in student.model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in student.optimizer.param_groups for p in group["params"]}
    decays = {names[id(p)]: group["weight_decay"] for group in student.optimizer.param_groups for p in group["params"]}
    top = rates["head.weight"]
    assert top == pytest.approx(0.01 * 0.5 * (1 + math.cos(math.pi * 5 / 10)))
    for number in range(DEPTH):
        expected = top * 0.5 ** (DEPTH - number)
        assert rates[f"blocks.{number}.attn.qkv.weight"] == pytest.approx(expected), number
    for name in ("cls_token", "pos_embed", "patch_embed.proj.weight"):
        assert rates[name] == pytest.approx(top * 0.5 ** (DEPTH + 1)), name
    assert decays["pos_embed"] == decays["cls_token"] == decays["blocks.0.norm1.weight"] == 0
    assert decays["blocks.0.mlp.fc1.weight"] == decays["patch_embed.proj.weight"] == 0.05


def test_a_rate_that_does_not_end_at_zero_nor_decay_in_the_last_block():
    """As in Li et al. 2024's Copy: warm-up to the peak, cosine to min_lr, both times the layer's scale."""
    recipe = recipe_of(steps=20, warmup=0.1, min_lr=0.004, layer_decay=0.5, layer_decay_from="last_block")
    student = Student(student_of(native=False), Transfer(), None, recipe)
    names = {id(parameter): name for name, parameter in student.model.named_parameters()}
    for step, top in ((2, 0.01), (11, 0.007), (19, 0.004 + 0.003 * (1 + math.cos(math.pi * 17 / 18)))):
        student.begin(step)
        rates = {names[id(p)]: group["lr"] for group in student.optimizer.param_groups for p in group["params"]}
        assert rates["head.weight"] == pytest.approx(top)
        for number in range(DEPTH):
            assert rates[f"blocks.{number}.attn.qkv.weight"] == pytest.approx(top * 0.5 ** (DEPTH - 1 - number)), number
        assert rates["pos_embed"] == pytest.approx(top * 0.5**DEPTH)


@pytest.mark.parametrize("family", ["dinov2_reg", "clip", "beitv2"])
def test_layer_decay_is_one_rule_for_all_classes(family):
    """Whatever a class calls its own: everything before the blocks is an embedding, registers and the stem's norm too."""
    student = Student(student_of(family), Transfer(), None, recipe_of(layer_decay=0.5))
    names = {id(parameter): name for name, parameter in student.model.named_parameters()}
    scales = {names[id(p)]: group["lr_scale"] for group in student.optimizer.param_groups for p in group["params"]}
    for name, scale in scales.items():
        below = DEPTH - int(name.split(".")[1]) if name.startswith("blocks.") else DEPTH + 1
        assert scale == 0.5 ** (0 if name.startswith(("head.", "norm.", "fc_norm.")) else below), name
    assert len(scales) == len([p for p in student.model.parameters() if p.requires_grad])


def test_smoothed_and_mixed_targets():
    """Smoothing is for labels; probabilities come smoothed already."""
    x, y = batch()
    student = Student(student_of(), Transfer(), None, recipe_of(smoothing=0.1))
    logits = student.model.train()(x)
    classes = TINY["num_classes"]
    smooth = 0.9 * F.one_hot(y, classes) + 0.1 / classes
    expected = -(smooth * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(student.learn(x, y, {}), expected.detach())
    torch.testing.assert_close(student.learn(x, smooth, {}), expected.detach())


def test_averaged_weights():
    """After each step ema x average + (1 - ema) x weights, from the weights at the start; in place within `averaged`."""
    x, y = batch()
    student = Student(student_of(), Transfer(), None, recipe_of(ema=0.8))
    expected = {name: value.clone() for name, value in student.model.state_dict().items()}
    for step in range(3):
        student.begin(step)
        student.learn(x, y, {})
        student.update()
        for name, value in student.model.state_dict().items():
            expected[name] = 0.8 * expected[name] + 0.2 * value
    own = {name: value.clone() for name, value in student.model.state_dict().items()}
    with student.averaged():
        close(list(student.model.state_dict().values()), list(expected.values()))
    close(list(student.model.state_dict().values()), list(own.values()), rtol=0, atol=0)
    assert not torch.allclose(own["head.weight"], expected["head.weight"])


def test_averaged_weights_are_evaluated_kept_and_resumed(tmp_path):
    """Of a run with an average, val, test and the last weights are the average's; a stopped one goes on exactly."""
    plan = plan_of("dinov2_reg", ["standard-distill"], ema=0.9, drop_path=0.3, layer_decay=0.7, smoothing=0.1, lr=0.01)
    fit(item_of(plan, "teacher"), tmp_path / "teacher")
    weights, item = tmp_path / "teacher" / "weights.pt", item_of(plan, "standard-distill")
    whole = fit(item, tmp_path / "whole", weights)
    for stop in (3, 7):
        assert fit(item, tmp_path / f"stopped-{stop}", weights, stop_at=stop) is None
        resumed = fit(item, tmp_path / f"stopped-{stop}", weights)
        assert (resumed["metrics"], resumed["curve"]) == (whole["metrics"], whole["curve"])
    plain = item_of(plan_of("dinov2_reg", ["standard-distill"]), "standard-distill")
    shown = training_of(plain, tmp_path / "again", weights)
    shown.model.load_state_dict(torch.load(tmp_path / "whole" / "weights.pt", weights_only=True))
    assert score_of(shown, "test")["loss"] == pytest.approx(whole["metrics"]["loss"], rel=1e-6)


@pytest.mark.parametrize("method", ["none", "copy", "distill"])
def test_accumulated_gradients_equal_those_of_the_batch(method):
    """In unequal parts too."""
    x, y = batch(7)
    draws = torch.rand(2 * DEPTH, 7, generator=torch.Generator().manual_seed(3))
    blocks = tuple(range(DEPTH))
    transfer = Transfer(method=method, blocks=blocks, loss="ce", weight=2.0) if method != "none" else Transfer()
    found = []
    for parts in ([slice(0, 7)], [slice(0, 3), slice(3, 6), slice(6, 7)]):
        teacher = perturbed(families.load("dinov2").teacher("base", pretrained=False, **TINY), 5, std=0.1)
        reader = TeacherReader(teacher, blocks) if method != "none" else None
        student = Student(student_of().train(), transfer, reader, recipe_of(drop_path=0.4))
        total = 0.0
        for part in parts:
            reading, share = reader.read(x[part]) if reader else {}, len(y[part]) / len(y)
            total += float(student.learn(x[part], y[part], reading, draws[:, part], share, part is parts[-1])) * share
        found.append((total, gradients(student.model)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    close(found[0][1], found[1][1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("held", [True, pytest.param(False, marks=pytest.mark.long)])
@pytest.mark.parametrize("method", ["none", "copy", "distill"])
def test_a_compiled_student_learns_the_same(method, held, monkeypatch):
    """Through torch.compile's tracing (its code generation is torch's own to test): one graph, traced once."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: real(model, backend="eager", fullgraph=True))
    torch.compiler.reset()
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    x, y = batch()
    blocks = tuple(range(DEPTH - 1))
    transfer = Transfer(method=method, blocks=blocks, loss="ce", weight=1.0) if method != "none" else Transfer()
    draws = torch.rand(2 * DEPTH, len(x), generator=torch.Generator().manual_seed(3))
    found = []
    for compiled in (False, True):
        teacher = perturbed(families.load("dinov2").teacher("base", pretrained=False, **TINY), 5, std=0.1)
        reader = TeacherReader(teacher, blocks, held=held) if method != "none" else None
        student = Student(student_of().train(), transfer, reader, recipe_of(compile=compiled, drop_path=0.4))
        for step in range(3):
            student.begin(step)
            student.optimizer.zero_grad()
            loss = student.learn(x, y, reader.read(x) if reader else {}, draws)
        found.append([loss, *gradients(student.model)])
    close(*found)
    assert graphs["unique_graphs"] == before + 1


def test_what_gets_no_gradient_is_frozen_where_processes_train_together():
    """BEiT v2's bias table and q's biases, which no copied block reads: searched for in the first step alone. The students learn
    what one outside torch's DistributedDataParallel does, in parts of a batch too."""
    x, y = batch(6)
    blocks = tuple(range(DEPTH))
    found = []
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        for ranks in (ALONE, Ranks(0, 2)):  # the second one a process of which the others are not there
            teacher = perturbed(families.load("beitv2").teacher("base", pretrained=False, **TINY), 5, std=0.1)
            reader = TeacherReader(teacher, blocks)
            student = Student(student_of("beitv2"), Transfer(method="copy", blocks=blocks), reader, recipe_of(), ranks)
            for step in range(3):
                student.begin(step)
                for part in (slice(0, 4), slice(4, 6)):
                    given = (x[part], y[part], reader.read(x[part]))
                    student.learn(*given, share=len(y[part]) / len(y), last=part.stop == 6)
                student.update()
            found.append(dict(student.model.named_parameters()))
            frozen = [name for name, parameter in student.model.named_parameters() if not parameter.requires_grad]
            unused = ["rel_pos_bias.relative_position_bias_table", *(f"blocks.{block}.attn.q_bias" for block in blocks)]
            assert frozen == ([] if ranks is ALONE else unused)
            if student.shared is not None:
                assert not student.finds_unused and not student.shared.find_unused_parameters
    finally:
        dist.destroy_process_group()
    close(*(list(each.values()) for each in found))


# ---- fine-tuned teachers and ensembles


def test_fine_tuning_starts_from_the_teacher_with_a_new_head(tmp_path):
    plan = plan_of("clip", ["finetune"])
    teacher, tuned = item_of(plan, "teacher"), item_of(plan, "finetune")
    assert tuned.requires == (teacher.key,)
    fit(teacher, tmp_path / "teacher")
    files = {"run": tmp_path / "teacher" / "weights.pt"}
    state = torch.load(files["run"], weights_only=True)
    model = model_of(tuned.run, files).state_dict()
    for name, value in model.items():
        assert torch.equal(value, state[name]) != name.startswith("head."), name
    torch.save({name: value for name, value in state.items() if name != "blocks.1.norm1.weight"}, tmp_path / "short.pt")
    with pytest.raises(WeightsError, match=r"short.pt: not the weights of this run's model .*blocks.1.norm1.weight"):
        model_of(tuned.run, {"run": tmp_path / "short.pt"})


def test_weights_that_leave_a_gap_are_not_fine_tuned():
    from benchmark.training.models import _with_new_head

    model = student_of(native=False)
    state = dict(model.state_dict())
    _with_new_head(
        model, {name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: v for name, v in state.items()}
    )
    for wrong in ({"blocks.0.extra": torch.zeros(1)}, {"blocks.1.norm1.weight": None}):
        changed = {name: value for name, value in (state | wrong).items() if value is not None}
        with pytest.raises(WeightsError, match=next(iter(wrong))):
            _with_new_head(model, changed)


def test_an_ensemble_averages_probabilities(tmp_path):
    """Against logits taken by hand: a Copy student, guided by its teacher, and the fine-tuned one beside it."""
    plan = plan_of("deit3", ["standard-copy+ensemble=finetuned"], steps=3)
    stages = plan.stages
    assert [[item.cells[0].arm for item in stage] for stage in stages] == [
        ["teacher"], ["standard-copy", "finetune", "standard-none"],
        ["standard-copy+ensemble=finetuned", "standard-none+ensemble=finetuned"],
    ]  # fmt: skip
    weights = {}
    for stage in stages[:2]:
        for item in stage:
            files = {"run": weights.get(item.requires[0])} if item.requires else {}
            training = training_of(item, tmp_path / item.key, files.get("run"), files=files)
            from .test_train import train_all

            train_all([training])
            weights[item.key] = tmp_path / item.key / "weights.pt"
    item = stages[2][0]
    files = {use: weights[key] for use, key in item.evaluation.files.items()}
    found = measured(item.evaluation, files)["ensemble=finetuned"]
    assert found["shift"].keys() == {"unseen_colours", "noise"} and found["beside"] == item_of(plan, "finetune").key
    student = training_of(item_of(plan, "standard-copy"), tmp_path / "alone", files["run"], files={"run": files["run"]})
    student.model.load_state_dict(torch.load(files["student"], weights_only=True))
    tuned = trained(item.run, files["ensemble"])
    images, labels = next(iter(training_images(item.run)))
    x = (images - 0.19) / 0.33
    with torch.no_grad(), student.student.transfer.guiding(student.student.transfer.read(x)):
        one = student.model.eval()(x).softmax(1)
    with torch.no_grad():
        mean = (one + tuned(x).softmax(1)) / 2
    assert found["top1"] == pytest.approx(100 * float((mean.argmax(1) == labels).float().mean()))
    assert found["loss"] == pytest.approx(float(-mean.log().gather(1, labels[:, None]).mean()), rel=1e-5)
    assert score_of(student, "test")["loss"] != pytest.approx(found["loss"], rel=1e-3)
    rows = torch.randn(3, 5), torch.randn(3, 5)
    torch.testing.assert_close(mixed(*rows).exp(), (rows[0].softmax(1) + rows[1].softmax(1)) / 2)


def measured(evaluation, files):
    return Measurement(files, "cpu", DataLocation(), ALONE, lambda: None).scores(evaluation)


def training_images(run):
    from .test_train import digits

    return digits(run).evaluate("test", 1000)


def test_each_model_gets_its_own_normalisation():
    """Pre-trained teachers, and what is fine-tuned from them, their family's; teachers trained here the protocol's."""
    protocol, mini = load_protocol("imagenet")[1], validated(Protocol, tiny_protocol(), "tiny")
    for arm in ("standard-copy", "finetune", "standard-copy+weights=finetuned", "standard-none+ensemble=finetuned"):
        for content, mean in ((protocol, families.spec("clip").mean), (mini, mini.normalisation.mean)):
            cell, defined = Cell("-", "clip", "base", arm, 0), Definitions(content)
            run, evaluation = defined.run_of(cell), defined.evaluation_of(cell)
            if evaluation is not None:  # the other model's
                run = run.model_copy(update={"teacher": evaluation.teacher})
            assert teachers_input(run).mean == mean, arm
    run = run_of(protocol, Cell("imagenet", "deit", "small", "standard-none", 0))
    geometry = {"img_size": 224, "patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6}
    assert timm_args(run) == geometry | {"global_pool": "avg", "num_classes": 1000}


# ---- protocol files


def written(tmp_path, name="mine", **content):
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_protocol(str(path))[1]


IMAGES = {"num_classes": 5, "train": {"split": "train", "images": 100}, "held_out": 20, "shifted": {}}


def test_a_protocol_extends_another_one(tmp_path):
    protocol = written(tmp_path, extends="imagenet", data=IMAGES, recipe={"batch_size": 16, "lr": 1}, recipes={"finetune": None})
    base = load_protocol("imagenet")[1]
    assert protocol.recipe == base.recipe.model_copy(update={"steps": 100 * (80 // 16), "batch_size": 16, "lr": 1.0})
    assert protocol.transfer == base.transfer and protocol.recipes == {} and protocol.data.training_images == 80
    again = written(tmp_path, "again", extends="mine.yaml", recipe={"epochs": None, "steps": 3})
    assert again.recipe.steps == 3 and again.recipe.batch_size == 16 and again.data == protocol.data
    (tmp_path / "circle.yaml").write_text("extends: circle.yaml\n")
    with pytest.raises(UserError, match="extends itself"):
        load_protocol(str(tmp_path / "circle.yaml"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipe": {"epochs": 2, "steps": 5}}, "epochs or steps, not both"),
        ({"recipe": {"batch_size": 200}}, "a batch of 200 is more than the 80 training images"),
        ({"data": IMAGES | {"held_out": 0}}, "either held_out images of train are val, or val names a split"),
        ({"data": IMAGES | {"held_out": 100}}, "leaves none of 100"),
        ({"data": IMAGES | {"source": "wds/"}}, "is streamed"),
        ({"data": IMAGES | {"heldout": 1}}, "did you mean 'held_out'"),
        ({"data": IMAGES | {"name": "imges"}}, "did you mean 'images'"),
        (
            {"data": IMAGES | {"shifted": {"a": {"path": "a", "images": 1, "classes": 2, "namedby": 1}}}},
            "did you mean 'named_by'",
        ),
        ({"recipe": {"augment": {"mixup": 0.8, "cut_mix": 1}}}, "did you mean 'cutmix'"),
        ({"recipes": {"finetune": None, "coppy": {}}}, "coppy"),
        ({"scale": {"img_size": 32, "patch_size": 8, "head_dim": 1, "sizes": {}}}, "no pre-trained teachers"),
        ({"evaluation_batch": 1}, "evaluation_batch"),
    ],
)
def test_a_wrong_image_protocol_is_one_clear_line(change, words, tmp_path):
    content = {"data": IMAGES, "recipe": {"batch_size": 16}, "recipes": {"finetune": None}} | change
    if "recipe" in change:
        content["recipe"] = {"batch_size": 16} | change["recipe"]
    with pytest.raises(UserError, match=words) as caught:
        written(tmp_path, extends="imagenet", **content)
    assert "\n" not in str(caught.value) and "mine.yaml" in str(caught.value)


def test_numbers_as_pydantic_reads_them(tmp_path):
    """Quoted ones, and 1e2, which YAML takes for text, give the steps that they say."""
    data = IMAGES | {"train": {"split": "train", "images": "100"}, "held_out": "20"}
    protocol = written(
        tmp_path, extends="imagenet", data=data, recipe={"batch_size": "16", "epochs": "1e1"}, recipes={"finetune": None}
    )
    assert protocol.recipe.steps == 10 * (80 // 16)
    for wrong, said in (({"epochs": "many"}, "recipe.epochs"), ({"batch_size": "few"}, "recipe.batch_size")):
        with pytest.raises(UserError, match=said):
            written(tmp_path, extends="imagenet", data=IMAGES, recipe={"batch_size": 16} | wrong, recipes={"finetune": None})


def test_a_recipe_for_each_method(tmp_path):
    """li2024's: what is copied trains by Copy's recipe, everything else without one of its own by Distillation's."""
    protocol = load_protocol("li2024")[1]
    recipes = {
        arm: run_of(protocol, Cell("li2024", "mae", "large", arm, 0)).protocol.recipe
        for arm in ("standard-none", "standard-copy", "standard-distill", "finetune")
    }
    assert recipes["standard-none"] == recipes["standard-distill"]
    copy, distil = recipes["standard-copy"], recipes["standard-distill"]
    assert (copy.lr, copy.layer_decay, copy.betas[1], copy.ema, copy.drop_path) == (8e-3, 0.75, 0.999, 0.9999, 0)
    assert (distil.lr, distil.weight_decay, distil.betas[1], distil.drop_path, distil.ema) == (8e-4, 0.3, 0.95, 0.2, 0.9999)
    assert (copy.min_lr, distil.min_lr) == (2e-3, 0)
    half = run_of(protocol, Cell("li2024", "mae", "large", "standard-copy+lr=x0.5", 0)).protocol.recipe
    assert (half.lr, half.min_lr) == (4e-3, 1e-3)
    assert round(distil.steps / copy.steps) == 2
    with pytest.raises(UserError, match="there is one of each"):
        run_of(protocol, Cell("li2024", "mae", "large", "standard-copy+recipe=masked", 0))


def test_pinned_weights_are_identity(monkeypatch):
    protocol, cell = load_protocol("imagenet")[1], Cell("imagenet", "mocov3", "base", "standard-copy", 0)
    spec, before = families.spec("mocov3"), run_of(protocol, cell).key
    (small, base) = spec.teachers
    pinned = replace(spec, teachers=(small, replace(base, official=replace(base.official, sha256="0" * 64))))
    monkeypatch.setattr(families, "spec", lambda name: pinned)
    assert run_of(protocol, cell).key != before


def test_stages_follow_what_is_needed():
    study = Study(title="-", arms=["standard-copy+weights=finetuned", "standard-distill+ensemble=finetuned"])
    for protocol, stages in ((validated(Protocol, tiny_protocol(), "tiny"), 4), (load_protocol("imagenet")[1], 3)):
        plan = make_plan("p", protocol, "s", study, [("deit3", "base")], [0, 1])
        level = {item.key: number for number, stage in enumerate(plan.stages) for item in stage}
        assert all(level[each] < level[item.key] for item in plan.items.values() for each in item.requires)
        assert len(plan.stages) <= stages
        assert len(plan.items) == len(level)


def test_an_error_of_memory_names_what_helps():
    errors = (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    for error in errors:
        told = advice_on(error, Setup(micro_batch=64))
        for word in ("--micro-batch below 64", "grad_checkpointing", "bfloat16", "evaluation_batch", "together", "--processes"):
            assert word in told
    assert advice_on(RuntimeError("another"), Setup()) == ""
    assert "--micro-batch N" in advice_on(MemoryError(), Setup())


def test_progress_tells_pace_and_what_is_left():
    from benchmark.execution.live_progress import pace, summary
    from benchmark.storage.work_folder import Progress

    at = Progress(
        state="running", step=10, steps=110, updated=0, batch_size=64, images_per_second=32.0, peak_memory_mb=2048
    )  # fmt: skip
    assert pace(at) == "32 images/s, 2.0 GiB, 3 min 20 s left"
    plan = plan_of("deit", ["standard-copy", "standard-distill"])
    running = [(item, at.model_copy(update={"pid": 1, "step": 10 + number})) for number, item in enumerate(plan.stages[1])]
    assert summary(running) == "deit base standard-copy s0 and 2 beside it 10/110 32 images/s, 2.0 GiB, 3 min 20 s left"
    assert summary([]) == ""
    assert pace(at.model_copy(update={"together": 6})).endswith("20 min 0 s left")
    assert pace(at.model_copy(update={"step": 0})) == "" and pace(Progress(state="running", step=3, steps=4, updated=0)) == ""
