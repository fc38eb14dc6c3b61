"""The folder layout of ImageNet: `train/<class>/*` and `val/<class>/*`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ptychoflow.streaming.errors import UserError


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


def read_image_folder(folder: Path) -> ImageFolder:
    """List a data set; nothing is decoded. Files whose name no image format claims are not part of it.

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
        names = {entry.name for entry in folder.iterdir() if entry.is_dir()}
    except OSError as error:
        raise UserError(f"{folder} cannot be listed: {error.strerror}; a folder per class is expected there") from error
    if not names:
        raise UserError(f"{folder} holds no folders; a folder per class is expected there")
    return names


def _files(folder: Path, classes: tuple[str, ...]) -> tuple[ImageFile, ...]:
    suffixes = Image.registered_extensions()
    files: list[ImageFile] = []
    for label, name in enumerate(classes):
        found = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in suffixes)
        if not found:
            raise UserError(f"{folder / name} holds no image; remove the class or add images")
        files.extend(ImageFile(path, label) for path in found)
    return tuple(files)
