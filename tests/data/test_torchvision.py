"""Data sets that torchvision fetches: fetched once and whole, read as they are, trained on as image folders are; from stand-ins
in the real file formats, on a server on this machine."""

import gzip
import re
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from benchmark.cli import main
from benchmark.cli.support.common import fetch_images_with_bar, make_console
from benchmark.data import DataLocation, images
from benchmark.data.batched_views import serves
from benchmark.data.torchvision_files import fetch
from benchmark.spec.data_sets import Images
from benchmark.spec.protocol import load_protocol
from benchmark.spec.recipe import Augment, Normalisation, Recipe
from benchmark.spec.torchvision_sets import SETS
from benchmark.storage.results import read_results
from families.spec import UserError

from ..conftest import tiny_protocol
from ..standins import CLASSES, NOWHERE, Hosted, labels_of

HALF = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
STRONG = Augment(auto_augment="rand-m9-mstd0.5-inc1", erase=0.25, mixup=0.8, cutmix=1.0)
SIDES = {"FashionMNIST": 28, "STL10": 96}  # of the stand-ins' images; others: 32
HELD_OUT = {name: 4 for name in SETS if "val" not in SETS[name].splits}


@pytest.fixture(scope="module")
def hosted(tmp_path_factory):
    host = Hosted(tmp_path_factory.mktemp("server"))
    yield host
    host.server.shutdown()


@pytest.fixture
def online(hosted, monkeypatch):
    hosted.patch(monkeypatch)
    hosted.log.clear()
    return hosted


@pytest.fixture
def offline(hosted, monkeypatch):
    hosted.patch(monkeypatch, NOWHERE)
    return hosted


def block(hosted, name, **changes):
    """The `data` block of a stand-in: the numbers of images are its own, all else is known."""
    found = Images(name="images", source=f"torchvision/{name}", held_out=HELD_OUT.get(name, 0))
    splits = {split.split: len(hosted.truth[name][split.split][1]) for split in (found.train, found.test, found.val) if split}
    roles = {"train": found.train, "test": found.test, "val": found.val}
    given = {role: {"split": each.split, "images": splits[each.split]} for role, each in roles.items() if each}
    content = {"name": "images", "source": found.source, "num_classes": len(CLASSES), "held_out": found.held_out}
    return content | given | {"crop_pct": 1.0} | changes


def protocol_file(hosted, folder, name, **changes):
    side = SIDES.get(name, 32)
    content = tiny_protocol(data=block(hosted, name), **changes)
    content["scale"] |= {"img_size": side, "patch_size": side // 4}
    content.pop("datasets")
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def opened(root, described, name, **place):
    return images.load(Images.model_validate(described), DataLocation(root=root, **place), SIDES.get(name, 32), HALF)


def batches(data, number, start=0):
    recipe = Recipe(steps=10, batch_size=8, lr=1e-3, warmup=0, weight_decay=0, augment=STRONG)
    return list(islice(data.train("student:0", recipe, start), number))


def same(left, right):
    assert len(left) == len(right)
    return all(torch.equal(a, b) for one, other in zip(left, right, strict=True) for a, b in zip(one, other, strict=True))


def tensor(array):
    """Grey or RGB uint8 pixels as [3, H, W] in 0..1."""
    rgb = np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else array
    return torch.from_numpy(rgb.copy()).permute(2, 0, 1).float() / 255


def as_folders(root, truth):
    """The same images as folders of PNGs, in the same order."""
    for split, (arrays, labels) in truth.items():
        for number, (array, label) in enumerate(zip(arrays, labels, strict=True)):
            path = root / split / CLASSES[label] / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return root


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_fetched_once_and_read_as_it_is(name, online, bench, tmp_path):
    """Every image and label of every split is the one that was put in, and training batches are those of image folders."""
    words = ("fetch", "--protocol", protocol_file(online, tmp_path, name), "--data", tmp_path / "data")
    code, out, err = bench(*words)
    assert code == 0 and f"torchvision/{name} is in" in out and not err
    facts = SETS[name]
    assert sorted(online.log) == sorted(facts.files), "the table's files are those that torchvision fetches"
    assert all((tmp_path / "data" / facts.folder / file).is_file() for file in facts.files)
    assert all((tmp_path / "data" / path).exists() for path in facts.unpacked)
    assert not list((tmp_path / "data").glob(".*"))
    online.log.clear()
    assert bench(*words)[0] == 0 and not online.log, "nothing is fetched twice"

    described = block(online, name)
    data = opened(tmp_path / "data", described, name)
    for word, split in data.settings.model_dump().items():
        if word not in ("train", "test", "val") or split is None:
            continue
        arrays, labels = online.truth[name][split["split"]]
        source, _ = data.parts[word]
        got = [source.image(index) for index in range(len(source))]
        assert [label for _, label in got] == labels and len(labels) == len(arrays) == split["images"]
        assert all(np.array_equal(np.asarray(image), tensor(each).mul(255).permute(1, 2, 0).round().byte().numpy())
                   for (image, _), each in zip(got, arrays, strict=True))  # fmt: skip
    pixels, labels = (torch.cat(part) for part in zip(*data.evaluate("test", 5), strict=True))
    arrays, truth = online.truth[name]["test"]
    order = data.parts["test"][1].tolist()
    assert torch.equal(pixels, torch.stack([tensor(arrays[index]) for index in order]))
    assert labels.tolist() == [truth[index] for index in order]

    folders = as_folders(tmp_path / "folders", online.truth[name])
    other = opened(folders, described | {"source": ""}, name)
    drawn = batches(data, 6)
    assert same(drawn, batches(other, 6)) and same(drawn, batches(opened(tmp_path / "data", described, name, workers=2), 6))
    assert same(drawn[4:], batches(data, 2, start=4)) and not same(drawn[:3], drawn[3:])


@pytest.mark.parametrize("name", ["FashionMNIST", "STL10", "OxfordIIITPet"])
def test_views_that_are_kept_are_those_of_folders(name, online, tmp_path, monkeypatch):
    """Without augmentation: resized and cropped, for the first time and again, in this process and in others; where they do not
    fit, too. Views of images that are decoded as they are drawn are never kept."""
    described, recipe = block(online, name, crop_pct=0.9), Recipe(steps=10, batch_size=8, lr=1e-3, warmup=0, weight_decay=0)
    fetch(Images.model_validate(described), DataLocation(root=tmp_path / "data"), lambda done, total: None)

    def seen(folder, **place):
        data = images.load(Images.model_validate(described | folder), DataLocation(**place), 40, HALF)
        return data, [
            [*islice(data.train("s", recipe, 1), 6), *data.evaluate("val", 3), *data.evaluate("test", 5)] for _ in range(2)
        ]

    folders = seen({"source": ""}, root=as_folders(tmp_path / "folders", online.truth[name]))[1][0]
    for place in ({}, {"workers": 2}):
        data, (first, again) = seen({}, root=tmp_path / "data", **place)
        assert same(first, folders) and same(again, folders)
    data, _ = seen({}, root=tmp_path / "data")
    keeps = name in SIDES
    for views in data.clean_views.values():
        monkeypatch.setattr(views, "transform", None)
    if keeps:
        assert same([*islice(data.train("s", recipe, 1), 6), *data.evaluate("val", 3), *data.evaluate("test", 5)], folders)
    else:
        with pytest.raises(TypeError):
            next(data.evaluate("test", 5))
    monkeypatch.setattr(images, "KEPT_BYTES", 10)
    assert same(seen({}, root=tmp_path / "data")[1][1], folders)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("name", "augment"), [
    ("FashionMNIST", {"scale": (0.6, 1.0)}),
    ("CIFAR10", {"color_jitter": 0.4, "mixup": 0.8}),
    ("STL10", {"color_jitter": 0.9, "hflip": 0.0}),
])  # fmt: skip
def test_batched_views_are_pillows(name, augment, interpolation, online, tmp_path, monkeypatch):
    """Crop, flip and jitter of whole batches, as a GPU makes them, are those of single images; a training goes on anywhere."""
    described = Images.model_validate(block(online, name, interpolation=interpolation))
    recipe = Recipe(steps=9, batch_size=4, lr=1e-3, warmup=0, weight_decay=0.05, augment=Augment.model_validate(augment))
    fetch(described, DataLocation(tmp_path), lambda *_: None)

    def found(start, workers=0, batched=True):
        data = images.load(described, DataLocation(tmp_path, None, workers), 120, HALF)
        batches = list(islice(data.train("s", recipe, start), 9 - start))
        assert (data.on_device is not None) == batched
        return batches

    single = found(0, batched=False)
    monkeypatch.setattr("benchmark.data.batched_views.PIECE", 3)
    monkeypatch.setattr("benchmark.data.batched_views.serves", lambda transform, source, device: device == "cpu")
    for batches in (found(0), found(0, workers=2), [*single[:5], *found(5)]):
        for one, other in zip(single, batches, strict=True):
            torch.testing.assert_close(other[0], one[0], atol=1e-6, rtol=0)
            assert torch.equal(one[1], other[1])


def test_which_views_a_gpu_makes_in_batches(online, tmp_path):
    def served(device="cuda:0", size=32, name="CIFAR10", **augment):
        described = Images.model_validate(block(online, name))
        fetch(described, DataLocation(tmp_path), lambda *_: None)
        data = images.load(described, DataLocation(tmp_path), size, HALF)
        return serves(data._transform(Augment.model_validate(augment)), data.parts["train"][0], device)

    assert served() and served(size=224, color_jitter=0.4, mixup=0.8, hflip=0.0)
    assert not served("cpu") and not served(size=31) and not served(name="OxfordIIITPet")
    assert not served(auto_augment="rand-m9-mstd0.5-inc1") and not served(erase=0.25)


def test_what_the_table_knows_of_the_real_sets():
    """As the paper of [F] lists them, beside Fashion-MNIST; a protocol may leave them out, and then has epochs of these."""
    known = {name: (facts.classes, *(split.images for split in facts.splits.values())) for name, facts in SETS.items()}
    assert known == {
        "FashionMNIST": (10, 60000, 10000), "CIFAR10": (10, 50000, 10000), "CIFAR100": (100, 50000, 10000),
        "STL10": (10, 5000, 8000), "Food101": (101, 75750, 25250), "Flowers102": (102, 1020, 1020, 6149),
        "OxfordIIITPet": (37, 3680, 3669),
    }  # fmt: skip
    flowers = Images(name="images", source="torchvision/Flowers102")
    assert (flowers.num_classes, flowers.train.images, flowers.val.images, flowers.test.images) == (102, 1020, 1020, 6149)
    pets = Images(name="images", source="torchvision/OxfordIIITPet", held_out=370)
    assert (pets.train.split, pets.training_images, pets.val) == ("trainval", 3310, None)
    assert Images(name="images", source="torchvision/Flowers102", held_out=100).val is None


def test_epochs_are_of_the_known_images(tmp_path):
    data = {"name": "images", "source": "torchvision/CIFAR10", "held_out": 5000}
    content = tiny_protocol(data=data) | {"datasets": {}}
    content["recipe"] = {"epochs": 2, "batch_size": 512, "lr": 1e-3, "warmup": 0, "weight_decay": 0}
    (tmp_path / "ten.yaml").write_text(yaml.safe_dump(content))
    assert load_protocol(str(tmp_path / "ten.yaml"))[1].recipe.steps == 2 * (45000 // 512)


# Training


def run_words(hosted, folder, name, data, **changes):
    augment = {} if name == "FashionMNIST" else {"augment": {"erase": 0.25, "mixup": 0.8, "hflip": 0.5}}
    recipe = {"steps": 6, "batch_size": 8, "lr": 1e-3, "warmup": 0, "weight_decay": 0.05} | augment
    folder.mkdir(exist_ok=True)
    changes = {"recipe": recipe, "teacher": {"floor": 0, "recipe": recipe}, "checkpoint_seconds": 0} | changes
    path = protocol_file(hosted, folder, name, **changes)
    (folder / "few.yaml").write_text("title: Few\narms: [standard-copy]\n")
    chosen = ("--family", "deit", "--sizes", "base", "--seeds", "0", "--study", folder / "few.yaml", "--protocol", path)
    where = ("--data", data, "--work", folder / "work", "--results", folder / "results", "--device", "cpu")
    return [str(word) for word in ("run", *chosen, *where, "--cluster", "debug")]


def numbers(folder):
    results, rejected = read_results(folder / "results")
    assert not rejected
    return {found.cell.arm: (found.metrics, found.val, found.curve, found.provenance.data) for found in results}


@pytest.mark.parametrize("name", ["FashionMNIST", "CIFAR10"])
def test_a_request_fetches_trains_and_resumes_exactly(name, online, bench, tmp_path, unreported, monkeypatch):
    """Grey and RGB images; a training that is interrupted goes on from its checkpoint, to the same numbers."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    code, out, err = bench(*run_words(online, whole, name, tmp_path / "data"))
    assert code == 0, out + err
    assert sorted(online.log) == sorted(SETS[name].files)
    found = numbers(whole)
    assert found.keys() == {"teacher", "standard-none", "standard-copy"}
    assert all(metrics.top1 >= 0 and data for metrics, _, _, data in found.values())

    drawn, starts = images.Photographs.train, []

    def interrupted(self, stream, recipe, start):
        starts.append(start)
        for number, batch in enumerate(drawn(self, stream, recipe, start), start):
            if len(starts) == 2 and number == 3:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(images.Photographs, "train", interrupted)
    words = run_words(online, stopped, name, tmp_path / "data")
    assert main(words) != 0 and len(starts) == 2, "in the middle of the students' training"
    assert main(words) == 0
    logs = "".join(path.read_text() for path in (stopped / "work" / "runs").glob("*/run.log"))
    assert starts[2] <= 2, "batch 3 is fetched during step 2, which was lost"
    assert re.search(r"training from step [12]\n", logs), logs
    assert numbers(stopped) == found


def test_another_data_set_of_a_protocol_lies_beside_the_first(online, bench, tmp_path, unreported):
    """In the data folder itself, since torchvision names it; both are fetched, and trained on."""
    words = run_words(online, tmp_path, "CIFAR10", tmp_path / "data", curve_points=1)
    content = yaml.safe_load((tmp_path / "small.yaml").read_text())
    content["datasets"] = {"hundred": block(online, "CIFAR100")}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "few.yaml").write_text("title: Few\narms: [standard-copy+data=hundred]\n")
    code, out, _ = bench("fetch", "--protocol", tmp_path / "small.yaml", "--data", tmp_path / "data")
    assert code == 0 and out.count(" is in ") == 2
    code, out, err = bench(*words)
    assert code == 0 and len(online.log) == 2, out + err
    assert "standard-copy+data=hundred" in numbers(tmp_path)


def test_the_teachers_are_fetched_too_unless_the_protocol_trains_them(online, bench, tmp_path):
    path, weights = protocol_file(online, tmp_path, "CIFAR10"), tmp_path / "weights"
    weights.mkdir()
    (weights / "deit-tiny_in1k.safetensors").write_bytes(b"put there by hand")
    words = ("fetch", "--protocol", path, "--data", tmp_path / "data", "--weights", weights, "--family", "deit", "--sizes")
    code, _, err = bench(*words, "tiny_in2k")
    assert code == 2 and "tiny_in1k" in err and not online.log, "a mistyped teacher is told before anything is fetched"
    code, out, _ = bench(*words, "tiny_in1k")
    assert code == 0 and "CIFAR10 is in" in out and "deit tiny_in1k" not in out
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(content | {"scale": None, "teacher": None}))
    code, out, _ = bench(*words, "tiny_in1k")
    assert code == 0 and "CIFAR10 is in" in out and "deit tiny_in1k" in out


def test_two_that_fetch_at_a_time_fetch_once(online, tmp_path):
    """Into one folder, which many jobs share."""
    given = (Images.model_validate(block(online, "STL10")), DataLocation(tmp_path / "data"), make_console())
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(fetch_images_with_bar, *given) for _ in range(2)]:
            done.result()
    assert online.log == list(SETS["STL10"].files)


# Bad input


def says(*words):
    """The UserError of this block is one line that contains these words."""
    return pytest.raises(UserError, match="(?s)^(?!.*\n)" + "".join(f"(?=.*{re.escape(word)})" for word in words))


@pytest.fixture
def refused(bench, tmp_path, offline):
    """A fetch and a check without network are refused in one line; gives it."""

    def call(name, verb="fetch", most=420):
        code, out, err = bench(verb, "--protocol", protocol_file(offline, tmp_path, name), "--data", tmp_path / "data")
        assert code == 2 and not out and err.startswith("bench: ") and err.count("\n") == 1 and "Traceback" not in err
        assert len(err.replace(str(tmp_path), "")) <= most, err
        return err

    return call


@pytest.mark.parametrize(("change", "told"), [
    ({"source": "torchvision/CIFAR11"}, ("unknown data set of torchvision", "'CIFAR1", *SETS)),
    ({"source": "torchvision/cifar10"}, ("did you mean 'CIFAR10'",)),
    ({"source": "torchvision/"}, tuple(SETS)),
    ({"test": {"split": "tset", "images": 12}}, ("unknown split of CIFAR10: 'tset'", "did you mean 'test'", "train, test")),
    ({"held_out": 0}, ("either held_out",)),
])  # fmt: skip
def test_a_protocol_that_names_no_set(change, told, hosted, bench, tmp_path):
    path = protocol_file(hosted, tmp_path, "CIFAR10")
    content = yaml.safe_load(path.read_text())
    content["data"] |= change
    path.write_text(yaml.safe_dump(content))
    code, _, err = bench("run", "--dry-run", "--family", "deit", "--sizes", "base", "--protocol", path)
    assert code == 2 and err.count("\n") == 1 and all(word in err for word in told), err


@pytest.mark.parametrize("name", SETS)
def test_without_network_it_is_told_what_goes_where(name, offline, refused, hosted, bench, tmp_path):
    """And what is put there so is taken, by the same command."""
    facts = SETS[name]
    (tmp_path / "data").mkdir()
    for verb in ("check", "fetch"):
        line = refused(name, verb)
        assert all(file in line for file in facts.files) and f"into {tmp_path / 'data' / facts.folder}; bench" in line
    assert "no network ([Errno 111] Connection refused)" in line and not list((tmp_path / "data").glob(".*"))
    for file in facts.files:
        (tmp_path / "data" / facts.folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(hosted.folder / name / file, tmp_path / "data" / facts.folder)
    words = ("--protocol", tmp_path / "small.yaml", "--data", tmp_path / "data")
    assert bench("fetch", *words)[0] == 0
    code, out, err = bench("check", *words, "--work", tmp_path / "work")
    assert code == 0 and "can be read" in out, err


@pytest.mark.parametrize("name", ["FashionMNIST", "CIFAR10", "OxfordIIITPet"])
def test_a_truncated_archive_is_never_believed(name, hosted, refused, bench, tmp_path, monkeypatch):
    """Neither one that lies there, nor one whose download breaks off; a whole one takes its place."""
    facts = SETS[name]
    target = tmp_path / "data" / facts.folder
    target.mkdir(parents=True)
    for file in facts.files:
        shutil.copy(hosted.folder / name / file, target)
    (target / facts.files[-1]).write_bytes((hosted.folder / name / facts.files[-1]).read_bytes()[:-5])
    line = refused(name)
    assert "no network" in line and f"not the published file (md5): {facts.files[-1]}" in line
    hosted.patch(monkeypatch)
    monkeypatch.setattr(hosted, "cut", 30)
    assert f"not the published file (md5): {facts.files[-1]}" in refused(name)
    assert "is not in" in refused(name, "check")
    monkeypatch.setattr(hosted, "cut", None)
    assert bench("fetch", "--protocol", tmp_path / "small.yaml", "--data", tmp_path / "data")[0] == 0
    data = opened(tmp_path / "data", block(hosted, name), name)
    assert data.parts["train"][0].image(3)[1] == hosted.truth[name][next(iter(facts.splits))][1][3]


@pytest.mark.parametrize("name", ["FashionMNIST", "Food101"])
def test_what_an_interrupted_fetch_unpacked_is_unpacked_again(name, online, tmp_path, bench, monkeypatch):
    """Killed in the middle: torchvision itself would take what lies there for the whole."""
    from torchvision.datasets import utils

    words = ["fetch", "--protocol", str(protocol_file(online, tmp_path, name)), "--data", str(tmp_path / "data")]
    unpack, calls = utils.extract_archive, []

    def killed(*given):
        unpack(*given)
        calls.append(given)
        if len(calls) == len(SETS[name].files):
            for path in (tmp_path / "data").rglob("*"):
                if path.suffix == ".jpg" or path.name == "train-images-idx3-ubyte":
                    path.write_bytes(path.read_bytes()[:-9])
            raise KeyboardInterrupt

    with monkeypatch.context() as within:
        within.setattr(utils, "extract_archive", killed)
        assert main(words) == 130
    assert bench("check", *words[1:])[0] == 2
    online.log.clear()
    assert bench(*words)[0] == 0 and not online.log
    assert bench("check", *words[1:], "--work", tmp_path / "work")[0] == 0


def test_a_folder_of_another_set(online, offline, refused, bench, tmp_path):
    """CIFAR-10's files in CIFAR-100's place; MNIST's in Fashion-MNIST's, which torchvision tells apart by nothing; too few."""
    data = tmp_path / "data"
    shutil.copytree(online.folder / "CIFAR10", data)
    assert "torchvision/CIFAR100 is not in" in refused("CIFAR100", "check")
    (data / "cifar-10-python.tar.gz").rename(data / "cifar-100-python.tar.gz")
    assert "not the published file (md5): cifar-100-python.tar.gz" in refused("CIFAR100")

    raw = data / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (online.folder / "FashionMNIST").iterdir():
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    words = ("check", "--protocol", protocol_file(online, tmp_path, "FashionMNIST"), "--data", data, "--work", tmp_path / "work")
    assert bench(*words)[0] == 0

    def digest():
        described = Images.model_validate(block(online, "FashionMNIST"))
        return images.check(described, DataLocation(data), lambda *_: None).digest

    before, pixels = digest(), raw / "t10k-images-idx3-ubyte"
    assert before == digest()
    pixels.write_bytes(pixels.read_bytes()[:-1] + b"\0")
    other = digest()
    assert before != other, "one pixel"
    labels = raw / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:8] + labels.read_bytes()[:7:-1])
    assert digest() not in (before, other), "the same labels, of other images"
    uneven = labels_of((5, 7, 6, 6))
    (raw / "train-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(uneven)) + bytes(uneven))
    assert "5 to 7 images of a class" in refused("FashionMNIST", "check")
    (raw / "train-images-idx3-ubyte").write_bytes(b"<html>")
    assert "not readable by torchvision" in refused("FashionMNIST", "check")


def test_images_and_classes_are_counted_and_decoded(online, tmp_path):
    seen, size = [], (online.folder / "Food101" / "food-101.tar.gz").stat().st_size
    given = Images.model_validate(block(online, "Food101")), DataLocation(tmp_path / "data")
    fetch(*given, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (size, size)

    def checked(**changes):
        described = Images.model_validate(block(online, "Food101", **changes))
        return images.check(described, DataLocation(tmp_path / "data", tmp_path / "work"), lambda *_: None)

    assert checked().digest == checked().digest
    with says("24 images", "says 25"):
        checked(train={"split": "train", "images": 25})
    with says("4 classes", "says 5"):
        checked(num_classes=5)
    spoilt = next((tmp_path / "data" / "food-101" / "images" / "bear").iterdir())
    spoilt.write_bytes(spoilt.read_bytes()[:200])
    with says(str(spoilt), "1 of "):
        checked()
