"""Frames are decoded bit for bit, whoever encoded them, and damaged ones say so."""

import pickle
import struct
from concurrent.futures import ThreadPoolExecutor

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt
import pytest

from ptychoflow.acquisition.detectors.compression import Codec, CompressedImage, decode_together, encode

BOUND_PX = 1 << 20
DTYPES = (np.uint8, np.uint16, np.uint32)
SHAPES = ((1, 1), (3, 5), (16, 16), (129, 131), (103, 514))
SHUFFLED = {"lz4": Codec.BSLZ4, "zstd": Codec.BSZSTD}
Pixels = npt.NDArray[np.generic]


def frames(shape: tuple[int, int], dtype: npt.DTypeLike) -> list[Pixels]:
    chance = np.random.default_rng(0)
    most = np.iinfo(dtype).max
    return [
        chance.poisson(0.3, shape).astype(dtype),
        chance.integers(0, most, shape, dtype, endpoint=True),
        np.full(shape, most, dtype),
    ]


def image(encoded: bytes | memoryview, codec: Codec, like: Pixels) -> CompressedImage:
    height, width = like.shape
    return CompressedImage.checked(codec, encoded, (height, width), like.dtype, max_frame_px=BOUND_PX)


def chunk(frame: Pixels, **filters: object) -> bytes:
    """Return what HDF5 itself makes of a frame."""
    with h5py.File("chunk.h5", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("frame", data=frame, chunks=frame.shape, **filters)
        return bytes(dataset.id.read_direct_chunk((0, 0))[1])


def read_by_hdf5(encoded: bytes, like: Pixels, **filters: object) -> Pixels:
    with h5py.File("chunk.h5", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("frame", like.shape, like.dtype, chunks=like.shape, **filters)
        dataset.id.write_direct_chunk((0, 0), encoded)
        return np.asarray(dataset[()])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("codec", Codec)
def test_what_is_encoded_is_decoded(codec: Codec, shape: tuple[int, int], dtype: npt.DTypeLike) -> None:
    for frame in frames(shape, dtype):
        for header in (True, False):
            decoded = image(encode(frame, codec, header=header), codec, frame).decode()
            assert decoded.dtype == frame.dtype
            np.testing.assert_array_equal(decoded, frame)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SHUFFLED)
def test_bitshuffle_of_hdf5_is_read_and_written(name: str, shape: tuple[int, int], dtype: npt.DTypeLike) -> None:
    filters = dict(hdf5plugin.Bitshuffle(cname=name))
    for frame in frames(shape, dtype):
        np.testing.assert_array_equal(image(chunk(frame, **filters), SHUFFLED[name], frame).decode(), frame)
        np.testing.assert_array_equal(read_by_hdf5(encode(frame, SHUFFLED[name]), frame, **filters), frame)


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_blocks_than_the_usual_are_read(dtype: npt.DTypeLike) -> None:
    for frame in frames((103, 514), dtype):
        shuffled = chunk(frame, **hdf5plugin.Bitshuffle(nelems=2048, cname="lz4"))
        np.testing.assert_array_equal(image(shuffled, Codec.BSLZ4, frame).decode(), frame)
    sparse = frames((103, 514), dtype)[0]
    blocks = chunk(sparse, **hdf5plugin.LZ4(nbytes=4096))
    np.testing.assert_array_equal(image(blocks, Codec.LZ4_HDF5, sparse).decode(), sparse)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lz4_of_hdf5_is_written(dtype: npt.DTypeLike) -> None:
    for frame in frames((103, 514), dtype):
        np.testing.assert_array_equal(
            read_by_hdf5(encode(frame, Codec.LZ4_HDF5), frame, **hdf5plugin.LZ4()),
            frame,
        )


def test_a_block_that_lz4_made_no_smaller_is_still_lz4() -> None:
    """In HDF5's LZ4 a block as long as what it decodes to is not compressed: in bitshuffled frames it is."""
    block = next(found for found in _candidates() if len(found[1]) == len(found[0]))
    frame = np.frombuffer(block[0], np.uint8).reshape(32, 256)
    encoded = encode(frame, Codec.BSLZ4)
    assert struct.unpack(">I", encoded[12:16]) == (8192,)
    np.testing.assert_array_equal(image(encoded, Codec.BSLZ4, frame).decode(), frame)
    filters = dict(hdf5plugin.Bitshuffle(cname="lz4"))
    np.testing.assert_array_equal(read_by_hdf5(encoded, frame, **filters), frame)


def _candidates() -> list[tuple[bytes, bytes]]:
    """Return frames that are noise but for more and more of their first bits, with their only block."""
    made = []
    for same in range(20, 200):
        shuffled = np.random.default_rng(1).integers(0, 256, 8192, np.uint8)
        shuffled[:same] = 0
        bits = np.unpackbits(shuffled.reshape(8, 1024), axis=1, bitorder="little")
        pixels = np.packbits(bits.T, axis=1, bitorder="little").tobytes()
        encoded = encode(np.frombuffer(pixels, np.uint8).reshape(32, 256), Codec.BSLZ4)
        made.append((pixels, encoded[16:]))
    return made


@pytest.mark.parametrize("codec", [Codec.BSLZ4, Codec.BSZSTD])
def test_a_header_that_is_left_empty_is_passed_over(codec: Codec) -> None:
    for frame in frames((103, 514), np.uint16):
        encoded = bytes(12) + encode(frame, codec, header=False)
        np.testing.assert_array_equal(image(encoded, codec, frame).decode(), frame)


@pytest.mark.parametrize("codec", [Codec.BSLZ4, Codec.BSZSTD])
@pytest.mark.parametrize("width", [1, 514])
def test_bits_may_be_shuffled_over_more_or_fewer_bytes_than_a_pixel_has(codec: Codec, width: int) -> None:
    frame = frames((103, 2 * width), np.uint16)[0]
    for other in (np.uint8, np.uint32):
        encoded = encode(frame.view(other), codec)
        shuffled_bytes = np.dtype(other).itemsize
        sent = CompressedImage.checked(
            codec, encoded, (103, 2 * width), np.uint16, max_frame_px=BOUND_PX, shuffled_bytes=shuffled_bytes
        )
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(sent)).decode(), frame)


def test_an_image_can_be_sent_to_another_process_and_decoded_by_many_threads() -> None:
    frame = frames((103, 514), np.uint32)[0]
    view = memoryview(encode(frame, Codec.BSLZ4))
    sent = pickle.loads(pickle.dumps(image(view, Codec.BSLZ4, frame)))
    assert isinstance(sent.encoded, bytes)
    with ThreadPoolExecutor(4) as pool:
        for decoded in pool.map(lambda _: sent.decode(), range(64)):
            np.testing.assert_array_equal(decoded, frame)


@pytest.mark.parametrize("codec", [codec for codec in Codec if codec is not Codec.NONE])
def test_every_missing_byte_is_noticed(codec: Codec) -> None:
    frame = frames((64, 67), np.uint16)[0]
    encoded = encode(frame, codec)
    for length in {*range(0, len(encoded), 7), 0, 4, 11, 12, 13, 16, len(encoded) - 1}:
        with pytest.raises(ValueError, match=r"damaged|too few|bytes"):
            image(encoded[:length], codec, frame).decode()


WRONG_HEADERS = ((0, 1 << 60), (8, 8), (8, 1025), (12, 0), (12, 1 << 31), (12, (1 << 32) - 1))


@pytest.mark.parametrize(
    ("codec", "place", "value"),
    [
        *((codec, *wrong) for codec in (Codec.LZ4_HDF5, Codec.BSLZ4, Codec.BSZSTD) for wrong in WRONG_HEADERS),
        (Codec.LZ4_HDF5, 0, 0),
        (Codec.LZ4_HDF5, 8, 0),
        (Codec.BSLZ4, 8, 1 << 31),
        (Codec.BSZSTD, 8, 1 << 31),
    ],
)
def test_a_header_that_cannot_be_is_refused(codec: Codec, place: int, value: int) -> None:
    frame = frames((64, 128), np.uint16)[0]
    encoded = bytearray(encode(frame, codec))
    struct.pack_into(">Q" if place == 0 else ">I", encoded, place, value)
    with pytest.raises(ValueError, match=r"damaged|bytes"):
        image(bytes(encoded), codec, frame).decode()


@pytest.mark.parametrize(
    ("shape", "dtype", "encoded"),
    [
        ((0, 5), np.uint8, b""),
        ((-1, -5), np.uint8, b"12345"),
        ((1 << 20, 2), np.uint8, b""),
        ((1 << 40, 1 << 40), np.uint32, b""),
        ((2, 2), np.uint16, b"1234567"),
        ((2, 2), np.uint64, b"1" * 32),
        ((2, 2), np.bool_, b"1" * 4),
    ],
)
def test_what_cannot_be_a_frame_is_refused_before_anything_is_allocated(
    shape: tuple[int, int], dtype: npt.DTypeLike, encoded: bytes
) -> None:
    with pytest.raises(ValueError, match="frame"):
        CompressedImage.checked(Codec.NONE, encoded, shape, dtype, max_frame_px=BOUND_PX)


ROWS = ((0, 1), (0, 103), (40, 60), (102, 103))
TOGETHER = (Codec.NONE, Codec.BSLZ4)


@pytest.mark.parametrize("rows", [None, *ROWS])
@pytest.mark.parametrize("dtype", [*DTYPES, ">u2"])
@pytest.mark.parametrize("shape", [(103, 514), (103, 512), (128, 128)])
@pytest.mark.parametrize("codec", TOGETHER)
def test_frames_decoded_together_are_those_decoded_one_by_one(
    codec: Codec, shape: tuple[int, int], dtype: npt.DTypeLike, rows: tuple[int, int] | None
) -> None:
    """Of those with one kind of header; `decode` sees to all others."""
    sent = [frame.astype(dtype) for frame in frames(shape, np.dtype(dtype).newbyteorder("="))] * 2
    images = [image(encode(frame, codec), codec, frame) for frame in sent]
    target = np.full((len(sent), *shape), 77, dtype)
    chosen = slice(*rows) if rows is not None else slice(None)
    if decode_together(images, target, rows=rows):
        np.testing.assert_array_equal(target[:, chosen], np.stack(sent)[:, chosen])
    else:
        assert rows is None or rows[1] == 103  # the last pixels of some shapes are not shuffled
        assert codec is Codec.BSLZ4


def test_frames_of_whole_blocks_are_decoded_together_whatever_header_they_have() -> None:
    sent = frames((128, 128), np.uint16)[:1] * 3
    encoded = [encode(sent[0], Codec.BSLZ4), encode(sent[0], Codec.BSLZ4, header=False)]
    encoded.append(bytes(12) + encoded[1])
    target = np.empty((3, 128, 128), np.uint16)
    assert decode_together([image(one, Codec.BSLZ4, sent[0]) for one in encoded], target)
    np.testing.assert_array_equal(target, sent)


def test_images_of_several_kinds_are_not_decoded_together() -> None:
    one, other = (frames((64, 64), dtype)[0] for dtype in (np.uint16, np.uint32))
    whole = image(encode(one, Codec.BSLZ4), Codec.BSLZ4, one)
    target = np.empty((2, 64, 64), np.uint16)
    for second in (
        image(encode(other, Codec.BSLZ4), Codec.BSLZ4, other),
        image(encode(one, Codec.NONE), Codec.NONE, one),
        image(encode(one.view(np.uint8), Codec.BSLZ4), Codec.BSLZ4, one.view(np.uint8)),
        object(),
    ):
        assert not decode_together([whole, second], target)
    assert not decode_together([whole, whole], target.view(np.int16))
    assert not decode_together([whole], np.empty((1, 32, 128), np.uint16))


@pytest.mark.parametrize("seed", range(400))
def test_a_damaged_frame_among_others_is_never_shown_as_something_else(seed: int) -> None:
    """What is decoded together is what is decoded one by one, and what cannot be is not."""
    chance = np.random.default_rng(seed)
    good = frames((64, 128), np.uint16)[0]
    encoded = bytearray(encode(good, Codec.BSLZ4))
    for _ in range(chance.choice([1, 1, 3])):
        place = int(chance.integers(min(len(encoded), chance.choice([24, 1 << 30]))))
        if chance.random() < 0.2:
            del encoded[place : place + int(chance.integers(1, 9))]
        else:
            encoded[place] = chance.integers(256)
    images = [image(bytes(one), Codec.BSLZ4, good) for one in (encode(good, Codec.BSLZ4), encoded)]
    target = np.empty((2, 64, 128), np.uint16)
    together = decode_together(images, target)
    try:
        damaged = images[1].decode()
    except ValueError:
        assert not together
        return
    if together:
        np.testing.assert_array_equal(target, [good, damaged])
