"""Ctrl-C before a command ends in an order of its own."""

from __future__ import annotations

from types import FrameType


class Interruption:
    """A handler of SIGINT that raises KeyboardInterrupt, and keeps that it came.

    A library that is interrupted may raise an error of its own instead, or swallow it where errors are ignored.
    """

    def __init__(self) -> None:
        self.came = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Take the signal."""
        self.came = True
        raise KeyboardInterrupt
