"""A model under evaluation: one in training, or that of a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from benchmark.spec.evaluations import AT_START, Evaluation
from benchmark.spec.recipe import Normalisation, Recipe
from benchmark.spec.run import Run
from benchmark.training.detection.detector import body_of
from benchmark.training.models import finished_model, reader_of, student_of, teachers_input, trained
from benchmark.transfer.attention_transfer import AttentionTransfer
from benchmark.transfer.teacher_reader import Reader


@dataclass
class Subject:
    """A model under evaluation.

    Attributes:
        run: its run, with the teacher that its maps are compared with.
        model, transfer: the timm model or a detector on one, and what ties it to a teacher.
        partner: another model, whose probabilities are averaged with its own; None without.
        partner_input: its input normalisation.
    """

    run: Run
    model: nn.Module
    transfer: AttentionTransfer
    partner: nn.Module | None = None
    partner_input: Normalisation | None = None

    @property
    def recipe(self) -> Recipe:
        """The run's."""
        return self.run.protocol.recipe

    @property
    def reader(self) -> Reader | None:
        """The teacher that the model learns from or is compared with."""
        return self.transfer.reader

    @property
    def teacher_input(self) -> Normalisation:
        """The input normalisation of its teacher."""
        return teachers_input(self.run)

    @property
    def input(self) -> Normalisation:
        """Its own input normalisation."""
        return self.teacher_input if self.run.is_finetuned else self.run.protocol.normalisation


def subject_of(evaluation: Evaluation, files: Mapping[str, Path], device: str) -> Subject:
    """The subject of an evaluation; `files` has the weights of `evaluation.files`, and pre-trained
    `weights`. Raises WeightsError for a file that does not fit."""
    run = evaluation.run
    if evaluation.transfer is not None:
        run = run.model_copy(update={"transfer": evaluation.transfer, "teacher": evaluation.teacher})
    model = student_of(run) if evaluation.name == AT_START else finished_model(run, files["student"])
    reader = None if evaluation.read is None else reader_of(run, files, device)
    transfer = AttentionTransfer(run.transfer, body_of(model.to(device)), reader)
    if "ensemble" not in files:
        return Subject(run, model.eval(), transfer)
    partner = trained(run, files["ensemble"]).to(device)
    return Subject(run, model.eval(), transfer, partner, teachers_input(run.model_copy(update={"teacher": evaluation.teacher})))
