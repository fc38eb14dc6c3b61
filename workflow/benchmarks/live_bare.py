"""Bare decoders: what the libraries take to make a frame of the bytes of a detector, and nothing else."""

from __future__ import annotations

import io
from collections.abc import Callable

import h5py
import hdf5plugin
import numpy as np

from ptychoflow.acquisition.detectors.compression import BLOCK_BYTES, Codec, codecs, encode
from ptychoflow.workflow.benchmarks.live_detector import Stream, make_frames

BareDecoder = Callable[[int], object]
"""Decodes frame number n."""


def imagecodecs_decoder(stream: Stream) -> BareDecoder:
    """Return what decodes with the library that decoders use, in its two calls."""
    encoded = [encode(frame, Codec(stream.compression)) for frame in make_frames(stream)]
    item = np.dtype(stream.dtype).itemsize
    lz4, shuffle = codecs().lz4h5_decode, codecs().bitshuffle_decode

    def decode(number: int) -> object:
        pixels = shuffle(lz4(encoded[number % len(encoded)]), itemsize=item, blocksize=BLOCK_BYTES // item)
        return np.frombuffer(pixels, stream.dtype).reshape(stream.shape_px)

    return decode


def hdf5plugin_decoder(stream: Stream) -> BareDecoder:
    """Return what reads a frame from an HDF5 file in memory, as most programs decode."""
    frames = make_frames(stream)
    file = h5py.File(io.BytesIO(), "w")
    chunks = file.create_dataset(
        "frames", frames.shape, stream.dtype, chunks=(1, *stream.shape_px), **hdf5plugin.Bitshuffle(cname="lz4")
    )
    for number, frame in enumerate(frames):
        chunks.id.write_direct_chunk((number, 0, 0), encode(frame, Codec(stream.compression)))
    target = np.empty(stream.shape_px, stream.dtype)

    def decode(number: int) -> object:
        chunks.read_direct(target, np.s_[number % len(frames)])
        return target

    return decode


BARE_DECODERS: dict[str, Callable[[Stream], BareDecoder]] = {
    "imagecodecs": imagecodecs_decoder,
    "hdf5plugin": hdf5plugin_decoder,
}
