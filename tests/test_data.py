"""Cued digits: the label is what the picture says, splits share no handwriting, batches depend on (stream, step) alone."""

import torch

from benchmark.data import load
from benchmark.data.cued_digits import SPLITS, palette
from benchmark.protocol import CuedDigits

SETTINGS = CuedDigits(name="cued_digits", val_images=40, test_images=50, noise_std=0.3)


def cells_of(image):
    return [image[:, 8 * (i // 3) : 8 * (i // 3) + 8, 8 * (i % 3) : 8 * (i % 3) + 8] for i in range(9)]


def find_label(image, dataset):
    """Read the picture: the digit whose colour is the first cell's, looked up among the source images."""
    first, *digits = cells_of(image)
    colour = first[:, 0, 0]
    assert torch.equal(first, colour[:, None, None].expand(3, 8, 8))
    direction = colour / colour.norm()
    matches = []
    for cell in digits:
        brightest = cell.flatten(1)[:, cell.sum(0).argmax()]
        if torch.dot(brightest / brightest.norm(), direction) > 0.9999:
            matches.append(cell.amax(0) / colour.max())
    assert len(matches) == 1, "exactly one digit has the cue's colour"
    distance = (dataset.digits - matches[0]).abs().amax(dim=(1, 2))
    assert distance.min() < 1e-5
    return int(dataset.classes[distance.argmin()]), int(distance.argmin())


def test_labels_are_what_the_picture_shows():
    dataset = load(SETTINGS)
    for name in ("val", "test", "unseen_colours"):
        for images, labels in dataset.evaluate(name, 20):
            assert images.shape[1:] == (3, 24, 24)
            assert images.min() >= 0 and images.max() <= 1
            for image, label in zip(images, labels, strict=True):
                assert find_label(image, dataset)[0] == label


def test_splits_share_no_handwriting():
    dataset = load(SETTINGS)
    shown = {}
    for split, (low, high) in SPLITS.items():
        images, _ = dataset.compose(split, 60, torch.Generator().manual_seed(0))
        shown[split] = {find_label(image, dataset)[1] for image in images}
        assert all(low * 1797 - 1 <= index < high * 1797 for index in shown[split])
    assert not shown["train"] & shown["val"] and not shown["train"] & shown["test"] and not shown["val"] & shown["test"]


def test_batches_are_a_function_of_stream_and_step():
    dataset = load(SETTINGS)
    stream = dataset.train("student:0", 8, 0)
    batches = [next(stream) for _ in range(4)]
    images, labels = next(load(SETTINGS).train("student:0", 8, 3))
    assert torch.equal(images, batches[3][0]) and torch.equal(labels, batches[3][1])
    assert not torch.equal(batches[0][0], batches[1][0])
    assert not torch.equal(next(dataset.train("student:1", 8, 0))[0], batches[0][0])
    assert not torch.equal(next(dataset.train("teacher:0", 8, 0))[0], batches[0][0])


def test_evaluation_sets_are_fixed_and_whole():
    dataset = load(SETTINGS)
    for name in dataset.sets():
        first = torch.cat([images for images, _ in dataset.evaluate(name, 16)])
        again = torch.cat([images for images, _ in load(SETTINGS).evaluate(name, 50)])
        assert torch.equal(first, again)
        assert len(first) == (40 if name == "val" else 50)


def test_shifts_shift():
    dataset = load(SETTINGS)
    assert not {tuple(c.tolist()) for c in palette(False)} & {tuple(c.tolist()) for c in palette(True)}
    clean, noisy = (next(dataset.evaluate(name, 50))[0] for name in ("test", "noise"))
    assert bool(((clean == 0) & (noisy > 0.3)).any())
