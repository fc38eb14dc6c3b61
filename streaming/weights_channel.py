"""Weights from the trainer to any number of edges: an edge asks for what is newer than its own, newest wins.

Asking keeps the channel empty of stale versions, serves late joiners at once; the trainer remembers only who
has yet to get the final version.
"""

from __future__ import annotations

import logging
import threading
import time

import numpy as np
import zmq

from ptychoflow.streaming.access import WEIGHTS
from ptychoflow.streaming.codec import Codec, ReceivingCodec
from ptychoflow.streaming.messages import Weights, WeightsRequest
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import HEADER_ONLY_BYTES, Socket, Sockets, read_events, receive_now

log = logging.getLogger(__name__)

POLL_MS = 100
ASK_AGAIN_S = 5.0
"""A request is repeated after this long, in case the trainer restarted and forgot it."""
LOADING_S = 60.0
"""An edge that is still loading asks within this time."""
NOTHING_MORE = 2**53
"""What an edge asks for newer ones than when it has finished, whatever comes."""
EDGES_AWAITED = 64
"""Edges that are known by name; a run has one or a few."""
WATCHED = zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED


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
        self._sockets = Sockets(network.model_copy(update={"max_message_bytes": HEADER_ONLY_BYTES}))
        self._socket = self._sockets.bind(zmq.ROUTER, network.trainer_host, network.weights_port, WEIGHTS)
        self._socket.router_mandatory = True
        self._requests: ReceivingCodec[WeightsRequest] = ReceivingCodec(
            WeightsRequest, "requests for weights", HEADER_ONLY_BYTES
        )
        self._replies: Codec[Weights] = Codec(Weights)
        self._newest: tuple[Weights, bytes] | None = None
        self._asking: dict[bytes, WeightsRequest] = {}
        self._sent: dict[str, tuple[bytes, int]] = {}
        """The last version sent to each edge, and over which of its connections."""
        self._changed = threading.Condition()
        self._edges: set[str] = set()
        self._have_final: set[str] = set()
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

    @property
    def unserved(self) -> list[str]:
        """Names of the edges that have ever asked for weights and have not said that they have the final ones."""
        with self._changed:
            return sorted(self._edges - self._have_final)

    def wait_until_served(
        self, timeout_s: float, stop: threading.Event | None = None, *, loading_s: float = LOADING_S
    ) -> bool:
        """Wait until every edge that has ever asked says that it has the final version; return whether all have it.

        Args:
            timeout_s: to wait at most.
            stop: ends the waiting.
            loading_s: to wait at most where no edge has asked.
        """
        began_s = time.monotonic()
        with self._changed:
            while not self._all_have_final():
                limit_s = timeout_s if self._edges else min(timeout_s, loading_s)
                remaining_s = began_s + limit_s - time.monotonic()
                if remaining_s <= 0 or (stop is not None and stop.is_set()):
                    return False
                self._changed.wait(min(remaining_s, POLL_MS / 1000))
        return True

    def close(self) -> None:
        """Stop serving."""
        self._stop.set()
        self._thread.join()
        self._sockets.close(linger_s=2.0)

    def _all_have_final(self) -> bool:
        return bool(self._have_final) and self._edges <= self._have_final

    def _serve(self) -> None:
        while not self._stop.is_set():
            if self._socket.poll(POLL_MS) and (parts := receive_now(self._socket)):
                self._take_request(*parts)
            self._answer()

    def _take_request(self, edge: bytes, *parts: bytes) -> None:
        request = self._requests.read(parts)
        if request is None:
            return
        name = request.body.edge
        # an edge that was started again has lost what the one before it had
        self._asking = {one: asked for one, asked in self._asking.items() if asked.edge != name}
        self._asking[edge] = request.body
        with self._changed:
            self._have_final.discard(name)
            if len(self._edges) < EDGES_AWAITED:
                self._edges.add(name)

    def _answer(self) -> None:
        with self._changed:
            newest = self._newest
        if newest is None:
            return
        weights, safetensors = newest
        parts = self._replies.encode(weights, {"safetensors": np.frombuffer(safetensors, np.uint8)})
        if weights.final:
            self._note_final({one.edge for one in self._asking.values() if one.newer_than >= weights.version})
        for edge, one in list(self._asking.items()):
            # what is still on its way is asked for again; a connection that lost it is another one
            if one.newer_than >= weights.version or self._sent.get(one.edge) == (edge, weights.version):
                continue
            try:
                self._socket.send_multipart([edge, *parts], flags=zmq.DONTWAIT, copy=False)
            except zmq.Again:
                continue  # it has yet to fetch what was sent before
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
            else:
                self.served += 1
                self._sent[one.edge] = (edge, weights.version)
            # whose connection is gone asks again on another one
            del self._asking[edge]

    def _note_final(self, edges: set[str]) -> None:
        """Note who has the final version: what was sent may be lost on its way, so only they themselves can say."""
        if not edges <= self._have_final:
            with self._changed:
                self._have_final |= edges
                self._changed.notify_all()


class WeightsClient:
    """Fetches the newest weights. Use it from one thread only.

    Args:
        network: hosts, ports and keys of the run; connects to `trainer_host:weights_port`.
        edge: name that tells this edge from others, the same when it is started again; the trainer waits for it.
    """

    def __init__(self, network: NetworkSettings, *, edge: str) -> None:
        self._edge = edge
        self._network = network
        self._sockets = Sockets(network)
        self._away_since_s: float | None = time.monotonic()
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
        self._read_events()
        # in this order: what came before the break waits in the old socket
        if self._broken and not self._socket.poll(0):
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

    @property
    def trainer_away_s(self) -> float:
        """How long there has been no connection to the trainer, as far as `poll` has seen; 0 while there is one."""
        return 0.0 if self._away_since_s is None else time.monotonic() - self._away_since_s

    def leave(self) -> None:
        """Tell the trainer, if it is there, not to wait for this edge, which has finished with final weights."""
        self.skip_to(NOTHING_MORE)
        self.poll()

    def skip_to(self, version: int) -> None:
        """Ask only for what is newer than this version, which the edge has from elsewhere."""
        self._version = version
        self._asked_at_s = float("-inf")

    def close(self) -> None:
        """Close the socket; what was told last gets a second to leave, if the trainer is there."""
        self._sockets.close(linger_s=1.0 if self._away_since_s is None else 0.0)

    def _connect(self) -> None:
        host, port = self._network.trainer_host, self._network.weights_port
        self._socket = self._sockets.connect(zmq.DEALER, host, port, WEIGHTS, watched=WATCHED)
        self._events: Socket = self._socket.get_monitor_socket()
        self._broken = False

    def _read_events(self) -> None:
        for event in read_events(self._events):
            if event == zmq.Event.HANDSHAKE_SUCCEEDED:
                self._away_since_s = None
            else:
                self._broken = True
                self._away_since_s = time.monotonic() if self._away_since_s is None else self._away_since_s

    def _connect_again(self) -> None:
        # ZeroMQ connects again by itself, but never after a message larger than it may take
        log.info("%s: the connection to the trainer broke off", self._edge)
        self._sockets.release(self._socket)
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
