"""Studies: what each would train, how their words become runs, and runs of every kind from a study of the user's own."""

import json
import re
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
import yaml

import families
from benchmark.data import DataLocation, load
from benchmark.execution.setup import place_of
from benchmark.reporting.gather import gather
from benchmark.reporting.tables import tables
from benchmark.spec.arm import Arm, trained_arm, with_evaluation
from benchmark.spec.definitions import run_of
from benchmark.spec.plan import arms_of, make_plan
from benchmark.spec.protocol import Protocol, load_protocol
from benchmark.spec.records import validated
from benchmark.spec.run import Cell
from benchmark.spec.study import Study, load_study
from benchmark.spec.teacher_source import Trained
from benchmark.spec.teachers import spelt_out, teachers_of
from benchmark.spec.yaml_files import shipped
from benchmark.storage.result_file import Result
from benchmark.training.models import REINIT_PATTERNS, frozen_teacher, model_of, student_of
from benchmark.training.simmim import SimMIM
from families.spec import UnknownName, UserError

from .. import made
from ..conftest import perturbed, tiny_protocol
from ..data.test_data import NORMALISATION, SETTINGS
from ..families.test_attention import ARGS, images
from ..training.test_train import WEIGHTS, fit, item_of, numbers

NATIVE = [name for name in families.names() if families.spec(name).native]
OTHERS = len({*NATIVE} & {*families.members("papers")} - {"dinov2"})  # families whose components a student of DINOv2 can have
MINI, IMAGENET = (load_protocol(name)[1] for name in ("mini", "imagenet"))
# Runs of `bench run --study NAME --family FAMILY --sizes base`, three seeds: arms x 3, and on mini three teachers (of `recipes`
# six). What differs between the protocols is said beside it.
RUNS = {
    "main": ("dinov2_reg", 6 * 3 + 3, 6 * 3),
    "sizes": ("dinov2_reg", 3 * 3 + 3, 3 * 3),
    "schedule": ("dinov2_reg", 9 * 3 + 3, 9 * 3),
    "datasets": ("dinov2_reg", 2 * 3 * 3 + 3, 3 * 3 * 3),  # two other tasks on mini; iNaturalist 2017, 2018, 2019
    "shift": ("dinov2_reg", 4 * 3 + 3, 4 * 3),
    # Copy and Distillation of all; on mini's 4 blocks first 1-3, last 1-3, and 2 of the 4 alone that are neither; of 12 blocks
    # first 3 and 6 (9 is what imagenet transfers), last 3, 6 and 9, and each alone.
    "layers": ("dinov2_reg", (1 + 2 * (1 + 3 + 3 + 2)) * 3 + 3, (1 + 2 * (1 + 2 + 3 + 12)) * 3),
    "parts": ("dinov2_reg", 11 * 3 + 3, 11 * 3),
    "reinit": ("dinov2_reg", 4 * 3 + 3, 4 * 3),
    "match": ("dinov2_reg", 4 * 3 + 3, 4 * 3),  # and 4 * 3 evaluations
    "native": ("dinov2_reg", 6 * 3 + 3, 6 * 3),
    "control": ("dinov2_reg", 2 * 3, 2 * 3),
    "components": ("dinov2_reg", (6 + 2 * 3) * 3 + 3, (6 + 2 * 3) * 3),  # of two, all but one is the other one alone
    "losses": ("dinov2_reg", 19 * 3 + 3, 19 * 3),
    "recipes": ("deit", (3 + 2) * 3 + 2 * 3, 3 * 3),  # on imagenet other families are the other recipes
    "finetuned": ("dinov2_reg", 6 * 3 + 3, 6 * 3),
    "ensemble": ("dinov2_reg", 4 * 3 + 3, 4 * 3),  # and 3 * 3 evaluations
    "foreign": ("dinov2", (6 + OTHERS * 3) * 3 + 3, (6 + OTHERS * 3) * 3),
    "init": ("dinov2_reg", (3 + 2 + 3 + 3 * 3) * 3 + 3, (3 + 2 + 3 + 3 * 3) * 3),  # 1e-5 is where it starts anyhow
    "sinks": ("dinov2_reg", 11 * 3 + 3, 11 * 3),
    "nulls": ("dinov2_reg", 18 * 3 + 3, 18 * 3),
    "tuning": ("dinov2_reg", 18 * 3 + 3, 18 * 3),
    "budget": ("dinov2_reg", 30 * 3 + 3, 30 * 3),
    "starts": ("dinov2_reg", 5 * 3 + 3, 5 * 3),
    "cross": ("dinov2_reg", 12 * 3 + 3, 12 * 3),
    "mismatch": ("siglip2", 6 * 3 + 3, 6 * 3),
    "rope": ("rope_vit_mixed", 9 * 3 + 3, 9 * 3),
    "tokens": ("flexivit", 6 * 3 + 3, 6 * 3),
    "detection": ("dinov2_reg", 7 * 3 + 3 + 7 * 3, None),  # each arm as a detector too; imagenet has no task
}


def test_every_study_is_listed(bench):
    code, out, _ = bench("list", "studies", "--json")
    assert code == 0
    assert {each["name"] for each in json.loads(out)["studies"]} == set(RUNS) == set(shipped("studies"))


@pytest.mark.parametrize("study", RUNS)
def test_what_each_study_trains(study, bench, tmp_path):
    family, *expected = RUNS[study]
    for protocol, runs in zip(("mini", "imagenet"), expected, strict=True):
        words = ["--study", study, "--family", family, "--sizes", "base", "--protocol", protocol, "--dry-run", "--json"]
        code, out, err = bench("run", *words, "--results", tmp_path / "results", "--work", tmp_path / "work")
        if runs is None:
            assert code == 2 and "has no arm" in err
            continue
        assert code == 0, err
        assert json.loads(out)["runs"] == runs, protocol
        assert json.loads(out)["evaluations"] == {"match": 4 * 3, "ensemble": 3 * 3}.get(study, 0)


def test_studies_share_their_runs():
    """One training serves every study that has it: by key, of one teacher."""
    keys = {}
    for study, (family, *_) in RUNS.items():
        if family == "dinov2_reg":
            content = load_study(study)[1]
            keys[study] = set(make_plan("mini", MINI, study, content, [(family, "base")], [0, 1, 2]).items)
    assert keys["main"] == keys["native"]
    for study in ("components", "init", "tuning"):
        assert keys["main"] < keys[study]
    assert keys["sizes"] < keys["main"] and keys["control"] < keys["main"]
    assert keys["reinit"] & keys["shift"] & keys["ensemble"] & keys["finetuned"]
    assert len(set.union(*keys.values())) < sum(map(len, keys.values())) * 0.7


def test_the_same_task_by_two_protocols_is_one_run():
    """A data set that is another protocol's gives that protocol's run, with this one's teacher: the same pre-trained one."""
    for arm in ("standard-none", "standard-copy", "matched-distill"):
        here = run_of(IMAGENET, Cell("imagenet", "dinov2", "base", f"{arm}+data=inat2018", 0))
        there = run_of(load_protocol("inat2018")[1], Cell("inat2018", "dinov2", "base", arm, 0))
        assert here.key == there.key
    mini = run_of(MINI, Cell("mini", "dinov2", "base", "standard-copy", 0))
    other = run_of(MINI, Cell("mini", "dinov2", "base", "standard-copy+data=long_tailed", 0))
    assert other.key != mini.key and other.teacher == mini.teacher


# ---- words


def test_which_teachers_a_study_is_for():
    def names(study):
        return sorted({family for family, _ in teachers_of("all", None, load_study(study)[1].teachers)})

    several = [name for name in families.names() if len(families.spec(name).sizes) > 1]
    assert names("sizes") == several and "clip" not in several
    assert names("control") == names("components") == NATIVE
    assert names("recipes") == [name for name in families.names() if name not in NATIVE]
    assert names("foreign") == ["deit", "dinov2"]
    assert {"beitv2", "deit3", "dinov2", "dinov2_reg"} <= set(names("init")) <= set(NATIVE) - {"clip", "mae", "mocov3"}
    assert teachers_of("deit", "base", load_study("init")[1].teachers) == [("deit", "base")]  # what is named is taken
    misspelt = Study(title="-", arms=["standard-none"], teachers={"families": ["diet"]})
    with pytest.raises(UnknownName, match="did you mean 'deit'"):
        teachers_of("all", None, misspelt.teachers)


def filled(protocol, family, size, *arms):
    return arms_of(protocol, Study(title="-", arms=arms), family, size)


def test_what_a_star_stands_for():
    assert filled(MINI, "deit", "base", "standard-copy+blocks=first-*") == tuple(
        f"standard-copy+blocks=first-{k}" for k in (1, 2, 3)
    )
    large = filled(IMAGENET, "mae", "large", "standard-copy+blocks=last-*")
    assert large == tuple(f"standard-copy+blocks=last-{k}" for k in (6, 12, 18))
    assert len(filled(IMAGENET, "mae", "large", "standard-copy+blocks=only-*")) == 24
    beit = [component.name for component in families.spec("beitv2").native]
    alone = filled(MINI, "beitv2", "base", "matched-copy+native=*")
    assert alone == tuple(f"matched-copy+native={name}" for name in beit)
    assert filled(MINI, "deit", "base", "standard-none", "matched-copy+native=*") == ("standard-none",)
    others = filled(MINI, "deit", "small", "matched-none+of=*")
    assert "matched-none+of=dinov2" in others
    assert "matched-none+of=beitv2" not in others  # its LayerScale's start is not known for a small model
    with pytest.raises(UserError, match="layer_scale is known to start at some value for base, large, not for small"):
        run_of(MINI, Cell("mini", "deit", "small", "matched-none+of=beitv2", 0))


def test_arms_that_are_the_same_run_are_there_once():
    """One component alone is the matched student; the first block alone is the first one."""
    arms = ("matched-copy", "matched-copy+native=*", "matched-copy+without=*")
    assert filled(MINI, "dinov2", "base", *arms) == ("matched-copy", "matched-copy+without=layer_scale")
    assert filled(MINI, "dinov2_reg", "base", *arms)[1:] == (
        "matched-copy+native=layer_scale",
        "matched-copy+native=registers",
    )
    blocks = filled(MINI, "deit", "base", "standard-copy+blocks=first-*", "standard-copy+blocks=only-*")
    assert blocks[3:] == tuple(f"standard-copy+blocks=only-{k}" for k in (1, 2, 3))
    # A matched student that is the standard one stays: each family's folder is complete by itself.
    assert filled(MINI, "deit", "base", "standard-none+budget=x2", "matched-none+budget=x2")[1:] == ("matched-none+budget=x2",)


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ("standard-none+source=uniform", "source goes with copy, distill, not with none"),
        ("standard-copy+native=registers", "native goes with a matched student"),
        ("standard-copy+loss=mse", "loss goes with distill, not with copy"),
        ("standard-copy+part=logits", "Copy of the logits is Copy of the map"),
        ("standard-distill+part=q", "give loss=mse or loss=cosine"),
        ("matched-copy+native=a+without=b", "give one of them"),
        ("standard-copy+part=v+source=average", "sinks and a source without an image are of the map"),
        ("standard-copy+source=untrained+weights=folded", "an untrained teacher has no weights"),
        ("standard-copy+blocks=4", "blocks: String should match pattern"),
        ("standard-distill+loss=l1", "loss: Input should be 'ce', 'cosine', 'kl' or 'mse'"),
        ("standard-copy+match=end", "match goes with none"),
        ("standard-copy+ensemble=finetuned+recipe=masked", "the usual one"),
        ("standard-distill+weight=x1000000", "write it 'standard-distill+weight=x1e06'"),
        ("matched-copy+native=registers,layer_scale", "in alphabetical order"),
        ("standard-copy+blocks=only-00", "blocks: String should match pattern"),
        ("finetune+reinit=heads", "'attention' or 'mlp'"),
        ("matched-copy+gamma=0.00001", "write it 'matched-copy+gamma=1e-05'"),
        ("standard-copy+blcoks=first-1", "did you mean 'blocks'"),
        ("standard-copy+source=*", "* stands for what a teacher has of data, task, blocks, recipe, of, native"),
    ],
)
def test_a_wrong_arm_is_one_clear_line(arm, words):
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        validated(Study, {"title": "-", "arms": [arm]}, "mine.yaml")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("mine.yaml: ")


@pytest.mark.parametrize(
    ("family", "arm", "words"),
    [
        ("dinov2", "matched-copy+native=registers", "unknown native component of DINOv2: 'registers'; valid: layer_scale"),
        ("dinov2", "matched-copy+without=layerscale", "did you mean 'layer_scale'"),
        ("deit", "matched-copy+gamma=1", "deit's matched student has no layer_scale"),
        ("dinov2_reg", "matched-copy+gamma=1+without=layer_scale", "has no layer_scale here"),
        ("deit", "standard-copy+weights=folded", "deit has no layer_scale to fold"),
        ("deit", "matched-copy+of=dinov", "unknown family: 'dinov'; did you mean 'dino"),
        ("deit", "standard-copy+blocks=first-5", "the teacher has 4 blocks"),
        ("deit", "standard-copy+blocks=only-4", "4 blocks, counted from 0"),
        ("deit", "standard-none+data=longtailed", "did you mean 'long_tailed'"),
        ("deit", "standard-copy+recipe=maskd", "did you mean 'masked'"),
    ],
)
def test_an_arm_that_a_teacher_cannot_have(family, arm, words, tmp_path, bench):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"title": "Mine", "arms": [arm]}))
    code, _, err = bench("run", "--study", path, "--family", family, "--sizes", "base", "--dry-run", "--work", tmp_path)
    assert code == 2 and len(err.strip().splitlines()) == 1
    assert words in err


TWICE = {"one": {"left": ["deit"], "right": ["deit"]}, "other": {"all": ["deit"]}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"title": "-"}, "arms: Field required"),
        ({"title": "-", "arms": []}, "arms: Tuple should have at least 1 item"),
        ({"title": "-", "arms": ["standard-none"], "teacher": {}}, "did you mean 'teachers'"),
        ({"title": "-", "arms": ["standard-none"], "teachers": {"family": ["deit"]}}, "did you mean 'families'"),
        ({"title": "-", "arms": ["standard-none"], "choose": "budget"}, "choose: Input should be 'weight' or 'lr'"),
        ({"title": "-", "arms": ["standard-none", "standard-none"]}, "an arm is listed twice"),
        ({"title": "-", "arms": ["standard-none"], "ways": {"a": {"b": ["deit"]}}}, "families are sorted in two ways, not 1"),
        ({"title": "-", "arms": ["standard-none"], "ways": TWICE}, "one: a family is listed twice"),
        ({"title": "-", "arms": ["standard-none"], "ways": {"a": {"b": ["dait"]}, "c": {}}}, "ways: unknown family: 'dait'"),
    ],
)
def test_a_wrong_study_file_is_one_clear_line(content, words, tmp_path, bench):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    code, _, err = bench("run", "--study", path, "--dry-run", "--work", tmp_path)
    assert code == 2 and err.startswith(f"bench: {path}: ") and len(err.strip().splitlines()) == 1
    assert words in err


@pytest.mark.parametrize(
    ("content", "family", "words"),
    [
        ({"teachers": {"native": "layerscale"}}, None, "did you mean 'layer_scale'"),
        ({"arms": ["matched-copy+native=*"]}, "deit", "has no arm for deit: what its * stands for is not there"),
    ],
)
def test_a_study_that_is_for_nobody(content, family, words, tmp_path, bench):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"title": "-", "arms": ["standard-none"]} | content))
    given = [] if family is None else ["--family", family]
    code, _, err = bench("run", "--study", path, *given, "--dry-run", "--work", tmp_path)
    assert code == 2 and words in err and len(err.strip().splitlines()) == 1


def test_names_that_no_arm_could_say():
    for name in ("a+b", "a/b", "A", ""):
        content = tiny_protocol()
        with pytest.raises(UserError, match="datasets.*String should match pattern"):
            validated(Protocol, content | {"datasets": {name: content["data"]}}, "mine.yaml")


def test_data_sets_are_found_from_the_file_that_names_them(tmp_path):
    """By a path from its own folder, whoever extends it; epochs are of the other task's images."""
    (tmp_path / "below").mkdir()
    other = {"extends": "imagenet", "data": {"num_classes": 7, "train": {"split": "train", "images": 20_480}, "held_out": 1024}}
    (tmp_path / "below" / "other.yaml").write_text(yaml.safe_dump(other))
    (tmp_path / "below" / "base.yaml").write_text(yaml.safe_dump({"extends": "imagenet", "datasets": {"mine": "other.yaml"}}))
    (tmp_path / "top.yaml").write_text(yaml.safe_dump({"extends": "below/base.yaml", "title": "Top"}))
    found = load_protocol(str(tmp_path / "top.yaml"))[1].on("mine")
    assert found.data.num_classes == 7
    assert found.recipe.steps == 100 * (20_480 - 1024) // 1024 == 1900


def test_what_arms_are_compared_with():
    for arm, baseline in [
        ("matched-copy+gamma=0.1+native=layer_scale", "matched-none+gamma=0.1+native=layer_scale"),
        ("matched-distill+lr=x2+of=dinov2", "matched-none+lr=x2+of=dinov2"),
        ("standard-distill+blocks=only-1+loss=mse+part=q+weight=x10", "standard-none"),
        ("standard-copy+data=long_tailed+weights=folded", "standard-none+data=long_tailed"),
        ("finetune+reinit=mlp", "standard-none"),
    ]:
        assert Arm.parse(arm).baseline.name == baseline
    assert Arm.parse("matched-copy+gamma=0.1+lr=x2").standard.name == "standard-copy+lr=x2"
    assert trained_arm("standard-none+lr=x2+match=end") == "standard-none+lr=x2"
    assert Arm.parse("standard-none+lr=x2+match=end").evaluation == "match=end"
    assert with_evaluation("standard-none+lr=x2", "match=end") == "standard-none+lr=x2+match=end"
    assert with_evaluation("standard-none+lr=x2", "noise") is None


# ---- models


def run_for(family, arm, protocol=None, seed=0, size="base"):
    return run_of(protocol or validated(Protocol, tiny_protocol(), "tiny"), Cell("tiny", family, size, arm, seed))


def test_students_are_what_their_arm_says():
    """From the run alone: native components one by one, another family's, a LayerScale that starts elsewhere."""
    names = {
        arm: {name.split(".")[-1] for name, _ in student_of(run_for("dinov2_reg", arm)).named_parameters()}
        for arm in ("standard-none", "matched-none", "matched-none+native=registers", "matched-none+without=registers")
    }
    assert not names["standard-none"] & {"gamma", "reg_token"}
    assert {"gamma", "reg_token"} <= names["matched-none"]
    assert "reg_token" in names["matched-none+native=registers"] and "gamma" not in names["matched-none+native=registers"]
    assert "gamma" in names["matched-none+without=registers"] and "reg_token" not in names["matched-none+without=registers"]
    for gamma in ("1", "0.1", "1e-05"):
        model = student_of(run_for("dinov2_reg", f"matched-none+gamma={gamma}"))
        assert all((block.ls1.gamma == float(gamma)).all() and (block.ls2.gamma == float(gamma)).all() for block in model.blocks)
    beit = student_of(run_for("deit", "matched-none+of=beitv2"))
    assert hasattr(beit, "rel_pos_bias") and (beit.blocks[0].gamma_1 == 0.1).all()


@pytest.mark.parametrize("family", ["dinov2", "beitv2"])
def test_what_starts_anew_before_fine_tuning(family, tmp_path):
    """Attention or MLP of every block, another start by seed; all else is the teacher's, the head apart."""
    teacher = model_of(run_for(family, "teacher"), {})
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(1.0)
    torch.save(teacher.state_dict(), tmp_path / "weights.pt")
    files = {"run": tmp_path / "weights.pt"}
    state = teacher.state_dict()
    for part, word in (("attention", "attn"), ("mlp", "mlp")):
        tuned = [model_of(run_for(family, f"finetune+reinit={part}", seed=s), files).state_dict() for s in (0, 1)]
        assert REINIT_PATTERNS[part]
        for name, value in tuned[0].items():
            anew = f".{word}." in name or (part == "attention" and "rel_pos_bias" in name)
            if not name.startswith("head."):
                assert torch.equal(value, state[name]) != (anew and "index" not in name and "k_bias" not in name), name
            if anew and name.endswith("weight") and value.ndim == 2:
                assert not torch.equal(value, tuned[1][name]), name
    whole = model_of(run_for(family, "finetune"), files).state_dict()
    assert all(torch.equal(whole[name], state[name]) for name in whole if not name.startswith("head."))


def test_untrained_and_folded_teachers(tmp_path):
    """An untrained one is the teacher at its start, by its seed; a folded one has the teacher's function."""
    run = run_for("dinov2", "standard-copy+source=untrained")
    model = frozen_teacher(run, {})
    start = model_of(run_for("dinov2", "teacher"), {}).state_dict()
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())
    other = frozen_teacher(run_for("dinov2", "standard-copy+source=untrained", seed=1), {})
    assert not torch.equal(other.blocks[0].mlp.fc1.weight, model.blocks[0].mlp.fc1.weight)
    assert run.teacher != run_for("deit", "standard-copy+source=untrained").teacher  # of one student, but another teacher's
    torch.save(perturbed(model_of(run_for("dinov2", "teacher"), {})).state_dict(), tmp_path / "weights.pt")
    files = {"run": tmp_path / "weights.pt"}
    folded = frozen_teacher(run_for("dinov2", "standard-copy+weights=folded"), files)
    whole = frozen_teacher(run_for("dinov2", "standard-copy"), files)
    x = torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(folded(x), whole(x), atol=1e-4, rtol=1e-4)
    with torch.no_grad():  # LayerScale is no trifle here
        whole.blocks[0].ls1.gamma.zero_()
    assert (folded(x) - whole(x)).abs().max() > 1e-2
    assert not [name for name in folded.state_dict() if "gamma" in name]


def test_a_task_with_other_classes_than_the_teachers(tmp_path):
    """The teacher has the classes that it was trained on, its student those of the other task."""
    images = IMAGENET.data.model_dump(mode="json", exclude_unset=True) | {"num_classes": 7, "shifted": {}}
    protocol = validated(Protocol, tiny_protocol(datasets={"photographs": images}), "tiny")
    torch.save(model_of(run_for("dinov2", "teacher", protocol), {}).state_dict(), tmp_path / "weights.pt")
    files = {"run": tmp_path / "weights.pt"}
    run = run_for("dinov2", "standard-copy+data=photographs", protocol)
    assert frozen_teacher(run, files).num_classes == 10 and student_of(run).num_classes == 7
    tuned = model_of(run_for("dinov2", "finetune+data=photographs", protocol), files)
    assert tuned.num_classes == 7


# ---- boards


def test_studies_that_transfer_nothing_have_a_board(tmp_path):
    """Also when all that they share with main is measured, or nothing of main is."""
    cells = {("dinov2", "base", arm): [20.0, 21.0] for arm in ("standard-none", "matched-none")}
    made.write(tmp_path / "control", made.results(cells))
    (board,) = gather(tmp_path / "control").boards
    assert board.study == "control" and board.estimate(board.rows[0], "matched-none", "control").value == 0
    (native,) = (table for table in tables(board) if table.name == "native")
    assert native.rows[0]["control"].value == 0
    cells = {("dinov2", "base", arm): [20.0, 21.0] for arm in load_study("main")[1].arms}
    made.write(tmp_path / "shift", made.results(cells))
    assert [board.study for board in gather(tmp_path / "shift").boards] == ["main"]
    made.write(tmp_path / "shift", made.results({("dinov2", "base", "finetune"): [90.0, 91.0]}, shift={"noise": 50.0}))
    main, shift = gather(tmp_path / "shift").boards
    assert (main.study, shift.study) == ("main", "shift")
    assert "finetune" in {row["arm"] for table in tables(shift) if table.name == "shifted" for row in table.rows}
    assert all(entry.gap is None or entry.gap.simultaneous is None for entry in shift.rows[0].entries)


def test_arms_that_are_another_boards_runs_are_no_comparisons(tmp_path):
    """All but the one component of a family is its standard student, whose comparison is main's."""
    arms = ["standard-none", "standard-copy", "matched-none", "matched-copy"]
    mine = Study(title="-", teachers={"families": ["dinov2"]}, arms=[*arms, "matched-copy+without=layer_scale"])
    sizes = len(families.spec("dinov2").sizes)
    cells = {("dinov2", "base", arm): [20.0, 21.0] for arm in (*arms, "matched-none+without=layer_scale")}
    cells[("dinov2", "base", "matched-copy+without=layer_scale")] = [30.0, 31.0]
    made.write(tmp_path, made.results(cells))
    boards = gather(tmp_path, given={"mine": mine}).boards
    assert [board.study for board in boards] == ["main", "mine"] and boards[1].comparisons == 0
    other = mine.model_copy(update={"arms": ("matched-copy+gamma=0.1",)})
    made.write(tmp_path, made.results({("dinov2", "base", "matched-copy+gamma=0.1"): [30.0, 31.0]}))
    found = {board.study: board for board in gather(tmp_path, given={"mine": other}).boards}
    assert found["mine"].comparisons == sizes


def test_the_best_of_a_sweep_is_chosen_on_val(tmp_path):
    """Of each arm and of its baseline, never by the test set."""
    cells = {"standard-none": 20, "standard-none+lr=x2": 30, "standard-copy": 60, "standard-copy+lr=x2": 50}
    found = [
        validated(Result, made.content_of(Cell("mini", "deit", "base", arm, s), top1 + s), "-")
        for arm, top1 in cells.items()
        for s in (0, 1)
    ]
    for number, result in enumerate(found):  # on val the order is the other one
        found[number] = result.model_copy(update={"val": result.val.model_copy(update={"top1": 100 - result.metrics.top1})})
    made.write(tmp_path, found)
    boards = {board.study: board for board in gather(tmp_path).boards}
    (chosen,) = (table for table in tables(boards["tuning"]) if table.name == "chosen")
    rows = {row["arm"]: row for row in chosen.rows}
    assert rows["standard-none"]["value"] == "x1" and rows["standard-copy"]["value"] == "x2"
    assert rows["standard-copy"]["gap"].value == pytest.approx(50 - 20) and rows["standard-copy"]["of"] == 2
    assert rows["standard-none"]["gap"] is None and rows["standard-none"]["val"] == pytest.approx(79.5)


# ---- data


def test_a_long_tail_is_in_training_alone():
    tailed = load(SETTINGS.model_copy(update={"imbalance": 9.0}), DataLocation(), 24, NORMALISATION)
    _, labels = tailed.compose("train", 20_000, torch.Generator().manual_seed(0))
    counts = labels.bincount(minlength=10).double()
    expected = 9.0 ** -(torch.arange(10) / 9)
    torch.testing.assert_close(counts / counts.sum(), (expected / expected.sum()).double(), atol=0.01, rtol=0)
    plain = load(SETTINGS, DataLocation(), 24, NORMALISATION)
    for split in ("val", "test"):
        one, other = (each.compose(split, 50, torch.Generator().manual_seed(1)) for each in (tailed, plain))
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_similar_colours():
    images, _ = load(SETTINGS.model_copy(update={"hues": 0.25}), DataLocation(), 24, NORMALISATION).compose(
        "train", 200, torch.Generator().manual_seed(0)
    )
    assert images[:, 2].max() == 0 and images[:, 0].max() == 1  # red to yellow: no blue at all


def test_a_data_set_in_a_folder_of_its_own(tmp_path):
    """Below the data folder, or beside it."""
    (item,) = make_plan(
        "imagenet", IMAGENET, "s", Study(title="-", arms=["standard-none+data=inat2018"]), [("mae", "base")], [0]
    ).items.values()
    for root, below in (("all", "all/inat2018"), ("imagenet", "inat2018")):
        for folder in (root, below):
            (tmp_path / root / folder).mkdir(parents=True)
        expected = tmp_path / root / below
        place = DataLocation(tmp_path / root / root)
        assert place_of(item, place).root == expected
    (tmp_path / "somewhere" / "imagenet").mkdir(parents=True)
    with pytest.raises(UserError, match="no folder inat2018 in it or beside it"):
        place_of(item, DataLocation(tmp_path / "somewhere" / "imagenet"))
    assert place_of(item, DataLocation()) == DataLocation()  # embedded data


# ---- masked image modelling


@pytest.mark.parametrize("family", ["dinov2_reg", "beitv2"])
def test_masked_image_modelling(family):
    """The mean absolute error of masked pixels, of half the patches of each image; labels teach the head alone."""
    model = perturbed(families.load(family).architecture("base", **ARGS, num_classes=5)).train()
    masked, x, y = perturbed(SimMIM(48, 8, 0.5)), images(), torch.tensor([0, 3, 1])
    torch.manual_seed(5)
    loss = masked.loss(model, x, y, 0.1)
    loss.backward()
    torch.manual_seed(5)
    which = torch.rand(3, 16).argsort(1) < 8
    explicit = deepcopy(model)
    explicit.zero_grad()
    embedded = torch.where(which[..., None], masked.token, explicit.patch_embed(x))
    explicit.patch_embed.forward = lambda images: embedded
    tokens = explicit.forward_features(x)
    errors = []
    for image in range(3):
        for patch in range(16):
            if which[image, patch]:
                row, column = 8 * (patch // 4), 8 * (patch % 4)
                pixels = x[image, :, row : row + 8, column : column + 8].reshape(-1)
                errors.append((masked.decoder(tokens[image, patch - 16]) - pixels).abs().mean())
    assert len(errors) == 3 * 8
    expected = torch.stack(errors).mean()
    probe = F.cross_entropy(explicit.forward_head(tokens.detach()), y, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected + probe)
    (expected + probe).backward()
    for (name, one), other in zip(model.named_parameters(), explicit.parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, msg=name)
    explicit.zero_grad()
    probe = F.cross_entropy(explicit.forward_head(tokens.detach()), y)
    probe.backward()
    taught_by_labels = {name for name, each in explicit.named_parameters() if each.grad is not None and each.grad.abs().max() > 0}
    assert taught_by_labels == {"head.weight", "head.bias"}


# ---- every kind of run, end to end

KINDS = [
    "standard-none",
    "standard-copy",
    "standard-copy+source=average",
    "standard-copy+source=untrained",
    "standard-copy+part=v",
    "standard-copy+blocks=only-*",
    "standard-copy+sinks=redistribute",
    "standard-copy+weights=folded",
    "standard-copy+recipe=*",
    "standard-distill+loss=mse+part=output+weight=x10",
    "standard-distill+data=*",
    "standard-distill+lr=x2",
    "matched-copy+gamma=0.1+native=layer_scale",
    "matched-copy+of=clip",
    "finetune+reinit=attention",
    "standard-none+match=end",
    "standard-none+match=start",
]


def own_protocol(tmp_path):
    content = tiny_protocol()
    recipe = content["teacher"]["recipe"]
    content["teacher"]["others"] = {"masked": {"floor": 0, "recipe": recipe | {"objective": "masked"}}}
    content["datasets"] = {"long_tailed": content["data"] | {"imbalance": 5}}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.long
def test_a_study_of_ones_own(tmp_path, bench, folders):
    """Each kind of arm, from a file of the user's; the results name what made them, and the report shows each arm."""
    study = tmp_path / "mine.yaml"
    study.write_text(yaml.safe_dump({"title": "Mine", "arms": KINDS, "choose": "lr"}))
    protocol = own_protocol(tmp_path)
    words = ["--protocol", protocol, "--study", study]
    code, out, err = bench(
        "run", *words, "--family", "dinov2_reg", "--sizes", "base", "--seeds", "0", "--cluster", "debug", *folders
    )
    assert code == 0, err
    shown = gather(tmp_path / "results", load_protocol(str(protocol)), dict([load_study(str(study))]))
    found = {result.cell.arm: result for result in shown.found.current}
    assert not shown.found.rejected and {"teacher", "teacher+recipe=masked", "finetune+reinit=attention"} <= found.keys()
    assert {"standard-copy+blocks=only-0", "standard-copy+blocks=only-1"} <= found.keys()
    end, start = (found[f"standard-none+match={when}"] for when in ("end", "start"))
    assert end.metrics.top1 == found["standard-none"].metrics.top1
    assert len(end.metrics.attention_kl) == len(start.metrics.attention_kl) == 2
    assert end.metrics.attention_kl != start.metrics.attention_kl and end.cost.seconds == 0
    assert found["standard-none"].evaluations.keys() == {"noise", "unseen_colours"}
    assert found["standard-copy+source=untrained"].teacher.source == "the same architecture untrained, seed 0"
    assert found["standard-copy+weights=folded"].metrics.loss == pytest.approx(found["standard-copy"].metrics.loss, abs=1e-4)
    assert found["standard-copy+recipe=masked"].run.teacher == Trained(run=found["teacher+recipe=masked"].key)
    assert not shown.found.unlisted and not shown.found.stale
    (board,) = (board for board in shown.boards if board.study == "mine")
    assert {entry.arm.name for row in board.rows for entry in row.entries if entry.n} == found.keys() - {
        "teacher",
        "teacher+recipe=masked",
    } - {"standard-none+data=long_tailed"} - {name for name in found if name.startswith(("matched-none", "standard-none+lr"))}
    assert spelt_out(load_protocol(str(protocol))[1], load_study(str(study))[1], [("dinov2_reg", "base")]).arms == board.arms
    code, out, _ = bench("run", *words, "--family", "dinov2_reg", "--sizes", "base", "--seeds", "0", "--dry-run", *folders)
    assert code == 0 and "0 to train" in out


def test_masked_pre_training_goes_on_exactly(tmp_path):
    """Its token and decoder are part of what survives a kill; labels reach the head alone."""
    protocol = load_protocol(str(own_protocol(tmp_path)))[1]
    plan = make_plan("tiny", protocol, "s", Study(title="-", arms=["standard-copy+recipe=masked"]), [("dinov2_reg", "base")], [0])
    item = item_of(plan, "teacher+recipe=masked")
    whole = fit(item, tmp_path / "whole")
    assert fit(item, tmp_path / "stopped", stop_at=4) is None
    assert numbers(fit(item, tmp_path / "stopped")) == numbers(whole)
    one, other = (torch.load(tmp_path / name / WEIGHTS, weights_only=True) for name in ("whole", "stopped"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
