"""The compressions of detector streams: what is encoded is checked first, and decoded where it is needed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, overload

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
TOGETHER_BYTES = 1 << 20
"""Decoded at once: no more than stays in a core's cache from one step to the next."""


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


@dataclass(frozen=True, slots=True)
class CompressedImages(Sequence[CompressedImage]):
    """Frames of one kind that came one after the other. Each by itself passes what `CompressedImage.checked` checks."""

    codec: Codec
    window: memoryview
    """Of bytes, with all of them in it."""
    begins: npt.NDArray[np.int64]
    """(n,), where each begins."""
    ends: npt.NDArray[np.int64]
    """(n,)."""
    shape_px: tuple[int, int]
    dtype: np.dtype[np.generic]
    shuffled_bytes: int
    """See `CompressedImage`."""

    def __len__(self) -> int:
        """Return how many."""
        return len(self.begins)

    @overload
    def __getitem__(self, which: int) -> CompressedImage: ...
    @overload
    def __getitem__(self, which: slice) -> CompressedImages: ...
    def __getitem__(self, which: int | slice) -> CompressedImage | CompressedImages:
        """Return one of them, or some."""
        if isinstance(which, slice):
            begins, ends = self.begins[which], self.ends[which]
            return CompressedImages(
                self.codec, self.window, begins, ends, self.shape_px, self.dtype, self.shuffled_bytes
            )
        encoded = self.window[int(self.begins[which]) : int(self.ends[which])]
        return CompressedImage(self.codec, encoded, self.shape_px, self.dtype, self.shuffled_bytes)


def decode_together(
    images: Sequence[object], target: npt.NDArray[np.generic], *, rows: tuple[int, int] | None = None
) -> bool:
    """Decode images of one kind into an array, in as few calls as can be; return whether that was possible.

    Where it was not, nothing is known of the target: `CompressedImage.decode` decodes every image, and says what is
    wrong with it. Where it was, the pixels are the same.

    Args:
        images: of any type; those of others than `CompressedImage` cannot be decoded together.
        target: (n, y, x), contiguous, of the images' shape and dtype.
        rows: the first row that is needed, and the one behind the last; others are left undefined, and damage in them
            may go unnoticed, unless it is in the lengths of the blocks. None needs all.
    """
    kind = images if isinstance(images, CompressedImages) else images[0]
    if not isinstance(kind, CompressedImage | CompressedImages) or kind.codec not in (Codec.NONE, Codec.BSLZ4):
        return False
    if (target.shape[1:], target.dtype) != (kind.shape_px, kind.dtype):
        return False
    if (encoded := _encoded(images, kind)) is None:
        return False
    pixels = target.reshape(len(images), -1).view(np.uint8)
    row_bytes = kind.shape_px[1] * kind.dtype.itemsize
    needed = (0, pixels.shape[1]) if rows is None else (rows[0] * row_bytes, rows[1] * row_bytes)
    try:
        return _decode_together(encoded, pixels, kind, needed)
    except (ValueError, RuntimeError):
        return False


def _decode_together(
    encoded: Sequence[memoryview],
    pixels: npt.NDArray[np.uint8],
    kind: CompressedImage | CompressedImages,
    needed: tuple[int, int],
) -> bool:
    if kind.codec is Codec.BSLZ4:
        return _decode_blocks_together(encoded, pixels, kind.shuffled_bytes, needed)
    some = slice(*needed)
    for row, one in zip(pixels, encoded, strict=True):
        row.data[some] = one[some]
    return True


def _encoded(images: Sequence[object], kind: CompressedImage | CompressedImages) -> list[memoryview] | None:
    """Return the bytes of images, if all are of this kind."""
    if isinstance(images, CompressedImages):
        bounds = zip(images.begins.tolist(), images.ends.tolist(), strict=True)
        return [images.window[begin:end] for begin, end in bounds]
    alike = [image for image in images if isinstance(image, CompressedImage) and _is_alike(image, kind)]
    return [memoryview(image.encoded).cast("B") for image in alike] if len(alike) == len(images) else None


def _is_alike(image: CompressedImage, kind: CompressedImage | CompressedImages) -> bool:
    return (
        image.codec is kind.codec
        and image.shape_px == kind.shape_px
        and image.dtype == kind.dtype
        and image.shuffled_bytes == kind.shuffled_bytes
    )


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


def _decode_blocks_together(
    encoded: Sequence[memoryview], pixels: npt.NDArray[np.uint8], item: int, needed: tuple[int, int]
) -> bool:
    """Decode the blocks with the needed bytes of frames (n, bytes); return whether nothing about them was uncommon.

    Blocks of one frame after the other are one stream of LZ4 as in HDF5, if all of them are whole.

    Raises:
        ValueError: a frame is damaged.
        RuntimeError: a block is.
    """
    size = pixels.shape[1]
    whole = _whole(size, item)
    split = [_without_header(one, size, item) for one in encoded]
    block = split[0][1]
    if any(other != block for _, other in split) or needed[1] > whole or block < MIN_BLOCK_BYTES:
        return False
    first, last = needed[0] // block, -(-needed[1] // block)
    begin, end = first * block, min(last * block, whole)
    length, whole_blocks = end - begin, last * block <= whole
    pieces = []
    for blocks, _ in split:
        places = _places(blocks, len(blocks) - (size - whole), whole, block)
        if places is None:
            return False
        pieces.append(blocks[places[first] : places[last]])
    at_once = max(1, TOGETHER_BYTES // length) if whole_blocks else 1
    lz4, unshuffle = codecs().lz4h5_decode, codecs().bitshuffle_decode
    shuffled = np.empty(min(at_once, len(pieces)) * length, np.uint8)
    for start in range(0, len(pieces), at_once):
        some = pieces[start : start + at_once]
        filled = shuffled.data[: len(some) * length]
        stream = b"".join((_HEADER.pack(len(filled), block), *some))
        _check_filled(len(lz4(stream, out=filled)), len(filled))
        targets = pixels[start : start + len(some), begin:end]
        for place, target in enumerate(targets.reshape(1, -1) if length == size else targets):
            part = filled[place * len(target) : (place + 1) * len(target)]
            unshuffle(part, itemsize=item, blocksize=block // item, out=target.data)
    return True


def _places(blocks: memoryview, end: int, size: int, block: int) -> list[int] | None:
    """Return where each block begins and where the last one ends; None where that is not at `end`, or one is stored.

    See `_check_blocks`.
    """
    unpack = _LENGTH.unpack_from
    place, places = 0, [0]
    for left in range(size, 0, -block):
        if place + _LENGTH.size > end:
            return None
        length = unpack(blocks, place)[0]
        if length in (block, left):
            return None
        place += _LENGTH.size + length
        places.append(place)
    return places if place == end else None


def _without_header(encoded: memoryview, size: int, item: int) -> tuple[memoryview, int]:
    """Return the blocks and how many bytes each of them decodes to.

    A header begins with the size of the frame, or is left empty by some senders; without one, the first bytes are the
    length of a block, never 0.
    """
    step = SHUFFLED_PX * item
    block = BLOCK_BYTES
    if len(encoded) >= _HEADER.size:
        stated, stated_block = _HEADER.unpack_from(encoded)
        if stated in (size, 0):
            block = stated_block or BLOCK_BYTES
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
