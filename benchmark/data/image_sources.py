"""Images with access by index, and their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageFile
from timm.data.readers import create_reader
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_image_in_tar import ReaderImageInTar

from benchmark.data import DataLocation
from benchmark.data.image_files import (
    SOURCES,
    _below_or_beside,
    _line,
    _split_path,
    ensure_equal,
    ensure_regular,
    kind_of,
    one_line_errors,
    root_of,
    some,
    splits_of,
    where_of,
)
from benchmark.data.streams import stream_reader
from benchmark.data.torchvision_files import TorchvisionReader
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.spec.data_sets import Images as Settings
    from benchmark.spec.data_sets import ShiftedSet, Split


@dataclass(frozen=True)
class Source:
    """A set with access by index: its reader, by timm or torchvision, and the training class of each
    of the reader's own labels."""

    where: str
    reader: Any
    classes: Mapping[Any, int]

    def __len__(self) -> int:
        return len(self.reader)

    def image(self, index: int, cheap: bool = False) -> tuple[Image.Image, int]:
        """An RGB image and its training class. Raises UserError, naming the file.

        `cheap` also reads the whole file, but decodes a JPEG to few pixels.
        """
        ImageFile.LOAD_TRUNCATED_IMAGES = False  # another library may have switched it on: half a picture, and no error
        try:
            if isinstance(self.reader, ReaderImageFolder):
                ensure_regular(self.filename(index))
            file, label = self.reader[index]
            with file, file if isinstance(file, Image.Image) else Image.open(file) as image:
                if cheap:
                    image.draft("RGB", (1, 1))
                return image.convert("RGB"), self.classes[label]
        except Exception as error:
            raise UserError(f"{self.filename(index)}: not readable as an image: {_line(error)}") from None

    @property
    def decoded(self) -> bool:
        """Whether all images are in memory, decoded."""
        return isinstance(self.reader, TorchvisionReader) and self.reader.paths is None

    def filename(self, index: int) -> str:
        """An image's path, or its place in a tar or data set."""
        if isinstance(self.reader, ReaderImageFolder):
            return str(self.reader.filename(index, absolute=True))
        if isinstance(self.reader, TorchvisionReader):
            return self.reader.filename(index)
        inside = self.reader.filename(index) if isinstance(self.reader, ReaderImageInTar) else f"row {index}"
        return f"{self.where}: {inside}"


@dataclass(frozen=True)
class Sources:
    """The sets with access by index, by name, and why each absent shifted set cannot be used."""

    found: dict[str, Source]
    absent: dict[str, str]


def open_sources(settings: Settings, place: DataLocation) -> Sources:
    """The sets of a data set; with `held_out`, val is a part of train. Raises UserError as `check`
    does."""
    if kind_of(settings) not in SOURCES:
        raise UserError(f"data.source {settings.source!r}: valid: '' (folders or tars), torchvision/NAME, hfds/NAME, wds/")
    if settings.streamed:
        names = dict(stream_reader(settings, place, settings.train).class_to_idx)
        return _with_shifted({}, settings, place, names)
    readers = {name: _reader(settings, place, split) for name, split in splits_of(settings).items()}
    known = _training_classes(settings, *readers["train"])
    sources = {name: _numbered(*found, known) for name, found in readers.items()}
    for name, split in splits_of(settings).items():
        _whole(sources[name], split, known)
    names = dict(readers["train"][1].class_to_idx) if kind_of(settings) else known
    return _with_shifted(sources, settings, place, names)


def _training_classes(settings: Settings, where: str, reader: Any) -> dict[Any, int]:
    """Class numbers by folder name, or those of a Hugging Face or torchvision set. Raises UserError
    for another number than declared."""
    found = _labels(reader)
    ensure_equal(where, "classes", len(found), settings.num_classes)
    words = range(settings.num_classes) if kind_of(settings) else sorted(found)
    return {word: number for number, word in enumerate(words)}


def _whole(source: Source, split: Split, known: Mapping[Any, int]) -> None:
    """Raise UserError for another number of images than declared, or a training class without images."""
    ensure_equal(source.where, "images", len(source), split.images)
    missing = [str(word) for word, number in known.items() if number not in source.classes.values()]
    if missing:
        raise UserError(f"{source.where}: training classes that it lacks ({len(missing)}): {some(missing)}")


def _with_shifted(sources: dict[str, Source], settings: Settings, place: DataLocation, names: Mapping[str, int]) -> Sources:
    found, absent = dict(sources), dict[str, str]()
    for name, shifted in settings.shifted.items():
        try:
            found[name] = _shifted(name, shifted, settings, place, names)
        except UserError as error:
            absent[name] = str(error)
    return Sources(found, absent)


def _shifted(name: str, shifted: ShiftedSet, settings: Settings, place: DataLocation, names: Mapping[str, int]) -> Source:
    path = _below_or_beside(root_of(place), name, shifted.path)
    if shifted.named_by == "class" and not names:
        raise UserError(f"shifted set {name}: the classes of {settings.source!r} have no names; it needs named_by: index")
    known = {str(number): number for number in range(settings.num_classes)} if shifted.named_by == "index" else names
    source = _numbered(str(path), files_in(path), known)
    ensure_equal(source.where, "classes", len(source.classes), shifted.classes)
    ensure_equal(source.where, "images", len(source), shifted.images)
    return source


def _reader(settings: Settings, place: DataLocation, split: Split) -> tuple[str, Any]:
    """(path or name, reader) of a split with access by index."""
    if not kind_of(settings):
        path = _split_path(root_of(place), split.split)
        return str(path), files_in(path, settings.classes)
    if settings.torchvision is not None:
        return where_of(settings, split), TorchvisionReader(settings, place, split)
    with one_line_errors(where_of(settings, split)):
        reader = create_reader(settings.source, root=place.root and str(place.root), split=split.split)
    return where_of(settings, split), reader


def files_in(path: Path, classes: Sequence[str] = ()) -> Any:
    """The reader of image folders, of a tar or of a folder of tars; of the named folders alone, if
    any are named."""
    chosen: Any = {name: number for number, name in enumerate(sorted(classes))}
    with one_line_errors(str(path)):
        if path.is_file() or any(path.glob("*.tar")):
            # Forked processes would share an open tar, and move each other's place in it.
            return ReaderImageInTar(str(path), class_map=chosen, cache_tarfiles=False, cache_tarinfo=False)
        return create_reader("", root=str(path), class_map=chosen)


def _labels(reader: Any) -> dict[Any, Any]:
    """A reader's labels by folder name, or by themselves where there are no folders."""
    if isinstance(reader, ReaderImageInTar):
        return dict(reader.class_name_to_idx)
    if isinstance(reader, ReaderImageFolder):
        return dict(reader.class_to_idx)
    if isinstance(reader, TorchvisionReader):
        return {label: label for label in sorted(set(reader.labels))}
    return {label: label for label in reader.dataset.unique(reader.label_key)}


def _numbered(where: str, reader: Any, known: Mapping[Any, int]) -> Source:
    found = _labels(reader)
    strange = sorted(str(word) or "images in no folder" for word in found if word not in known)
    if strange:
        raise UserError(f"{where}: classes that training lacks ({len(strange)}): {some(strange)}")
    return Source(where, reader, {label: known[word] for word, label in found.items()})
