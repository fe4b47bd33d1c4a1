"""Frozen features of a model: its nearest neighbours and a linear probe among training images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS, TEMPERATURE = (10, 20), 0.07  # as in the evaluation of DINO (Caron et al. 2021, arXiv 2104.14294)
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)  # of the probe, chosen on val
HELD = 2**27  # similarities at a time
MOST_ITERATIONS = 500

Labelled = tuple[Tensor, Tensor]


@torch.no_grad()
def embedded(batches: Iterable[Labelled], embed: Callable[[Tensor], Tensor]) -> Labelled:
    """Features [n, d] float32 and labels [n] of batches of images, on the CPU."""
    found = [(embed(images).float().cpu(), labels.cpu()) for images, labels in batches]
    return torch.cat([each for each, _ in found]), torch.cat([each for _, each in found])


def knn_votes(train: Labelled, queries: Tensor, classes: int, k: int) -> Tensor:
    """Votes [queries, classes] of the k nearest training features by cosine similarity s, each with
    weight exp(s / .07), as in DINO's evaluation."""
    known, labels = F.normalize(train[0], dim=1), train[1]
    size = max(1, HELD // len(known))
    votes = []
    for part in F.normalize(queries, dim=1).split(size):
        similarity, nearest = (part @ known.T).topk(min(k, len(known)), dim=1)
        empty = similarity.new_zeros(len(part), classes)
        votes.append(empty.scatter_add(1, labels[nearest], (similarity / TEMPERATURE).exp()))
    return torch.cat(votes)


def fitted_probe(train: Labelled, classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights [d, classes] and bias [classes] of softmax regression, which minimise the mean
    cross-entropy + penalty / 2 x |weights|^2, by L-BFGS from zero."""
    x, y = train
    weights = torch.zeros(x.shape[1], classes, dtype=x.dtype, device=x.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, device=x.device, requires_grad=True)
    settings: dict[str, Any] = {"tolerance_grad": 1e-8, "tolerance_change": 1e-14, "line_search_fn": "strong_wolfe"}
    solver = torch.optim.LBFGS([weights, bias], max_iter=MOST_ITERATIONS, **settings)

    def loss() -> Tensor:
        solver.zero_grad()
        found = F.cross_entropy(x @ weights + bias, y) + penalty / 2 * weights.square().sum()
        found.backward()
        return found

    solver.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach(), bias.detach()


def feature_scores(
    sets: dict[str, Labelled], classes: int, device: str, alive: Callable[[], None] = lambda: None
) -> dict[str, dict[str, float | None]]:
    """`knn10`, `knn20` and `probe`: top1 and top5 in percent and (of the probe) mean cross-entropy
    on test.

    `sets`: features and labels of train, val and test. The probe gets features with the mean and
    standard deviation of training taken out, and the penalty that is best on val. `alive` is called
    on the way.
    """
    train, val, test = ((x.to(device), y.to(device)) for x, y in (sets["train"], sets["val"], sets["test"]))
    found: dict[str, dict[str, float | None]] = {}
    for k in NEIGHBOURS:
        alive()
        found[f"knn{k}"] = _ranked(knn_votes(train, test[0], classes, k), test[1]) | {"loss": None}
    centre, spread = train[0].mean(0), train[0].std(0).clamp_min(1e-6)
    train, val, test = (((x - centre) / spread, y) for x, y in (train, val, test))
    best, score = None, -math.inf
    for penalty in PENALTIES:
        alive()
        weights, bias = fitted_probe(train, classes, penalty)
        top1 = float((val[0] @ weights + bias).argmax(1).eq(val[1]).double().mean())
        if top1 > score:
            best, score = (weights, bias), top1
    assert best is not None
    logits = test[0] @ best[0] + best[1]
    found["probe"] = _ranked(logits, test[1]) | {"loss": float(F.cross_entropy(logits, test[1]))}
    return found


def _ranked(scores: Tensor, labels: Tensor) -> dict[str, float | None]:
    right = scores.topk(min(5, scores.shape[1]), dim=1).indices == labels[:, None]
    shares: Sequence[Tensor] = (right[:, 0], right.any(1))
    top1, top5 = (100 * float(each.double().mean()) for each in shares)
    return {"top1": top1, "top5": top5}
