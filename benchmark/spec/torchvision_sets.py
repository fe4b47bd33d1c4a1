"""The data sets that torchvision can fetch: `source: torchvision/NAME` of a protocol's `data` block.

One entry has all that the suite knows of a set; no other file names one. Numbers of images are
those of the sets' papers and pages: Xiao et al. 2017 (arXiv 1708.07747), Krizhevsky 2009, Coates et
al. 2011, Bossard et al. 2014, Nilsback and Zisserman 2008, Parkhi et al. 2012.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from families.spec import UnknownName

PREFIX = "torchvision"


@dataclass(frozen=True)
class SplitFacts:
    """A split of a set.

    Attributes:
        images: their number.
        arguments: of torchvision's class, which choose the split.
        even: whether each class has the same number of images.
    """

    images: int
    arguments: Mapping[str, Any]
    even: bool = True


@dataclass(frozen=True)
class TorchvisionSet:
    """A set as torchvision stores and reads it.

    Attributes:
        classes: their number.
        splits: by torchvision's names: the one to train on, then test; val where there is one.
        folder: where its downloaded files lie, in the data folder.
        files: the names of these.
        unpacked: what torchvision makes of them, in the data folder.
        labels: the attribute of torchvision's class that holds the labels of a split's images.
        paths: the one that holds their files; None: torchvision decodes all images of a split
            into memory (`data`, uint8; the largest, STL10's test, is 221 MB).
    """

    classes: int
    splits: Mapping[str, SplitFacts]
    folder: str
    files: tuple[str, ...]
    unpacked: tuple[str, ...]
    labels: str
    paths: str | None = None


def _by_flag(train: int, test: int) -> dict[str, SplitFacts]:
    return {"train": SplitFacts(train, {"train": True}), "test": SplitFacts(test, {"train": False})}


def _by_name(**images: int) -> dict[str, SplitFacts]:
    return {name: SplitFacts(number, {"split": name}) for name, number in images.items()}


def _uneven(name: str, images: int) -> dict[str, SplitFacts]:
    return {name: SplitFacts(images, {"split": name}, even=False)}


_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

SETS: Mapping[str, TorchvisionSet] = {
    "FashionMNIST": TorchvisionSet(
        classes=10,
        splits=_by_flag(60_000, 10_000),
        folder="FashionMNIST/raw",
        files=tuple(f"{name}.gz" for name in _IDX),
        unpacked=tuple(f"FashionMNIST/raw/{name}" for name in _IDX),
        labels="targets",
    ),
    "CIFAR10": TorchvisionSet(
        classes=10,
        splits=_by_flag(50_000, 10_000),
        folder=".",
        files=("cifar-10-python.tar.gz",),
        unpacked=("cifar-10-batches-py",),
        labels="targets",
    ),
    "CIFAR100": TorchvisionSet(
        classes=100,
        splits=_by_flag(50_000, 10_000),
        folder=".",
        files=("cifar-100-python.tar.gz",),
        unpacked=("cifar-100-python",),
        labels="targets",
    ),
    "STL10": TorchvisionSet(
        classes=10,
        splits=_by_name(train=5_000, test=8_000),
        folder=".",
        files=("stl10_binary.tar.gz",),
        unpacked=("stl10_binary",),
        labels="labels",
    ),
    "Food101": TorchvisionSet(
        classes=101,
        splits=_by_name(train=75_750, test=25_250),
        folder=".",
        files=("food-101.tar.gz",),
        unpacked=("food-101",),
        labels="_labels",
        paths="_image_files",
    ),
    "Flowers102": TorchvisionSet(
        classes=102,
        splits=_by_name(train=1_020, val=1_020) | _uneven("test", 6_149),
        folder="flowers-102",
        files=("102flowers.tgz", "imagelabels.mat", "setid.mat"),
        unpacked=("flowers-102/jpg",),
        labels="_labels",
        paths="_image_files",
    ),
    "OxfordIIITPet": TorchvisionSet(
        classes=37,
        splits=_uneven("trainval", 3_680) | _uneven("test", 3_669),
        folder="oxford-iiit-pet",
        files=("images.tar.gz", "annotations.tar.gz"),
        unpacked=("oxford-iiit-pet/images", "oxford-iiit-pet/annotations"),
        labels="_labels",
        paths="_images",
    ),
}


def set_of(source: object) -> tuple[str, TorchvisionSet] | None:
    """(torchvision's name, the set) of a source; None for another kind of source. Raises ValueError
    that names the nearest set and all of them."""
    prefix, _, name = source.partition("/") if isinstance(source, str) else ("", "", "")
    if prefix.lower() != PREFIX:  # as timm reads its own prefixes
        return None
    if name not in SETS:
        raise ValueError(str(UnknownName("data set of torchvision", name, SETS)))
    return name, SETS[name]


def with_facts(content: Any) -> Any:
    """A `data` block as a file has it, with what it leaves out of a torchvision set: classes and
    splits. val is the set's own, where it has one and none is held out. Raises ValueError for an
    unknown set."""
    found = set_of(content.get("source")) if isinstance(content, dict) else None
    if found is None:
        return content
    facts = found[1]
    known = {name: {"split": name, "images": split.images} for name, split in facts.splits.items()}
    own = {"val": known["val"]} if "val" in known and not content.get("held_out") else {}
    return {"num_classes": facts.classes, "train": next(iter(known.values())), "test": known["test"]} | own | content
