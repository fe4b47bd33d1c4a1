"""Decode all images of a data set once, before training."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from torch.utils.data import Dataset as Indexed

from benchmark.data import Checked, DataLocation
from benchmark.data.image_files import some, splits_of, where_of
from benchmark.data.image_sources import Source, files_in, open_sources
from benchmark.data.loading import loader
from benchmark.data.streams import read_stream
from benchmark.data.torchvision_files import TorchvisionReader
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.spec.data_sets import Images as Settings
    from benchmark.spec.data_sets import Split

Progress = Callable[[str, int, int], None]
DECODED_AT_ONCE = 64  # images between two reports of progress


def check(settings: Settings, place: DataLocation, progress: Progress) -> Checked:
    """Check all data; gives digests of the names and sizes of all files.

    A set is decoded once: `place.work` remembers its digest, and later calls only list its files.
    Of a streamed source the first image of each split is read; its length shows in evaluation.
    Raises UserError for a folder, class or number of images of training, val and test other than
    declared, and for their images that cannot be decoded in full. A shifted set like that is
    absent.
    """
    sources = open_sources(settings, place)
    digests, shifted, absent = dict[str, str](), dict[str, str](), dict(sources.absent)
    for name, source in sources.found.items():
        if name not in settings.shifted:
            digests[name] = _checked(name, source, place, progress)
            continue
        try:
            shifted[name] = _checked(name, source, place, progress)
        except UserError as error:
            absent[name] = str(error)
    if settings.streamed:
        digests |= {name: _begun(settings, place, name, split, progress) for name, split in splits_of(settings).items()}
    return Checked(_digest(sorted(digests.items())), shifted, absent)


def _checked(name: str, source: Source, place: DataLocation, progress: Progress) -> str:
    """A set's digest. Its images are decoded unless they were for this digest. Raises UserError
    that names unreadable ones."""
    digest = _digest(_listing(source.reader))
    done = place.work / "data" / f"{digest}.json" if place.work else None
    if done is None or not done.exists():
        _decode_all(name, source, place, progress)
    if done is not None and not done.exists():
        done.parent.mkdir(parents=True, exist_ok=True)
        done.write_text(json.dumps({"set": name, "images": len(source), "decoded": True}) + "\n", encoding="utf-8")
    return digest


def _decode_all(name: str, source: Source, place: DataLocation, progress: Progress) -> None:
    batches = loader(Complaints(source), place.workers, batch_size=DECODED_AT_ONCE, collate_fn=list)
    complaints, done = [], 0
    for batch in batches:
        complaints += [complaint for complaint in batch if complaint]
        done += len(batch)
        progress(name, done, len(source))
    if complaints:
        raise UserError(f"{source.where}: {len(complaints)} of {done} images cannot be read: {some(complaints, 3)}")


class Complaints(Indexed[str]):
    """The error of each image of a source; empty for one that can be decoded in full."""

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


def _begun(settings: Settings, place: DataLocation, name: str, split: Split, progress: Progress) -> str:
    """The digest of a streamed split, after its first image was read."""
    if next(read_stream(settings, place, split), None) is None:
        raise UserError(f"{where_of(settings, split)}: no images")
    progress(name, 1, 1)
    return _digest([settings.source, split.split, split.images])


def listed(path: Path) -> tuple[int, str]:
    """The number of images in a folder or tar, and the digest of their names and sizes. Raises
    UserError where timm finds none."""
    reader = files_in(path)
    return len(reader), _digest(_listing(reader))


def _listing(reader: Any) -> list[Any]:
    """Names and sizes of a reader's files, in order; for a Hugging Face data set its rows and bytes,
    for images that torchvision keeps decoded their content."""
    if isinstance(reader, TorchvisionReader):
        return reader.listing(_size)
    if isinstance(reader, ReaderImageFolder):
        return sorted((os.path.relpath(path, reader.root), _size(path)) for path, _ in reader.samples)
    if isinstance(reader, ReaderImageInTar):
        return sorted((f"{tar}/{child and child.name}/{file.name}", file.size) for file, tar, child in reader.samples)
    size = reader.split_info.num_bytes if reader.split_info else 0
    return [(json.dumps(reader.class_to_idx), len(reader)), (reader.split, size or 0)]


def _size(path: str) -> int:
    """Bytes; -1 for a missing file, such as a link to nothing, which decoding then names."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
