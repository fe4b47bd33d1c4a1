"""Look at all images of a data set once, before anything is trained."""

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

from benchmark.data import DataLocation
from benchmark.data.image_files import some, splits_of, where_of
from benchmark.data.image_sources import Source, open_sources
from benchmark.data.loading import loader
from benchmark.data.streams import read_stream
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.spec.data_sets import Images as Settings
    from benchmark.spec.data_sets import Split

Progress = Callable[[str, int, int], None]


LOOKED_AT_ONCE = 64  # images between two reports of progress


def check(settings: Settings, place: DataLocation, progress: Progress) -> str:
    """Look at all of the data; gives a digest of the names and sizes of all files.

    Raises UserError for a folder, class or number of images other than declared, and for images that cannot be decoded in
    full. A set that was decoded once is listed only: `place.work` remembers its digest. Of a streamed source the first image of
    each split is read; how many there are is found out by reading it, in evaluation.
    """
    sources = open_sources(settings, place)
    digests = {name: _looked_at(name, source, place, progress) for name, source in sources.items()}
    if settings.streamed:
        digests |= {name: _begun(settings, place, name, split, progress) for name, split in splits_of(settings).items()}
    return _digest(sorted(digests.items()))


# Looking at all images.
def _looked_at(name: str, source: Source, place: DataLocation, progress: Progress) -> str:
    """A set's digest; its images are decoded unless that was done for this digest. Raises UserError, naming unreadable ones."""
    digest = _digest(_listing(source.reader))
    done = place.work / "data" / f"{digest}.json" if place.work else None
    if done is None or not done.exists():
        _decode_all(name, source, place, progress)
    if done is not None and not done.exists():
        done.parent.mkdir(parents=True, exist_ok=True)
        done.write_text(json.dumps({"set": name, "images": len(source), "decoded": True}) + "\n", encoding="utf-8")
    return digest


def _decode_all(name: str, source: Source, place: DataLocation, progress: Progress) -> None:
    batches = loader(Complaints(source), place.workers, batch_size=LOOKED_AT_ONCE, collate_fn=list)
    complaints, done = [], 0
    for batch in batches:
        complaints += [complaint for complaint in batch if complaint]
        done += len(batch)
        progress(name, done, len(source))
    if complaints:
        raise UserError(f"{source.where}: {len(complaints)} of {done} images cannot be read: {some(complaints, 3)}")


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


def _begun(settings: Settings, place: DataLocation, name: str, split: Split, progress: Progress) -> str:
    """The digest of a streamed split, whose first image is read."""
    if next(read_stream(settings, place, split), None) is None:
        raise UserError(f"{where_of(settings, split)}: no images")
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
