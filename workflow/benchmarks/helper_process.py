"""A fresh process beside a benchmark."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from typing import Any

from ptychoflow.streaming.uninterrupted_start import uninterrupted_start

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class HelperProcess(SpawnProcess):
    """Calls a function. Ctrl-C does not reach it: the benchmark still needs it to come to an end in order.

    Args:
        target: what it calls.
        args: with which arguments.
        daemon: whether it ends with this process at the latest, and starts no other itself.
    """

    def __init__(self, target: Callable[..., object], *args: Any, daemon: bool = True) -> None:
        super().__init__(target=target, args=args, daemon=daemon)

    def start(self) -> None:
        """Start it, from the main thread; once."""
        resource_tracker.ensure_running()  # its start would unblock the signal
        with _put_off(), uninterrupted_start():
            super().start()


@contextmanager
def _put_off() -> Iterator[None]:
    """Put what signals do off to the end of the context: other threads take what is blocked in this one."""
    came: list[int] = []
    numbers = [number for number in ENDING if callable(signal.getsignal(number))]
    handlers = {number: signal.signal(number, lambda taken, _frame: came.append(taken)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for taken in came:
            signal.raise_signal(taken)
