"""Beside a running detector that is not ours: the Eiger of tickit-devices, driven over its REST interface."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx
import numpy as np
import pytest
from peers import peer_python
from support import free_ports, wait_until
from test_dectris_peers import GAP_PIXELS, TICKIT
from test_dectris_streams import V1, V2, attached

from ptychoflow.acquisition.detectors.arrivals import Arrival, FrameCame, Malformed, SeriesBegan, SeriesEnded

SHAPE_PX = (4362, 4148)
GAP_PIXELS_SENT = {V1: GAP_PIXELS - 1, V2: GAP_PIXELS}
"""Each stream sends a recording of its own."""

DETECTOR = """
import aiozmq

create = aiozmq.create_zmq_stream


def bound_alone(kind, *, bind, connect):
    return create(kind, bind=bind)


aiozmq.create_zmq_stream = bound_alone
from tickit.cli import main

main()
"""
"""tickit, whose sockets are otherwise connected to themselves too, where half of what they send is lost."""


@dataclass
class Eiger:
    """The detector's REST interface and the ports of its two streams."""

    rest_port: int
    ports: dict[str, int]

    def set(self, module: str, name: str, value: object) -> None:
        """Set something of the detector or of its stream."""
        self._put(f"{module}/api/1.8.0/config/{name}", {"value": value})

    def command(self, name: str) -> None:
        """Give a command, and wait until it is done."""
        self._put(f"detector/api/1.8.0/command/{name}", None)

    def _put(self, path: str, body: object) -> None:
        address = f"http://127.0.0.1:{self.rest_port}/{path}"
        httpx.put(address, json=body, timeout=60.0).raise_for_status()


@pytest.fixture(scope="module")
def eiger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Eiger]:
    rest, v1, v2 = free_ports(3)
    folder = tmp_path_factory.mktemp("eiger")
    described = (
        "- type: tickit_devices.eiger.Eiger",
        "  name: eiger",
        "  inputs: {}",
        "  host: 127.0.0.1",
        f"  port: {rest}",
        f"  stream_legacy_port: {v1}",
        f"  stream_cbor_port: {v2}",
    )
    (folder / "eiger.yaml").write_text("\n".join(described))
    command = [str(peer_python(*TICKIT)), "-c", DETECTOR, "all", "eiger.yaml"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        detector = Eiger(rest, {V1: v1, V2: v2})

        def answers() -> bool:
            try:
                detector.command("initialize")
            except httpx.TransportError:
                return False
            return True

        wait_until(answers, timeout_s=60.0)
        yield detector
        process.kill()


def take_series(eiger: Eiger, frames: int) -> None:
    eiger.set("detector", "nimages", frames)
    eiger.command("arm")
    eiger.command("trigger")
    eiger.command("disarm")


@pytest.mark.parametrize(("kind", "stream"), [(V1, "legacy"), (V2, "cbor")])
def test_the_series_of_a_running_eiger_are_understood(eiger: Eiger, kind: str, stream: str) -> None:
    eiger.set("stream", "format", stream)
    eiger.set("detector", "trigger_mode", "ints")
    eiger.set("detector", "frame_time", 0.05)
    with attached(kind, eiger.ports[kind]) as received:

        def began() -> bool:
            return any(isinstance(one, SeriesBegan) for one in received.arrivals)

        def is_heard() -> bool:
            # What it sends before the sockets have met is lost; what it has sent since takes a moment.
            take_series(eiger, 1)
            with contextlib.suppress(TimeoutError):
                wait_until(began, timeout_s=2.0)
            return began()

        wait_until(is_heard, timeout_s=60.0)
        for frames in (3, 2):
            take_series(eiger, frames)
        # It says twice that a series is over: by itself, and when it is disarmed.
        wait_until(lambda: len(endings(received.arrivals)) >= 4, timeout_s=60.0)
        arrivals = received.arrivals
    assert not [one for one in arrivals if isinstance(one, Malformed)]
    *_, first, second = (one.series for one in arrivals if isinstance(one, SeriesBegan))
    announced = [one for one in arrivals if isinstance(one, SeriesBegan) and one.series in (first, second)]
    assert [(one.header.shape_px, one.header.most_frames) for one in announced] == [(SHAPE_PX, 3), (SHAPE_PX, 2)]
    came = [one for one in arrivals if isinstance(one, FrameCame) and one.series in (first, second)]
    assert [(one.series, one.number) for one in came] == [(first, 0), (first, 1), (first, 2), (second, 0), (second, 1)]
    for frame in came[::2]:
        pixels = frame.image.decode()
        assert pixels.shape == SHAPE_PX
        assert int((pixels == np.iinfo(pixels.dtype).max).sum()) == GAP_PIXELS_SENT[kind]
    assert endings(arrivals) == [first, first, second, second]


def endings(arrivals: Sequence[Arrival]) -> list[str]:
    """Return the series that ended, once for each time that it was said; of the last two that began."""
    series = [one.series for one in arrivals if isinstance(one, SeriesBegan)][-2:]
    return [one.series for one in arrivals if isinstance(one, SeriesEnded) and one.series in series]
