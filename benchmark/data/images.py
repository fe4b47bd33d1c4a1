"""Photographs through timm's readers: image folders, tars and Hugging Face data sets by index,
WebDataset as a stream; and torchvision's data sets, by index.

How a training image is augmented is a pure function of (stream, epoch, image), how a batch is mixed
one of (stream, step), whatever the number of loader processes and ranks, and wherever a training
begins.

Classes are numbered by the sorted names of the training set's class folders; `torchvision`, `hfds`
and `wds` keep their own numbers. Shifted sets are always folders or tars.

WebDataset shards (`wds`) are streamed and have no images by index, so less holds of them. The order
also depends on the number of loader processes: each reads its own shards, through timm's shuffle
buffer of 8192 images. An image is augmented by its position in its process's stream. A training
that resumes within an epoch reads that epoch again from its start. Every rank reads the whole
stream and keeps its part of each batch: exact, not fast.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset as Indexed
from torch.utils.data import default_collate

from benchmark.data import DataLocation, batched_views, part_of
from benchmark.data.augmentation import Transform, evaluation_transform, image_seed, mix, mixup_of, seeded, training_transform
from benchmark.data.image_checks import check
from benchmark.data.image_files import ensure_equal, splits_of, where_of
from benchmark.data.image_sources import Source, open_sources
from benchmark.data.loading import drawn, loader, moved
from benchmark.data.streams import StreamedBatches, StreamedViews
from benchmark.spec.data_sets import EVALUATION_SETS
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.data import Batch
    from benchmark.spec.data_sets import Images as Settings
    from benchmark.spec.recipe import Augment, Normalisation, Recipe

__all__ = ["Photographs", "check", "held_out_of", "load", "shuffled"]
KEPT_BYTES, UNSEEN = 2**28, -1


def load(settings: Settings, place: DataLocation, img_size: int, normalisation: Normalisation) -> Photographs:
    """The data set of a protocol's `data` block. Raises UserError where the folders are not what it
    says; decodes nothing."""
    return Photographs(settings, place, img_size, normalisation)


class Photographs:
    """See the module's docstring. `parts`: by set with access by index, its source and the indices
    of its images."""

    def __init__(self, settings: Settings, place: DataLocation, img_size: int, normalisation: Normalisation) -> None:
        self.settings, self.place, self.img_size, self.normalisation = settings, place, img_size, normalisation
        self.num_classes = settings.num_classes
        self.loader = partial(loader, pin_memory=place.device.startswith("cuda"))
        self.clean = evaluation_transform(settings, img_size)
        sources = open_sources(settings, place)
        self.absent = {name: f"shifted set {name} cannot be used" for name in place.absent} | sources.absent
        self.parts = {name: (source, torch.arange(len(source))) for name, source in sources.found.items()}
        self.on_device: Tensor | None = None  # the training images [N, 3, H, W], if views are made there
        keeps = not place.workers  # loader processes would each keep their own, and end with it
        self.clean_views = {id(source): CleanViews(source, self.clean, img_size, keeps) for source in sources.found.values()}
        if settings.held_out:
            source, images = self.parts["train"]
            rest, held_out = held_out_of(len(images), settings.held_out)
            self.parts |= {"train": (source, rest), "val": (source, held_out)}
        if settings.student_images is not None:
            source, images = self.parts["train"]
            self.parts["train"] = (source, images[held_out_of(len(images), settings.student_images)[1]])
        for name in self.sets():  # files lie class by class; batches must not
            if name in self.parts:
                source, images = self.parts[name]
                self.parts[name] = (source, images[torch.randperm(len(images), generator=torch.Generator().manual_seed(1))])

    def train(self, stream: str, recipe: Recipe, start: int) -> Iterator[Batch]:
        """Batches from step `start` on, this rank's part; step = epoch x batches of an epoch +
        number in the epoch.

        The remainder that fills no batch is dropped, another one in each epoch. Raises UserError at
        once for a batch larger than the training set or one that cannot be mixed, and while
        iterating for an unreadable image.
        """
        if recipe.batch_size > self.settings.training_images:
            raise UserError(f"recipe.batch_size {recipe.batch_size}: there are {self.settings.training_images} training images")
        mixup, mine = mixup_of(recipe, self.num_classes), part_of(self.place, recipe.batch_size)
        if self.settings.streamed:
            there = moved(self._train_streamed(stream, recipe, start, mine), self.place.device)
        else:
            there = self._train_by_index(stream, recipe, start, mine)
        return (mix(mixup, batch, stream, "mixup", step) for step, batch in enumerate(there, start))

    def sets(self) -> tuple[str, ...]:
        """val, test and the shifted sets that are there, in the protocol's order."""
        return (*EVALUATION_SETS, *(name for name in self.settings.shifted if name not in self.absent))

    def classes(self, name: str) -> Tensor | None:
        """The sorted classes of a shifted set that has fewer than training, int64."""
        if name not in self.settings.shifted:
            return None
        numbers = sorted(self.parts[name][0].classes.values())
        return torch.tensor(numbers) if len(numbers) < self.num_classes else None

    def evaluate(self, name: str, batch_size: int) -> Iterator[Batch]:
        """Batches of a set, this rank's. Raises UserError for a shifted set that is not there, and
        while iterating for an unreadable image or a stream of another length."""
        if name in self.absent:
            raise UserError(self.absent[name])
        return moved(self._evaluated(name, batch_size), self.place.device)

    def _evaluated(self, name: str, batch_size: int) -> Iterator[Batch]:
        rank, ranks = self.place.rank, self.place.ranks
        if name not in self.parts:
            split = splits_of(self.settings)[name]
            batches = StreamedBatches(self.settings, self.place, split, self.clean, batch_size)
            return drawn(self.loader(batches, min(self.place.workers, 1), batch_size=None))
        source, images = self.parts[name]
        mine = [[(0, index) for index in batch.tolist()] for batch in images.split(batch_size)[rank::ranks]]
        return drawn(self.loader(self.clean_views[id(source)], self.place.workers, batch_sampler=mine, collate_fn=_collated))

    def _moved(self, batches: Iterable[Any]) -> Iterator[Batch]:
        return moved(drawn(batches), self.place.device)

    def _transform(self, augment: Augment | None) -> Transform:
        return self.clean if augment is None else training_transform(augment, self.settings, self.img_size, self.normalisation)

    def _train_by_index(self, stream: str, recipe: Recipe, start: int, mine: Sequence[int]) -> Iterator[Batch]:
        source, images = self.parts["train"]
        order = shuffled(stream, images, recipe.batch_size, mine, start)
        loaded = partial(self.loader, workers=self.place.workers, batch_sampler=order)
        if recipe.augment is None:
            return self._moved(loaded(self.clean_views[id(source)], collate_fn=_collated))
        transform = self._transform(recipe.augment)
        if not batched_views.serves(transform, source, self.place.device):
            return self._moved(loaded(Views(source, transform, stream)))
        if self.on_device is None:
            self.on_device = batched_views.on_device(source, self.place.device)
        views = batched_views.BatchedViews(self.on_device, transform)
        there = self._moved(loaded(batched_views.Draws(source, transform, stream)))
        return ((views(values), labels) for values, labels in there)

    def _train_streamed(self, stream: str, recipe: Recipe, start: int, mine: Sequence[int]) -> Iterator[Batch]:
        size, transform = recipe.batch_size, self._transform(recipe.augment)
        epoch, skipped = divmod(start, self.settings.training_images // size)
        for number in count(epoch):
            views = StreamedViews(self.settings, self.place, self.settings.train, transform, stream, number)
            batches = loader(views, self.place.workers, batch_size=None, seed=views.seed)  # single images
            for batch in islice(self._whole_batches(drawn(batches), size), skipped, None):
                yield default_collate([batch[position] for position in mine])
            skipped = 0

    def _whole_batches(self, samples: Iterator[Any], size: int) -> Iterator[list[Any]]:
        """One epoch's batches. Raises UserError for fewer images than declared."""
        split = self.settings.train
        for number in range(split.images // size):
            batch = list(islice(samples, size))
            if len(batch) < size:
                ensure_equal(where_of(self.settings, split), "images", number * size + len(batch), split.images)
            yield batch


def held_out_of(images: int, held_out: int) -> tuple[Tensor, Tensor]:
    """(kept, held out) as ascending indices [n] int64: drawn once, the same for every run and seed."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(0))
    return order[held_out:].sort().values, order[:held_out].sort().values


def shuffled(stream: str, images: Tensor, size: int, mine: Sequence[int], start: int) -> Iterator[list[tuple[int, int]]]:
    """(epoch, image) at positions `mine` of endless batches, from step `start` on."""
    first, skipped = divmod(start, len(images) // size)
    for epoch in count(first):
        order = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(image_seed(stream, "order", epoch)))]
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


class CleanViews(Indexed[Any]):
    """Views by the evaluation transform, which draws nothing, by (epoch, index).

    With `keeps`, views of a set that is kept decoded are kept too if all of them fit into
    `KEPT_BYTES`: as bytes, which they are before their conversion to 0..1, so that they come back
    unchanged.
    """

    def __init__(self, source: Source, transform: Transform, img_size: int, keeps: bool) -> None:
        self.source, self.transform = source, transform
        shape = (len(source), 3, img_size, img_size)
        kept = keeps and source.decoded and math.prod(shape) <= KEPT_BYTES
        self.kept = torch.empty(shape, dtype=torch.uint8) if kept else None
        self.labels = torch.full((len(source),), UNSEEN)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        image, label = self.source.image(key[1])
        return self.transform(image), label

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Any:
        """A whole batch where views are kept, else a list of samples."""
        if self.kept is None:
            return [self[key] for key in keys]
        indices = torch.tensor([index for _, index in keys])
        for index in indices[self.labels[indices] == UNSEEN].tolist():
            view, label = self[0, index]
            self.kept[index], self.labels[index] = (view * 255).round().to(torch.uint8), label
        return self.kept[indices].float().div(255), self.labels[indices]


def _collated(samples: Any) -> Any:
    return samples if isinstance(samples, tuple) else default_collate(samples)
