"""The compressions of detector streams: what is encoded is checked first, and decoded where it is needed."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.streaming.libraries import library

BLOCK_BYTES = 8192
"""Bitshuffle's block where the encoded bytes do not state one."""
MIN_BLOCK_BYTES = 1024
"""Smaller stated blocks are refused: they would cost more time than data."""
SHUFFLED_PX = 8
"""Bitshuffle takes so many pixels together; fewer are left at the end of a frame as they are."""
_HEADER = struct.Struct(">QI")
_LENGTH = struct.Struct(">I")
_BLOSC_HEADER = struct.Struct("<4xIII")
"""Bytes of the frame, of a block, and of what is encoded."""
_PIXEL_BYTES = (1, 2, 4)
SHUFFLED_BYTES = (1, 2, 4, 8)


class Codec(StrEnum):
    """How the pixels of a frame are encoded."""

    NONE = "none"
    LZ4 = "lz4"
    """One block of LZ4 for the whole frame."""
    LZ4_HDF5 = "lz4hdf5"
    """LZ4 as in HDF5: a header with the size of the frame and of the blocks, then blocks with their lengths."""
    BSLZ4 = "bslz4"
    """Bitshuffle and LZ4, block by block, with or without the header of HDF5."""
    BSZSTD = "bszstd"
    """Bitshuffle and Zstandard, block by block, with or without the header of HDF5."""
    BLOSC = "blosc"
    """Blosc, whose header says the size."""
    ZLIB = "zlib"
    """Deflate, with the header of zlib."""


@dataclass(frozen=True, slots=True)
class CompressedImage:
    """A frame as it came; see `EncodedImage`. Decoding needs no lock and lets other threads run meanwhile."""

    codec: Codec
    encoded: Part
    shape_px: tuple[int, int]
    dtype: np.dtype[np.generic]
    shuffled_bytes: int
    """Bytes whose bits are shuffled together: those of a pixel as a rule, but not with every detector."""

    def __reduce__(self) -> tuple[type[CompressedImage], tuple[object, ...]]:
        """Return what another process needs; views of larger memory are copied."""
        return type(self), (self.codec, bytes(self.encoded), self.shape_px, self.dtype, self.shuffled_bytes)

    @classmethod
    def checked(
        cls,
        codec: Codec,
        encoded: Part,
        shape_px: tuple[int, int],
        dtype: npt.DTypeLike,
        *,
        max_frame_px: int,
        shuffled_bytes: int | None = None,
    ) -> CompressedImage:
        """Return an image whose size can be allocated without danger.

        Args:
            codec: how the pixels are encoded.
            encoded: the bytes as they came; they are kept, not copied.
            shape_px: (y, x).
            dtype: of 8, 16 or 32 bit.
            max_frame_px: what a frame may have at most.
            shuffled_bytes: bytes whose bits are shuffled together; None for those of a pixel.

        Raises:
            ValueError: shape, dtype or size cannot be; one line says which.
        """
        dtype = np.dtype(dtype)
        if dtype.itemsize not in _PIXEL_BYTES or dtype.kind not in "uif":
            raise ValueError(f"frames of {dtype} are not known")
        height, width = shape_px
        if min(height, width) < 1 or height * width > max_frame_px:
            raise ValueError(f"a frame of {height} × {width} pixels is out of bounds (max_frame_px = {max_frame_px})")
        item = dtype.itemsize if shuffled_bytes is None else shuffled_bytes
        if item not in SHUFFLED_BYTES:
            raise ValueError(f"frames whose bits are shuffled over {item} bytes are not known")
        image = cls(codec, encoded, (height, width), dtype, item)
        if codec is Codec.NONE and len(encoded) != image._size:
            raise ValueError(f"a frame of {height} × {width} {dtype} has {image._size} bytes, not {len(encoded)}")
        return image

    @property
    def _size(self) -> int:
        return self.shape_px[0] * self.shape_px[1] * self.dtype.itemsize

    def decode(self) -> npt.NDArray[np.generic]:
        """Return the frame (y, x); it may be read-only.

        Raises:
            ValueError: the bytes are damaged; one line says how.
        """
        encoded = memoryview(self.encoded).cast("B")
        try:
            pixels = self._decoded(encoded)
        except RuntimeError as error:  # every error of imagecodecs is one
            raise ValueError(f"damaged {self.codec} frame: {error}") from error
        return pixels.view(self.dtype).reshape(self.shape_px)

    def _decoded(self, encoded: memoryview) -> npt.NDArray[np.uint8]:
        if self.codec is Codec.NONE:
            return np.frombuffer(encoded, np.uint8)
        if self.codec is Codec.LZ4:
            return _lz4(encoded, self._size)
        if self.codec is Codec.LZ4_HDF5:
            return _lz4_hdf5(encoded, self._size)
        if self.codec is Codec.BLOSC:
            return _blosc(encoded, self._size)
        if self.codec is Codec.ZLIB:
            return _zlib(encoded, self._size)
        return _bitshuffled(encoded, self._size, self.shuffled_bytes, self.codec)


def encode(frame: npt.NDArray[np.generic], codec: Codec, *, header: bool = True) -> bytes:
    """Return a frame as a detector sends it.

    Args:
        frame: of 8, 16 or 32 bit.
        codec: how.
        header: whether bitshuffled frames begin with the header of HDF5.
    """
    data = np.ascontiguousarray(frame).tobytes()
    if codec is Codec.NONE:
        return data
    if codec is Codec.LZ4:
        return bytes(codecs().lz4_encode(data))
    if codec is Codec.LZ4_HDF5:
        return bytes(codecs().lz4h5_encode(data, blocksize=len(data)))
    if codec is Codec.ZLIB:
        return zlib.compress(data)
    item = frame.dtype.itemsize
    if codec is Codec.BLOSC:
        return bytes(codecs().blosc_encode(data, typesize=item))
    shuffled = codecs().bitshuffle_encode(data, itemsize=item, blocksize=BLOCK_BYTES // item)
    whole = _whole(len(data), item)
    compress = codecs().lz4_encode if codec is Codec.BSLZ4 else codecs().zstd_encode
    blocks = [compress(shuffled[start : min(start + BLOCK_BYTES, whole)]) for start in range(0, whole, BLOCK_BYTES)]
    parts = [part for block in blocks for part in (_LENGTH.pack(len(block)), block)]
    return b"".join([_HEADER.pack(len(data), BLOCK_BYTES) if header else b"", *parts, shuffled[whole:]])


def codecs() -> Any:
    """Return the library that decodes; decoders ask once, so that it is missed when a run begins.

    Raises:
        UserError: it is not installed.
    """
    return library("imagecodecs", extra="dectris")


def _whole(size: int, item: int) -> int:
    """Return how many bytes of a frame are shuffled and compressed."""
    return size - size % (SHUFFLED_PX * item)


def _lz4(encoded: memoryview, size: int) -> npt.NDArray[np.uint8]:
    pixels = np.empty(size, np.uint8)
    _check_filled(len(codecs().lz4_decode(encoded, out=pixels.data)), size)
    return pixels


def _lz4_hdf5(encoded: memoryview, size: int) -> npt.NDArray[np.uint8]:
    stated, block = _header(encoded)
    if stated != size:
        raise ValueError(f"damaged frame: its header says {stated} bytes, its shape {size}")
    _check_blocks(encoded[_HEADER.size :], size, block)
    pixels = np.empty(size, np.uint8)
    _check_filled(len(codecs().lz4h5_decode(encoded, out=pixels.data)), size)
    return pixels


def _blosc(encoded: memoryview, size: int) -> npt.NDArray[np.uint8]:
    stated, _, compressed = _BLOSC_HEADER.unpack_from(encoded) if len(encoded) >= _BLOSC_HEADER.size else (0, 0, 0)
    if (stated, compressed) != (size, len(encoded)):
        raise ValueError(
            f"damaged frame: its header says {stated} in {compressed} bytes, it should be {size} in {len(encoded)}"
        )
    pixels = np.empty(size, np.uint8)
    _check_filled(len(codecs().blosc_decode(encoded, out=pixels.data)), size)
    return pixels


def _zlib(encoded: memoryview, size: int) -> npt.NDArray[np.uint8]:
    inflate = zlib.decompressobj()
    try:
        pixels = inflate.decompress(encoded, size + 1)
    except zlib.error as error:
        raise ValueError(f"damaged frame: {error}") from error
    _check_filled(len(pixels), size)
    if not inflate.eof or inflate.unused_data:
        raise ValueError("damaged frame: it does not end where its pixels do")
    return np.frombuffer(pixels, np.uint8)


def _bitshuffled(encoded: memoryview, size: int, item: int, codec: Codec) -> npt.NDArray[np.uint8]:
    """Decode all blocks, then bring the bits of all of them back."""
    whole = _whole(size, item)
    encoded, block = _without_header(encoded, size, item)
    split = len(encoded) - (size - whole)
    if split < 0:
        raise ValueError(f"damaged frame: {len(encoded)} bytes are too few")
    shuffled = np.empty(size, np.uint8)
    _decompress(encoded[:split], shuffled.data[:whole], block, codec)
    shuffled[whole:] = encoded[split:]
    pixels = np.empty(size, np.uint8)
    codecs().bitshuffle_decode(shuffled.data, itemsize=item, blocksize=block // item, out=pixels.data)
    return pixels


def _without_header(encoded: memoryview, size: int, item: int) -> tuple[memoryview, int]:
    """Return the blocks and how many bytes each of them decodes to.

    A header begins with the size of the frame, or is left empty by some senders; without one, the first bytes are the
    length of a block, never 0.
    """
    step = SHUFFLED_PX * item
    block = BLOCK_BYTES
    if len(encoded) >= _HEADER.size and _header(encoded)[0] in (size, 0):
        block = _header(encoded)[1] or BLOCK_BYTES
        encoded = encoded[_HEADER.size :]
    if block % step:
        raise ValueError(f"damaged frame: blocks of {block} bytes are not made of {step}")
    return encoded, min(block, max(_whole(size, item), step))


def _decompress(blocks: memoryview, target: memoryview, block: int, codec: Codec) -> None:
    size = len(target)
    stored = _check_blocks(blocks, size, block)
    if codec is Codec.BSLZ4 and size and not stored:
        framed = b"".join((_HEADER.pack(size, block), blocks))
        _check_filled(len(codecs().lz4h5_decode(framed, out=target)), size)
        return
    decompress = codecs().lz4_decode if codec is Codec.BSLZ4 else codecs().zstd_decode
    place = 0
    for start in range(0, size, block):
        stop = min(start + block, size)
        begin = place + _LENGTH.size
        place = begin + _LENGTH.unpack_from(blocks, place)[0]
        _check_filled(len(decompress(blocks[begin:place], out=target[start:stop])), stop - start)


def _header(encoded: memoryview) -> tuple[int, int]:
    """Return the sizes of the frame and of a block, as the header states them."""
    if len(encoded) < _HEADER.size:
        raise ValueError(f"damaged frame: {len(encoded)} bytes hold no header")
    size, block = _HEADER.unpack_from(encoded)
    return size, block


def _check_blocks(blocks: memoryview, size: int, block: int) -> bool:
    """Make sure that the blocks fill their bytes; return whether one is as long as what it decodes to.

    In HDF5's LZ4 such a block is not compressed; in bitshuffled frames it is.
    """
    if block < min(MIN_BLOCK_BYTES, size):
        raise ValueError(f"damaged frame: blocks of {block} bytes")
    place, end, stored = 0, len(blocks), False
    for start in range(0, size, block):
        if place + _LENGTH.size > end:
            raise ValueError("damaged frame: it ends too early")
        length = _LENGTH.unpack_from(blocks, place)[0]
        place += _LENGTH.size + length
        stored = stored or length == min(block, size - start)
    if place != end:
        raise ValueError(f"damaged frame: its blocks have {place} bytes, it has {end}")
    return stored


def _check_filled(decoded: int, size: int) -> None:
    if decoded != size:
        raise ValueError(f"damaged frame: {decoded} bytes came of it, not {size}")
