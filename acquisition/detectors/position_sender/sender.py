"""What a user's own program calls to say where the probe was."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import zmq

from ptychoflow.acquisition.detectors.position_sender.messages import Begin, End, Message, Positions, encode
from ptychoflow.acquisition.detectors.position_sender.settings import DEFAULT_PORT
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Sockets

MOST_AT_ONCE = 4096
"""Positions in a message."""
LINGER_S = 10.0


class PositionSender:
    """Sends positions to a run whose `positions` are of the kind `position-sender`. Use it from one thread.

    Args:
        host: where the run listens.
        port: its port.
        keys_dir: CURVE keys, for a host that is not this one.
        timeout_s: how long a call waits for the run to take a message; None waits for ever.

    Raises:
        UserError: keys are missing.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        keys_dir: Path | None = None,
        timeout_s: float | None = 30.0,
    ) -> None:
        self._where = f"{host}:{port}"
        self._timeout_s = timeout_s
        self._sockets = Sockets(NetworkSettings(keys_dir=keys_dir))
        self._socket = self._sockets.connect(zmq.PUSH, host, port, only_to_peers=True)
        self._run: str | None = None
        self._next = 0

    def begin(self, *, series: str | None = None, total: int | None = None, first: int = 0) -> None:
        """Begin the positions of a series; an earlier one is ended.

        Args:
            series: name of the detector's series, or its number, where that is known.
            total: how many samples there will be, where that is known.
            first: number of the first sample.

        Raises:
            UserError: nobody listens.
        """
        if self._run is not None:
            self.end()
        run = uuid.uuid4().hex
        self._send(Begin(run, series, total))
        self._run, self._next = run, first

    def send(self, positions_m: npt.ArrayLike, *, first: int | None = None) -> None:
        """Send the positions of consecutive samples.

        Args:
            positions_m: (n, 2) as (y, x) in metres; NaN where a position is not known.
            first: number of the first of them; without, the one after the last that was sent.

        Raises:
            UserError: nobody listens, no series was begun, or these are no positions.
        """
        if self._run is None:
            raise UserError("no series was begun; call begin() before send()")
        values = np.asarray(positions_m, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != 2:
            raise UserError(f"positions must have the shape (n, 2) as (y, x), not {values.shape}")
        self._next = self._next if first is None else first
        for start in range(0, len(values), MOST_AT_ONCE):
            pairs = [(y, x) for y, x in values[start : start + MOST_AT_ONCE].tolist()]
            self._send(Positions(self._run, pairs, first=self._next))
            self._next += len(pairs)

    def end(self, *, complete: bool = True) -> None:
        """End the series; `complete` is False if the scan was broken off.

        Raises:
            UserError: nobody listens.
        """
        if self._run is not None:
            run, self._run = self._run, None
            self._send(End(run, complete))

    def ready(self, timeout_s: float) -> bool:
        """Wait until the run takes messages, `timeout_s` at most; return whether it does."""
        return bool(self._socket.poll(int(timeout_s * 1000), zmq.POLLOUT))

    def close(self) -> None:
        """Close the socket; what is on its way gets ten seconds to leave."""
        self._sockets.close(LINGER_S)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say that a series that is still going on was broken off, if anybody listens, and close."""
        if self._run is not None and self.ready(0.0):
            self.end(complete=False)
        self.close()

    def _send(self, message: Message) -> None:
        data = encode(message)
        deadline_s = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        while True:
            left_s = 1.0 if deadline_s is None else deadline_s - time.monotonic()
            if self.ready(max(left_s, 0.0)):
                try:
                    self._socket.send(data, zmq.DONTWAIT)
                except zmq.Again:  # the run went away in between
                    continue
                return
            if deadline_s is not None and left_s <= 0:
                raise UserError(
                    f"nobody has taken positions at {self._where} for {self._timeout_s} s; is the run there, with "
                    "positions of the kind position-sender?"
                )
