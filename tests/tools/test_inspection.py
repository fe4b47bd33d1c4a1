"""`bench inspect`: its numbers against sums written out, its tokens for every family, its picture, and its mistakes."""

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

import families
from benchmark.data import DataLocation, load
from benchmark.spec.definitions import teacher_run
from benchmark.spec.protocol import load_protocol
from benchmark.storage.work_folder import Workspace
from benchmark.tools.check import TINY
from benchmark.tools.inspect import Request, as_json, kind_of, look, magnitudes, measures, picture, query_of, shown
from benchmark.training.models import trained
from benchmark.transfer.reference import reference_maps
from families.core.attention import layout

from ..conftest import perturbed, python, tiny_protocol

NAMES = ["cls", "dist", "reg0", "reg1", *(f"patch{row},{column}" for row in range(2) for column in range(3))]


def by_hand(weights, names):
    """One head's numbers from a nested list, by the words of their definitions."""
    kinds = [{"c": "class", "d": "distillation", "r": "registers", "p": "patches"}[name[0]] for name in names]
    tokens = range(len(names))
    entropy = sum(-p * math.log(p) for row in weights for p in row if p > 0) / len(names)
    mass = {f"mass.{kind}": 0.0 for kind in (*kinds, "itself")}
    for i in tokens:
        for j in tokens:
            mass["mass.itself" if i == j else f"mass.{kinds[j]}"] += weights[i][j] / len(names)
    places = {i: tuple(map(int, names[i][5:].split(","))) for i in tokens if kinds[i] == "patches"}
    pairs = [(weights[i][j], math.dist(places[i], places[j])) for i in places for j in places]
    total = sum(weight for weight, _ in pairs)
    distance = sum(weight * far for weight, far in pairs) / total if total else 0.0
    return {"entropy": entropy, "normalised_entropy": entropy / math.log(len(names)), "distance": distance} | mass


# ---- numbers


def test_measures_are_their_definitions():
    maps = (3 * torch.randn(4, 10, 10, generator=torch.Generator().manual_seed(0))).softmax(-1)
    found = measures(maps, NAMES)
    for head, weights in enumerate(maps.tolist()):
        expected = by_hand(weights, NAMES)
        assert {name: float(values[head]) for name, values in found.items()} == pytest.approx(expected, abs=1e-6)
    assert [name for name in found if name.startswith("mass.")] == [
        f"mass.{kind}" for kind in ("class", "distillation", "registers", "patches", "itself")
    ]


def test_measures_of_maps_that_are_known():
    uniform, own, first = torch.full((1, 10, 10), 0.1), torch.eye(10)[None], torch.zeros(1, 10, 10)
    first[..., 0] = 1
    found = {name: float(value) for name, value in measures(uniform, NAMES).items()}
    assert found["entropy"] == pytest.approx(math.log(10)) and found["normalised_entropy"] == pytest.approx(1)
    masses = {"itself": 0.1, "class": 0.09, "distillation": 0.09, "registers": 0.18, "patches": 0.54}
    assert {name: found[f"mass.{name}"] for name in masses} == pytest.approx(masses)
    for maps, where in ((own, "mass.itself"), (first, "mass.class")):
        found = measures(maps, NAMES)
        assert float(found["entropy"]) == 0 and float(found["distance"]) == 0
        assert float(found[where]) == pytest.approx(1 if maps is own else 0.9)
    grid = ["patch0,0", "patch0,1", "patch1,0", "patch1,1"]
    assert float(measures(torch.full((1, 4, 4), 0.25), grid)["distance"]) == pytest.approx((2 + math.sqrt(2)) / 4)


def test_a_query_is_the_token_that_it_names():
    assert query_of(None, NAMES, reads_class=True).tokens == (0,)
    assert query_of(None, NAMES, reads_class=False).tokens == tuple(range(4, 10))
    assert query_of(None, NAMES[4:], reads_class=True).tokens == tuple(range(6))
    centre = query_of("centre", NAMES, reads_class=True)
    assert centre.patch == (1, 1) and [NAMES[i] for i in centre.tokens] == ["patch1,1"]
    assert [NAMES[i] for i in query_of("0,2", NAMES, reads_class=True).tokens] == ["patch0,2"]


@pytest.mark.parametrize("family", families.names())
def test_every_familys_tokens_are_counted(family):
    """Against maps that share no code with ours, and what timm's model itself holds."""
    adapter = families.load(family)
    size = adapter.spec.sizes[0]
    model = perturbed(adapter.teacher(size, pretrained=False, **TINY))
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    names = layout(model)
    kinds = [kind_of(name) for name in names]
    registers = getattr(model, "reg_token", None)
    assert kinds.count("patches") == 16 == (32 // 8) ** 2
    assert kinds.count("class") == (model.cls_token is not None)
    assert kinds.count("registers") == (0 if registers is None else registers.shape[1])
    assert len(kinds) == len(model.forward_features(x)[0])
    for maps, wanted in zip(adapter.attention_maps(model, x), reference_maps(model, x), strict=True):
        found = measures(maps[0], names)
        masses = torch.stack([values for name, values in found.items() if name.startswith("mass.")])
        torch.testing.assert_close(masses.sum(0), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-5)
        one = {name: float(values[1]) for name, values in found.items()}
        assert one == pytest.approx(by_hand(wanted[0, 1].tolist(), names), abs=1e-4)
    for component in adapter.spec.components(size).values():
        for values in magnitudes(model, component).values():
            assert len(values) in (1, TINY["depth"]) and min(values) > 0


def test_the_maps_drawn_are_the_querys(tmp_path):
    """A row of the map at its patches, as multiples of uniform attention, in the image's order."""
    protocol = load_protocol("mini")
    words = {"blocks": "1,3", "heads": "1,2", "query": "2,0", "random": True}
    seen = look(Request("dinov2_reg", "small", protocol, "mini", tmp_path, **words))
    drawn = shown(seen)
    assert set(drawn) == {(block, head) for block in (1, 3) for head in (None, 1, 2)}
    for (block, head), values in drawn.items():
        maps = seen.maps[block]
        for row in range(3):
            for column in range(3):
                one = maps[:, seen.names.index("patch2,0"), seen.names.index(f"patch{row},{column}")] * 14
                wanted = one.mean() if head is None else one[head]
                assert float(values[row, column]) == pytest.approx(float(wanted), abs=1e-6)
    mean = shown(replace(seen, query=query_of("mean", seen.names, True)))[3, 2]
    torch.testing.assert_close(mean.flatten(), 14 * seen.maps[3][2, 5:, 5:].mean(0))


def test_the_picture_is_bright_where_attention_goes(tmp_path):
    """All attention to the last patch of the first row: in each map that is the bright corner."""
    seen = look(Request("deit", "small", load_protocol("mini"), "mini", tmp_path, blocks="0", heads="0", random=True))
    one = torch.zeros_like(seen.maps[0])
    one[..., seen.names.index("patch0,2")] = 1
    seen = replace(seen, maps=[one] * len(seen.maps))
    canvas = FigureCanvasAgg(picture(seen, as_json(seen)))
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[::-1, :, :3].mean(-1)  # from below, as places are
    maps = [axes for axes in canvas.figure.axes if axes.get_title() in ("mean of heads", "head 0")]
    assert len(maps) == 2
    for axes in maps:
        box = axes.get_window_extent()
        cells = [[piece.mean() for piece in np.array_split(row, 3, axis=1)] for row in np.array_split(
            pixels[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)], 3)[::-1]]  # fmt: skip
        brightest = np.unravel_index(np.argmax(cells), (3, 3))
        assert brightest == (0, 2) and np.max(cells) > np.sort(np.ravel(cells))[-2] + 50


# ---- the command


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """(protocol file, work folder) with a teacher of six steps."""
    from benchmark.cli import main

    folder = tmp_path_factory.mktemp("taught")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_protocol()), encoding="utf-8")
    (folder / "one.yaml").write_text("title: one arm\narms: [standard-copy]\n", encoding="utf-8")
    words = ("--family", "dinov2_reg", "--sizes", "small", "--seeds", "0", "--cluster", "debug")
    where = (
        "--protocol",
        folder / "tiny.yaml",
        "--study",
        folder / "one.yaml",
        "--results",
        folder / "r",
        "--work",
        folder / "w",
    )
    assert main(["run", *map(str, words + where)]) == 0
    return folder / "tiny.yaml", folder / "w"


@pytest.mark.long
def test_a_teacher_that_was_trained_here(taught, bench):
    protocol, work = taught
    words = ("--family", "dinov2_reg", "--size", "small", "--protocol", protocol, "--work", work)
    code, out, err = bench("inspect", *words, "--json")
    assert code == 0, err
    found = json.loads(out)
    run = teacher_run(load_protocol(str(protocol))[1], "dinov2_reg", "small", 0)
    assert found["weights"]["kind"] == "trained" and found["weights"]["run"] == run.key and run.key in found["weights"]["told"]
    assert found["tokens"] == {"total": 14, "grid": [3, 3], "class": 1, "registers": 4, "patches": 9}
    assert found["drawn"]["query"]["told"] == "the class token" and found["drawn"]["blocks"] == [0, 1]
    assert found["uniform"]["entropy"] == pytest.approx(math.log(14))
    assert [each["name"] for each in found["native"]] == list(families.load("dinov2_reg").native)
    scale = found["native"][0]
    assert {"description", "source", "inert_under_copy"} < set(scale) and len(scale["learned"]["*.ls?.gamma"]) == 2
    assert set(found) == {
        "family", "size", "protocol", "weights", "image", "tokens", "drawn", "uniform", "blocks", "native", "picture",
    }  # fmt: skip
    # The same from the weights' file, the first test image and maps written out.
    settings = run.protocol
    model = trained(run, Workspace(work).run(run.key).weights)
    image, label = next(load(run.settings.data, DataLocation(), 24, settings.normalisation).evaluate("test", 1))
    assert found["image"]["told"].endswith(f"(class {int(label)})")
    maps = reference_maps(model, (image - settings.normalisation.mean[0]) / settings.normalisation.std[0])
    for row, each in zip(found["blocks"], maps, strict=True):
        wanted = [by_hand(head.tolist(), layout(model)) for head in each[0]]
        for head, numbers in zip(row["heads"], wanted, strict=True):
            assert head["entropy"] == pytest.approx(numbers["entropy"], abs=1e-4)
            assert head["mass"]["registers"] == pytest.approx(numbers["mass.registers"], abs=1e-5)
        assert row["entropy"] == pytest.approx(np.mean([numbers["entropy"] for numbers in wanted]), abs=1e-4)
        assert sum(row["mass"].values()) == pytest.approx(1, abs=1e-5)
    assert found["picture"] == str(work / "inspect" / "dinov2_reg-small.png")
    assert not_empty(work / "inspect" / "dinov2_reg-small.png")


def not_empty(path):
    """Whether a picture shows more than a few colours."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return min(pixels.shape[:2]) > 300 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200


def test_a_teacher_that_is_below_its_floor_can_be_looked_at(taught, bench):
    protocol, work = taught
    key = teacher_run(load_protocol(str(protocol))[1], "dinov2_reg", "small", 0).key
    folder = Workspace(work).run(key).path
    payload = (folder / "payload.json").read_text()
    try:
        (folder / "payload.json").unlink()
        (folder / "error.txt").write_text("RuntimeError: below the floor")
        words = ("--family", "dinov2_reg", "--size", "small", "--protocol", protocol, "--work", work, "--blocks", "0", "--json")
        assert "below the floor" in json.loads(bench("inspect", *words)[1])["weights"]["told"]
    finally:
        (folder / "payload.json").write_text(payload)


def test_random_weights_an_image_and_what_is_printed(bench, tmp_path):
    photo, out = tmp_path / "photo.png", tmp_path / "deep" / "out.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 4), dtype=np.uint8), "RGBA").save(photo)
    words = ("--family", "beitv2", "--random", "--work", tmp_path / "w", "--image", photo, "--out", out)
    code, told, err = bench("inspect", *words, "--query", "0,2", "--blocks", "1,3", "--heads", "1")
    assert code == 0, err
    assert "random weights" in told and "photo.png" in told and "rel_pos_bias" in told and "inert" in told
    assert f"picture: {out}" in told
    assert not_empty(out)
    assert not (tmp_path / "w").exists()


def test_a_mean_pooled_head_has_the_patches_mean(bench, tmp_path):
    path = tmp_path / "mean.yaml"
    path.write_text(yaml.safe_dump(tiny_protocol(head="avg")), encoding="utf-8")
    words = ("--family", "mae", "--random", "--protocol", path, "--work", tmp_path / "w", "--blocks", "0", "--json")
    found = json.loads(bench("inspect", *words)[1])
    assert found["drawn"]["query"]["tokens"] == list(range(1, 10)) and "mean" in found["drawn"]["query"]["told"]


def test_pre_trained_weights_in_the_authors_layout(bench, tmp_path, monkeypatch):
    """A teacher of reduced size, since the file of a whole one is large; its images are normalised as the family's."""
    spec = families.spec("mocov3")
    small = replace(spec.teacher("small"), **TINY, args=TINY)
    monkeypatch.setattr(families, "spec", lambda name: replace(spec, teachers=(small,), mean=(0.1, 0.2, 0.3)))
    model = perturbed(families.load("mocov3").architecture("small", num_classes=0, **TINY))
    (tmp_path / "weights").mkdir()
    keys = {f"module.base_encoder.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": keys}, tmp_path / "weights" / "mocov3-small.pth.tar")
    photo = tmp_path / "photo.png"
    Image.fromarray(np.full((80, 40, 3), 51, dtype=np.uint8)).save(photo)
    words = (
        "--family",
        "mocov3",
        "--protocol",
        "imagenet",
        "--image",
        photo,
        "--work",
        tmp_path,
        "--blocks",
        "all",
        "--heads",
        "0",
        "--json",
    )
    code, out, err = bench("inspect", *words)
    assert code == 0, err
    found = json.loads(out)
    assert found["weights"]["kind"] == "file" and len(found["weights"]["sha256"]) == 64
    x = (torch.full((1, 3, 32, 32), 0.2) - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)
    for row, maps in zip(found["blocks"], reference_maps(model, x), strict=True):
        wanted = [by_hand(head.tolist(), layout(model))["entropy"] for head in maps[0]]
        assert [head["entropy"] for head in row["heads"]] == pytest.approx(wanted, abs=1e-4)
    code, out, err = bench("inspect", *words, "--img-size", 48)
    assert code == 0, err
    assert json.loads(out)["tokens"] == {"total": 37, "grid": [6, 6], "class": 1, "patches": 36}
    other = bench("inspect", *words, "--weights", tmp_path / "elsewhere")
    assert other[0] == 2 and f"--sizes small --weights {tmp_path / 'elsewhere'}" in other[2]


# ---- mistakes

MINI = ("--family", "deit3", "--random")
WRONG = [
    (["--family", "diet3"], ["unknown family: 'diet3'", "did you mean 'deit3'"]),
    (["--family", "deit3", "--size", "bsae"], ["unknown size", "did you mean 'base'"]),
    (["--family", "beitv2", "--size", "base_ft", "--random"], ["unknown size of this protocol: 'base_ft'"]),
    (["--family", "deit3", "--protocol", "minni"], ["unknown protocol: 'minni'", "did you mean 'mini'"]),
    (["--family", "deit3"], ["`bench run --family deit3 --sizes base --work w` trains"]),
    (["--family", "deit3", "--protocol", "imagenet"], ["--image FILE"]),
    (
        ["--family", "deit3", "--protocol", "imagenet", "--image", "good.png"],
        ["`bench fetch --family deit3 --sizes base --work w`"],
    ),
    ([*MINI, "--image", "bad.png"], ["--image bad.png: not readable as an image"]),
    ([*MINI, "--image", "cut.png"], ["--image cut.png: not readable as an image"]),
    ([*MINI, "--image", "absent.png"], ["--image absent.png: not readable as an image", "No such file"]),
    ([*MINI, "--blocks", "0,4"], ["--blocks '0,4': this teacher's blocks are 0 to 3"]),
    ([*MINI, "--blocks", "first"], ["--blocks 'first'", "0,1"]),
    ([*MINI, "--heads", "-1"], ["--heads"]),
    ([*MINI, "--heads", "99"], ["--heads '99': this teacher's heads are 0 to"]),
    ([*MINI, "--query", "3,0"], ["--query '3,0'", "cls, mean, centre", "0,0 to 2,2"]),
    ([*MINI, "--query", "clas"], ["--query 'clas'"]),
    ([*MINI, "--out", "picture.txt"], ["--out picture.txt", ".png"]),
    ([*MINI, "--out", "good.png/picture.png"], ["--out good.png: cannot be made or written"]),
    ([*MINI, "--weights", "here"], ["--weights goes with"]),
    ([*MINI, "--img-size", "48"], ["--img-size goes with"]),
    (
        ["--family", "dinov2", "--protocol", "imagenet", "--image", "good.png", "--img-size", "225"],
        ["img_size 225", "14", "224 and 238"],
    ),
    ([], ["takes --family NAME"]),
]


@pytest.mark.parametrize(("words", "expected"), WRONG, ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "")
def test_a_mistake_is_one_line_and_exit_code_2(bench, words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)).save("good.png")
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save("cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    (tmp_path / "bad.png").write_text("no image")
    code, out, err = bench("inspect", *words, "--work", "w")
    assert code == 2 and not out
    assert err.count("\n") == 1 and err.startswith("bench: "), err
    for text in expected:
        assert text in err
    assert {path.name for path in tmp_path.iterdir()} == {"good.png", "cut.png", "bad.png"}


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "folder", "device"]
)
def test_what_is_no_file_is_no_image_and_is_not_waited_for(bench, make, tmp_path, at_once):
    path = tmp_path / "odd.png"
    make(path)
    code, out, err = bench("inspect", *MINI, "--image", path, "--work", tmp_path / "w", "--out", tmp_path / "out.png")
    assert code == 2 and not out and not (tmp_path / "out.png").exists()
    assert err == f"bench: --image {path}: not readable as an image: no regular file\n"


def test_a_damaged_file_of_a_trained_teacher(bench, tiny, tmp_path):
    run = teacher_run(load_protocol(str(tiny))[1], "deit3", "base", 0)
    path = Workspace(tmp_path / "w").run(run.key).weights
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no weights")
    code, _, err = bench("inspect", "--family", "deit3", "--protocol", tiny, "--work", tmp_path / "w")
    assert code == 2 and err.count("\n") == 1 and f"{path}: not a readable checkpoint" in err


def test_the_verbs_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom benchmark.cli import main\n"
        "try:\n    main(['inspect', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'timm', 'matplotlib', 'PIL'} & set(sys.modules)\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
