"""Small generated photographs: folders of JPEGs, of many sizes and shapes, whose class can be learnt from the picture."""

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image


def wnids(classes):
    """Class names like ImageNet's; their order is the classes'."""
    return [f"n{1440764 + 1009 * label:08d}" for label in range(classes)]


def picture(label, classes, draw, sizes=(32, 80)):
    """An RGB image: stripes in the class's colour, of any direction and width, a random size and shape, under noise."""
    height, width = draw.integers(*sizes, endpoint=True, size=2)
    rows, columns = np.mgrid[:height, :width]
    angle, period = draw.uniform(0, np.pi), draw.uniform(6, 12)
    stripes = 0.5 + 0.5 * np.sin((rows * np.sin(angle) + columns * np.cos(angle)) * 2 * np.pi / period)
    colour = 255 * np.array(colorsys.hsv_to_rgb(label / classes, 0.8, 0.9))
    noisy = (0.4 + 0.6 * stripes)[..., None] * colour + draw.normal(0, 12, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def make_folder(root, splits, classes=4, seed=0, names=None, sizes=(32, 80)):
    """Write `<root>/<split>/<class>/<class>_<number>.JPEG`: of each split as many images as `splits` tells, dealt to the classes.

    `names` maps folder names to class numbers, where they are not those of `wnids(classes)`, all of them. Gives the folder names.
    """
    names = names or {name: label for label, name in enumerate(wnids(classes))}
    for position, (split, images) in enumerate(splits.items()):
        draw = np.random.default_rng((seed, position))
        for number in range(images):
            name, label = list(names.items())[number % len(names)]
            folder = Path(root) / split / name
            folder.mkdir(parents=True, exist_ok=True)
            picture(label, classes, draw, sizes).save(folder / f"{name}_{number}.JPEG", quality=90)
    return list(names)
