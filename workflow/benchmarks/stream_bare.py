"""The bare counterpart of the stream's benchmark: the same arrays over ZeroMQ sockets, and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

import zmq

from ptychoflow.streaming.access import ACKNOWLEDGEMENTS, FRAMES, SAMPLES, Access
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.keys import apply_client_keys, apply_server_keys
from ptychoflow.streaming.private_folder import require_private
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.workflow.benchmarks.paired_rounds import Took, processor_time_s
from ptychoflow.workflow.benchmarks.receiver_processes import receiver_processes

END, LAST = b"end", b"last"
"""What a receiver reports, and what it ends at."""
MARKER_BYTES = 8

Socket = zmq.Socket[bytes]


class BareStream:
    """Pushes batches until both receivers have reported the last one. A context manager.

    Args:
        network: where the sockets meet; without keys in a folder.
        batches: arrays of `Samples`, sent in turn; the first receiver gets their frames.
    """

    def __init__(self, network: NetworkSettings, batches: Sequence[Arrays]) -> None:
        self._network, self._batches = network, batches
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start both receivers."""
        network = self._network
        if network.sockets_dir is not None:
            require_private(network.sockets_dir)
        with self._stack as stack:
            context = stack.enter_context(zmq.Context())
            self._done = stack.enter_context(_bind(context, zmq.PULL, network, ACKNOWLEDGEMENTS))
            self._pushes = [stack.enter_context(_bind(context, zmq.PUSH, network, one)) for one in (FRAMES, SAMPLES)]
            receivers = [(_receive, (network, one)) for one in (FRAMES, SAMPLES)]
            self._pids = [os.getpid(), *stack.enter_context(receiver_processes(receivers))]
            stack.callback(self._push_to_both, LAST)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End both receivers."""
        self._stack.close()

    def measure(self, count: int) -> Took:
        """Send `count` batches to each receiver. Blocks until both have all."""
        began_s, cpu_began_s = time.perf_counter(), processor_time_s(self._pids)
        frames, samples = self._pushes
        for number in range(count):
            batch = self._batches[number % len(self._batches)]
            frames.send(batch["diffraction"].data, copy=False)
            samples.send_multipart([array.data for array in batch.values()], copy=False)
        self._push_to_both(END)
        for _ in self._pushes:
            self._done.recv()
        sent = count * len(self._batches[0]["diffraction"])
        return Took(sent, time.perf_counter() - began_s, processor_time_s(self._pids) - cpu_began_s)

    def _push_to_both(self, marker: bytes) -> None:
        for push in self._pushes:
            push.send(marker)


def _receive(network: NetworkSettings, access: Access) -> None:
    """Receive until the last message, reporting the end of each round."""
    with zmq.Context() as context, context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as done:
        _connect(pull, network, access)
        _connect(done, network, ACKNOWLEDGEMENTS)
        while True:
            first = pull.recv_multipart(copy=False)[0]
            if len(first) < MARKER_BYTES:
                if first.bytes == LAST:
                    return
                done.send(END)


def _bind(context: zmq.Context[Socket], kind: int, network: NetworkSettings, access: Access) -> Socket:
    socket = context.socket(kind)
    if network.keys_dir is not None:
        apply_server_keys(socket, network.keys_dir, access)
    socket.bind(_endpoint(network, access))
    return socket


def _connect(socket: Socket, network: NetworkSettings, access: Access) -> None:
    if network.keys_dir is not None:
        apply_client_keys(socket, network.keys_dir, access, access.clients)
    socket.connect(_endpoint(network, access))


def _endpoint(network: NetworkSettings, access: Access) -> str:
    return network.endpoint(network.acquisition_host, getattr(network, f"{access.name}_port"))
