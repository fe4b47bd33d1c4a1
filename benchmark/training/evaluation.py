"""Accuracy, loss and the match of attention over evaluation sets."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.data import Dataset
from benchmark.spec.data_sets import EVALUATION_SETS
from benchmark.training.detection.scoring import BoxTally
from benchmark.training.distributed import Ranks
from benchmark.training.group import Group
from benchmark.training.inputs import Inputs, precision_of
from benchmark.training.run_trainer import RunTrainer
from benchmark.training.subject import Subject
from benchmark.transfer.teacher_reader import TeacherAttention, TeacherReader
from families.core.adapter import normalised
from families.spec import UserError

SCORE = ("top1", "top5", "loss")


@torch.no_grad()
def evaluate(
    group: Group, trainings: Sequence[RunTrainer], name: str, attention: bool = False
) -> list[tuple[RunTrainer, dict[str, Any]]]:
    """Score runs on an evaluation set: top1 and top5 in percent and mean cross-entropy, among the
    classes that the set has.

    Every image counts once, whatever the number of processes. With `attention` also by transferred
    block: `attention_kl` of a distilled student's own map from the teacher's in nats, and
    `dropped_mass` on tokens that the student lacks; None without them.
    """
    if not trainings:
        return []
    group.leave_if_told(agreed=True)
    tallies = [(training, tally_of(training.subject, group.dataset, name, attention)) for training in trainings]
    with ExitStack() as within:
        for training in trainings:
            within.enter_context(training.student.averaged())
        for images, labels in group.dataset.evaluate(name, group.evaluation_batch):
            group.leave_if_told(agreed=False)  # several processes agree before each set
            inputs = Inputs(images)
            read = group.read(trainings, inputs)
            for training, tally in tallies:
                if training in group.going:
                    with group.isolated(training):
                        tally.add(inputs, labels, read[id(training.reader)])
                        group.callbacks.evaluated(training)
    return [(training, tally.score(group.ranks)) for training, tally in tallies if training in group.going]


def measure_curves(group: Group) -> None:
    """Add the points of learning curves that are due; a checkpoint may be older than the one of its
    own step."""
    for training, score in evaluate(group, [training for training in group.going if training.due], "val"):
        training.point(score)


def end(group: Group, trainings: Sequence[RunTrainer]) -> None:
    """Evaluate runs that have taken their last step on the sets that are there, and report them."""
    group.settle()
    scores = {id(training): {} if training.val is None else {"val": training.val} for training in trainings}
    for name in group.dataset.sets():
        unknown = [training for training in group.still(trainings) if name not in scores[id(training)]]
        try:
            for training, score in evaluate(group, unknown, name, attention=name == "test"):
                scores[id(training)][name] = score
        except UserError as error:
            if name in EVALUATION_SETS or group.ranks.size > 1:  # the others would wait for this one
                raise
            print(f"bench: {error}: not evaluated on {name}", file=sys.stderr, flush=True)  # and no training is lost
    for training in group.still(trainings):
        with group.isolated(training):
            found = scores[id(training)]
            shifted = {name: score for name, score in found.items() if name not in EVALUATION_SETS}
            group.callbacks.ended(training, training.finish(found["val"], found["test"], shifted))
            group.going.remove(training)


@torch.no_grad()
def learn_averages(group: Group) -> None:
    """Take the mean maps over val's images of teachers whose students get these."""
    for training in list(group.going):
        reader = training.reader
        if isinstance(reader, TeacherReader) and training.run.transfer.needs_average and not reader.average:
            with group.isolated(training), precision_of(group.recipe, group.device):
                val = group.dataset.evaluate("val", group.evaluation_batch)
                images = (normalised(each, training.teacher_input) for each, _ in val)
                reader.learn_average(images, group.ranks.all_gather)


def tally_of(subject: Subject, dataset: Dataset, name: str, attention: bool) -> Tally | BoxTally:
    """A count of what a model gets right of an evaluation set, with or without the match of
    attention."""
    if subject.run.detector is None:
        return Tally(subject, attention, dataset.classes(name))
    return BoxTally(subject, dataset.truth(name))


class Tally:
    """One model's counts over an evaluation set of all `classes` (None) or some."""

    def __init__(self, subject: Subject, attention: bool, classes: Tensor | None) -> None:
        self.subject, self.attention, self.classes = subject, attention, classes
        self.count, self.found = 0, list[Tensor]()  # on the device: nothing waits for a GPU before the end of a set
        transfer, blocks = subject.transfer, len(subject.run.transfer.blocks)
        self.rows: dict[str, Tensor] = {}
        if attention and transfer.compares:
            self.rows["attention_kl"] = torch.zeros(blocks)
        if attention and transfer.drops_tokens:
            self.rows["dropped_mass"] = torch.zeros(blocks)

    def add(self, inputs: Inputs, y: Tensor, read: TeacherAttention) -> None:
        """Count a batch with labels y [B]."""
        subject, transfer, count = self.subject, self.subject.transfer, len(y)
        subject.model.eval()
        watching = transfer.comparing if self.attention else transfer.guiding
        rows: dict[str, list[float]] = {}
        with precision_of(subject.recipe, y.device), watching(read) as own:
            logits = subject.model(inputs.by(subject.input)).float()
            if "attention_kl" in self.rows and own is not None:
                rows["attention_kl"] = transfer.divergence(own)
            if "dropped_mass" in self.rows:
                rows["dropped_mass"] = transfer.dropped(read)
            if subject.partner is not None and subject.partner_input is not None:
                logits = mixed(logits, subject.partner(inputs.by(subject.partner_input)).float())
        if self.classes is not None:
            self.classes = self.classes.to(y.device)
            logits, y = logits[:, self.classes], torch.searchsorted(self.classes, y)
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == y[:, None]
        loss = F.cross_entropy(logits, y, reduction="sum")
        self.found.append(torch.stack([ranked[:, 0].sum().to(loss), ranked.any(1).sum().to(loss), loss]))
        for kind, values in rows.items():
            self.rows[kind] += count * torch.tensor(values)
        self.count += count

    def score(self, ranks: Ranks) -> dict[str, Any]:
        """The means over the counts of all ranks."""
        count = ranks.total(torch.tensor(self.count))
        sums = torch.zeros(len(SCORE), dtype=torch.float64)
        for batch in torch.stack(self.found).cpu() if self.found else ():
            sums += batch
        top1, top5, loss = (ranks.total(sums) / count).tolist()
        found: dict[str, Any] = {"top1": 100 * top1, "top5": 100 * top5, "loss": loss}
        if self.attention:
            found |= {"attention_kl": None, "dropped_mass": None}
            found |= {kind: (ranks.total(sums) / count).tolist() for kind, sums in self.rows.items()}
        return found


def mixed(one: Tensor, other: Tensor) -> Tensor:
    """Log-probabilities [B, classes] of an ensemble: the mean of the two models' probabilities."""
    return torch.stack([one.log_softmax(1), other.log_softmax(1)]).logsumexp(0) - math.log(2)
