"""Rows of items: one contiguous tensor per field, seen by numpy as rows of bytes so that every dtype copies alike."""

from __future__ import annotations

import ctypes
import math
import mmap
import weakref
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch

from ptychoflow.buffer.schema import Schema

ByteRows = npt.NDArray[np.uint8]
"""(rows, bytes of one item's field), C-contiguous."""


_ALIGNMENT = 64
HUGE_PAGE_BYTES = 2 << 20


class Rows:
    """`count` rows of items in one block of memory.

    The copies go through numpy and the C library: they copy whole rows on the calling thread alone and release the
    interpreter's lock, whereas torch would start a pool of spinning threads for every thread that copies.
    """

    def __init__(self, schema: Schema, count: int, memory: torch.Tensor) -> None:
        """`memory`: uint8 (nbytes,), as many as `Rows.nbytes` says."""
        self.schema = schema
        self.count = count
        self.tensors: dict[str, torch.Tensor] = {}
        self.bytes: dict[str, ByteRows] = {}
        for (name, field), part in zip(schema.items(), torch.split(memory, _sizes(schema, count)), strict=True):
            raw = part[: count * field.nbytes]
            self.tensors[name] = raw.view(field.torch_dtype).view(count, *field.shape)
            self.bytes[name] = raw.numpy().reshape(count, field.nbytes)

    @staticmethod
    def nbytes(schema: Schema, count: int) -> int:
        """Bytes of memory that `count` rows need; a multiple of 64."""
        return sum(_sizes(schema, count))

    def write(self, rows: list[int], batch: Mapping[str, torch.Tensor], items: list[int]) -> None:
        """Copy `items` of `batch` into `rows`; from a GPU the copies are queued on the current stream."""
        moves = list(zip(rows, items, strict=True))
        for name, tensor in batch.items():
            if tensor.is_cpu:
                self._write_from_host(name, plain(tensor), moves)
            else:
                for row, item in moves:
                    self.tensors[name][row].copy_(tensor[item], non_blocking=True)

    def _write_from_host(self, name: str, tensor: torch.Tensor, moves: list[tuple[int, int]]) -> None:
        """`moves`: pairs of row and item. Copied by address: numpy's row assignment takes a fifth more time."""
        target, source = self.tensors[name].data_ptr(), tensor.data_ptr()
        nbytes, copy = self.schema[name].nbytes, ctypes.memmove
        for row, item in moves:
            copy(target + row * nbytes, source + item * nbytes, nbytes)

    def copy_row(self, source: int, target: int) -> None:
        """Copy one row onto another."""
        for rows in self.bytes.values():
            rows[target] = rows[source]

    def copy_of(self, rows: npt.NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """New tensors with a copy of `rows`, (len(rows), *shape) per field."""
        copies = {
            name: torch.empty((len(rows), *field.shape), dtype=field.torch_dtype) for name, field in self.schema.items()
        }
        for name, copy in copies.items():
            self.bytes[name].take(rows, axis=0, out=byte_rows(copy), mode="clip")
        return copies

    def gather(self, rows: npt.NDArray[np.int64], into: Rows, *, first: int) -> Iterator[ByteRows]:
        """Copy `rows` to `into` from row `first` on, field by field; yields each field's copies once they are there."""
        for name, source in self.bytes.items():
            target = into.bytes[name][first : first + len(rows)]
            source.take(rows, axis=0, out=target, mode="clip")
            yield target

    def parts(self, first: int, count: int) -> Iterator[memoryview]:
        """The memory of rows `first` to `first + count`, one writable view of bytes per field in the schema's order."""
        for rows in self.bytes.values():
            yield rows[first : first + count].reshape(-1).data


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with its values in memory as they are, one after the other; itself if they stand so already."""
    return tensor.resolve_conj().resolve_neg().contiguous()


def byte_rows(tensor: torch.Tensor) -> ByteRows:
    """A CPU tensor (items, *shape) as rows of bytes; without a copy if it is contiguous."""
    items, *shape = tensor.shape
    rows: ByteRows = plain(tensor).view(-1).view(torch.uint8).numpy()
    return rows.reshape(items, math.prod(shape) * tensor.element_size())


def _sizes(schema: Schema, count: int) -> list[int]:
    return [-(-count * field.nbytes // _ALIGNMENT) * _ALIGNMENT for field in schema.values()]


def allocate(size: int, *, pinned: bool = False) -> torch.Tensor:
    """Zeroed bytes, all touched, so that lack of memory shows here and nowhere later.

    In huge pages where there are any: gathers take a third less time. `pinned` memory can be copied to and from a GPU
    without waiting; let go of it only when no such copy is under way.
    """
    if size < HUGE_PAGE_BYTES:
        return torch.zeros(size, dtype=torch.uint8, pin_memory=pinned)
    mapped = mmap.mmap(-1, size + HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        mapped.madvise(mmap.MADV_HUGEPAGE)
    everything = np.frombuffer(mapped, np.uint8)
    first = -everything.ctypes.data % HUGE_PAGE_BYTES
    array = everything[first : first + size]
    array.fill(0)
    if pinned:
        _pin(array)
    return torch.from_numpy(array)


def _pin(array: ByteRows) -> None:
    """Pin memory where it is: PyTorch's own pinned memory comes in powers of two, up to twice what was asked for."""
    cuda, address = torch.cuda.cudart(), array.ctypes.data  # type: ignore[no-untyped-call]
    torch.cuda.check_error(cuda.cudaHostRegister(address, array.nbytes, 0))
    weakref.finalize(array, cuda.cudaHostUnregister, address).atexit = False
