"""Beside programs of others: LiberTEM's sender and receiver, and messages recorded of a detector."""

from __future__ import annotations

import subprocess
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt
import pytest
from peers import peer_python
from support import wait_until
from test_dectris_streams import V1, attached, perspective, play, simulated

from ptychoflow.acquisition.detectors.arrivals import FrameCame, Malformed, SeriesBegan, SeriesEnded
from ptychoflow.acquisition.detectors.compression import CompressedImage
from ptychoflow.acquisition.detectors.dectris_v2.decoder import DectrisV2Decoder
from ptychoflow.acquisition.detectors.dectris_v2.settings import DectrisV2Settings

LIBERTEM = "libertem-dectris==0.3.2"
TICKIT = ("tickit-devices==0.4.1", "cbor2<6")
SCRIPT = str(Path(__file__).with_name("peer_libertem_dectris.py"))
GAP_PIXELS = 1_253_075


def test_the_sender_of_libertem_is_understood() -> None:
    command = [str(peer_python(LIBERTEM)), SCRIPT, "send", "30"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        with attached(V1, port) as received:
            wait_until(lambda: len(received.messages) == 33)
            began, *frames, ended = received.arrivals
        process.communicate("")
    assert isinstance(began, SeriesBegan)
    assert (began.series, began.header.shape_px, began.header.most_frames) == ("34", (512, 512), 30)
    assert isinstance(ended, SeriesEnded)
    for number, arrival in enumerate(frames):
        assert isinstance(arrival, FrameCame)
        assert arrival.number == number
        np.testing.assert_array_equal(arrival.image.decode(), np.full((512, 512), number, np.uint16))


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize("compression", ["lz4", "bslz4"])
def test_the_receiver_of_libertem_reads_the_simulated_detector(
    compression: str, dtype: npt.DTypeLike, tmp_path: Path
) -> None:
    scan = perspective(dtype)
    with simulated(V1, compression=compression, header_detail="basic") as detector:
        command = [str(peer_python(LIBERTEM)), SCRIPT, "receive", str(detector.port), str(tmp_path / "frames.npy")]
        with subprocess.Popen(command) as process:
            play(detector, scan)
            assert process.wait(timeout=60) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "frames.npy"), scan.frames)


def test_recorded_messages_of_stream2_are_decoded_bit_for_bit() -> None:
    """The recording has neither mask nor flat field: what is there in their place is told."""
    (folder,) = peer_python(*TICKIT).parent.parent.glob("lib/*/site-packages/tickit_devices/eiger/data/stream2")
    decoder = DectrisV2Decoder(DectrisV2Settings(host="detector"))
    messages = [(folder / f"{name}.cbor").read_bytes() for name in ("start", "image", "end")]
    began, told, frame, ended = [arrival for message in messages for arrival in decoder.decode([message])]
    assert isinstance(began, SeriesBegan)
    assert began.header.shape_px == (4362, 4148)
    assert isinstance(told, Malformed)
    assert isinstance(ended, SeriesEnded)
    assert isinstance(frame, FrameCame)
    assert isinstance(frame.image, CompressedImage)
    pixels = frame.image.decode()
    assert int((pixels == 65535).sum()) == GAP_PIXELS
    with h5py.File("frame.h5", "w", driver="core", backing_store=False) as file:
        filters = dict(hdf5plugin.Bitshuffle(cname="lz4"))
        dataset = file.create_dataset("frame", pixels.shape, pixels.dtype, chunks=pixels.shape, **filters)
        dataset.id.write_direct_chunk((0, 0), bytes(frame.image.encoded))
        np.testing.assert_array_equal(pixels, dataset[()])
