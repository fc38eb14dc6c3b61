"""Folders of small real images: scikit-learn's handwritten digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

DIGITS_PX = 8


def write_digits(folder: Path, *, classes: int, train: int, val: int) -> Path:
    """Write the digits below `classes`, so many of each for training and for validation, as 8 px PNG files."""
    digits = load_digits()
    for label in range(classes):
        images = digits.images[digits.target == label]
        for part, chosen in (("train", images[:train]), ("val", images[-val:])):
            (folder / part / str(label)).mkdir(parents=True)
            for number, image in enumerate(chosen):
                pixels = np.round(image * (255 / 16)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / part / str(label) / f"{number:03d}.png")
    return folder
