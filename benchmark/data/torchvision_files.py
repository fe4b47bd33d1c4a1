"""Data sets that torchvision reads: where their files lie, how they get there, and their images.

Facts about each set are in benchmark/spec/torchvision_sets.py. Downloads, their md5 and the file
formats are torchvision's own.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torchvision import datasets
from torchvision.datasets import utils

from benchmark.data import DataLocation
from benchmark.data.image_files import ensure_regular, root_of, some, where_of
from families.spec import UserError, one_line

if TYPE_CHECKING:
    from benchmark.spec.data_sets import Images as Settings
    from benchmark.spec.data_sets import Split
    from benchmark.spec.torchvision_sets import TorchvisionSet

TIMEOUT = 60.0  # seconds without a byte
_BEGUN = "begun"


class TorchvisionReader:
    """A split of a set, as timm's readers give theirs. Raises UserError where its files are not in
    the data folder or not what the set has."""

    def __init__(self, settings: Settings, place: DataLocation, split: Split) -> None:
        self.where, self.root = where_of(settings, split), root_of(place)
        _, facts = _known(settings)
        found = _opened(settings, self.root, split.split)
        if found is None:
            get = "`bench fetch --protocol NAME --data DIR` where there is a network"
            raise UserError(f"{settings.source} is not in {self.root}: {get}; {_by_hand(settings, self.root)}")
        self.dataset: Any = found
        self.labels = [int(label) for label in getattr(self.dataset, facts.labels)]
        self.paths = None if facts.paths is None else [Path(path) for path in getattr(self.dataset, facts.paths)]
        if len(self.dataset) != len(self.labels):
            raise UserError(f"{self.where}: {len(self.dataset)} images, but {len(self.labels)} labels")
        number = Counter(self.labels).values()
        if facts.splits[split.split].even and len(set(number)) > 1:
            raise UserError(f"{self.where}: {min(number)} to {max(number)} images of a class; in this set all have as many")

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class numbers by name; empty where the files do not name them."""
        return {name: number for number, name in enumerate(getattr(self.dataset, "classes", ()))}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[IO[bytes] | Image.Image, int]:
        """An image's open file, or the image where it is kept decoded; and its class. Raises
        OSError."""
        if self.paths is None:
            image, label = self.dataset[index]
            return image, label
        ensure_regular(self.paths[index])
        return self.paths[index].open("rb"), self.labels[index]

    def filename(self, index: int) -> str:
        """An image's path, or its number in the split."""
        return f"{self.where}: image {index}" if self.paths is None else str(self.paths[index])

    def listing(self, size: Callable[[str], int]) -> list[tuple[str, int, int]]:
        """What a digest is made of: (path in the data folder, `size` of it, class) of each image; of
        decoded images the sha256 of their pixels and labels."""
        if self.paths is not None:
            names = (str(path.relative_to(self.root)) for path in self.paths)
            return [(name, size(str(path)), label) for name, path, label in zip(names, self.paths, self.labels, strict=True)]
        digest = hashlib.sha256(np.ascontiguousarray(self.dataset.data).data)
        digest.update(np.array(self.labels, "<i8").data)
        return [(digest.hexdigest(), len(self), 0)]


def _known(settings: Settings) -> tuple[str, TorchvisionSet]:
    """(torchvision's name, the facts) of a set that is torchvision's."""
    assert settings.torchvision is not None
    return settings.torchvision


def unfinished(settings: Settings, place: DataLocation) -> Path:
    """The folder that is there while a set is fetched, in the data folder. Raises UserError where
    none is given."""
    name, _ = _known(settings)
    return (place.root or root_of(place)) / f".{name}.fetching"


def is_there(settings: Settings, place: DataLocation) -> bool:
    """Whether a set's files are in the data folder, unpacked. Raises UserError for files that are
    not readable, or where no folder is given."""
    root = unfinished(settings, place).parent
    return root.is_dir() and _opened(settings, root, settings.train.split) is not None


def fetch(settings: Settings, place: DataLocation, progress: Callable[[int, int], None]) -> None:
    """Put a set into the data folder, by torchvision: download what is not there with the right md5,
    and unpack it. `progress(done, total)` is called with bytes, of one file after another.

    Files whose md5 is wrong are never unpacked. What an interrupted fetch has unpacked is not
    believed, but unpacked again. Raises UserError, which tells how to put files there by hand.
    """
    if is_there(settings, place):
        return
    mark, (name, facts) = unfinished(settings, place), _known(settings)
    root, damaged = mark.parent, list[str]()
    try:
        mark.mkdir(parents=True, exist_ok=True)
        if (mark / _BEGUN).exists():
            for path in facts.unpacked:
                _remove(root / path)
        with _downloads(progress, (mark / _BEGUN).touch, damaged):
            getattr(datasets, name)(str(root), download=True, **next(iter(facts.splits.values())).arguments)
        shutil.rmtree(mark)
    except Exception as error:  # of urllib, tarfile, gzip, pickle or torchvision: many kinds
        if not (mark / _BEGUN).exists():
            shutil.rmtree(mark, ignore_errors=True)
        network = re.search("<urlopen error (.*?)>", str(error))
        reasons = [f"no network ({one_line(network[1], 100)})"] if network else []
        reasons += [f"not the published file (md5): {some(damaged)}"] if damaged else []
        told = "; ".join(reasons) or one_line(error, 150)
        raise UserError(f"{settings.source} cannot be fetched: {told}; {_by_hand(settings, root)}") from None


def _opened(settings: Settings, root: Path, split: str) -> Any | None:
    """A split by torchvision, which checks md5s where it knows them; None where it is not there, or
    not whole. Raises UserError for files that are not what torchvision expects."""
    name, facts = _known(settings)
    if (root / f".{name}.fetching" / _BEGUN).exists():
        return None
    try:
        return getattr(datasets, name)(str(root), **facts.splits[split].arguments)
    except Exception as error:
        if isinstance(error, RuntimeError) and "download=True" in str(error):
            return None
        again = f"delete {', '.join(facts.unpacked)} there to have it unpacked again"
        raise UserError(f"{settings.source} in {root}: not readable by torchvision: {one_line(error, 100)}; {again}") from None


def _by_hand(settings: Settings, root: Path) -> str:
    _, facts = _known(settings)
    return f"by hand: put {', '.join(facts.files)} into {root / facts.folder}; bench fetch and bench run unpack them"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _downloads(progress: Callable[[int, int], None], unpacking: Callable[[], None], damaged: list[str]) -> Iterator[None]:
    """Within: torchvision's downloads report to `progress` instead of drawing bars, do not wait for
    ever, and call `unpacking` before they unpack a file; `damaged` gets the names of files with
    another md5."""

    @contextmanager
    def bar(total: int | None = None, **_: Any) -> Iterator[SimpleNamespace]:
        done = 0

        def update(received: int) -> None:
            nonlocal done
            done += received
            progress(done, total or 0)

        yield SimpleNamespace(update=update)

    def check_integrity(path: Any, md5: str | None = None) -> bool:
        right: bool = own["check_integrity"](path, md5)
        damaged[:] = [name for name in damaged if name != Path(path).name]
        if not right and Path(path).is_file():
            damaged.append(Path(path).name)
        return right

    def extract_archive(*given: Any) -> Any:
        unpacking()
        return own["extract_archive"](*given)

    instead = {"tqdm": bar, "check_integrity": check_integrity, "extract_archive": extract_archive}
    own, timeout = {name: getattr(utils, name) for name in instead}, socket.getdefaulttimeout()
    vars(utils).update(instead)
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        vars(utils).update(own)
        socket.setdefaulttimeout(timeout)
