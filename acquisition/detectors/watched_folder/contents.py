"""The frames in the bytes of a file, checked and not yet decoded."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tifffile

from ptychoflow.acquisition.detectors.arrivals import EncodedImage
from ptychoflow.acquisition.detectors.compression import Codec, CompressedImage
from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.acquisition.readers.numpy_arrays import read_header
from ptychoflow.acquisition.readers.tiff import TIFF_ERRORS
from ptychoflow.streaming.errors import UserError

PIXEL_TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32")
TIFF_LAYOUTS = {42: (4, "H", 12, "I"), 43: (8, "Q", 20, "Q")}
"""By version: place of the first offset to a page, type of the number of tags, bytes of a tag, type of an offset."""
MOST_HEADER_BYTES = 1 << 16
"""Of a `.npy` file."""


def frames_in(content: Part, name: str, *, most_frames: int, max_frame_px: int) -> list[EncodedImage]:
    """Return the frames of a file in their order.

    Args:
        content: of the file; it is kept, not copied.
        name: the file's.
        most_frames: a file with more is refused.
        max_frame_px: frames with more pixels are refused.

    Raises:
        ValueError: it is damaged, not whole, or out of bounds; one line says how.
    """
    content = memoryview(content).cast("B")
    if name.lower().endswith(".npy"):
        return _npy_frames(content, most_frames=most_frames, max_frame_px=max_frame_px)
    return _tiff_frames(content, most_frames=most_frames, max_frame_px=max_frame_px)


def _npy_frames(content: memoryview, *, most_frames: int, max_frame_px: int) -> list[EncodedImage]:
    try:
        header = read_header(io.BytesIO(content[:MOST_HEADER_BYTES]), where="file")
    except UserError as error:
        raise ValueError(str(error).removeprefix("file: ")) from error
    values = content[header.start :]
    shape = header.shape if len(header.shape) == 3 else (1, *header.shape)
    if len(shape) != 3 or header.dtype.name not in PIXEL_TYPES:
        raise ValueError(f"an array of {header.dtype} {header.shape} is no frame (y, x), nor several of them")
    if header.fortran_order:
        raise ValueError("its first axis is the fastest one in memory; save it with np.ascontiguousarray")
    if not 0 < shape[0] <= most_frames or not 0 < shape[1] * shape[2] <= max_frame_px:
        raise ValueError(f"{shape[0]} frames of {shape[1]} × {shape[2]} pixels are not taken")
    if len(values) != header.nbytes:
        raise ValueError(f"{len(values)} bytes are there of {header.nbytes}")
    frame_bytes = header.nbytes // shape[0]
    return [
        CompressedImage.checked(
            Codec.NONE,
            values[start : start + frame_bytes],
            (shape[1], shape[2]),
            header.dtype,
            max_frame_px=max_frame_px,
        )
        for start in range(0, header.nbytes, frame_bytes)
    ]


@dataclass(frozen=True)
class TiffImage:
    """A page of a TIFF file; see `EncodedImage`."""

    content: Part
    page: int
    shape_px: tuple[int, int]
    dtype: np.dtype[np.generic]

    def __reduce__(self) -> tuple[type[TiffImage], tuple[object, ...]]:
        """Return what another process needs; views of larger memory are copied."""
        return type(self), (bytes(self.content), self.page, self.shape_px, self.dtype)

    def decode(self) -> npt.NDArray[np.generic]:
        """Return the frame (y, x).

        Raises:
            ValueError: the bytes are damaged; one line says how.
        """
        try:
            with tifffile.TiffFile(io.BytesIO(self.content)) as file:
                page = file.pages[self.page]
                if (page.shape, page.dtype) != (self.shape_px, self.dtype):
                    raise ValueError("the page is not what was announced")
                frame: npt.NDArray[np.generic] = np.asarray(page.asarray())
        except TIFF_ERRORS as error:
            raise ValueError(f"damaged page: {' '.join(str(error).split())}") from error
        if (frame.shape, frame.dtype.name) != (self.shape_px, self.dtype.name):
            raise ValueError(f"the page holds {frame.dtype} {frame.shape}")
        return frame.astype(self.dtype, copy=False)


def _tiff_frames(content: memoryview, *, most_frames: int, max_frame_px: int) -> list[EncodedImage]:
    try:
        count = _tiff_pages(content, most_frames)
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            images: list[EncodedImage] = [
                _tiff_image(content, number, file.pages[number], max_frame_px) for number in range(count)
            ]
    except TIFF_ERRORS as error:
        raise ValueError(f"it cannot be read as TIFF: {' '.join(str(error).split())}") from error
    return images


def _tiff_pages(content: memoryview, most: int) -> int:
    """Return how many pages a file has. Raises where their chain is broken, which tifffile takes for its end."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(content[:2]))
    version = struct.unpack_from(f"{order}H", content, 2)[0] if order else 0
    if version not in TIFF_LAYOUTS:
        raise ValueError("it does not begin like one")
    first, entries, entry_bytes, offset = TIFF_LAYOUTS[version]
    (place,), count = struct.unpack_from(f"{order}{offset}", content, first), 0
    while place:
        count += 1
        if count > most:
            raise ValueError(f"there are more than {most} frames in it")
        (tags,) = struct.unpack_from(f"{order}{entries}", content, place)
        behind = place + struct.calcsize(f"={entries}") + tags * entry_bytes
        (place,) = struct.unpack_from(f"{order}{offset}", content, behind)
    if count == 0:
        raise ValueError("there is no frame in it")
    return count


def _tiff_image(content: memoryview, number: int, page: object, max_frame_px: int) -> TiffImage:
    page = page.aspage() if isinstance(page, tifffile.TiffFrame) else page
    assert isinstance(page, tifffile.TiffPage)  # noqa: S101
    shape, dtype = page.shape, np.dtype(page.dtype)
    if len(shape) != 2 or dtype.name not in PIXEL_TYPES or not 0 < shape[0] * shape[1] <= max_frame_px:
        raise ValueError(f"page {number} is {dtype} {shape}, no frame (y, x) that is taken")
    ends = [start + length for start, length in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if len(ends) == 0 or max(ends) > len(content):
        raise ValueError(f"page {number} lies beyond the end of the file")
    return TiffImage(content, number, (shape[0], shape[1]), dtype)
