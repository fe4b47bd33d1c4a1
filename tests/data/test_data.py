"""Cued digits: the label is what the picture says, splits share no handwriting, batches depend on (stream, step) alone."""

import pytest
import torch

from benchmark.data import DataLocation, load, part_of
from benchmark.data.cued_digits import DIGITS, SPLITS, palette
from benchmark.spec.data_sets import CuedDigits
from benchmark.spec.recipe import Normalisation, Recipe

SETTINGS = CuedDigits(name="cued_digits", val_images=40, test_images=50, noise_std=0.3)
RECIPE = Recipe(steps=4, batch_size=8, lr=1, warmup=0, weight_decay=0)
NORMALISATION = Normalisation(mean=(0.2, 0.2, 0.2), std=(0.3, 0.3, 0.3))


def digits(**place):
    return load(SETTINGS, DataLocation(**place), 24, NORMALISATION)


def cells_of(image):
    return [image[:, 8 * (i // 3) : 8 * (i // 3) + 8, 8 * (i % 3) : 8 * (i % 3) + 8] for i in range(9)]


def find_label(image, dataset):
    """Read the picture: the digit in the colour of the cells that are filled, looked up among the source images."""
    shown = [cell for cell in cells_of(image) if cell.max() > 0]
    filled = [cell for cell in shown if torch.equal(cell, cell[:, :1, :1].expand(3, 8, 8))]
    digits = [cell for cell in shown if not any(cell is each for each in filled)]
    assert len(filled) == 5 and all(torch.equal(cell, filled[0]) for cell in filled) and 1 <= len(digits) <= DIGITS
    colour = filled[0][:, 0, 0]
    direction = colour / colour.norm()
    matches = []
    for cell in digits:
        brightest = cell.flatten(1)[:, cell.sum(0).argmax()]
        if torch.dot(brightest / brightest.norm(), direction) > 0.9999:
            matches.append(cell.amax(0) / colour.max())
    assert len(matches) == 1, "exactly one digit has the cue's colour"
    distance = (dataset.digits - matches[0]).abs().amax(dim=(1, 2))
    assert distance.min() < 1e-5
    return int(dataset.answers[distance.argmin()]), int(distance.argmin())


def test_labels_are_what_the_picture_shows():
    dataset = digits()
    for name in ("val", "test", "unseen_colours"):
        for images, labels in dataset.evaluate(name, 20):
            assert images.shape[1:] == (3, 24, 24)
            assert images.min() >= 0 and images.max() <= 1
            for image, label in zip(images, labels, strict=True):
                assert find_label(image, dataset)[0] == label


def test_the_cue_and_the_digits_lie_anywhere():
    """Each cell holds the cue in 5 of 9 images and a digit in 2.5 of 9; where the digits are says nothing of the label."""
    images, labels = digits().compose("train", 4000, torch.Generator().manual_seed(0))
    cells = torch.stack([torch.stack(cells_of(image)) for image in images]).flatten(3)
    filled = (cells.amax((2, 3)) > 0) & (cells == cells[..., :1]).all(3).all(2)
    torch.testing.assert_close(filled.double().mean(0), torch.full((9,), 5 / 9).double(), atol=0.03, rtol=0)
    drawn = (cells.amax((2, 3)) > 0) & ~filled
    torch.testing.assert_close(drawn.double().mean(0), torch.full((9,), 2.5 / 9).double(), atol=0.03, rtol=0)
    assert (drawn.sum(1).bincount() / 4000)[1:].sub(0.25).abs().max() < 0.03  # one to four digits, equally often
    usual = [labels[drawn[:, place]].bincount(minlength=10).max() / drawn[:, place].sum() for place in range(9)]
    assert max(usual) < 0.17


def test_splits_share_no_handwriting():
    dataset = digits()
    shown = {}
    for split, (low, high) in SPLITS.items():
        images, _ = dataset.compose(split, 60, torch.Generator().manual_seed(0))
        shown[split] = {find_label(image, dataset)[1] for image in images}
        assert all(low * 1797 - 1 <= index < high * 1797 for index in shown[split])
    assert not shown["train"] & shown["val"] and not shown["train"] & shown["test"] and not shown["val"] & shown["test"]


def test_batches_are_a_function_of_stream_and_step():
    dataset = digits()
    stream = dataset.train("student:0", RECIPE, 0)
    batches = [next(stream) for _ in range(4)]
    images, labels = next(digits().train("student:0", RECIPE, 3))
    assert torch.equal(images, batches[3][0]) and torch.equal(labels, batches[3][1])
    assert not torch.equal(batches[0][0], batches[1][0])
    assert not torch.equal(next(dataset.train("student:1", RECIPE, 0))[0], batches[0][0])
    assert not torch.equal(next(dataset.train("teacher:0", RECIPE, 0))[0], batches[0][0])


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_each_batch(ranks):
    """Together they have every image once, and whom mixup pairs, the i-th and the i-th from the end, one rank has."""
    whole, _ = next(digits().train("student:0", RECIPE, 2))
    places = [DataLocation(rank=rank, ranks=ranks) for rank in range(ranks)]
    positions = [list(part_of(place, 8)) for place in places]
    assert sorted(position for mine in positions for position in mine) == list(range(8))
    for place, mine in zip(places, positions, strict=True):
        assert [7 - position for position in reversed(mine)] == mine
        images, labels = next(load(SETTINGS, place, 24, NORMALISATION).train("student:0", RECIPE, 2))
        assert torch.equal(images, whole[mine]) and len(labels) == 8 // ranks
    seen = [images for place in places for images, _ in load(SETTINGS, place, 24, NORMALISATION).evaluate("test", 7)]
    assert sum(map(len, seen)) == 50
    with pytest.raises(ValueError, match="not a multiple"):
        part_of(DataLocation(ranks=3), 8)


def test_evaluation_sets_are_fixed_and_whole():
    dataset = digits()
    for name in dataset.sets():
        first = torch.cat([images for images, _ in dataset.evaluate(name, 16)])
        again = torch.cat([images for images, _ in digits().evaluate(name, 50)])
        assert torch.equal(first, again)
        assert len(first) == (40 if name == "val" else 50)


def test_shifts_shift():
    dataset = digits()
    assert not {tuple(c.tolist()) for c in palette(False)} & {tuple(c.tolist()) for c in palette(True)}
    clean, noisy = (next(dataset.evaluate(name, 50))[0] for name in ("test", "noise"))
    assert bool(((clean == 0) & (noisy > 0.3)).any())
