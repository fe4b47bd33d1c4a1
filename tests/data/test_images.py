"""Photographs: what is drawn depends on nothing but (stream, step), classes are those of training, bad data is named."""

import gc
import io
import json
import multiprocessing
import os
import random
import shutil
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from PIL import Image, ImageFile
from timm.data.auto_augment import posterize
from torchvision.transforms import InterpolationMode

from benchmark.data import DataLocation, augmentation, image_sources, images, part_of
from benchmark.spec.data_sets import Images
from benchmark.spec.recipe import Augment, Normalisation, Recipe
from families.spec import UserError

from ..jpegs import make_folder, picture, wnids

IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
STRONG = Augment(auto_augment="rand-m9-mstd0.5-inc1", erase=0.25, mixup=0.8, cutmix=1.0)
ALONE = STRONG.model_copy(update={"mixup": 0.0, "cutmix": 0.0})
SIZE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 training and 22 test images of four classes."""
    root = tmp_path_factory.mktemp("photographs")
    make_folder(root, {"train": 60, "val": 22})
    return root


@pytest.fixture
def own(folder, tmp_path):
    """A copy of the folder, to be spoilt."""
    return shutil.copytree(folder, tmp_path / "data")


def settings(**changes):
    content = {"name": "images", "num_classes": 4, "held_out": 8, "train": {"split": "train", "images": 60}}
    return Images.model_validate(content | {"test": {"split": "validation", "images": 22}} | changes)


def recipe(augment=None, **changes):
    return Recipe(steps=10, batch_size=8, lr=1e-3, warmup=0, weight_decay=0, augment=augment, **changes)


def load(root, described=None, **place):
    return images.load(described or settings(), DataLocation(root=root, **place), SIZE, IMAGENET)


def test_students_learn_from_few_of_the_images(folder):
    """The same ones for every seed, none of val's; in an epoch each once."""
    few = load(folder, settings(student_images=16))
    whole = load(folder)
    chosen = {name: set(few.parts[name][1].tolist()) for name in ("train", "val")}
    assert len(chosen["train"]) == 16 and chosen["train"] < set(whole.parts["train"][1].tolist())
    assert chosen["val"] == set(whole.parts["val"][1].tolist())
    for seed in (0, 1):
        order = images.shuffled(f"student:{seed}", few.parts["train"][1], 16, range(16), 0)
        assert {image for _, image in next(order)} == chosen["train"]


def test_some_of_the_classes(folder, tmp_path):
    """Those that the protocol names, numbered among themselves, out of folders and tars; a name that is not there is told."""
    names = wnids(4)[1:3]
    described = {"num_classes": 2, "classes": names[::-1], "train": {"split": "train", "images": 30}}
    described = settings(**described, test={"split": "validation", "images": 11})
    for split in ("train", "val"):
        with tarfile.open(tmp_path / f"{split}.tar", "w") as tar:
            tar.add(folder / split, split)
    for root in (folder, tmp_path):
        data = load(root, described)
        for name, number in (("train", 22), ("val", 8), ("test", 11)):
            source, chosen = data.parts[name]
            assert len(chosen) == number
            for index in chosen.tolist():
                assert names[source.image(index)[1]] in source.filename(index)
    strange = described.model_copy(update={"classes": (names[0], "n00000000")})
    with says("15 images, but the protocol says 30"):
        load(folder, strange)
    with pytest.raises(ValueError, match="classes: 2 different names of folders"):
        Images.model_validate(described.model_dump() | {"classes": names[:1]})


def drawn(data, batches, augment=ALONE, start=0, stream="student:0", **changes):
    return list(islice(data.train(stream, recipe(augment, **changes), start), batches))


def same(left, right):
    assert len(left) == len(right)
    return all(torch.equal(a, b) for one, other in zip(left, right, strict=True) for a, b in zip(one, other, strict=True))


def silent(*_):
    pass


def checked(root, described=None, work=None, **place):
    return images.check(described or settings(), DataLocation(root=root, work=work, **place), silent)


def says(*words):
    """The UserError of this block is one line that contains these words."""
    return pytest.raises(UserError, match="(?s)^(?!.*\n)" + "".join(f"(?=.*{word})" for word in words))


# Training


@pytest.mark.parametrize("augment", [None, ALONE, STRONG], ids=["none", "alone", "mixed"])
def test_batches_do_not_depend_on_workers(folder, augment):
    alone = drawn(load(folder), 8, augment)  # six batches an epoch: two epochs
    for workers in (1, 2):
        assert same(alone, drawn(load(folder, workers=workers), 8, augment))
    assert not same(alone, drawn(load(folder), 8, augment, stream="student:1"))


def test_a_training_goes_on_at_any_step(folder):
    whole = drawn(load(folder), 14, STRONG)
    for start in (1, 5, 6, 7, 12):
        assert same(whole[start:], drawn(load(folder), 14 - start, STRONG, start))


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_together_are_one(folder, ranks):
    for augment in (ALONE, STRONG):
        whole = drawn(load(folder), 7, augment, smoothing=0.1)
        parts = [load(folder, rank=rank, ranks=ranks) for rank in range(ranks)]
        pieces = [drawn(part, 7, augment, smoothing=0.1) for part in parts]
        for step, (pixels, targets) in enumerate(whole):
            for rank, part in enumerate(parts):
                mine = part_of(part.place, 8)
                assert torch.equal(pieces[rank][step][0], pixels[mine]) and torch.equal(pieces[rank][step][1], targets[mine])


def test_an_epoch_shows_each_image_once_and_differently_each_time(folder):
    data = load(folder)
    _, training = data.parts["train"]
    order = list(islice(images.shuffled("s", training, 8, range(8), 0), 12))
    for epoch, batches in enumerate((order[:6], order[6:])):
        keys = [key for batch in batches for key in batch]
        assert len(set(keys)) == 48 and {number for number, _ in keys} == {epoch}
        assert {index for _, index in keys} <= set(training.tolist())
    assert [i for batch in order[:6] for _, i in batch] != [i for batch in order[6:] for _, i in batch]
    views = images.Views(data.parts["train"][0], data._transform(ALONE), "s")
    assert torch.equal(views[0, 3][0], views[0, 3][0]) and not torch.equal(views[0, 3][0], views[1, 3][0])


def test_targets_are_labels_or_with_mixing_smoothed_probabilities(folder):
    _, labels = drawn(load(folder), 1, ALONE, smoothing=0.1)[0]
    assert labels.dtype == torch.int64 and labels.shape == (8,)
    _, mixed = drawn(load(folder), 1, STRONG, smoothing=0.1)[0]
    assert mixed.dtype == torch.float32 and mixed.shape == (8, 4)
    assert torch.allclose(mixed.sum(1), torch.ones(8)) and mixed.min() >= 0.1 / 4 - 1e-6
    for only in ({"mixup": 0.8}, {"cutmix": 1.0}):
        assert drawn(load(folder), 1, Augment(**only))[0][1].shape == (8, 4)


def test_a_batch_that_cannot_be_is_told_at_once(folder):
    with says("batch_size 7", "even number"):
        load(folder).train(
            "s",
            recipe(
                STRONG,
            ).model_copy(update={"batch_size": 7}),
            0,
        )
    with says("recipe.augment", "Unknown AA policy"):
        load(folder).train("s", recipe(Augment(auto_augment="nonsense")), 0)
    with says("batch_size 53", "52 training images"):
        load(folder).train("s", recipe().model_copy(update={"batch_size": 53}), 0)


def test_drawing_leaves_the_global_generators_alone(folder):
    def state():
        return random.random(), np.random.rand(), torch.rand(1).item()

    def seed():
        random.seed(1), np.random.seed(1), torch.manual_seed(1)

    data = load(folder)
    seed()
    expected = [state() for _ in range(3)]
    seed()
    stream = data.train("s", recipe(STRONG), 0)
    seen = []
    for _ in range(3):
        next(stream), next(data.evaluate("test", 8))
        seen.append(state())
    assert seen == expected
    first = drawn(data, 2, STRONG)
    torch.manual_seed(99), random.seed(99), np.random.seed(99)
    assert same(first, drawn(data, 2, STRONG))


def test_loader_processes_end_with_the_generator(folder):
    stream = load(folder, workers=2).train("s", recipe(), 0)
    next(stream)
    assert len(multiprocessing.active_children()) == 2
    stream.close()
    gc.collect()
    assert not multiprocessing.active_children()


def test_what_loader_processes_get_can_be_sent_to_them(folder):
    import pickle

    data = load(folder)
    views = images.Views(data.parts["train"][0], data._transform(STRONG), "s")
    assert torch.equal(pickle.loads(pickle.dumps(views))[0, 0][0], views[0, 0][0])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_ends_a_training(own, workers):
    spoilt = own / "train" / wnids(4)[1] / f"{wnids(4)[1]}_21.JPEG"
    spoilt.write_bytes(spoilt.read_bytes()[:300])
    with says(str(spoilt), "not readable"):
        drawn(load(own, workers=workers, described=settings(held_out=1)), 20, None)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_what_is_no_file_is_no_image_and_is_not_waited_for(own, make, at_once):
    odd = own / "train" / wnids(4)[1] / f"{wnids(4)[1]}_21.JPEG"
    odd.unlink()
    make(odd)
    with says(str(odd), "no regular file"):
        checked(own)
    source = load(own).parts["train"][0]
    index = [source.filename(index) for index in range(len(source))].index(str(odd))
    with says(str(odd), "no regular file"):
        source.image(index)


# Transforms


def test_randaugment_runs(folder):
    """With Pillow 13 posterize refuses the 0 bits that this policy draws now and then."""
    transform = augmentation.training_transform(ALONE, settings(), SIZE, IMAGENET)
    image = picture(0, 4, np.random.default_rng(0))
    for index in range(600):
        with augmentation.seeded("s", index):
            out = transform(image)
        assert out.shape == (3, SIZE, SIZE) and bool(out.isfinite().all())


def test_normalisation_is_undone_once():
    plain = Augment(scale=(1.0, 1.0), hflip=0.0)
    transform = augmentation.training_transform(plain, settings(), SIZE, IMAGENET)
    image = picture(0, 4, np.random.default_rng(0), sizes=(SIZE, SIZE))
    assert (transform(image) - F.to_tensor(image)).abs().max() < 1e-6


def test_erased_pixels_are_noise_in_the_students_units():
    erasing = Augment(scale=(1.0, 1.0), hflip=0.0, erase=1.0)
    transform = augmentation.training_transform(erasing, settings(), SIZE, IMAGENET)
    grey = Image.new("RGB", (SIZE, SIZE), (124, 116, 104))
    clean, mean, std = F.to_tensor(grey), torch.tensor(IMAGENET.mean), torch.tensor(IMAGENET.std)
    erased = []
    for index in range(200):
        with augmentation.seeded("erase", index):
            out = transform(grey)
        erased.append(out[:, ((out - clean).abs() > 1e-5).any(0)])
    pixels = torch.cat(erased, dim=1)
    assert 0.02 < pixels.shape[1] / (200 * SIZE**2) < 0.34
    assert torch.allclose(pixels.mean(1), mean, atol=0.01) and torch.allclose(pixels.std(1), std, atol=0.01)


# Evaluation


def independent(path, interpolation, crop_pct=0.875):
    """The customary evaluation, without timm."""
    image = Image.open(path).convert("RGB")
    image = F.resize(image, int(SIZE / crop_pct), InterpolationMode(interpolation))
    return F.to_tensor(F.center_crop(image, [SIZE, SIZE]))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_evaluation_is_the_customary_one(folder, interpolation):
    data = load(folder, settings(interpolation=interpolation))
    pixels, labels = (torch.cat(part) for part in zip(*data.evaluate("test", 5), strict=True))
    paths = [Path(data.parts["test"][0].reader.samples[index][0]) for index in data.parts["test"][1]]
    assert torch.equal(pixels, torch.stack([independent(path, interpolation) for path in paths]))
    assert labels.tolist() == [wnids(4).index(path.parent.name) for path in paths]
    assert pixels.min() >= 0 and pixels.max() <= 1 and len(paths) == 22


def test_evaluation_batches_do_not_depend_on_workers_or_ranks(folder):
    for name in ("val", "test"):
        whole = list(load(folder).evaluate(name, 4))
        assert [len(labels) for _, labels in whole] == ([4, 4] if name == "val" else [4] * 5 + [2])
        assert same(whole, list(load(folder, workers=2).evaluate(name, 4)))
        for ranks in (2, 3):  # of val, the third rank has none
            for rank in range(ranks):
                assert same(whole[rank::ranks], list(load(folder, rank=rank, ranks=ranks).evaluate(name, 4)))


def test_neighbours_in_an_evaluation_set_are_of_any_class(folder):
    """One lends the other its attention in a control; files lie class by class. The order is the same each time."""
    for name in ("val", "test"):
        labels = torch.cat([labels for _, labels in load(folder).evaluate(name, 4)])
        assert not torch.equal(labels, labels.sort().values)
        assert torch.equal(labels, torch.cat([labels for _, labels in load(folder).evaluate(name, 7)]))


def test_held_out_images_are_never_trained_on(folder):
    data = load(folder)
    assert data.sets() == ("val", "test") and data.classes("val") is None
    training, held_out = (set(data.parts[name][1].tolist()) for name in ("train", "val"))
    assert len(training) == 52 and len(held_out) == 8 and not training & held_out
    assert held_out == set(load(folder).parts["val"][1].tolist())
    assert all(torch.equal(part, part.sort().values) for part in images.held_out_of(100, 30))


def test_val_may_be_a_split_of_its_own(own):
    make_folder(own, {"held": 12}, seed=5)
    data = load(own, settings(held_out=0, val={"split": "held", "images": 12}))
    assert sum(len(labels) for _, labels in data.evaluate("val", 5)) == 12 and len(data.parts["train"][1]) == 60


def test_every_colour_mode_becomes_rgb(own):
    first = sorted((own / "val" / wnids(4)[0]).iterdir())
    for path, mode in zip(first, ("L", "CMYK", "P", "RGBA"), strict=False):
        grey = Image.open(path).convert(mode)
        kind = "PNG" if mode in ("P", "RGBA") else "JPEG"
        grey.save(path, kind)
        assert Image.open(path).mode == mode
    checked(own)
    data = load(own)
    pixels, _ = next(data.evaluate("test", 22))
    assert pixels.shape == (22, 3, SIZE, SIZE)
    pixels = pixels[data.parts["test"][1].argsort()]
    assert torch.equal(pixels[0, 0], pixels[0, 1]) and torch.equal(pixels[0, 1], pixels[0, 2])


# Classes


SHIFTED = {
    "renamed": {"path": "by-index", "images": 24, "classes": 12, "named_by": "index"},
    "subset": {"path": "some", "images": 6, "classes": 3},
}


@pytest.fixture(scope="module")
def shifting(tmp_path_factory):
    """Twelve classes: by number, more than ten are not in the order of their names."""
    root = tmp_path_factory.mktemp("beside") / "data"
    make_folder(root, {"train": 24, "val": 12}, classes=12)
    make_folder(root, {"by-index": 24}, classes=12, names={str(label): label for label in range(12)})
    make_folder(root.parent, {"some": 6}, classes=12, names={wnids(12)[label]: label for label in (11, 2, 9)})
    described = {"num_classes": 12, "train": {"split": "train", "images": 24}, "test": {"split": "val", "images": 12}}
    return root, settings(**described, shifted=SHIFTED)


def test_shifted_sets_have_the_classes_of_training(shifting):
    root, described = shifting
    data = load(root, described)
    assert data.sets() == ("val", "test", "renamed", "subset")
    for name in ("renamed", "subset"):
        source, order = data.parts[name]
        _, labels = next(data.evaluate(name, 24))
        folders = [Path(source.reader.samples[index][0]).parent.name for index in order]
        names = [str(label) for label in range(12)] if name == "renamed" else wnids(12)
        assert labels.tolist() == [names.index(folder) for folder in folders]
    assert data.classes("renamed") is None and data.classes("test") is None
    assert data.classes("subset").tolist() == [2, 9, 11]
    checked(root, described)


def test_a_class_is_its_name_whatever_the_order_of_the_folders(tmp_path):
    """timm would number the folders 2, 10 by value; sorted names are 10, 2. Sets that lack a class must not shift the others."""
    make_folder(tmp_path, {"train": 6, "val": 6}, names={"10": 0, "2": 1, "b": 2})
    make_folder(tmp_path, {"odd": 2}, names={"2": 1, "b": 2})
    shifted = {"odd": {"path": "odd", "images": 2, "classes": 2}}
    described = {"num_classes": 3, "train": {"split": "train", "images": 6}, "held_out": 1, "shifted": shifted}
    data = load(tmp_path, settings(**described, test={"split": "val", "images": 6}))
    source, _ = data.parts["train"]
    assert {Path(path).parent.name: source.classes[label] for path, label in source.reader.samples} == {"10": 0, "2": 1, "b": 2}
    assert data.classes("odd").tolist() == [1, 2]


# What is wrong is named


def test_check_names_what_is_wrong_with_the_folders(own, tmp_path, shifting):
    with says("--data DIR"):
        checked(None)
    with says(str(tmp_path / "nowhere"), "no such folder"):
        checked(tmp_path / "nowhere")
    with says(str(own), "no split 'validation2'", "looked for validation2", "there is: train, val"):
        checked(own, settings(test={"split": "validation2", "images": 22}))
    with says(str(own / "train"), "60 images", "says 61"):
        checked(own, settings(train={"split": "train", "images": 61}))
    with says(str(own / "val"), "22 images", "says 20"):
        load(own, settings(test={"split": "val", "images": 20}))
    with says(str(own / "train"), "4 classes", "says 5"):
        checked(own, settings(num_classes=5))
    with says("data.source 'torch/cifar10'", "hfds/NAME"):
        checked(own, settings(source="torch/cifar10"))
    (own / "empty").mkdir()
    with says(str(own / "empty"), "0 images"):
        checked(own, settings(test={"split": "empty", "images": 22}))
    (own / "val" / wnids(4)[2]).rename(own / "val" / "stranger")
    with says(str(own / "val"), r"training lacks \(1\)", "stranger"):
        checked(own)
    shutil.rmtree(own / "val" / "stranger")
    picture(0, 4, np.random.default_rng(0)).save(own / "val" / "loose.jpg")
    with says(str(own / "val"), "images in no folder"):
        checked(own)
    (own / "val" / "loose.jpg").unlink()
    with says(str(own / "val"), "training classes", wnids(4)[2]):
        checked(own, settings(test={"split": "val", "images": 17}))


def test_check_names_what_is_wrong_with_a_shifted_set(shifting):
    root, described = shifting

    def changed(**values):
        return described.model_copy(update={"shifted": {"s": described.shifted["subset"].model_copy(update=values)}})

    for change, words in [
        ({"path": "gone"}, "shifted set s: no gone in"),
        ({"images": 7}, "6 images, but the protocol says 7"),
        ({"classes": 4}, "3 classes, but the protocol says 4"),
        ({"path": "by-index"}, "training lacks (12): 0, 1, 10, 11"),
        ({"named_by": "index"}, "training lacks (3)"),
    ]:
        found = checked(root, changed(**change))
        assert found.absent.keys() == {"s"} and words in found.absent["s"] and not found.digests
        assert found.digest == checked(root, described).digest  # and the rest is as without it
        dataset = load(root, changed(**change))
        assert dataset.sets() == ("val", "test")
        with says("s"):
            next(dataset.evaluate("s", 4))


@pytest.mark.parametrize("workers", [0, 2])
def test_check_decodes_every_image(own, tmp_path, workers):
    truncated, page = (sorted((own / split / wnids(4)[3]).iterdir())[-1] for split in ("train", "val"))
    whole = truncated.read_bytes()
    truncated.write_bytes(whole[: len(whole) * 9 // 10])
    ImageFile.LOAD_TRUNCATED_IMAGES = True  # what another library may have left
    with says(str(own / "train"), "1 of 60 images", str(truncated)):
        checked(own, work=tmp_path / "work", workers=workers)
    truncated.write_bytes(whole)
    page.write_text("<html>Not found</html>")
    with says(str(own / "val"), "1 of 22 images", str(page), "cannot identify"):
        checked(own, work=tmp_path / "work", workers=workers)
    for path in (own / "val").rglob("*.JPEG"):
        path.write_bytes(b"")
    with says("22 of 22 images", ", ...$"):
        checked(own, work=tmp_path / "work", workers=workers)


def test_check_decodes_the_same_files_once(own, tmp_path, monkeypatch):
    opened, told = [], []
    image = image_sources.Source.image
    monkeypatch.setattr(
        image_sources.Source, "image", lambda self, index, cheap: opened.append(index) or image(self, index, cheap)
    )

    def look(work):
        opened.clear(), told.clear()
        return images.check(settings(), DataLocation(root=own, work=work), lambda *words: told.append(words)), len(opened)

    first, count = look(tmp_path / "work")
    assert count == 82 and told[-1] == ("test", 22, 22) and ("train", 60, 60) in told
    assert look(tmp_path / "work") == (first, 0)
    assert look(None) == (first, 82)
    moved = own.rename(tmp_path / "moved")
    assert images.check(settings(), DataLocation(root=moved, work=tmp_path / "work"), silent) == first and len(opened) == 82
    moved.rename(own)
    picture(0, 4, np.random.default_rng(7)).save(sorted((own / "val" / wnids(4)[0]).iterdir())[0])
    second, count = look(tmp_path / "work")
    assert second != first and count == 22


# Other sources


def pack(folder, path):
    with tarfile.open(path, "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=path.name)


def test_tars_are_the_same_as_folders(folder, tmp_path):
    pack(folder / "train", tmp_path / "train.tar")
    (tmp_path / "val").mkdir()
    for name in wnids(4):
        pack(folder / "val" / name, tmp_path / "val" / f"{name}.tar")
    checked(tmp_path)
    assert same(drawn(load(folder), 7, STRONG), drawn(load(tmp_path, workers=2), 7, STRONG))
    unpacked, packed = (sorted(labels.tolist() for _, labels in load(root).evaluate("test", 22)) for root in (folder, tmp_path))
    assert unpacked == packed


def test_a_bad_image_in_a_tar_is_named(own, tmp_path):
    sorted((own / "val" / wnids(4)[0]).iterdir())[0].write_text("<html>")
    shutil.copytree(own / "train", tmp_path / "tars" / "train")
    pack(own / "val", tmp_path / "tars" / "validation.tar")
    with says("validation.tar", f"{wnids(4)[0]}_0.JPEG", "1 of 22"):
        checked(tmp_path / "tars")


@pytest.fixture(scope="module")
def rows(folder, tmp_path_factory):
    """A local Hugging Face data set of the folder's images, in files of their own."""
    datasets = pytest.importorskip("datasets")
    root = tmp_path_factory.mktemp("rows")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=wnids(4))})
    for split in ("train", "val"):
        paths = sorted((folder / split).rglob("*.JPEG"), key=lambda path: path.name.split("_")[1])
        content = [{"image": {"bytes": p.read_bytes(), "path": None}, "label": wnids(4).index(p.parent.name)} for p in paths]
        name = "train" if split == "train" else "validation"
        whole = datasets.Dataset.from_list(content, features=features)
        for shard in range(2):
            whole.shard(2, shard).to_parquet(root / "set" / "data" / f"{name}-{shard:05d}-of-00002.parquet")
    return root


def test_a_hugging_face_data_set(rows, folder, tmp_path):
    shifted = {"some": {"path": "some", "images": 4, "classes": 2}}
    make_folder(rows, {"some": 4}, names={wnids(4)[label]: label for label in (1, 3)})
    described = settings(source=f"hfds/{rows / 'set'}", shifted=shifted)
    digest = checked(rows, described, work=tmp_path / "work")
    assert digest == checked(rows, described, work=tmp_path / "work")
    data = load(rows, described)
    assert same(drawn(data, 7, STRONG), drawn(load(rows, described, workers=2), 7, STRONG))
    assert data.classes("some").tolist() == [1, 3]
    ((pixels, labels),) = data.evaluate("test", 22)
    ((files, wanted),) = load(folder).evaluate("test", 22)
    assert sorted(zip(labels.tolist(), pixels.sum((1, 2, 3)).tolist(), strict=True)) == sorted(
        zip(wanted.tolist(), files.sum((1, 2, 3)).tolist(), strict=True)
    )
    with says("split validation", "22 images", "says 21"):
        checked(rows, described.model_copy(update={"test": described.test.model_copy(update={"images": 21})}))
    with says("split nothing", "not readable"):
        checked(rows, settings(source=f"hfds/{rows / 'set'}", test={"split": "nothing", "images": 22}))


def shards(folder, root):
    """The folder as webdataset shards: three of training, two of test; a sample is NAME.jpg and NAME.cls."""
    for split, number in (("train", 3), ("val", 2)):
        paths = sorted((folder / split).rglob("*.JPEG"))
        random.Random(0).shuffle(paths)
        for shard in range(number):
            with tarfile.open(root / f"{split}-{shard}.tar", "w") as tar:
                for path in paths[shard::number]:
                    for ending, content in (("jpg", path.read_bytes()), ("cls", str(wnids(4).index(path.parent.name)).encode())):
                        info = tarfile.TarInfo(f"{path.stem}.{ending}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
    return root


def streamed(source, train, test, **changes):
    test = {"split": test, "images": 22}
    return settings(source=source, held_out=0, train={"split": train, "images": 60}, val=test, test=test, **changes)


def stays_a_stream(root, described, processes):
    """Draw the same again, resumed, and by ranks; all of the test set once."""
    checked(root, described)
    for workers in processes:
        whole = drawn(load(root, described, workers=workers), 9, STRONG)  # seven an epoch
        assert same(whole, drawn(load(root, described, workers=workers), 9, STRONG))
        for start in (2, 8):
            assert same(whole[start:], drawn(load(root, described, workers=workers), 9 - start, STRONG, start))
        for rank in range(2):
            part = load(root, described, workers=workers, rank=rank, ranks=2)
            mine = part_of(part.place, 8)
            assert same([(pixels[mine], targets[mine]) for pixels, targets in whole], drawn(part, 9, STRONG))
    assert not same(whole[:2], whole[7:])
    batches = list(load(root, described).evaluate("test", 5))
    assert sum(len(labels) for _, labels in batches) == 22
    assert same(batches, list(load(root, described, workers=2).evaluate("test", 5)))
    assert same(batches[1::2], list(load(root, described, rank=1, ranks=2).evaluate("test", 5)))


@pytest.mark.long
def test_webdataset_shards(folder, tmp_path):
    pytest.importorskip("webdataset")
    described = streamed("wds/", "train-{0..2}.tar", "val-{0..1}.tar")
    stays_a_stream(shards(folder, tmp_path), described, processes=(0, 2))
    labels = torch.cat([labels for _, labels in drawn(load(tmp_path, described), 7, None)])
    assert labels.bincount().tolist() != [56, 0, 0, 0] and len(labels) == 56
    with says("60 images", "says 70"):
        more = described.model_copy(update={"train": described.train.model_copy(update={"images": 70})})
        drawn(load(tmp_path, more), 9, None)
    with says("22 images", "says 23"):
        more = described.model_copy(update={"test": described.test.model_copy(update={"images": 23})})
        list(load(tmp_path, more, workers=1).evaluate("test", 5))
    with says("protocol has 2 classes"):
        list(load(tmp_path, described.model_copy(update={"num_classes": 2})).evaluate("test", 5))


def test_a_stream_leaves_nothing_out_that_it_cannot_read(own, tmp_path):
    pytest.importorskip("webdataset")
    for path in (own / "val" / wnids(4)[0]).iterdir():
        path.write_text("<html>")
    described = streamed("wds/", "train-{0..2}.tar", "val-{0..1}.tar")
    with says("val-", "cannot identify image"):
        list(load(shards(own, tmp_path), described).evaluate("test", 5))


def test_a_streamed_set_keeps_its_numbers(folder, tmp_path):
    """Its shifted sets are folders, named by number; without class names there is nothing else to name them by."""
    pytest.importorskip("webdataset")
    make_folder(shards(folder, tmp_path), {"some": 4}, names={"1": 1, "3": 3})
    shifted = {"some": {"path": "some", "images": 4, "classes": 2, "named_by": "index"}}
    described = streamed("wds/", "train-{0..2}.tar", "val-{0..1}.tar", shifted=shifted)
    assert load(tmp_path, described).classes("some").tolist() == [1, 3]
    nameless = json.loads(described.model_dump_json())
    nameless["shifted"]["some"]["named_by"] = "class"
    absent = checked(tmp_path, Images.model_validate(nameless)).absent["some"]
    assert "no names" in absent and "named_by: index" in absent


@pytest.mark.parametrize("policy", ["rand-m10-inc1-n8", "augmix-m10", "original", "3a"])
def test_posterize_to_no_bits_is_black_in_every_policy(policy):
    """As in Pillow before 13, whose own refuses it; of timm's policies none is left with that."""
    transform = augmentation.training_transform(Augment(auto_augment=policy), settings(), 24, IMAGENET)
    found = augmentation._operations(transform)
    assert found and not any(operation.aug_fn is posterize for operation in found)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    mine = [operation.aug_fn for operation in found if operation.name.startswith("Posterize")]
    for each in mine:
        for bits in range(9):
            expected = np.asarray(image) & (256 - 2 ** (8 - bits))
            assert (np.asarray(each(image, bits)) == expected).all()
    assert mine or policy == "3a"
    for _ in range(20):
        assert transform(image).shape == (3, 24, 24)
