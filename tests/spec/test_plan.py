"""Runs, keys, merging: what is equal is trained once, and a key changes when, and only when, the number can."""

from dataclasses import replace

import pytest
import yaml

import families
from benchmark.spec.arm import Arm
from benchmark.spec.definitions import Definitions, run_of, teacher_run
from benchmark.spec.plan import make_plan, together, units
from benchmark.spec.protocol import Protocol, load_protocol, with_values
from benchmark.spec.records import validated
from benchmark.spec.run import Cell, Run
from benchmark.spec.study import Study, Teachers, load_study
from benchmark.spec.teachers import teachers_of
from benchmark.spec.yaml_files import shipped
from families.spec import UnknownName, UserError

from .. import made
from ..conftest import tiny_protocol

MINI = load_protocol("mini")[1]
TINY = validated(Protocol, tiny_protocol(), "tiny")
MAIN = load_study("main")[1]
SPECS = {name: families.spec(name) for name in families.names()}


def student_run(protocol, family, size, arm, seed):
    return run_of(protocol, Cell("tiny", family, size, arm.name, seed))


def plan_for(names, sizes=None, seeds=(0, 1), study="main"):
    return make_plan("tiny", TINY, study, load_study(study)[1], teachers_of(names, sizes), seeds)


def test_a_family_with_native_parts():
    plan = plan_for("deit3", "base", seeds=(0, 1, 2))
    assert len(plan.items) == (6 + 1) * 3
    assert plan.distinct_comparisons == 4
    first, second = plan.stages
    assert [(item.run.role, item.run.seed) for item in first] == [("teacher", seed) for seed in range(3)]
    taught = {item.run.seed: item.key for item in first}
    assert all(item.requires in ((), (taught[item.run.seed],)) for item in second)  # seed k's student, seed k's teacher
    assert {item.requires for item in second} == {(), *((key,) for key in taught.values())}


def test_what_trains_together():
    """The arms of one teacher and one seed; a baseline that serves several teachers joins one of them."""
    items = plan_for("deit3,dinov2", "base", seeds=(0, 1)).stages[1]
    groups = together(items)
    assert sorted(len(group) for group in groups) == [5, 5, 6, 6]
    for group in groups:
        assert len({item.run.seed for item in group}) == 1
        assert len({item.requires for item in group if item.requires}) == 1
    assert sorted(item.key for group in groups for item in group) == sorted(item.key for item in items)
    for group in groups:  # every run stands beside the arms of a teacher whose cells it fills
        (place,) = {(cell.family, cell.size) for item in group if item.requires for cell in item.cells}
        assert all(place in {(cell.family, cell.size) for cell in item.cells} for item in group)
    teachers = plan_for("deit3,dinov2", "base").stages[0]
    assert [len(group) for group in together(teachers)] == [1] * 4


def test_units_of_work():
    """Groups stay whole while there are enough of them; one group is shared out among idle workers."""
    items = plan_for("deit3,dinov2", "base", seeds=(0, 1)).stages[1]
    assert [len(unit) for unit in units(items, 1, 12)] == [6, 6, 5, 5]
    one = together(items)[0]
    shares = units(one, 2, 12)
    assert max(map(len, units(items, 1, 4))) <= 4
    assert [one[0]] in units(one, 1, 12, alone={one[0].key})
    assert len(shares) == 4 and sorted(item.key for unit in shares for item in unit) == sorted(item.key for item in one)


def test_families_without_native_parts_share_every_run():
    """DeiT, DINO, iBOT and AugReg are one architecture on mini: one training, a cell in each family's folder."""
    plan = plan_for("deit,dino,ibot,augreg", "base")
    alone = plan_for("deit", "base")
    assert set(plan.items) == set(alone.items)
    assert len(alone.items) == (3 + 1) * 2
    assert len(plan.cells) == 4 * len(alone.cells) == 4 * (6 + 1) * 2
    assert plan.distinct_comparisons == alone.distinct_comparisons == 2


def test_one_baseline_serves_all_families_of_a_geometry():
    plan = plan_for("all", "base")
    baseline = [item for item in plan.items.values() if any(cell.arm == "standard-none" for cell in item.cells)]
    assert len(baseline) == 2
    assert {cell.family for cell in baseline[0].cells} == {name for name, spec in SPECS.items() if "base" in spec.sizes}


def test_narrow_heads_stay_narrow():
    """MoCo v3's small model has twice DeiT's heads, and so has its student; its baseline is another one than DeiT's."""
    small = [student_run(TINY, family, "small", Arm.parse("standard-none"), 0) for family in ("deit", "mocov3")]
    assert [run.student.geometry.num_heads for run in small] == [3, 6]
    base = [student_run(TINY, family, "base", Arm.parse("standard-none"), 0) for family in ("deit", "mocov3")]
    assert base[0] == base[1]


def test_the_key_is_frozen():
    """This key must never change: results lie under it."""
    text = """
    protocol:
      data: {name: cued_digits, imbalance: 2}
      normalisation: {mean: [0, 0, 0], std: [1, 1, 1]}
      head: token
      recipe: {steps: 5, batch_size: 4, lr: 0.1, warmup: 0, weight_decay: 0}
    student:
      geometry: {img_size: 24, patch_size: 8, embed_dim: 48, depth: 2, num_heads: 3}
      components: {layer_scale: {args: {init_values: 0.1}, initial: {"*.ls?.gamma": {Constant: {value: 0.1}}}}}
    transfer: {method: distill, blocks: [0, 1], loss: ce, weight: 1}
    teacher: {run: "0123456789abcdef"}
    seed: 3
    """
    run = Run.model_validate(yaml.safe_load(text))
    assert run.key == "da38dd45621ba97b"
    spelt_out = Run.model_validate(run.model_dump(mode="json"))
    assert spelt_out.key == run.key


def test_values_set_on_the_command_line_are_those_of_a_file(tmp_path):
    """As if a file said so, steps in place of epochs too; a name says which; order does not matter."""
    (tmp_path / "mine.yaml").write_text("extends: imagenet\nrecipe: {steps: 20, lr: 0.01}\n")
    word = with_values("imagenet", ["recipe.steps=20", "recipe.lr=0.01"])
    assert (
        word
        == with_values(with_values("imagenet", ["recipe.lr=0.01"]), ["recipe.steps=20"])
        == "imagenet+recipe.lr=0.01+recipe.steps=20"
    )
    name, protocol = load_protocol(word)
    assert (name, protocol) == (word, load_protocol(str(tmp_path / "mine.yaml"))[1])
    assert load_protocol(with_values(str(tmp_path / "mine.yaml"), ["head=token"]))[0] == "mine+head=token"
    assert protocol.recipe.steps == 20 != load_protocol("imagenet")[1].recipe.steps


def test_an_input_size_and_the_rule_of_its_position_tables_are_part_of_the_key(monkeypatch):
    """Where a file's own size is taken there is no rule, and the key is that of a protocol without an input size."""
    protocol = load_protocol("imagenet")[1]

    def run_at(img_size, family, size="small", arm="standard-copy"):
        return run_of(protocol.model_copy(update={"img_size": img_size}), Cell("imagenet", family, size, arm, 0))

    for family in ("deit", "mocov3", "dinov2"):
        plain = run_of(protocol, Cell("imagenet", family, "small", "standard-copy", 0))
        assert run_at(224, family).key == plain.key != run_at(112, family).key
        assert run_at(112, family).student.geometry.img_size == 112
        assert run_at(112, family).teacher.positions == families.spec(family).positions
        assert ("positions" in plain.teacher.model_dump()) == (family == "dinov2")  # 518 px
    assert run_at(None, "deit").teacher.model_dump() == {"weights": "deit_small_patch16_224.fb_in1k"}
    assert run_at(518, "dinov2").teacher.positions is None
    assert run_at(112, "deit", arm="standard-none").teacher is None

    before = run_at(112, "deit"), run_at(224, "deit")
    monkeypatch.setattr("families.spec", lambda name: replace(SPECS[name], positions="bilinear"))
    assert [run.key == run_at(size, "deit").key for run, size in zip(before, (112, 224), strict=True)] == [False, True]
    with pytest.raises(UserError, match="img_size 225: no multiple of 14.*: 224 and 238"):
        run_at(225, "dinov2")


def test_students_learn_from_few_images_and_their_teachers_from_all():
    protocol = load_protocol("fashion_mini")[1]
    student, teacher = (
        student_run(protocol, "deit", "base", Arm.parse("standard-copy"), 0),
        teacher_run(protocol, "deit", "base", 0),
    )
    assert (student.protocol.data.training_images, student.settings.data.training_images) == (1000, 1000)
    assert (teacher.protocol.data.training_images, teacher.settings.data.training_images) == (55_000, 55_000)
    assert protocol.teacher.recipe.steps == 4 * (55_000 // 128)
    everything = load_protocol("fashion_mini")[1].model_copy(update={"data": protocol.data.of_teachers})
    assert student_run(everything, "deit", "base", Arm.parse("standard-copy"), 0).key != student.key
    assert teacher_run(everything, "deit", "base", 0).key == teacher.key
    content = {"data": {"name": "images", "source": "torchvision/FashionMNIST", "held_out": 5000, "student_images": 256}}
    recipe = {"epochs": 3, "batch_size": 128, "lr": 1, "warmup": 0, "weight_decay": 0}
    assert validated(Protocol, protocol.model_dump() | content | {"recipe": recipe}, "mine").recipe.steps == 3 * 2


def test_what_changes_a_key():
    base = student_run(TINY, "deit3", "base", Arm.parse("matched-distill"), 0)
    content = tiny_protocol()
    content["teacher"]["recipe"]["lr"] = 1e-3
    other_teacher = validated(Protocol, content, "tiny")
    assert student_run(other_teacher, "deit3", "base", Arm.parse("matched-distill"), 0).key != base.key
    assert student_run(other_teacher, "deit3", "base", Arm.parse("matched-none"), 0) == student_run(
        TINY, "deit3", "base", Arm.parse("matched-none"), 0
    )
    renamed = validated(Protocol, tiny_protocol(title="Another", description="-", seeds=[5], curve_points=1), "tiny")
    assert student_run(renamed, "deit3", "base", Arm.parse("matched-distill"), 0).key == base.key
    for text in ("matched-copy", "standard-distill", "matched-distill+budget=x2"):
        assert student_run(TINY, "deit3", "base", Arm.parse(text), 0).key != base.key
    assert student_run(TINY, "deit3", "base", Arm.parse("matched-distill"), 1).key != base.key
    # BEiT v2's LayerScale starts at .1 in base and 1e-5 in large: the value is part of the identity.
    beit = [student_run(TINY, "beitv2", size, Arm.parse("matched-none"), 0) for size in ("base", "large")]
    assert beit[0].key != beit[1].key


def test_what_runs_are_measured_on_changes_no_key():
    """Nor do the batch of evaluation and, where training images are augmented, their crop. But what training uses does."""

    def key(arm, **data):
        content = tiny_protocol()
        content["data"] |= data
        return student_run(validated(Protocol, content, "tiny"), "deit3", "base", Arm.parse(arm), 0).key

    for arm in ("standard-none", "matched-distill", "standard-copy+source=other-image"):
        usual = key(arm)
        assert key(arm, val_images=7) == key(arm, test_images=9) == key(arm, noise_std=0.1) == usual
        assert key(arm, hues=0.5) != usual != key(arm, imbalance=2)
    average = "standard-copy+source=average"  # of maps over val
    assert key(average, val_images=7) != key(average) == key(average, test_images=9)
    batch = validated(Protocol, tiny_protocol(evaluation_batch=7), "tiny")
    assert student_run(batch, "deit3", "base", Arm.parse("matched-distill"), 0).key == key("matched-distill")

    imagenet = load_protocol("imagenet")[1]

    def of_imagenet(arm, augmented=True, **data):
        changed = imagenet.model_copy(update={"data": imagenet.data.model_copy(update=data)})
        if not augmented:
            plain = imagenet.recipe.model_copy(update={"augment": None})
            changed = changed.model_copy(update={"recipe": plain, "recipes": {}})
        return run_of(changed, Cell("imagenet", "deit", "base", arm, 0)).key

    for arm in ("standard-none", "standard-distill"):
        usual = of_imagenet(arm)
        assert of_imagenet(arm, shifted={}) == of_imagenet(arm, crop_pct=0.9) == usual
        assert of_imagenet(arm, test=imagenet.data.test.model_copy(update={"images": 7})) == usual
        assert of_imagenet(arm, held_out=7) != usual
        assert of_imagenet(arm, False, crop_pct=0.9) != of_imagenet(arm, False)
    assert of_imagenet(average, crop_pct=0.9) != of_imagenet(average)


def test_evaluations_do_not_train_with_students():
    """Each is a unit of its own, though its run is a student's that others train beside."""
    study = Study(
        title="-", arms=["standard-none+ensemble=finetuned", "standard-copy+weights=finetuned", "matched-none+match=end"]
    )
    plan = make_plan("tiny", TINY, "s", study, [("deit3", "base")], [0])
    groups = together(plan.items.values())
    assert all(len(group) == 1 for group in groups if any(item.evaluation for item in group))
    assert sum(any(item.evaluation for item in group) for group in groups) == 2


def test_uniform_attention_has_no_teacher():
    """So it is one run for all families whose students are alike, and needs none first."""
    arm = "standard-copy+source=uniform"
    runs = [student_run(TINY, family, "base", Arm.parse(arm), 0) for family in ("deit", "dinov2_reg", "clip")]
    assert len({run.key for run in runs}) == 1 and runs[0].teacher is None
    plan = make_plan("tiny", TINY, "s", Study(title="-", arms=[arm]), [("dinov2_reg", "base")], [0])
    assert [item.run.role for item in plan.items.values()] == ["student", "student"]
    assert student_run(TINY, "deit", "base", Arm.parse("standard-distill+source=uniform"), 0).teacher is None
    assert student_run(TINY, "deit", "base", Arm.parse("standard-copy"), 0).teacher is not None


def test_equal_runs_with_other_evaluation_sets_are_refused():
    content = tiny_protocol()
    content["datasets"] = {"harder": content["data"] | {"noise_std": 0.9}}
    protocol = validated(Protocol, content, "tiny")
    study = Study(title="-", arms=["standard-none", "standard-none+data=harder"])
    with pytest.raises(UserError, match="are one training, but with other test sets"):
        make_plan("tiny", protocol, "s", study, [("deit", "base")], [0])


def test_teacher_and_student_seeds_are_apart():
    plain = teacher_run(TINY, "deit", "base", 0)
    assert plain.role == "teacher"
    assert plain.key != teacher_run(TINY, "deit", "base", 1).key


def test_arms_read_as_they_are_written():
    arm = Arm.parse("standard-copy+budget=x0.5+source=other-image")
    assert (arm.budget, arm.source) == (0.5, "other-image")
    assert arm.baseline.name == "standard-none+budget=x0.5"
    for wrong, words in [
        ("standart-copy", "student"),
        ("standard-clone", "method"),
        ("standard-copy+bugdet=x2", "did you mean 'budget'"),
        ("standard-copy+budget=x0", "greater than 0"),
        ("standard-copy+budget=x1", "write it 'standard-copy'"),
        ("standard-none+source=uniform", "source goes with copy, distill, not with none"),
    ]:
        with pytest.raises(UserError, match=words):
            Arm.parse(wrong)


def test_every_cell_leads_back_to_its_run():
    plan = plan_for("papers")
    for item in plan.items.values():
        for cell in item.cells:
            assert run_of(TINY, cell).key == item.key


def test_definitions_are_those_of_each_cell_alone():
    """What is made once for many seeds is what each seed's cell gives."""
    variants = ("+weights=finetuned", "+ensemble=finetuned", "+source=untrained", "+budget=x2", "+source=uniform")
    arms = ["teacher", "finetune", "standard-none", "matched-distill", *(f"standard-copy{variant}" for variant in variants)]
    for name, protocol in (("tiny", TINY), ("imagenet", load_protocol("imagenet")[1])):
        defined = Definitions(protocol)
        for arm in arms if protocol.teacher else set(arms) - {"teacher"}:
            runs = [defined.run_of(Cell(name, "deit3", "base", arm, seed)) for seed in (2, 0, 1)]
            assert runs == [run_of(protocol, Cell(name, "deit3", "base", arm, seed)) for seed in (2, 0, 1)]
            assert len({run.key for run in runs}) == 3


def test_a_changed_copy_is_named_by_what_it_is():
    """What a record was asked for once (a run's key, an arm's name, a result's run) is no copy's."""
    run = run_of(TINY, Cell("tiny", "deit3", "base", "standard-none", 0))
    assert run.model_copy(update={"seed": 1}).key == run_of(TINY, Cell("tiny", "deit3", "base", "standard-none", 1)).key
    assert run.key == run.model_copy().key != run.model_copy(update={"seed": 1}).key
    assert run.model_copy(update={"seed": 1}, deep=True).model_copy(update={"seed": 0}) == run
    arm = Arm.parse("matched-copy+budget=x3")
    assert (arm.name, arm.baseline.name) == ("matched-copy+budget=x3", "matched-none+budget=x3")
    assert arm.standard.name == "standard-copy+budget=x3"
    other = arm.model_copy(update={"budget": 1.0, "method": "distill"})
    assert (other.name, other.baseline.name, other.standard.name) == ("matched-distill", "matched-none", "standard-distill")
    (result,) = made.results({("deit3", "base", "standard-copy"): [50.0]})
    moved = result.model_copy(update={"run": result.run.model_copy(update={"seed": result.run.run.seed + 7})})
    assert (result.cell.seed, moved.cell.seed, moved.run.run.seed) == (0, 7, 7)
    assert moved.run.run.key != result.key == result.run.run.key


def test_one_definition_of_a_run_serves_every_plan():
    """What plans share gives each what it has alone, whichever was made first."""
    names = ("main", "native", "ensemble", "match", "main")
    shared, places = Definitions(TINY), teachers_of("deit3,beitv2", "base")
    for name in names:
        study = load_study(name)[1]
        alone = make_plan("tiny", TINY, name, study, places, [0, 1])
        assert make_plan("tiny", TINY, name, study, places, [0, 1], shared) == alone


def test_two_runs_for_one_path_are_refused(monkeypatch):
    monkeypatch.setattr(Cell, "path", property(lambda self: f"{self.family}/{self.size}/{self.arm}"))
    with pytest.raises(UserError, match="two different runs claim"):
        plan_for("deit3", "base", seeds=(0, 1))


def test_requests_name_what_is_wrong():
    with pytest.raises(UnknownName, match="did you mean 'deit3'.*beitv2"):
        teachers_of("diet3", None)
    with pytest.raises(UnknownName, match="unknown size of dino: 'large'; valid: small, base"):
        teachers_of("deit3,dino", "base,large")
    with pytest.raises(UnknownName, match="unknown size: 'lrage'; did you mean 'large'"):
        teachers_of("all", "base,lrage")
    with pytest.raises(UnknownName, match="unknown size: 'giant'"):
        teachers_of("all", "giant")
    with pytest.raises(UnknownName, match="unknown size: 'huge'; valid: base, large, small"):
        teachers_of("papers", "huge")
    assert ("dino", "base") in teachers_of("all", "base") and ("dino", "small") not in teachers_of("all", "base")


def test_sets_of_families():
    """`papers` is the default; a study that names its families means these, whichever set is asked for."""
    papers, every = teachers_of("papers", None), teachers_of("all", None)
    assert len(papers) == 20 and len({family for family, _ in papers}) == 11 and set(papers) < set(every)
    assert {family for family, _ in every} == set(families.names())
    assert teachers_of("papers,dinov3,deit", "base") == [*teachers_of("papers", "base"), ("dinov3", "base")]
    named, native = Teachers(families=("siglip2", "deit")), Teachers(native="rope")
    for word in ("papers", "all"):
        assert {family for family, _ in teachers_of(word, None, named)} == {"siglip2", "deit"}
    assert teachers_of("papers", None, native) == [] and ("dinov3", "base") in teachers_of("all", None, native)


def test_components_of_some_sizes_alone():
    """A component or a value can be of some sizes; a student of another cannot be asked for it."""
    dinov3, eva02 = SPECS["dinov3"], SPECS["eva02"]
    assert "swiglu" in dinov3.components("small_plus") and "swiglu" not in dinov3.components("small")
    assert "sub_ln" in eva02.components("large_m38m") and "sub_ln" not in eva02.components("small")
    fused = [eva02.components(size)["no_k_bias"].args["qkv_fused"] for size in ("tiny", "base", "large_m38m")]
    assert fused == [True, False, False]
    mini = make_plan("mini", MINI, "components", load_study("components")[1], [("eva02", "tiny")], [0])
    assert not [cell for cell in mini.cells if "sub_ln" in cell.arm]
    with pytest.raises(UnknownName, match="unknown native component of eva02 tiny: 'sub_ln'; valid: swiglu, rope, no_k_bias"):
        run_of(MINI, Cell("mini", "eva02", "tiny", "matched-copy+native=sub_ln", 0))


def test_heads_that_do_not_divide_a_small_width():
    """Take the next smaller size that divides it, in fours for rotary embeddings; others keep theirs."""
    heads = {
        (family, size): run_of(MINI, Cell("mini", family, size, "standard-none", 0)).student.geometry.num_heads
        for family, size in (("aimv2", "large"), ("ijepa", "huge"), ("sbb", "medium"), ("deit", "base"), ("pe_core", "tiny"))
    }
    widths = {"large": 80, "huge": 96, "medium": 56, "base": 64, "tiny": 32}
    sizes = {place: widths[place[1]] // count for place, count in heads.items()}
    assert list(sizes.values()) == [20, 16, 8, 16, 16]


def test_what_a_protocol_offers():
    """To claims: follows from its teachers, and is declared of its task. It changes no run."""
    needs = ("pretrained", "unsaturated")
    found = {name: load_protocol(name)[1].lacks(needs) for name in shipped("protocols")}
    assert found.pop("mini") == needs and found.pop("fashion_mini") == ("pretrained",) and not any(found.values())
    assert MINI.lacks(()) == () and MINI.lacks(("unsaturated",)) == ("unsaturated",)
    solved, open_ended = (MINI.model_copy(update={"saturated": each}) for each in (True, False))
    assert open_ended.lacks(needs) == ("pretrained",)
    study = load_study("main")[1]
    plans = [make_plan("mini", each, "main", study, [("deit3", "base")], [0, 1]) for each in (solved, open_ended)]
    assert list(plans[0].items) == list(plans[1].items) and len(plans[0].items) > 12


OTHER_STUDIES = pytest.param([name for name in shipped("studies") if name != "main"], id="others", marks=pytest.mark.long)


@pytest.mark.parametrize("studies", [pytest.param(["main"], id="main"), OTHER_STUDIES])
@pytest.mark.parametrize("name", shipped("protocols"))
def test_shipped_protocols_fit_every_teacher(name, studies):
    protocol = load_protocol(name)[1]
    for study in studies:
        content = load_study(study)[1]
        pool = "all" if study in ("main", "components") else "papers"
        teachers = teachers_of(pool, None, content.teachers)
        if study == "cross" and protocol.transfer.teacher_drop_path:  # blocks of two depths cannot be dropped together
            with pytest.raises(UserError, match="has all blocks transferred, and its teacher no stochastic depth"):
                make_plan(name, protocol, study, content, teachers, protocol.seeds[:1])
            continue
        make_plan(name, protocol, study, content, teachers, protocol.seeds[:1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipee": {}}, "unknown key 'recipee'; did you mean 'recipe'"),
        ({"head": "cls"}, "head: Input should be 'token' or 'avg'"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "seeds: a seed is listed twice"),
        ({"seeds": [-1]}, "seeds"),
        ({"scale": tiny_protocol()["scale"] | {"sizes": {"base": {"embed_dimm": 4, "depth": 1}}}}, "did you mean 'embed_dim'"),
        ({"transfer": {"blocks": "all", "loss": "ce", "weight": -1}}, "transfer.weight"),
        (
            {"recipe": {"steps": 4, "batch_size": 16, "lr": 1, "warmup": 0, "weight_decay": 0, "learning_rate": 2}},
            "recipe.learning_rate",
        ),
    ],
)
def test_a_wrong_protocol_file_is_one_clear_line(change, words):
    with pytest.raises(UserError, match=words) as caught:
        validated(Protocol, tiny_protocol(**change), "file.yaml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("file.yaml: ")


def test_a_study_brings_its_baselines():
    study = Study(title="-", arms=["matched-copy+budget=x2"])
    plan = make_plan("tiny", TINY, "s", study, [("deit3", "base")], [0])
    assert {cell.arm for cell in plan.cells} == {"teacher", "matched-copy+budget=x2", "matched-none+budget=x2"}


def test_a_request_that_leaves_nothing_to_train():
    with pytest.raises(UserError, match="4 steps times 0.01 leaves none"):
        make_plan("tiny", TINY, "s", Study(title="-", arms=["standard-none+budget=x0.01"]), [("deit3", "base")], [0])
    content = tiny_protocol()
    content["scale"]["head_dim"] = 0.001
    with pytest.raises(UserError, match="scale.head_dim 0.001: leaves no channel of a head of deit3_base"):
        student_run(validated(Protocol, content, "tiny"), "deit3", "base", Arm.parse("standard-none"), 0)


def test_what_a_family_file_says_of_its_host_is_identity(monkeypatch):
    """A corrected switch changes the key, so that results of the wrong one show as stale."""
    arm, spec = Arm.parse("matched-none"), families.spec("beitv2")
    before = student_run(TINY, "beitv2", "base", arm, 0).key
    host = replace(spec.host, standard={**spec.host.standard, "use_abs_pos_emb": False})
    monkeypatch.setattr(families, "spec", lambda name: replace(spec, host=host))
    assert student_run(TINY, "beitv2", "base", arm, 0).key != before


def test_blocks_to_transfer():
    settings = TINY.transfer
    assert settings.indices(3) == (0, 1, 2)
    assert settings.model_copy(update={"blocks": 2}).indices(12) == (0, 1)
    assert settings.model_copy(update={"blocks": -3}).indices(12) == tuple(range(9))
    with pytest.raises(UserError, match="leaves -1"):
        settings.model_copy(update={"blocks": -3}).indices(2)
