"""Evaluate a finished run: on a set, with another run, beside a teacher, or by its features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark import data
from benchmark.data import DataLocation, Dataset
from benchmark.spec.data_sets import EVALUATION_SETS, TEACHER_FEATURES
from benchmark.spec.evaluations import SCORES, Evaluation, measured_on
from benchmark.spec.run import Run
from benchmark.training.distributed import Ranks
from benchmark.training.evaluation import tally_of
from benchmark.training.features import embedded, feature_scores
from benchmark.training.inputs import Inputs, precision_of
from benchmark.training.models import frozen_teacher, teachers_input
from benchmark.training.subject import Subject, subject_of
from benchmark.transfer.teacher_reader import TeacherAttention, TeacherReader
from families.core.adapter import normalised


@dataclass(frozen=True)
class Measurement:
    """Where and how a finished run is evaluated.

    Attributes:
        files: weights by use, as in Evaluation.files, and pre-trained `weights`.
        device: torch device name.
        place: where the data lies, and this process's part of it.
        ranks: the processes that evaluate it together.
        alive: called after each batch.
    """

    files: Mapping[str, Path]
    device: str
    place: DataLocation
    ranks: Ranks
    alive: Callable[[], None]

    def scores(self, evaluation: Evaluation) -> dict[str, dict[str, Any]]:
        """The scores of an evaluation, by name. Raises WeightsError for weights that do not fit,
        UserError for images that are not there."""
        found = self._features(evaluation) if evaluation.name in SCORES else self._on_sets(evaluation)
        told: dict[str, Any] = {"on": evaluation.on} | ({} if evaluation.beside is None else {"beside": evaluation.beside})
        told |= {} if evaluation.transfer is None else {"transfer": evaluation.transfer.model_dump(mode="json")}
        return {name: score | told for name, score in found.items()}

    def _on_sets(self, evaluation: Evaluation) -> dict[str, dict[str, Any]]:
        dataset = self._dataset(evaluation.run, self.place)
        subject, named = self._subject(evaluation, dataset, self.ranks.all_gather), evaluation.name
        on = named if named in (*EVALUATION_SETS, *evaluation.run.settings.data.shifted_sets) else "test"
        score = self._score(subject, dataset, on, attention=on == "test")
        if subject.partner is None:
            return {named: score}
        shifted = {
            name: self._score(subject, dataset, name) | {"on": measured_on(evaluation.run, name)}
            for name in dataset.sets()
            if name not in EVALUATION_SETS
        }
        return {named: score | {"shift": shifted}}

    def _subject(self, evaluation: Evaluation, dataset: Dataset, everyone: Callable[[Any], list[Any]]) -> Subject:
        subject = subject_of(evaluation, self.files, self.device)
        if subject.run.transfer.needs_average and isinstance(subject.reader, TeacherReader):
            with precision_of(subject.recipe, torch.device(self.device)):
                subject.reader.learn_average(self._images(dataset, subject), everyone)
        return subject

    @torch.no_grad()
    def _score(self, subject: Subject, dataset: Dataset, name: str, attention: bool = False) -> dict[str, Any]:
        tally = tally_of(subject, dataset, name, attention)
        for images, labels in dataset.evaluate(name, subject.run.settings.evaluation_batch):
            inputs = Inputs(images)
            tally.add(inputs, labels, self._read(subject, inputs))
            self.alive()
        return tally.score(self.ranks)

    def _read(self, subject: Subject, inputs: Inputs) -> TeacherAttention:
        if subject.reader is None:
            return {}
        with precision_of(subject.recipe, inputs.images.device):
            return subject.reader.read(inputs.by(subject.teacher_input))

    def _images(self, dataset: Dataset, subject: Subject) -> Iterator[Tensor]:
        for images, _ in dataset.evaluate("val", subject.run.settings.evaluation_batch):
            yield normalised(images, subject.teacher_input)

    def _features(self, evaluation: Evaluation) -> dict[str, dict[str, Any]]:
        """Scores of features; every process has those of all images."""
        run, device = evaluation.run, torch.device(self.device)
        dataset = self._dataset(run, replace(self.place, rank=0, ranks=1))
        embed = self._embed_teacher(run) if evaluation.name == TEACHER_FEATURES else self._embed(evaluation, dataset)
        batches = {name: dataset.evaluate(name, run.settings.evaluation_batch) for name in ("train", *EVALUATION_SETS)}

        def features(images: Tensor) -> Tensor:
            self.alive()
            with precision_of(run.protocol.recipe, device):
                return embed(Inputs(images))

        sets = {name: embedded(each, features) for name, each in batches.items()}
        found = feature_scores(sets, run.protocol.data.num_classes, self.device, self.alive)
        return dict(zip(evaluation.scores, found.values(), strict=True))

    def _embed(self, evaluation: Evaluation, dataset: Dataset) -> Callable[[Inputs], Tensor]:
        subject = self._subject(evaluation, dataset, lambda own: [own])

        def embed(inputs: Inputs) -> Tensor:
            with subject.transfer.guiding(self._read(subject, inputs)):
                return _before_head(subject.model, inputs.by(subject.input))

        return embed

    def _embed_teacher(self, run: Run) -> Callable[[Inputs], Tensor]:
        teacher, given = frozen_teacher(run, self.files).to(self.device), teachers_input(run)
        return lambda inputs: _before_head(teacher, inputs.by(given))

    def _dataset(self, run: Run, place: DataLocation) -> Dataset:
        return data.load(run.settings.data, place, run.student.geometry.img_size, run.protocol.normalisation)


def _before_head(model: nn.Module, images: Tensor) -> Tensor:
    """What the head of a timm model gets, [B, width]."""
    found: Tensor = model.forward_head(model.forward_features(images), pre_logits=True)  # type: ignore[operator]
    return found
