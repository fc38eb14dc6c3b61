"""Messages about the files of a watched folder for `mutated_messages`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import tifffile
from mutated_messages import Message, Stream

from ptychoflow.acquisition.detectors.watched_folder.decoder import WatchedFolderDecoder
from ptychoflow.acquisition.detectors.watched_folder.messages import (
    FileCame,
    FileUnusable,
    SeriesClosed,
    SeriesOpened,
    WatchBegan,
    encode,
)
from ptychoflow.acquisition.detectors.watched_folder.settings import WatchedFolderSettings

FRAMES = np.arange(3 * 8 * 9, dtype=np.uint16).reshape(3, 8, 9)


def npy(array: np.ndarray) -> bytes:
    """Return a `.npy` file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def tiff(pages: np.ndarray, **options: object) -> bytes:
    """Return a TIFF file."""
    file = io.BytesIO()
    tifffile.imwrite(file, pages, photometric="minisblack", **options)
    return file.getvalue()


@cache
def messages() -> Sequence[Message]:
    """Return those of one series."""
    files = {
        "a_0.tif": tiff(FRAMES),
        "a_1.npy": npy(FRAMES),
        "a_2.tif": tiff(FRAMES, byteorder=">", rowsperstrip=2),
        "a_3.npy": npy(FRAMES[0].astype(np.float32)),
    }
    return [
        [encode(WatchBegan(7))],
        [encode(SeriesOpened("a_"))],
        *([encode(FileCame("a_", name, number)), files[name]] for number, name in enumerate(files)),
        [encode(FileUnusable("a_4.tif", "it cannot be read as TIFF"))],
        [encode(SeriesClosed("a_"))],
    ]


def decoder() -> WatchedFolderDecoder:
    """Return a decoder of files with up to three frames."""
    return WatchedFolderDecoder(
        WatchedFolderSettings.model_validate({"folder": Path(), "series": "name", "frames_per_file": 3})
    )


STREAM = Stream(decoder, messages)
