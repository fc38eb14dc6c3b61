"""Plays a scan as a detector, or as what says where the probe was: series after series, at a frame rate."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager

from ptychoflow.acquisition.detectors.interface import POLL_S, Simulator
from ptychoflow.acquisition.publishing.pacing import Pacer
from ptychoflow.acquisition.scan import Perspective, Scan

FRAMES_AT_ONCE = 16
ENDING_S = 1.0
"""What waits for a listener for so long after it was asked to stop is not waited for."""


def play(
    simulator: Simulator,
    scan: Scan,
    *,
    rate_hz: float | None,
    pause_s: float,
    stop: threading.Event,
    series: int | None = None,
    broken_off: Container[int] = (),
    on_frame: Callable[[int], None] | None = None,
) -> int:
    """Send the perspectives of a scan as series; return how many frames were sent.

    Args:
        simulator: closed by its owner, or here if it still waits for a listener `ENDING_S` after `stop` was set.
        scan: what is sent.
        rate_hz: frames per second; None sends them as fast as they are taken.
        pause_s: between series.
        stop: ends everything soon.
        series: how many to send, beginning again with the first perspective; None sends each perspective once.
        broken_off: series (from 1) that are aborted after half of their frames.
        on_frame: told after every frame how many have been sent.

    Raises:
        UserError: a frame cannot be read.
        InterruptedError: stopped while nobody listened.
    """
    sent = 0
    with _closed_when_stopped(simulator, stop):
        for number in range(1, (len(scan) if series is None else series) + 1):
            if number > 1 and stop.wait(pause_s):
                break
            perspective = scan.perspective((number - 1) % len(scan))
            frames = len(perspective) // 2 if number in broken_off else len(perspective)
            simulator.begin(perspective, series=number)
            for _ in _send(simulator, perspective, frames, Pacer(rate_hz), stop):
                sent += 1
                if on_frame is not None:
                    on_frame(sent)
            simulator.end(aborted=number in broken_off or stop.is_set())
            if stop.is_set():
                break
    return sent


@contextmanager
def _closed_when_stopped(simulator: Simulator, stop: threading.Event) -> Iterator[None]:
    """Close the simulator if `stop` is set and the context does not end by itself: it knows nothing of `stop`."""
    ended = threading.Event()

    def close() -> None:
        while not ended.wait(POLL_S):
            if stop.is_set():
                if not ended.wait(ENDING_S):
                    simulator.close()
                return

    closer = threading.Thread(target=close, name="simulator-closer", daemon=True)
    closer.start()
    try:
        yield
    finally:
        ended.set()
        closer.join()


def _send(
    simulator: Simulator, perspective: Perspective, frames: int, pacer: Pacer, stop: threading.Event
) -> Iterator[None]:
    """Send the first frames of a perspective; yield after each."""
    positions_m = (perspective.positions_px * perspective.geometry.object_pixel_size_m).tolist()
    for start in range(0, frames, FRAMES_AT_ONCE):
        block = perspective.read(start, min(start + FRAMES_AT_ONCE, frames))
        for index, frame in enumerate(block, start):
            if stop.wait(pacer.wait_s(1)):
                return
            simulator.send(index, frame, tuple(positions_m[index]))
            yield
