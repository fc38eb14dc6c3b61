"""Configuration of labelled images: a folder of them, how it is divided into tasks, and how it is streamed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from ptychoflow.streaming.settings import Settings


class ImageFolderSettings(Settings):
    """A data set, its tasks, and what is kept of each image."""

    folder: Path = Path("images")
    """Holds `train/<class>/*` and `val/<class>/*`."""
    tasks: PositiveInt = 4
    """Classes are dealt to this many tasks, as evenly as possible, in an order that the seed decides."""
    channels: Literal[1, 3] = 3
    """1 turns colours into grey."""
    stored_px: PositiveInt = 256
    """Images are scaled and cropped to squares of this size when they are read; so they travel, and so the buffer
    keeps them."""
    corrupt_share: float = Field(default=0.01, ge=0, le=1)
    """Files that cannot be read are named, left out and counted; more than this share of the set ends the run."""


class ClassificationSourceSettings(ImageFolderSettings):
    """A folder of labelled images, task by task; every image comes once."""

    kind: Literal["images"] = "images"
    folder: Path
    """Holds `train/<class>/*` and `val/<class>/*`; images of `val` are streamed among the others of their task."""
    workers: PositiveInt = 2
    """Threads that read files."""
