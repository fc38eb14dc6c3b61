"""Fashion-MNIST in the folder layout of ImageNet.

Source: H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
algorithms" (2017). The files are in the IDX format: a big-endian header, then bytes.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ptychoflow.streaming.errors import UserError

CLASSES = (
    "0-t-shirt",
    "1-trouser",
    "2-pullover",
    "3-dress",
    "4-coat",
    "5-sandal",
    "6-shirt",
    "7-sneaker",
    "8-bag",
    "9-ankle-boot",
)
PARTS = {"train": "train", "val": "t10k"}
UNSIGNED_BYTES = 8


def write_image_folder(source: Path, out: Path, *, per_class: int | None = None) -> dict[str, int]:
    """Write `out`/train and `out`/val; return the number of images in each.

    Args:
        source: folder with the four files.
        out: folder to make.
        per_class: take the first so many training images of each class only; None takes all.

    Raises:
        UserError: a file is missing or not what it should be, labels do not belong to the images, or `out` exists or
            cannot be written.
    """
    read = {part: _read_part(source, prefix) for part, prefix in PARTS.items()}
    try:
        out.mkdir(parents=True)
        limits = {"train": per_class, "val": None}
        return {part: _write_part(out / part, *arrays, per_class=limits[part]) for part, arrays in read.items()}
    except FileExistsError:
        raise UserError(f"{out} exists already; name a new folder") from None
    except OSError as error:
        raise UserError(f"{error.filename or out} cannot be written: {error.strerror}") from error


def _read_part(source: Path, prefix: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return images and labels; raise UserError where they do not belong together, or are of another data set."""
    labels_file = source / f"{prefix}-labels-idx1-ubyte.gz"
    images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz", dimensions=3)
    labels = read_idx(labels_file, dimensions=1)
    if len(labels) != len(images):
        raise UserError(
            f"{labels_file} has {len(labels)} labels, but there are {len(images)} images beside it: "
            "take both from the same data set"
        )
    if len(labels) and labels.max() >= len(CLASSES):
        raise UserError(
            f"{labels_file} has labels up to {labels.max()}, those of Fashion-MNIST end with {len(CLASSES) - 1}: "
            "of another data set, write the images as train/CLASS/* and val/CLASS/* yourself"
        )
    return images, labels


def read_idx(path: Path, *, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes.

    Raises:
        UserError: the file is missing or not of that kind.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist: install Debian's package dataset-fashion-mnist, or name its folder with --source"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    header = 4 + 4 * dimensions
    is_idx = data[:4] == bytes((0, 0, UNSIGNED_BYTES, dimensions)) and len(data) >= header
    shape = tuple(np.frombuffer(data[4:header], ">u4").tolist()) if is_idx else ()
    if not is_idx or len(data) - header != np.prod(shape):
        raise UserError(f"{path} is not an IDX file of unsigned bytes in {dimensions} dimensions")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _write_part(
    folder: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], *, per_class: int | None
) -> int:
    count = 0
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in np.flatnonzero(labels == label)[:per_class].tolist():
            Image.fromarray(images[number]).save(folder / name / f"{number:05d}.png")
            count += 1
    return count
