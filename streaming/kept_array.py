"""Arrays in `.npy` files that a part of a run has written and another one reads back."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.errors import UserError

# What NumPy raises for damaged files: it takes the header for Python, and archives for packed.
ARRAY_ERRORS = (
    *(OSError, ValueError, EOFError, KeyError, SyntaxError, OverflowError, MemoryError, NotImplementedError),
    *(tokenize.TokenError, struct.error, zipfile.BadZipFile, zlib.error, RecursionError, TypeError),
)


def read_array(path: Path, *, advice: str, mapped: bool = False) -> npt.NDArray[Any]:
    """Return the array of a `.npy` file.

    Args:
        path: of the file.
        advice: what can be done about a damaged file.
        mapped: leave the values on the disk until they are used.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged.
    """
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise
    except ARRAY_ERRORS as error:
        raise UserError(f"{path} is damaged: {error}; {advice}") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path} is damaged: it is no array; {advice}")
    return array
