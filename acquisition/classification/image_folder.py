"""The folder layout of ImageNet: `train/<class>/*` and `val/<class>/*`."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ptychoflow.streaming.errors import UserError

NOT_FOR_PHOTOGRAPHS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow knows by name, and opens with the help of others at best."""


@dataclass(frozen=True)
class ImageFile:
    """One image and its class, a position in the sorted names of all classes."""

    path: Path
    label: int


@dataclass(frozen=True)
class ImageFolder:
    """A data set on disk."""

    classes: tuple[str, ...]
    """Names, sorted."""
    train: tuple[ImageFile, ...]
    val: tuple[ImageFile, ...]

    def fingerprint(self) -> str:
        """Return a digest of the names of all files, the same wherever the folder is."""
        names = hashlib.sha256()
        for part, files in (("train", self.train), ("val", self.val)):
            for file in files:
                names.update(os.fsencode(Path(part, self.classes[file.label], file.path.name)) + b"\0")
        return names.hexdigest()


def read_image_folder(folder: Path) -> ImageFolder:
    """List a data set; nothing is decoded. Hidden files, and files whose name no image format claims, are left out.

    Raises:
        UserError: a part is missing or cannot be listed, a class is empty, or training and validation name other
            classes.
    """
    names = {part: _class_names(folder / part) for part in ("train", "val")}
    only = [
        f"{part}/{name}" for part, other in (("train", "val"), ("val", "train")) for name in names[part] - names[other]
    ]
    if only:
        listed = ", ".join(sorted(only)[:5])
        raise UserError(f"{folder}: train and val must hold the same classes, but only one has {listed}")
    classes = tuple(sorted(names["train"]))
    return ImageFolder(classes, _files(folder / "train", classes), _files(folder / "val", classes))


def _class_names(folder: Path) -> set[str]:
    try:
        names = {entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    except OSError as error:
        raise UserError(f"{folder} cannot be listed: {error.strerror}; a folder per class is expected there") from error
    if not names:
        raise UserError(f"{folder} holds no folders; a folder per class is expected there")
    return names


def _suffixes() -> frozenset[str]:
    """Return those of formats that Pillow reads by itself."""
    formats = Image.registered_extensions()
    return frozenset(name for name, kind in formats.items() if kind in Image.OPEN and kind not in NOT_FOR_PHOTOGRAPHS)


def _is_image(path: Path, suffixes: frozenset[str]) -> bool:
    return path.suffix.lower() in suffixes and not path.name.startswith(".")


def _files(folder: Path, classes: tuple[str, ...]) -> tuple[ImageFile, ...]:
    suffixes = _suffixes()
    files: list[ImageFile] = []
    for label, name in enumerate(classes):
        try:
            found = sorted(path for path in (folder / name).iterdir() if _is_image(path, suffixes))
        except OSError as error:
            raise UserError(f"{folder / name} cannot be listed: {error.strerror}; it should hold images") from error
        if not found:
            raise UserError(f"{folder / name} holds no image; remove the class or add images")
        files.extend(ImageFile(path, label) for path in found)
    return tuple(files)
