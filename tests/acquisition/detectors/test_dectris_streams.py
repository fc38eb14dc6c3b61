"""Simulated DECTRIS detectors and what drains them, over loopback."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zmq
from drained import drains
from support import Proxy, free_ports, wait_until

from ptychoflow.acquisition.detectors.arrivals import Arrival, FrameCame, SeriesBegan, SeriesEnded
from ptychoflow.acquisition.detectors.dectris_settings import DectrisSettings, RotationAxis
from ptychoflow.acquisition.detectors.dectris_v1.connection import DectrisV1Connection
from ptychoflow.acquisition.detectors.dectris_v1.decoder import DectrisV1Decoder
from ptychoflow.acquisition.detectors.dectris_v1.settings import DectrisV1Settings, DectrisV1SimulatorSettings
from ptychoflow.acquisition.detectors.dectris_v1.simulator import DectrisV1Simulator
from ptychoflow.acquisition.detectors.dectris_v2.connection import DectrisV2Connection
from ptychoflow.acquisition.detectors.dectris_v2.decoder import DectrisV2Decoder
from ptychoflow.acquisition.detectors.dectris_v2.settings import DectrisV2Settings, DectrisV2SimulatorSettings
from ptychoflow.acquisition.detectors.dectris_v2.simulator import DectrisV2Simulator
from ptychoflow.acquisition.detectors.interface import Connection, Decoder, Part
from ptychoflow.acquisition.scan import Geometry, Perspective
from ptychoflow.streaming.errors import UserError

SHAPE_PX = (31, 41)
V1, V2 = "dectris-v1", "dectris-v2"
KINDS: dict[str, tuple[Callable[..., Any], Callable[..., Any], type[Any], type[Any], type[Any]]] = {
    V1: (DectrisV1SimulatorSettings, DectrisV1Simulator, DectrisV1Settings, DectrisV1Connection, DectrisV1Decoder),
    V2: (DectrisV2SimulatorSettings, DectrisV2Simulator, DectrisV2Settings, DectrisV2Connection, DectrisV2Decoder),
}
COMPRESSIONS = [(V1, "none"), (V1, "lz4"), (V1, "bslz4"), (V2, "none"), (V2, "lz4"), (V2, "bslz4"), (V2, "bszstd")]
Frames = npt.NDArray[np.generic]


class SmallPerspective(Perspective):
    """A few frames in memory."""

    def __init__(self, frames: Frames, *, mask: npt.NDArray[np.bool_] | None = None) -> None:
        self.index, self.angle_deg, self.probe, self.ground_truth = 0, 12.5, None, None
        height, width = frames.shape[1:]
        self.geometry = Geometry(8000.0, 2.0, (5.5e-05, 7.5e-05), (height, width))
        self.positions_px = np.zeros((len(frames), 2))
        self.mask = mask
        self.frames = frames
        self.dtype = frames.dtype

    def read(self, start: int, stop: int) -> Frames:
        return self.frames[start:stop]


def perspective(dtype: npt.DTypeLike = np.uint16, count: int = 20) -> SmallPerspective:
    frames = np.random.default_rng(0).poisson(3.0, (count, *SHAPE_PX)).astype(dtype)
    return SmallPerspective(frames, mask=np.eye(*SHAPE_PX, dtype=bool))


class Received:
    """What a connection delivered."""

    def __init__(self, decoder: Decoder) -> None:
        self.messages: list[Sequence[Part]] = []
        self._decoder = decoder

    @property
    def arrivals(self) -> list[Arrival]:
        return [arrival for message in self.messages for arrival in self._decoder.decode(message)]


@contextmanager
def draining(connection: Connection, decoder: Decoder) -> Iterator[Received]:
    received = Received(decoder)
    with drains(connection, received.messages.append):
        yield received


@contextmanager
def attached(kind: str, port: int, **changes: Any) -> Iterator[Received]:
    _, _, settings_type, connection, decoder = KINDS[kind]
    settings: DectrisSettings = settings_type(host="127.0.0.1", port=port, **changes)
    with draining(connection(settings), decoder(settings)) as received:
        yield received


@contextmanager
def simulated(kind: str, **changes: Any) -> Iterator[Any]:
    settings, simulator, *_ = KINDS[kind]
    detector = simulator(settings(**({"port": 0} | changes)))
    try:
        yield detector
    finally:
        detector.close()


def play(detector: Any, scan: SmallPerspective, *, series: int = 1, aborted: bool = False) -> None:
    detector.begin(scan, series=series)
    for index, frame in enumerate(scan.frames):
        detector.send(index, frame, (0.0, 0.0))
    detector.end(aborted=aborted)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize(("kind", "compression"), COMPRESSIONS)
def test_a_scan_arrives_as_it_was_sent(kind: str, compression: str, dtype: npt.DTypeLike) -> None:
    scan = perspective(dtype)
    with simulated(kind, compression=compression) as detector, attached(kind, detector.port) as received:
        play(detector, scan, series=3)
        wait_until(lambda: len(received.messages) == 22)
        _, _, _, connection, _ = KINDS[kind]
        assert [connection.begins_series(message) for message in received.messages] == [True] + [False] * 21
        began, *frames, ended = received.arrivals
    assert isinstance(began, SeriesBegan)
    assert isinstance(ended, SeriesEnded)
    assert began.series == ended.series
    assert began.series.split("-")[0] == "3"
    header = began.header
    assert (header.shape_px, header.energy_eV, header.most_frames) == (SHAPE_PX, 8000.0, 20)
    assert (header.detector_pixel_size_m, header.beam_centre_px) == ((5.5e-05, 7.5e-05), (15.0, 20.0))
    np.testing.assert_array_equal(header.mask, scan.mask)
    for number, arrival in enumerate(frames):
        assert isinstance(arrival, FrameCame)
        assert (arrival.series, arrival.number) == (began.series, number)
        decoded = arrival.image.decode()
        assert decoded.dtype == dtype
        np.testing.assert_array_equal(decoded, scan.frames[number])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("detail", ["none", "basic", "all"])
def test_less_detail_says_less(kind: str, detail: str) -> None:
    with simulated(kind, header_detail=detail) as detector, attached(kind, detector.port) as received:
        detector.begin(perspective(), series=1)
        wait_until(lambda: len(received.messages) == 1)
        (began,) = received.arrivals
    assert isinstance(began, SeriesBegan)
    assert (began.header.mask is not None) == (detail == "all")
    if detail != "none" or kind == V2:
        assert began.header.energy_eV == 8000.0


@pytest.mark.parametrize("kind", KINDS)
def test_distance_and_angle_are_said(kind: str) -> None:
    stated = {"rotation_axis": RotationAxis.OMEGA} | ({"translation_is_distance": True} if kind == V2 else {})
    with simulated(kind) as detector, attached(kind, detector.port, **stated) as received:
        detector.begin(perspective(), series=1)
        wait_until(lambda: len(received.messages) == 1)
        (began,) = received.arrivals
    assert isinstance(began, SeriesBegan)
    assert (began.header.detector_distance_m, began.header.angle_deg) == (2.0, 12.5)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_that_no_detector_has_are_sent_as_counts(kind: str) -> None:
    values = np.full((1, 2, 4), 7.4, np.float32)
    values[0, 0] = [np.nan, -1.0, 1e20, 0.6]
    with simulated(kind) as detector, attached(kind, detector.port) as received:
        play(detector, SmallPerspective(values))
        wait_until(lambda: len(received.messages) == 3)
        _, frame, _ = received.arrivals
    assert isinstance(frame, FrameCame)
    most = 2**32 - 1
    np.testing.assert_array_equal(frame.image.decode(), [[most, most, most, 1], [7, 7, 7, 7]])


@pytest.mark.parametrize("kind", KINDS)
def test_an_aborted_series_ends_without_a_word(kind: str) -> None:
    with simulated(kind) as detector, attached(kind, detector.port) as received:
        play(detector, perspective(count=3), aborted=True)
        play(detector, perspective(count=2), series=2)
        wait_until(lambda: len(received.messages) == 4 + 4)
        arrivals = received.arrivals
    assert [type(arrival) for arrival in arrivals[:5]] == [SeriesBegan, *[FrameCame] * 3, SeriesBegan]
    assert isinstance(arrivals[-1], SeriesEnded)


@pytest.mark.parametrize("kind", KINDS)
def test_a_detector_waits_for_somebody_who_listens_and_loses_nothing(kind: str) -> None:
    with simulated(kind) as detector:
        thread = threading.Thread(target=play, args=(detector, perspective()))
        thread.start()
        with attached(kind, detector.port) as received:
            wait_until(lambda: len(received.messages) == 22)
        thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_a_detector_that_nobody_listens_to_can_be_closed(kind: str) -> None:
    began: list[BaseException] = []

    def begin() -> None:
        try:
            detector.begin(perspective(), series=1)
        except InterruptedError as error:
            began.append(error)

    with simulated(kind) as detector:
        thread = threading.Thread(target=begin)
        thread.start()
        detector.close()
        thread.join(timeout=10.0)
        assert not thread.is_alive()
        assert began


@pytest.mark.parametrize("kind", KINDS)
def test_sending_waits_for_a_receiver_that_takes_nothing(kind: str) -> None:
    """Nothing is dropped, and what is kept for the receiver is bounded."""
    scan = perspective(np.uint32, count=1)
    frame = np.random.default_rng(0).integers(0, 2**32, (500, 500), np.uint32)
    sent: list[int] = []

    def send() -> None:
        detector.begin(scan, series=1)
        for index in range(200):
            detector.send(index, frame, (0.0, 0.0))
            sent.append(index)
        detector.end(aborted=False)

    with simulated(kind, compression="none", high_water_mark=2) as detector, zmq.Context() as context:
        with context.socket(zmq.PULL) as receiver:
            receiver.linger, receiver.rcvhwm = 0, 2
            receiver.connect(f"tcp://127.0.0.1:{detector.port}")
            thread = threading.Thread(target=send)
            thread.start()
            receiver.recv_multipart()
            wait_until(lambda: _stands_still(sent))
            assert len(sent) < 100
            taken = [receiver.recv_multipart() for _ in range(201)]
            thread.join()
        assert len(sent) == 200
        assert len(taken) == 201


def _stands_still(sent: Sequence[int]) -> bool:
    before = len(sent)
    time.sleep(0.3)
    return bool(before) and len(sent) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_detector_that_is_started_again_is_connected_again(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (port,) = free_ports(1)
    with attached(kind, port) as received:
        for series in (1, 2):
            with simulated(kind, port=port) as detector:
                play(detector, perspective(), series=series)
            wait_until(lambda: len(received.messages) == 22 * series)  # noqa: B023 - called at once
    assert caplog.text.count("connected to the detector") == 2
    assert "is gone" in caplog.text


def test_what_takes_connections_and_closes_them_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    closed: list[socket.socket] = []

    def close_each(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.close()
                closed.append(client)

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    closer = threading.Thread(target=close_each, args=(listener,), daemon=True)
    closer.start()
    with attached(V2, port):
        wait_until(lambda: len(closed) >= 4)
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        closer.join()
        with simulated(V2, port=port):
            wait_until(lambda: "connected to the detector" in caplog.text)
        wait_until(lambda: "is gone" in caplog.text)
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == [
        f"something at 127.0.0.1:{port} closes the connection, and does not answer as a detector; check host and port",
        f"the detector at 127.0.0.1:{port} is gone; it is connected again as soon as it is back",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_connection_is_made_again(kind: str) -> None:
    with simulated(kind) as detector:
        proxy = Proxy(detector.port)
        with attached(kind, proxy.port) as received:
            play(detector, perspective())
            wait_until(lambda: len(received.messages) == 22)
            proxy.cut()
            wait_until(lambda: proxy.connections == 2)
            detector.begin(perspective(), series=2)
            wait_until(lambda: len(received.messages) >= 23)
        proxy.close()


def test_a_message_above_the_bound_is_not_received_and_those_behind_it_are() -> None:
    with zmq.Context() as context, context.socket(zmq.PUSH) as source:
        source.linger = 0
        port = source.bind_to_random_port("tcp://127.0.0.1")
        with attached(V2, port, max_message_bytes=1000) as received:
            source.send(b"1" * 1000)
            wait_until(lambda: len(received.messages) == 1)
            source.send(b"2" * 1001)

            def arrived() -> bool:
                """Send again and again: what is sent while the connection breaks is lost."""
                if source.poll(100, zmq.POLLOUT):
                    source.send(b"3", flags=zmq.DONTWAIT)
                return len(received.messages) > 1

            wait_until(arrived)
    assert {bytes(message[0]) for message in received.messages} == {b"1" * 1000, b"3"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_address_that_is_none_is_said_in_one_line(kind: str) -> None:
    _, _, settings, connection, _ = KINDS[kind]
    with pytest.raises(UserError, match="no such host"):
        connection(settings(host="no such host", port=1)).drain(lambda parts: None, threading.Event())


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_that_is_taken_is_said_in_one_line(kind: str) -> None:
    with (
        simulated(kind) as detector,
        pytest.raises(UserError, match="cannot listen"),
        simulated(kind, port=detector.port),
    ):
        pass
