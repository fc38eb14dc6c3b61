"""Rows of items over UCX: shared memory between ranks of one host, RDMA or TCP between hosts, as UCX finds them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import ucxx._lib.libucxx as ucx
from ucxx._lib.arr import Array

from ptychoflow.buffer.transport.connection import Connection
from ptychoflow.buffer.transport.host_interfaces import addresses_of, is_loopback, rdma_devices
from ptychoflow.buffer.transport.item_channel import ItemChannel, MemoryRegion
from ptychoflow.buffer.transport.own_address import named_interface
from ptychoflow.buffer.transport.ucx_memory import AttachedRegion, allocate_region

_PART_BITS = 16
_log = logging.getLogger(__name__)


@dataclass
class _Transfer:
    """Messages of one reply that UCX has not completed yet."""

    rank: int
    requests: list[Any]
    parts: list[memoryview]
    finished: Callable[[], None]


class UcxItemChannel(ItemChannel):
    """One UCX worker in blocking mode: its thread sleeps on a file descriptor, so nothing spins.

    Endpoints are made from worker addresses, because those made through a listener stay on TCP even on one host, and
    without UCX's error handling, which excludes shared memory: that a rank is gone shows on its TCP connection.
    """

    name = "ucx"

    def __init__(self) -> None:
        configuration = _configuration()
        _log.debug("UCX configuration: %s", configuration or "from the environment")
        self._context = ucx.UCXContext(configuration, feature_flags=(ucx.Feature.TAG, ucx.Feature.WAKEUP))
        self._worker = ucx.UCXWorker(self._context)
        self._worker.init_blocking_progress_mode()
        self.address = bytes(self._worker.address.tobytes())
        self._endpoints: dict[int, Any] = {}
        self._attached: dict[int, list[AttachedRegion]] = {}
        self._sending: list[_Transfer] = []
        self._receiving: list[_Transfer] = []
        self._dropped: list[_Transfer] = []
        self._failures: list[tuple[int, str]] = []

    def connect(self, addresses: dict[int, bytes]) -> None:
        """See `ItemChannel.connect`."""
        for rank, address in addresses.items():
            remote = ucx.UCXAddress.create_from_buffer(address)
            self._endpoints[rank] = self._worker.create_endpoint_from_worker_address(
                remote, endpoint_error_handling=False
            )

    def send(
        self,
        connection: Connection,
        *,
        rank: int,
        request_id: int,
        parts: Iterable[memoryview],
        sent: Callable[[], None],
    ) -> None:
        """See `ItemChannel.send`."""
        transfer = _Transfer(rank, [], [], sent)
        for part, view in enumerate(parts):
            transfer.requests.append(self._endpoints[rank].tag_send(Array(view), _tag(request_id, part)))
            transfer.parts.append(view)
        self._sending.append(transfer)

    def receive(
        self, *, rank: int, request_id: int, parts: Sequence[memoryview], received: Callable[[], None]
    ) -> Iterable[memoryview]:
        """See `ItemChannel.receive`."""
        requests = [self._worker.tag_recv(Array(view), _tag(request_id, part)) for part, view in enumerate(parts)]
        self._receiving.append(_Transfer(rank, requests, list(parts), received))
        return ()

    def allocate_region(self, nbytes: int) -> MemoryRegion:
        """See `ItemChannel.allocate_region`."""
        return allocate_region(self._context, nbytes)

    def attach_region(self, rank: int, key: bytes, nbytes: int) -> torch.Tensor | None:
        """See `ItemChannel.attach_region`."""
        attached = AttachedRegion(self._endpoints[rank], key, nbytes)
        self._attached.setdefault(rank, []).append(attached)
        return attached.memory

    def drop(self, rank: int) -> None:
        """See `ItemChannel.drop`; the memory of what is pending is kept, since UCX may still touch it."""
        for attached in self._attached.pop(rank, []):
            attached.release()
        for transfers in (self._sending, self._receiving):
            self._dropped += [transfer for transfer in transfers if transfer.rank == rank]
            transfers[:] = [transfer for transfer in transfers if transfer.rank != rank]

    @property
    def idle(self) -> bool:
        """See `ItemChannel.idle`."""
        return not self._sending

    def progress(self) -> bool:
        """See `ItemChannel.progress`."""
        while self._worker.progress_once():
            pass
        finished = [*_pop_finished(self._sending), *_pop_finished(self._receiving)]
        for transfer in finished:
            self._conclude(transfer)
        return not finished and bool(self._worker.arm())

    def _conclude(self, transfer: _Transfer) -> None:
        try:
            for request in transfer.requests:
                request.check_error()
        except ucx.UCXError as error:
            self._failures.append((transfer.rank, f"UCX: {error}"))
        else:
            transfer.finished()

    def pop_failures(self) -> list[tuple[int, str]]:
        """See `ItemChannel.pop_failures`."""
        failures, self._failures = self._failures, []
        return failures

    def filenos(self) -> Iterable[int]:
        """See `ItemChannel.filenos`."""
        return (self._worker.epoll_file_descriptor,)

    def close(self) -> None:
        """See `ItemChannel.close`."""
        self._worker.cancel_inflight_requests()
        for endpoint in self._endpoints.values():
            endpoint.close()  # left to itself it would wait for a rank that is stopped
        self._endpoints.clear()


def _configuration() -> dict[str, str]:
    """Leaves out reads of another process's memory: UCX aborts this process if that one is killed meanwhile.

    Also what moves memory of GPUs: items travel from the host's, and UCX would hook CUDA's allocation for nothing.

    Of the interfaces, UCX uses and listens on the one that gloo is told to use; RDMA adapters have no part in that, but
    ranks that are told to use loopback are all on this host.
    """
    configuration = {} if "UCX_TLS" in os.environ else {"TLS": "^cma,cuda"}
    interface = named_interface()
    if interface is not None and "UCX_NET_DEVICES" not in os.environ:
        is_of_this_host = all(is_loopback(address) for address in addresses_of(interface))
        configuration["NET_DEVICES"] = ",".join([interface, *([] if is_of_this_host else rdma_devices())])
    return configuration


def usable_transports() -> list[str]:
    """The transports that UCX finds here and may use, each with its device: `tcp/eth0`.

    Raises:
        RuntimeError: UCX does not start.
    """
    try:
        context = ucx.UCXContext(_configuration())
    except ucx.UCXError as error:
        raise RuntimeError(str(error)) from error
    return re.findall(r"flags \S+ (\S+/\S+)", context.info)


def _tag(request_id: int, part: int) -> ucx.UCXXTag:
    """Request ids are unique on the receiving worker, which is the one that asked."""
    return ucx.UCXXTag(request_id << _PART_BITS | part)


def _pop_finished(transfers: list[_Transfer]) -> list[_Transfer]:
    """Remove and return the transfers all of whose messages are done with."""
    finished = [transfer for transfer in transfers if all(request.completed for request in transfer.requests)]
    for transfer in finished:
        transfers.remove(transfer)
    return finished
