"""Weights from the trainer to any number of edges: an edge asks for what is newer than its own, newest wins.

Asking keeps the channel empty of stale versions, serves late joiners at once, and needs no memory of who is there.
"""

from __future__ import annotations

import logging
import threading
import time

import numpy as np
import zmq

from ptychoflow.streaming.codec import Codec, ReceivingCodec
from ptychoflow.streaming.messages import Weights, WeightsRequest
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Sockets, receive_now

log = logging.getLogger(__name__)

POLL_MS = 100
ASK_AGAIN_S = 5.0
"""A request is repeated after this long, in case the trainer restarted and forgot it."""
GONE_AFTER_S = 3 * ASK_AGAIN_S
"""An edge that has not asked for this long has ended."""


class WeightsServer:
    """Serves the newest weights from a thread of its own.

    Args:
        network: hosts, ports and keys of the run; binds `trainer_host:weights_port`.

    Raises:
        UserError: the port is in use.
    """

    def __init__(self, network: NetworkSettings) -> None:
        self.served = 0
        """Files sent to edges so far."""
        self._sockets = Sockets(network)
        self._socket = self._sockets.bind(zmq.ROUTER, network.trainer_host, network.weights_port)
        self._socket.router_mandatory = True
        self._requests: ReceivingCodec[WeightsRequest] = ReceivingCodec(WeightsRequest, "requests for weights")
        self._replies: Codec[Weights] = Codec(Weights)
        self._newest: tuple[Weights, bytes] | None = None
        self._asking: dict[bytes, int] = {}
        self._last_asked_s: dict[bytes, float] = {}
        self._changed = threading.Condition()
        self._served_final: set[bytes] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="weights-server", daemon=True)
        self._thread.start()

    @property
    def malformed(self) -> int:
        """Requests that could not be read."""
        return self._requests.malformed

    def publish(self, weights: Weights, safetensors: bytes) -> None:
        """Offer a new version; returns at once.

        Args:
            weights: what is said of it.
            safetensors: the file.
        """
        with self._changed:
            self._newest = (weights, safetensors)

    def close(self, *, wait_until_served_s: float = 0.0) -> None:
        """Stop serving; wait at most `wait_until_served_s` seconds for the edges to fetch the final version.

        That is all edges that still ask; at least one.
        """
        with self._changed:
            served = self._changed.wait_for(self._all_have_final, timeout=wait_until_served_s)
            if wait_until_served_s > 0 and not served:
                log.info("not every edge fetched the final weights within %.0f s", wait_until_served_s)
        self._stop.set()
        self._thread.join()
        self._sockets.close(linger_s=2.0)

    def _all_have_final(self) -> bool:
        now_s = time.monotonic()
        there = {edge for edge, asked_s in self._last_asked_s.items() if now_s - asked_s < GONE_AFTER_S}
        return bool(self._served_final) and there <= self._served_final

    def _serve(self) -> None:
        while not self._stop.is_set():
            if self._socket.poll(POLL_MS) and (parts := receive_now(self._socket)):
                self._take_request(*parts)
            self._answer()

    def _take_request(self, edge: bytes, *parts: bytes) -> None:
        request = self._requests.read(parts)
        if request is None:
            return
        self._asking[edge] = request.body.newer_than
        with self._changed:
            self._last_asked_s[edge] = time.monotonic()

    def _answer(self) -> None:
        with self._changed:
            newest = self._newest
        if newest is None:
            return
        weights, safetensors = newest
        parts = self._replies.encode(weights, {"safetensors": np.frombuffer(safetensors, np.uint8)})
        if weights.final:
            self._note_final({edge for edge, version in self._asking.items() if version >= weights.version})
        for edge in [edge for edge, version in self._asking.items() if version < weights.version]:
            try:
                self._socket.send_multipart([edge, *parts], flags=zmq.DONTWAIT, copy=False)
            except zmq.Again:
                continue  # it has yet to fetch what was sent before
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                self._forget(edge)
                continue
            del self._asking[edge]
            self.served += 1
            if weights.final:
                self._note_final({edge})

    def _note_final(self, edges: set[bytes]) -> None:
        """Note which edges have the final version."""
        if not edges <= self._served_final:
            with self._changed:
                self._served_final |= edges
                self._changed.notify_all()

    def _forget(self, edge: bytes) -> None:
        """Count no longer on an edge whose connection is gone: what it asked for has not reached it."""
        del self._asking[edge]
        with self._changed:
            del self._last_asked_s[edge]
            self._changed.notify_all()


class WeightsClient:
    """Fetches the newest weights. Use it from one thread only.

    Args:
        network: hosts, ports and keys of the run; connects to `trainer_host:weights_port`.
        edge: name for the trainer's log.
    """

    def __init__(self, network: NetworkSettings, *, edge: str) -> None:
        self._edge = edge
        self._network = network
        self._sockets = Sockets(network)
        self._connect()
        self._requests: Codec[WeightsRequest] = Codec(WeightsRequest)
        self._replies: ReceivingCodec[Weights] = ReceivingCodec(Weights, "weights", network.max_message_bytes)
        self._version = -1
        self._asked_at_s = float("-inf")

    @property
    def malformed(self) -> int:
        """Answers that could not be read, or hold no weights."""
        return self._replies.malformed

    def poll(self, timeout_s: float = 0.0) -> tuple[Weights, bytes] | None:
        """Return weights that came, or None after `timeout_s` seconds without any.

        Asked for is always what is newer than all before; a trainer may answer otherwise. A version comes once.
        """
        # in this order: what came before the break waits in the old socket
        if self._breaks.poll(0) and not self._socket.poll(0):
            self._connect_again()
        self._ask()
        if not self._socket.poll(int(timeout_s * 1000)) or not (parts := receive_now(self._socket, copy=False)):
            return None
        decoded = self._replies.read(parts)
        if decoded is None:
            return None
        if "safetensors" not in decoded.arrays:
            self._replies.drop(f"version {decoded.body.version} without a file")
            return None
        if decoded.body.version == self._version:
            return None  # asked for again while the answer was on its way
        if decoded.body.version > self._version:
            self._version = decoded.body.version
            self._asked_at_s = float("-inf")
            self._ask()
        return decoded.body, decoded.arrays["safetensors"].tobytes()

    def skip_to(self, version: int) -> None:
        """Ask only for what is newer than this version, which the edge has from elsewhere."""
        self._version = version
        self._asked_at_s = float("-inf")

    def close(self) -> None:
        """Close the socket."""
        self._socket.disable_monitor()
        self._sockets.close()

    def _connect(self) -> None:
        self._socket = self._sockets.connect(zmq.DEALER, self._network.trainer_host, self._network.weights_port)
        self._breaks = self._sockets.monitor(self._socket, zmq.Event.DISCONNECTED)

    def _connect_again(self) -> None:
        # ZeroMQ connects again by itself, but never after a message larger than it may take
        log.info("%s: the connection to the trainer broke off", self._edge)
        self._socket.disable_monitor()
        for socket in (self._breaks, self._socket):
            self._sockets.release(socket)
        self._connect()

    def _ask(self) -> None:
        now_s = time.monotonic()
        if now_s - self._asked_at_s < ASK_AGAIN_S:
            return
        self._asked_at_s = now_s
        try:
            self._socket.send_multipart(
                self._requests.encode(WeightsRequest(self._edge, self._version)), flags=zmq.DONTWAIT
            )
        except zmq.Again:
            log.debug("the trainer is not there yet")
