"""Signals between threads: none is lost, and none is left over."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from ptychoflow.inference_edge.wake_up import WakeUp

SIGNALS = 20_000


@pytest.fixture
def wake_up() -> Iterator[WakeUp]:
    with closing(WakeUp()) as made:
        yield made


def is_set(wake_up: WakeUp, timeout_s: float = 0.0) -> bool:
    return bool(select.select([wake_up.socket], [], [], timeout_s)[0])


def test_it_is_set_until_it_is_cleared(wake_up: WakeUp) -> None:
    wake_up.clear()
    assert not is_set(wake_up)
    for _ in range(3):
        wake_up.set()
    assert is_set(wake_up)
    wake_up.clear()
    assert not is_set(wake_up)


def test_whoever_looks_after_clearing_misses_nothing(wake_up: WakeUp) -> None:
    """A signal may come while the ones before are cleared: what it is about is seen then, or it wakes once more."""
    done: list[int] = []

    def work() -> None:
        for number in range(SIGNALS):
            done.append(number)
            wake_up.set()

    worker = threading.Thread(target=work)
    worker.start()
    seen = 0
    while seen < SIGNALS:
        assert is_set(wake_up, timeout_s=10.0), f"{len(done)} of {SIGNALS} done, {seen} seen"
        wake_up.clear()
        seen = len(done)
    worker.join()
    wake_up.clear()  # the last signal may have come after its work was seen
    assert not is_set(wake_up)
