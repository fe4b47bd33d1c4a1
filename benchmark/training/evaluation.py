"""Accuracy, loss and the match of attention over an evaluation set."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.training.distributed import Ranks
from benchmark.training.inputs import Inputs, precision_of
from benchmark.training.run_trainer import RunTrainer
from benchmark.transfer.teacher_reader import TeacherAttention

SCORE = ("top1", "top5", "loss")


class Tally:
    """One training's counts over an evaluation set of all `classes` (None) or some."""

    def __init__(self, training: RunTrainer, attention: bool, classes: Tensor | None) -> None:
        self.training, self.attention, self.classes = training, attention, classes
        self.count, self.sums = 0, torch.zeros(len(SCORE), dtype=torch.float64)
        bond, blocks = training.student.bond, len(training.run.transfer.blocks)
        self.rows: dict[str, Tensor] = {}
        if attention and bond.reader is not None and bond.compares:
            self.rows["attention_kl"] = torch.zeros(blocks)
        if attention and bond.reader is not None and bond.alignment.teacher_extra:
            self.rows["dropped_mass"] = torch.zeros(blocks)

    def add(self, inputs: Inputs, y: Tensor, reading: TeacherAttention) -> None:
        """Count a batch with labels y [B]."""
        training, bond, count = self.training, self.training.student.bond, len(y)
        training.model.eval()
        watching = bond.comparing if self.attention else bond.guiding
        rows: dict[str, list[float]] = {}
        with precision_of(training.recipe, y.device), watching(reading) as own:
            logits = training.model(inputs.by(training.input)).float()
            if "attention_kl" in self.rows and own is not None:
                rows["attention_kl"] = bond.divergence(own)
            if "dropped_mass" in self.rows:
                rows["dropped_mass"] = bond.dropped(reading)
            if training.partner is not None:
                logits = mixed(logits, training.partner(inputs.by(training.teacher_input)).float())
        if self.classes is not None:
            logits = logits[:, self.classes.to(y.device)]
            y = torch.searchsorted(self.classes.to(y.device), y)
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == y[:, None]
        found = (int(ranked[:, 0].sum()), int(ranked.any(1).sum()), float(F.cross_entropy(logits, y, reduction="sum")))
        self.sums += torch.tensor(found, dtype=torch.float64)
        for kind, values in rows.items():
            self.rows[kind] += count * torch.tensor(values)
        self.count += count

    def score(self, ranks: Ranks) -> dict[str, Any]:
        """Over what all ranks have counted."""
        count = ranks.total(torch.tensor(self.count))
        top1, top5, loss = (ranks.total(self.sums) / count).tolist()
        found: dict[str, Any] = {"top1": 100 * top1, "top5": 100 * top5, "loss": loss}
        if self.attention:
            found |= {"attention_kl": None, "dropped_mass": None}
            found |= {kind: (ranks.total(sums) / count).tolist() for kind, sums in self.rows.items()}
        return found


def mixed(one: Tensor, other: Tensor) -> Tensor:
    """Log-probabilities [B, classes] of an ensemble: the mean of the two models' probabilities."""
    return torch.stack([one.log_softmax(1), other.log_softmax(1)]).logsumexp(0) - math.log(2)
