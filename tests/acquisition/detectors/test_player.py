"""What plays a scan as a detector stops when it is asked to, also while nobody listens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import zmq
from pydantic import TypeAdapter
from support import Stopwatch, free_ports, wait_until

from ptychoflow.acquisition.detectors.player import play
from ptychoflow.acquisition.detectors.simulators import SimulatorSettings, make_simulator
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import SimulationSettings

SCAN = SimulatedScan(SimulationSettings(perspectives=1, frames_per_perspective=64, frame_shape_px=(16, 16)))
WAITING = ("bluesky-documents", "dectris-v1", "dectris-v2", "ntndarray", "panda", "position-sender")


class Playing:
    """A scan that is played in a thread."""

    def __init__(self, rate_hz: float | None, **settings: Any) -> None:
        self.simulator = make_simulator(TypeAdapter(SimulatorSettings).validate_python(settings))
        self.stop = threading.Event()
        self.sent = 0
        self._rate_hz = rate_hz
        self.thread = threading.Thread(target=self._play, daemon=True)
        self.thread.start()

    def _play(self) -> None:
        with suppress(InterruptedError):
            play(
                self.simulator, SCAN, rate_hz=self._rate_hz, pause_s=0.0, stop=self.stop, series=10_000,
                on_frame=self._count,
            )  # fmt: skip

    def _count(self, sent: int) -> None:
        self.sent = sent


@contextmanager
def playing(*, rate_hz: float | None = None, **settings: Any) -> Iterator[Playing]:
    played = Playing(rate_hz, **settings)
    try:
        yield played
    finally:
        played.stop.set()
        played.simulator.close()
        played.thread.join(10.0)


def assert_stops(played: Playing) -> None:
    played.stop.set()
    played.thread.join(5.0)
    assert not played.thread.is_alive()


@pytest.mark.parametrize("kind", WAITING)
def test_it_stops_while_it_waits_for_a_listener(kind: str) -> None:
    if kind == "ntndarray":
        pytest.importorskip("p4p")
    with playing(kind=kind, port=free_ports(1)[0]) as played:
        assert_stops(played)
        assert played.sent == 0


def test_it_has_ended_ten_seconds_after_it_was_asked_to_though_its_listener_takes_nothing() -> None:
    """Such as one that is stopped: what is left waits for it, but not for long."""
    with playing(kind="dectris-v2", port=free_ports(1)[0]) as played, zmq.Context() as context:
        listener = context.socket(zmq.PULL)
        listener.rcvhwm, listener.rcvbuf = 1, 4096
        listener.connect(f"tcp://127.0.0.1:{played.simulator.port}")  # type: ignore[attr-defined]
        listener.recv()
        wait_until(lambda: played.sent > 0)
        before = -1
        while before < (before := played.sent):
            played.thread.join(0.3)
        with Stopwatch() as stopwatch:
            played.stop.set()
            played.thread.join(20.0)
            played.simulator.close()
        assert stopwatch.passed_s < 9.0, "a process takes a moment more"
        assert not played.thread.is_alive()
        listener.close(linger=0)


def test_it_stops_where_the_listener_has_left_in_mid_series() -> None:
    with playing(kind="dectris-v2", port=free_ports(1)[0], high_water_mark=1) as played, zmq.Context() as context:
        listener = context.socket(zmq.PULL)
        listener.connect(f"tcp://127.0.0.1:{played.simulator.port}")  # type: ignore[attr-defined]
        listener.recv()
        wait_until(lambda: played.sent > 0)
        listener.close(linger=0)
        assert_stops(played)


def test_it_stops_where_those_who_took_positions_have_left_in_mid_series() -> None:
    port = free_ports(1)[0]
    with playing(kind="position-sender", port=port) as played, zmq.Context() as context:
        listener = context.socket(zmq.PULL)
        listener.bind(f"tcp://127.0.0.1:{port}")
        listener.recv()
        wait_until(lambda: played.sent > 0)
        listener.close(linger=0)
        assert_stops(played)


def test_it_stops_between_frames_that_are_far_apart(tmp_path: Path) -> None:
    with playing(kind="watched-folder", folder=tmp_path, rate_hz=0.01) as played:
        wait_until(lambda: any(tmp_path.iterdir()))
        assert_stops(played)
