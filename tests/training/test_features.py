"""Frozen features: neighbours against scikit-learn, the probe against one that is written out."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.neighbors import KNeighborsClassifier

from benchmark.training import features
from benchmark.training.features import PENALTIES, feature_scores, fitted_probe, knn_votes


def labelled(count, seed, classes=5, width=7):
    """Features that tell classes apart in part, off centre and of unequal spread."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=draw)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(9))
    spread = torch.linspace(0.5, 3, width)
    return (centres[labels] + torch.randn(count, width, generator=draw)) * spread + 2, labels


@pytest.mark.parametrize("k", [1, 10, 20])
def test_neighbours_vote_as_scikit_learns(k, monkeypatch):
    """Cosine similarity, weights exp(s / .07); in pieces too."""
    train, (queries, _) = labelled(200, 0), labelled(60, 1)
    judge = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07))
    judge.fit(train[0].double().numpy(), train[1].numpy())
    expected = judge.predict_proba(queries.double().numpy())
    for held in (2**27, 200 * 7):
        monkeypatch.setattr(features, "HELD", held)
        votes = knn_votes((train[0].double(), train[1]), queries.double(), 5, k)
        np.testing.assert_allclose(votes / votes.sum(1, keepdim=True), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_probe_is_softmax_regression(penalty):
    x, y = labelled(150, 2)
    x = ((x - x.mean(0)) / x.std(0)).double()
    one_hot = np.eye(5)[y.numpy()]

    def written_out(flat):
        weights, bias = flat[:35].reshape(7, 5), flat[35:]
        logits = x.numpy() @ weights + bias
        logits -= logits.max(1, keepdims=True)
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        loss = -np.log((chances * one_hot).sum(1)).mean() + penalty / 2 * (weights**2).sum()
        error = (chances - one_hot) / len(one_hot)
        return loss, np.concatenate([(x.numpy().T @ error + penalty * weights).ravel(), error.sum(0)])

    best = minimize(written_out, np.zeros(40), jac=True, method="BFGS", options={"gtol": 1e-8}).x
    weights, bias = fitted_probe((x, y), 5, penalty)
    np.testing.assert_allclose(weights, best[:35].reshape(7, 5), atol=2e-4)
    np.testing.assert_allclose(bias - bias.mean(), best[35:] - best[35:].mean(), atol=2e-4)


def test_the_penalty_is_chosen_on_val():
    """Test is looked at once, with the penalty that val likes best; the scores are those of the written-out parts."""
    sets = {"train": labelled(120, 3), "val": labelled(80, 4), "test": labelled(90, 5)}
    found = feature_scores(sets, 5, "cpu")
    centre, spread = sets["train"][0].mean(0), sets["train"][0].std(0)
    scaled = {name: ((x - centre) / spread, y) for name, (x, y) in sets.items()}
    by_penalty = []
    for penalty in PENALTIES:
        weights, bias = fitted_probe(scaled["train"], 5, penalty)
        top1 = {name: 100 * ((x @ weights + bias).argmax(1) == y).double().mean().item() for name, (x, y) in scaled.items()}
        by_penalty.append((top1["val"], -len(by_penalty), top1["test"]))
    assert found["probe"]["top1"] == pytest.approx(max(by_penalty)[2])
    votes = knn_votes(sets["train"], sets["test"][0], 5, 10)
    assert found["knn10"]["top1"] == pytest.approx(100 * (votes.argmax(1) == sets["test"][1]).double().mean().item())
    assert found["knn10"]["loss"] is None and found["knn20"]["top5"] == 100
