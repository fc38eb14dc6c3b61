"""Messages about growing files for `mutated_messages`."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import h5py
import numpy as np
from mutated_messages import Message, Stream

from ptychoflow.acquisition.detectors.hdf5_swmr.decoder import Hdf5SwmrDecoder
from ptychoflow.acquisition.detectors.hdf5_swmr.messages import (
    FileBegan,
    FileEnded,
    FileUnusable,
    FramesWritten,
    PositionsWritten,
    WatchBegan,
    encode,
)
from ptychoflow.acquisition.detectors.hdf5_swmr.settings import Hdf5SwmrSettings

SHAPE_PX = (8, 9)


@cache
def folder() -> Path:
    """Return a folder with one file of frames."""
    made = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    with h5py.File(made / "a.h5", "w") as file:
        file.create_dataset("entry/data", data=np.ones((20, *SHAPE_PX), np.uint16), chunks=(4, *SHAPE_PX))
    return made


def messages() -> Sequence[Message]:
    """Return those of one file."""
    numbers = np.arange(20)
    return [
        [encode(message)]
        for message in (
            WatchBegan(7),
            FileBegan("a.h5", SHAPE_PX),
            PositionsWritten("a.h5", numbers.tobytes(), np.linspace(0.0, 1.0, 40).tobytes()),
            FramesWritten("a.h5", "/entry/data", SHAPE_PX, "uint16", 0, 5),
            FramesWritten("a.h5", "/entry/data", SHAPE_PX, "uint16", 5, 15),
            FileUnusable("b.h5", "it was never finished"),
            FileEnded("a.h5", complete=True),
        )
    ]


def decoder() -> Hdf5SwmrDecoder:
    """Return a decoder of frames and positions."""
    settings = {"folder": folder(), "frames": "/entry/data", "positions": {"path": "/p"}}
    return Hdf5SwmrDecoder(Hdf5SwmrSettings.model_validate(settings))


STREAM = Stream(decoder, messages)
