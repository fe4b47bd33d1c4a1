"""Images of WebDataset shards, streamed by timm in their own order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from PIL import Image
from timm.data.readers import create_reader, reader_wds
from torch import Tensor
from torch.utils.data import IterableDataset, default_collate, get_worker_info

from benchmark.data import DataLocation
from benchmark.data.augmentation import Transform, image_seed, seeded
from benchmark.data.image_files import ensure_equal, one_line_errors, root_of, where_of
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.data import Batch
    from benchmark.spec.data_sets import Images as Settings
    from benchmark.spec.data_sets import Split


def stream_reader(settings: Settings, place: DataLocation, split: Split, seed: int | None = None) -> Any:
    """The reader, by timm, of a streamed split, shuffled if a seed is given. Raises UserError."""
    with one_line_errors(where_of(settings, split)):
        reader = create_reader(
            settings.source if "/" in settings.source else f"{settings.source}/",
            root=str(root_of(place)),
            split=split.split,
            is_training=seed is not None,
            seed=seed or 0,
            input_img_mode="RGB",
            num_samples=split.images,
        )
    # Every rank reads the whole stream; timm would give each its own shards.
    reader.dist_rank, reader.dist_num_replicas = 0, 1
    return reader


def read_stream(
    settings: Settings, place: DataLocation, split: Split, seed: int | None = None
) -> Iterator[tuple[Image.Image, int]]:
    """The images and classes of this loader process's shards, once. Raises UserError for an
    unreadable sample."""
    with one_line_errors(where_of(settings, split)):
        # timm would skip unreadable samples silently, and restart a short epoch until it is full.
        reader_wds.log_and_continue = _raise
        reader = stream_reader(settings, place, split, seed)
        reader._lazy_init()
        reader.is_training = reader.reinit_each_iter = False
        for image, label in reader:
            if not 0 <= label < settings.num_classes:
                raise UserError(
                    f"{where_of(settings, split)}: label {label}, but the protocol has {settings.num_classes} classes"
                )
            yield image, int(label)


def _raise(error: Exception) -> bool:
    raise error


class StreamedViews(IterableDataset[tuple[Tensor, int]]):
    """One shuffled epoch of a streamed split, transformed: ([3, H, W], label), in the order of this
    loader process's stream."""

    def __init__(
        self, settings: Settings, place: DataLocation, split: Split, transform: Transform, stream: str, epoch: int
    ) -> None:
        self.settings, self.place, self.split, self.transform = settings, place, split, transform
        self.stream, self.epoch = stream, epoch
        self.seed = image_seed(stream, "order", epoch) % 2**31

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        worker = get_worker_info()
        for position, (image, label) in enumerate(read_stream(self.settings, self.place, self.split, self.seed)):
            with seeded(self.stream, self.epoch, worker.id if worker else 0, position):
                view = self.transform(image)
            yield view, label


class StreamedBatches(IterableDataset[Any]):
    """A rank's batches of a streamed split, unshuffled; one loader process reads them, so they are
    always the same."""

    def __init__(self, settings: Settings, place: DataLocation, split: Split, transform: Transform, size: int) -> None:
        self.settings, self.place, self.split, self.transform, self.size = settings, place, split, transform, size

    def __iter__(self) -> Iterator[Batch]:
        samples, found = read_stream(self.settings, self.place, self.split), 0
        while batch := list(islice(samples, self.size)):
            if found // self.size % self.place.ranks == self.place.rank:
                yield default_collate([(self.transform(image), label) for image, label in batch])
            found += len(batch)
        ensure_equal(where_of(self.settings, self.split), "images", found, self.split.images)
