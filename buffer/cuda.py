"""Copies between a GPU and pinned host memory, on streams of their own: the training stream waits for events only."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import torch

from ptychoflow.buffer.memory import Rows, plain
from ptychoflow.buffer.schema import Schema


def numbered(device: torch.device) -> torch.device:
    """The device as tensors name theirs: "cuda" is the current GPU, with its number."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def use(device: torch.device) -> None:
    """Make it the calling thread's own, before anything wakes the first GPU of the host."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


class DeviceCopy:
    """The GPU's side of one set of outputs."""

    def __init__(self, schema: Schema, rows: int, device: torch.device) -> None:
        self.tensors = {
            name: torch.empty((rows, *field.shape), dtype=field.torch_dtype, device=device)
            for name, field in schema.items()
        }
        self.labels = torch.empty(rows, dtype=torch.int64, device=device)
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._released = torch.cuda.Event()  # type: ignore[no-untyped-call]
        # the memory may be another tensor's from before, which work of this stream still uses
        self.release()
        for tensor in (*self.tensors.values(), self.labels):
            tensor.record_stream(self._stream)

    def wait_until_read(self) -> None:
        """Sleep until the last copy has read the host's rows, which may then be written again."""
        self._copied.synchronize()

    def copy_from(self, host: Rows, labels: torch.Tensor, count: int) -> None:
        """Queue the copy of the first `count` rows, behind the work that still uses what they replace."""
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._released)
            for name, target in self.tensors.items():
                target[:count].copy_(host.tensors[name][:count], non_blocking=True)
            self.labels[:count].copy_(labels[:count], non_blocking=True)
            self._copied.record(self._stream)

    def acquire(self) -> None:
        """Let the caller's stream wait for the copy."""
        torch.cuda.current_stream(self._device).wait_event(self._copied)

    def release(self) -> None:
        """What the caller's stream was given so far is the last work that uses these tensors."""
        self._released.record(torch.cuda.current_stream(self._device))


class DeviceWriter:
    """Copies candidates from the GPU to rows of the store without waiting for the GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._waiter = ThreadPoolExecutor(1, thread_name_prefix="rehearsal-arrivals", initializer=partial(use, device))

    def select(self, batch: Mapping[str, torch.Tensor], items: torch.Tensor) -> dict[str, torch.Tensor]:
        """Copies of `items` on the GPU, made in the caller's stream: the caller may change its tensors afterwards."""
        index = items.to(self._device, non_blocking=True)
        return {name: _select(tensor, index) for name, tensor in batch.items()}

    def write(self, rows: Rows, targets: list[int], chosen: Mapping[str, torch.Tensor]) -> Future[None]:
        """Queue the copy of the `chosen` items to `targets`; done once they have arrived."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            rows.write(targets, chosen, list(range(len(targets))))
            arrived.record(self._stream)
        for tensor in chosen.values():
            tensor.record_stream(self._stream)
        return self._waiter.submit(arrived.synchronize)

    def close(self) -> None:
        """End the thread that waits for arrivals."""
        self._waiter.shutdown()


def _select(tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`tensor[index]` by way of bytes, since not every dtype can be indexed on a GPU."""
    rows = plain(tensor).view(-1).view(torch.uint8).view(tensor.shape[0], -1)
    return rows.index_select(0, index).view(-1).view(tensor.dtype).view(len(index), *tensor.shape[1:])
