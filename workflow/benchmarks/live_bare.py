"""Bare decoders: what the libraries take to make a frame of the bytes of a detector, and nothing else."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import h5py
import hdf5plugin
import numpy as np
import zmq

from ptychoflow.acquisition.detectors.compression import BLOCK_BYTES, Codec, codecs, encode
from ptychoflow.workflow.benchmarks.live_detector import HIGH_WATER_MARK, Detector, Stream, make_frames
from ptychoflow.workflow.benchmarks.results import BenchmarkFailed

PATIENCE_S = 120.0
WIDER = {24: 1, 256: 1, 65536: 2}
"""By how many bytes the number of a frame takes more from there on: CBOR."""
BareDecoder = Callable[[int], object]
"""Decodes frame number n."""


def imagecodecs_decoder(stream: Stream) -> BareDecoder:
    """Return what decodes with the library that decoders use, in its two calls."""
    encoded = [encode(frame, Codec(stream.compression)) for frame in make_frames(stream)]
    decode = _decoder_of_bytes(stream)
    return lambda number: decode(encoded[number % len(encoded)])


def _decoder_of_bytes(stream: Stream) -> Callable[[bytes | memoryview], object]:
    item = np.dtype(stream.dtype).itemsize
    lz4, shuffle = codecs().lz4h5_decode, codecs().bitshuffle_decode

    def decode(encoded: bytes | memoryview) -> object:
        compressed = Codec(stream.compression) is not Codec.NONE
        pixels = shuffle(lz4(encoded), itemsize=item, blocksize=BLOCK_BYTES // item) if compressed else encoded
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


class BareReceiver:
    """A socket and the decoder that decoders use, in one process, and nothing else: no disk, no positions.

    Args:
        stream: that of the detector.
        detector: sends no positions.
    """

    def __init__(self, stream: Stream, detector: Detector) -> None:
        self._detector, self._decode = detector, _decoder_of_bytes(stream)
        self._first = encode(make_frames(stream)[0], Codec(stream.compression))
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.rcvhwm, self._socket.rcvtimeo = HIGH_WATER_MARK, int(PATIENCE_S * 1000)
        self._socket.connect(f"tcp://127.0.0.1:{detector.port}")

    def cpu_s(self, frames: int) -> float:
        """Take a series; return the processor time for one frame.

        Raises:
            BenchmarkFailed: nothing came for long.
        """
        self._detector.prepare(frames)
        began_s = time.process_time()
        self._detector.send()
        try:
            self._take(frames)
        except zmq.Again as error:
            raise BenchmarkFailed(f"nothing came for {PATIENCE_S:.0f} s") from error
        taken_s = time.process_time() - began_s
        self._detector.wait_until_sent()
        return taken_s / frames

    def close(self) -> None:
        """Close the socket."""
        self._context.destroy(linger=0)

    def _take(self, frames: int) -> None:
        self._socket.recv()  # the beginning
        for number in range(frames):
            message = self._socket.recv()
            if number == 0:
                begin = message.index(self._first)
                behind = len(message) - begin - len(self._first)
            elif number in WIDER:  # than the number before
                begin += WIDER[number]
            self._decode(memoryview(message)[begin : len(message) - behind])
        self._socket.recv()  # the end


BARE_DECODERS: dict[str, Callable[[Stream], BareDecoder]] = {
    "imagecodecs": imagecodecs_decoder,
    "hdf5plugin": hdf5plugin_decoder,
}
