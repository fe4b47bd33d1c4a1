"""Photographs through timm's readers: image folders, tars and Hugging Face data sets by index, other sources as a stream.

How a training image is augmented is a pure function of (stream, epoch, image), how a batch is mixed one of (stream, step),
whatever the number of loader processes and ranks, and wherever a training begins.

Classes are numbered by the sorted names of the training set's class folders; `hfds`, `hfids`, `tfds` and `wds` keep their own
numbers. Shifted sets are always folders or tars.

Streamed sources (`wds`, `hfids`, `tfds`) have no images by index, so less holds of them. The order depends on the number of
loader processes too: each reads shards of its own, through a shuffle buffer of timm's size (8192 images for wds, 4096 for
hfids). An image is augmented by its position in its process's stream. A training that goes on within an epoch reads that
epoch again from its start. Every rank reads the whole stream and keeps its part of each batch: exact, not fast. Of `tfds`
neither the order nor the end of an epoch is certain.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageFile
from timm.data import Mixup, create_transform
from timm.data.readers import create_reader, reader_wds
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info
from torch.utils.data import Dataset as Indexed
from torchvision.transforms import Compose, Normalize

from benchmark.data import Place, part_of
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.data import Batch
    from benchmark.protocol import Augment, Normalisation, Recipe, ShiftedSet, Split
    from benchmark.protocol import Images as Settings

Progress = Callable[[str, int, int], None]
Transform = Callable[[Image.Image], Tensor]

SOURCES = ("", "hfds", "hfids", "tfds", "wds")
SYNONYMS = (("train", "training"), ("val", "valid", "validation", "eval", "evaluation"))  # timm's, of a split's folder
LOOKED_AT_ONCE = 64  # images between two reports of progress


def load(settings: Settings, place: Place, img_size: int, normalisation: Normalisation) -> Photographs:
    """The data set of a protocol's `data` block. Raises UserError where the folders are not what it says; decodes nothing."""
    return Photographs(settings, place, img_size, normalisation)


def check(settings: Settings, place: Place, progress: Progress) -> str:
    """Look at all of the data; gives a digest of the names and sizes of all files.

    Raises UserError for a folder, class or number of images other than declared, and for images that cannot be decoded in
    full. A set that was decoded once is listed only: `place.work` remembers its digest. Of a streamed source the first image of
    each split is read; how many there are is found out by reading it, in evaluation.
    """
    sources = _sources(settings, place)
    digests = {name: _looked_at(name, source, place, progress) for name, source in sources.items()}
    if settings.streamed:
        digests |= {name: _begun(settings, place, name, split, progress) for name, split in _splits(settings).items()}
    return _digest(sorted(digests.items()))


# Where images come from.


@dataclass(frozen=True)
class Source:
    """Images that are read by index: timm's reader of them, and training classes by the reader's own labels."""

    where: str
    reader: Any
    classes: Mapping[Any, int]

    def __len__(self) -> int:
        return len(self.reader)

    def image(self, index: int, cheap: bool = False) -> tuple[Image.Image, int]:
        """An RGB image and its training class. Raises UserError, naming the file.

        `cheap` reads the whole file too, but makes few pixels of a JPEG.
        """
        ImageFile.LOAD_TRUNCATED_IMAGES = False  # another library may have switched it on: half a picture, and no error
        try:
            if isinstance(self.reader, ReaderImageFolder):
                ensure_regular(self.filename(index))
            file, label = self.reader[index]
            with file, Image.open(file) as image:
                if cheap:
                    image.draft("RGB", (1, 1))
                return image.convert("RGB"), self.classes[label]
        except Exception as error:
            raise UserError(f"{self.filename(index)}: not readable as an image: {_line(error)}") from None

    def filename(self, index: int) -> str:
        """What a user finds an image by."""
        if isinstance(self.reader, ReaderImageFolder):
            return str(self.reader.filename(index, absolute=True))
        inside = self.reader.filename(index) if isinstance(self.reader, ReaderImageInTar) else f"row {index}"
        return f"{self.where}: {inside}"


def ensure_regular(path: str | Path) -> None:
    """Raise OSError for what is no regular file: opening a pipe could wait for ever."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise OSError("no regular file")


def _sources(settings: Settings, place: Place) -> dict[str, Source]:
    """All sets that are read by index, by their names; with `held_out` val is a part of train. Raises UserError, see `check`."""
    if _kind(settings) not in SOURCES:
        raise UserError(f"data.source {settings.source!r}: valid: '' (folders or tars), hfds/NAME, hfids/NAME, tfds/NAME, wds/")
    if settings.streamed:
        names = dict(_stream_reader(settings, place, settings.train).class_to_idx)
        return _shifted_sources(settings, place, names)
    readers = {name: _reader(settings, place, split) for name, split in _splits(settings).items()}
    known = _training_classes(settings, *readers["train"])
    sources = {name: _numbered(*found, known) for name, found in readers.items()}
    for name, split in _splits(settings).items():
        _whole(sources[name], split, known)
    names = dict(readers["train"][1].class_to_idx) if _kind(settings) else known
    return sources | _shifted_sources(settings, place, names)


def _training_classes(settings: Settings, where: str, reader: Any) -> dict[Any, int]:
    """Training classes by folder name; of a Hugging Face data set, its own numbers. Raises UserError if they are not as many."""
    found = _labels(reader)
    _agree(where, "classes", len(found), settings.num_classes)
    words = range(settings.num_classes) if _kind(settings) else sorted(found)
    return {word: number for number, word in enumerate(words)}


def _whole(source: Source, split: Split, known: Mapping[Any, int]) -> None:
    """Raises UserError for another number of images than declared, or a training class that has none."""
    _agree(source.where, "images", len(source), split.images)
    missing = [str(word) for word, number in known.items() if number not in source.classes.values()]
    if missing:
        raise UserError(f"{source.where}: training classes that it has not ({len(missing)}): {_some(missing)}")


def _shifted_sources(settings: Settings, place: Place, names: Mapping[str, int]) -> dict[str, Source]:
    return {name: _shifted(name, shifted, settings, place, names) for name, shifted in settings.shifted.items()}


def _shifted(name: str, shifted: ShiftedSet, settings: Settings, place: Place, names: Mapping[str, int]) -> Source:
    path = _below_or_beside(_root(place), name, shifted.path)
    if shifted.named_by == "class" and not names:
        raise UserError(f"shifted set {name}: the classes of {settings.source!r} have no names; it needs named_by: index")
    known = {str(number): number for number in range(settings.num_classes)} if shifted.named_by == "index" else names
    source = _numbered(str(path), _files(path), known)
    _agree(source.where, "classes", len(source.classes), shifted.classes)
    _agree(source.where, "images", len(source), shifted.images)
    return source


def _kind(settings: Settings) -> str:
    return settings.source.partition("/")[0].lower()


def _where(settings: Settings, split: Split) -> str:
    return f"{settings.source}, split {split.split}"


def _splits(settings: Settings) -> dict[str, Split]:
    val = {} if settings.val is None else {"val": settings.val}
    return {"train": settings.train, **val, "test": settings.test}


def _reader(settings: Settings, place: Place, split: Split) -> tuple[str, Any]:
    """(where it is, timm's reader) of a split that is read by index."""
    if not _kind(settings):
        path = _split_path(_root(place), split.split)
        return str(path), _files(path)
    with _one_line(_where(settings, split)):
        reader = create_reader(settings.source, root=place.root and str(place.root), split=split.split)
    return _where(settings, split), reader


def _files(path: Path) -> Any:
    """The reader of image folders, of a tar or of a folder of tars."""
    with _one_line(str(path)):
        if path.is_file() or any(path.glob("*.tar")):
            # Forked processes would share an open tar, and move each other's place in it.
            return ReaderImageInTar(str(path), cache_tarfiles=False, cache_tarinfo=False)
        return create_reader("", root=str(path))


def _root(place: Place) -> Path:
    if place.root is None:
        raise UserError("this protocol's images lie in a folder: name it by --data DIR")
    if not place.root.is_dir():
        raise UserError(f"--data {place.root}: no such folder")
    return place.root


def _split_path(root: Path, split: str) -> Path:
    words = list(dict.fromkeys([split, *next((group for group in SYNONYMS if split in group), ())]))
    for path in (root / f"{word}{ending}" for word in words for ending in ("", ".tar")):
        if path.exists():
            return path
    there = _some(sorted(path.name for path in root.iterdir())) or "nothing"
    raise UserError(f"{root}: no split {split!r}: looked for {', '.join(words)}, a folder or a .tar; there is: {there}")


def _below_or_beside(root: Path, name: str, path: str) -> Path:
    for parent in (root, root.absolute().parent):
        if (parent / path).exists():
            return parent / path
    remedy = "put it there, or use a protocol file that `extends` this one with data: {shifted: {}}"
    raise UserError(f"shifted set {name}: no {path} in {root} or beside it; {remedy}")


def _labels(reader: Any) -> dict[Any, Any]:
    """A reader's own labels by the words that stand for them: folder names, or the labels that occur themselves."""
    if isinstance(reader, ReaderImageInTar):
        return dict(reader.class_name_to_idx)
    if isinstance(reader, ReaderImageFolder):
        return dict(reader.class_to_idx)
    return {label: label for label in reader.dataset.unique(reader.label_key)}


def _numbered(where: str, reader: Any, known: Mapping[Any, int]) -> Source:
    found = _labels(reader)
    strange = sorted(str(word) or "images in no folder" for word in found if word not in known)
    if strange:
        raise UserError(f"{where}: classes that training has not ({len(strange)}): {_some(strange)}")
    return Source(where, reader, {label: known[word] for word, label in found.items()})


def _agree(where: str, what: str, found: int, declared: int) -> None:
    if found != declared:
        raise UserError(f"{where}: {found} {what}, but the protocol says {declared}")


def _some(words: Sequence[str], most: int = 5) -> str:
    return ", ".join(words[:most]) + (", ..." if len(words) > most else "")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _one_line(where: str) -> Iterator[None]:
    """What a library raises about the user's data, as a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{where}: not readable by timm: {_line(error)[:300]}") from error


# Looking at all images.


def _looked_at(name: str, source: Source, place: Place, progress: Progress) -> str:
    """A set's digest; its images are decoded unless that was done for this digest. Raises UserError, naming unreadable ones."""
    digest = _digest(_listing(source.reader))
    done = place.work / "data" / f"{digest}.json" if place.work else None
    if done is None or not done.exists():
        _decode_all(name, source, place, progress)
    if done is not None and not done.exists():
        done.parent.mkdir(parents=True, exist_ok=True)
        done.write_text(json.dumps({"set": name, "images": len(source), "decoded": True}) + "\n", encoding="utf-8")
    return digest


def _decode_all(name: str, source: Source, place: Place, progress: Progress) -> None:
    loader = _loader(Complaints(source), place.workers, batch_size=LOOKED_AT_ONCE, collate_fn=list)
    complaints, done = [], 0
    for batch in loader:
        complaints += [complaint for complaint in batch if complaint]
        done += len(batch)
        progress(name, done, len(source))
    if complaints:
        raise UserError(f"{source.where}: {len(complaints)} of {done} images cannot be read: {_some(complaints, 3)}")


class Complaints(Indexed[str]):
    """What is wrong with each image of a source; empty where it can be decoded in full."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> str:
        try:
            self.source.image(index, cheap=True)
        except UserError as error:
            return str(error)
        return ""


def _begun(settings: Settings, place: Place, name: str, split: Split, progress: Progress) -> str:
    """The digest of a streamed split, whose first image is read."""
    if next(_stream(settings, place, split), None) is None:
        raise UserError(f"{_where(settings, split)}: no images")
    progress(name, 1, 1)
    return _digest([settings.source, split.split, split.images])


def _listing(reader: Any) -> list[tuple[str, int]]:
    """Names and sizes of a reader's files, in order; for a Hugging Face data set its rows and bytes."""
    if isinstance(reader, ReaderImageFolder):
        return sorted((os.path.relpath(path, reader.root), _size(path)) for path, _ in reader.samples)
    if isinstance(reader, ReaderImageInTar):
        return sorted((f"{tar}/{child and child.name}/{file.name}", file.size) for file, tar, child in reader.samples)
    size = reader.split_info.num_bytes if reader.split_info else 0
    return [(json.dumps(reader.class_to_idx), len(reader)), (reader.split, size or 0)]


def _size(path: str) -> int:
    """-1 for what cannot even be found, such as a link to nothing; decoding it names it."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


# Random numbers and transforms.


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(":".join(map(str, parts)).encode()).digest()[:7], "big")


@contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Python's, NumPy's and torch's global generators seeded by `parts`; afterwards they stand where they stood.

    torch's for the CPU alone: `torch.manual_seed` would touch a training's generators on its device.
    """
    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    seed = _seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.default_generator.set_state(before[2])


def evaluation_transform(settings: Settings, img_size: int) -> Transform:
    """Resizes the shorter side to img_size / crop_pct, rounded down, and crops the centre, by timm: [3, H, W] in 0..1."""
    units = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    done: Transform = create_transform(img_size, crop_pct=settings.crop_pct, interpolation=settings.interpolation, **units)
    return done


def training_transform(augment: Augment, settings: Settings, img_size: int, normalisation: Normalisation) -> Transform:
    """Augments by timm, then undoes its normalisation: [3, H, W] in 0..1.

    Erased pixels are standard normal noise in the students' units, as everywhere in timm, and may lie outside.
    """
    mean, std = normalisation.mean, normalisation.std
    with _one_line("recipe.augment"):
        there = create_transform(
            img_size,
            is_training=True,
            scale=augment.scale,
            hflip=augment.hflip,
            color_jitter=augment.color_jitter,
            auto_augment=augment.auto_augment,
            interpolation=settings.interpolation,
            mean=mean,
            std=std,
            re_prob=augment.erase,
            re_mode="pixel",
        )
    back = Normalize([-m / s for m, s in zip(mean, std, strict=True)], [1 / s for s in std])
    done: Transform = Compose([there, back])
    return done


def _mixup(recipe: Recipe, num_classes: int) -> Mixup | None:
    augment = recipe.augment
    if augment is None or not (augment.mixup or augment.cutmix):
        return None
    if recipe.batch_size % 2:
        raise UserError(f"recipe.batch_size {recipe.batch_size}: mixup and cutmix pair images; an even number is needed")
    return Mixup(augment.mixup, augment.cutmix, label_smoothing=recipe.smoothing, num_classes=num_classes)


def _mixed(mixup: Mixup | None, batch: Batch, *seed: object) -> Batch:
    if mixup is None:
        return batch
    with seeded(*seed):
        images, targets = mixup(*batch)
    return images, targets


# The data set.


class Photographs:
    """See the module's docstring; `parts` are the sets that are read by index, each a source and which of its images."""

    def __init__(self, settings: Settings, place: Place, img_size: int, normalisation: Normalisation) -> None:
        self.settings, self.place, self.img_size, self.normalisation = settings, place, img_size, normalisation
        self.num_classes = settings.num_classes
        self.clean = evaluation_transform(settings, img_size)
        self.parts = {name: (source, torch.arange(len(source))) for name, source in _sources(settings, place).items()}
        if settings.held_out:
            source, images = self.parts["train"]
            rest, held_out = held_out_of(len(images), settings.held_out)
            self.parts |= {"train": (source, rest), "val": (source, held_out)}
        for name in self.sets():  # files lie class by class: neighbours shall not be of one class
            if name in self.parts:
                source, images = self.parts[name]
                self.parts[name] = (source, images[torch.randperm(len(images), generator=torch.Generator().manual_seed(1))])

    def train(self, stream: str, recipe: Recipe, start: int) -> Iterator[Batch]:
        """Draw this rank's part of the batches from step `start` on; step = epoch x batches of an epoch + number in the epoch.

        The images that fill no batch are left out, others in each epoch. Raises UserError at once for a batch that is
        larger than the training set or cannot be mixed; while iterating for an image that cannot be read.
        """
        if recipe.batch_size > self.settings.training_images:
            raise UserError(f"recipe.batch_size {recipe.batch_size}: there are {self.settings.training_images} training images")
        mixup, mine = _mixup(recipe, self.num_classes), part_of(self.place, recipe.batch_size)
        draw = self._train_streamed if self.settings.streamed else self._train_by_index
        batches = draw(stream, recipe, start, mine)
        return (_mixed(mixup, batch, stream, "mixup", step) for step, batch in enumerate(batches, start))

    def sets(self) -> tuple[str, ...]:
        """val, test and the shifted sets, in the protocol's order."""
        return ("val", "test", *self.settings.shifted)

    def classes(self, name: str) -> Tensor | None:
        """The sorted classes of a shifted set that has fewer than training, int64."""
        if name not in self.settings.shifted:
            return None
        numbers = sorted(self.parts[name][0].classes.values())
        return torch.tensor(numbers) if len(numbers) < self.num_classes else None

    def evaluate(self, name: str, batch_size: int) -> Iterator[Batch]:
        """Give this rank's batches of a set; raises UserError on the way: an unreadable image, a stream of another length."""
        rank, ranks = self.place.rank, self.place.ranks
        if name not in self.parts:
            split = _splits(self.settings)[name]
            batches = StreamedBatches(self.settings, self.place, split, self.clean, batch_size)
            return _drawn(_loader(batches, min(self.place.workers, 1), batch_size=None))
        source, images = self.parts[name]
        mine = [[(0, index) for index in batch.tolist()] for batch in images.split(batch_size)[rank::ranks]]
        return _drawn(_loader(Views(source, self.clean), self.place.workers, batch_sampler=mine))

    def _transform(self, augment: Augment | None) -> Transform:
        return self.clean if augment is None else training_transform(augment, self.settings, self.img_size, self.normalisation)

    def _train_by_index(self, stream: str, recipe: Recipe, start: int, mine: Sequence[int]) -> Iterator[Batch]:
        source, images = self.parts["train"]
        views = Views(source, self._transform(recipe.augment), stream)
        order = shuffled(stream, images, recipe.batch_size, mine, start)
        return _drawn(_loader(views, self.place.workers, batch_sampler=order))

    def _train_streamed(self, stream: str, recipe: Recipe, start: int, mine: Sequence[int]) -> Iterator[Batch]:
        size, transform = recipe.batch_size, self._transform(recipe.augment)
        epoch, skipped = divmod(start, self.settings.training_images // size)
        for number in count(epoch):
            views = StreamedViews(self.settings, self.place, self.settings.train, transform, stream, number)
            loader = _loader(views, self.place.workers, batch_size=None, seed=views.seed)
            for batch in islice(self._whole_batches(_drawn(loader), size), skipped, None):
                yield default_collate([batch[position] for position in mine])
            skipped = 0

    def _whole_batches(self, samples: Iterator[Any], size: int) -> Iterator[list[Any]]:
        """One epoch's batches. Raises UserError when there are fewer than were declared."""
        split = self.settings.train
        for number in range(split.images // size):
            batch = list(islice(samples, size))
            if len(batch) < size:
                _agree(_where(self.settings, split), "images", number * size + len(batch), split.images)
            yield batch


def held_out_of(images: int, held_out: int) -> tuple[Tensor, Tensor]:
    """(the others, the held out) as ascending indices [n] int64: the same for every run, whatever its seed."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(0))
    return order[held_out:].sort().values, order[:held_out].sort().values


def shuffled(stream: str, images: Tensor, size: int, mine: Sequence[int], start: int) -> Iterator[list[tuple[int, int]]]:
    """(epoch, image) of the positions `mine` of endless batches, from step `start` on."""
    first, skipped = divmod(start, len(images) // size)
    for epoch in count(first):
        order = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(_seed(stream, "order", epoch)))]
        whole = [batch for batch in order.split(size) if len(batch) == size]
        for batch in whole[skipped:]:
            yield [(epoch, index) for index in batch[list(mine)].tolist()]
        skipped = 0


class Views(Indexed[tuple[Tensor, int]]):
    """Transformed images by (epoch, index): ([3, H, W], training class)."""

    def __init__(self, source: Source, transform: Transform, stream: str = "") -> None:
        self.source, self.transform, self.stream = source, transform, stream

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        image, label = self.source.image(key[1])
        with seeded(self.stream, *key):
            return self.transform(image), label


def _loader(dataset: Any, workers: int, seed: int = 0, **options: Any) -> DataLoader[Any]:
    """A loader whose seed for its processes is its own: it would draw one from the training's global generator."""
    return DataLoader(dataset, num_workers=workers, generator=torch.Generator().manual_seed(seed), **options)


def _drawn(loader: Iterable[Any]) -> Iterator[Any]:
    """The pairs that a loader gives. A loader process's UserError comes with a traceback in its text: it is one line again."""
    try:
        for pair in loader:
            yield tuple(pair)
        return
    except UserError as error:
        line = str(error).strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
        error.__traceback__ = None  # a cycle that holds on to the loader: its processes would linger until it is collected
    raise UserError(line)


# Streamed sources.


def _stream_reader(settings: Settings, place: Place, split: Split, seed: int | None = None) -> Any:
    """The reader of a streamed split, shuffled if there is a seed. Raises UserError."""
    root = _root(place) if _kind(settings) == "wds" else place.root
    counted = {} if _kind(settings) == "tfds" else {"num_samples": split.images}
    with _one_line(_where(settings, split)):
        reader = create_reader(
            settings.source if "/" in settings.source else f"{settings.source}/",
            root=root and str(root),
            split=split.split,
            is_training=seed is not None,
            seed=seed or 0,
            input_img_mode="RGB",
            **counted,
        )
    # All ranks read one common stream; timm would give each its own shards.
    reader.dist_rank, reader.dist_num_replicas = 0, 1
    return reader


def _stream(settings: Settings, place: Place, split: Split, seed: int | None = None) -> Iterator[tuple[Image.Image, int]]:
    """The images of this loader process's shards once, with their classes. Raises UserError for one that cannot be read."""
    with _one_line(_where(settings, split)):
        # timm leaves samples out that it cannot read, and begins a short epoch again until it is full; both unnoticed.
        reader_wds.log_and_continue = _raise
        reader = _stream_reader(settings, place, split, seed)
        reader._lazy_init()
        reader.is_training = reader.reinit_each_iter = False
        for image, label in reader:
            if not 0 <= label < settings.num_classes:
                raise UserError(f"{_where(settings, split)}: label {label}, but the protocol has {settings.num_classes} classes")
            yield image, int(label)


def _raise(error: Exception) -> bool:
    raise error


class StreamedViews(IterableDataset[tuple[Tensor, int]]):
    """One shuffled epoch of a streamed split, transformed: ([3, H, W], label), in the order of this loader process's stream."""

    def __init__(self, settings: Settings, place: Place, split: Split, transform: Transform, stream: str, epoch: int) -> None:
        self.settings, self.place, self.split, self.transform = settings, place, split, transform
        self.stream, self.epoch = stream, epoch
        self.seed = _seed(stream, "order", epoch) % 2**31

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        worker = get_worker_info()
        for position, (image, label) in enumerate(_stream(self.settings, self.place, self.split, self.seed)):
            with seeded(self.stream, self.epoch, worker.id if worker else 0, position):
                view = self.transform(image)
            yield view, label


class StreamedBatches(IterableDataset[Any]):
    """A rank's batches of a streamed split, in its own order; read by one loader process, so that they are always the same."""

    def __init__(self, settings: Settings, place: Place, split: Split, transform: Transform, size: int) -> None:
        self.settings, self.place, self.split, self.transform, self.size = settings, place, split, transform, size

    def __iter__(self) -> Iterator[Batch]:
        samples, found = _stream(self.settings, self.place, self.split), 0
        while batch := list(islice(samples, self.size)):
            if found // self.size % self.place.ranks == self.place.rank:
                yield default_collate([(self.transform(image), label) for image, label in batch])
            found += len(batch)
        _agree(_where(self.settings, self.split), "images", found, self.split.images)
