"""Rows of items: one contiguous tensor per field, seen by numpy as rows of bytes so that every dtype copies alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from buffer.schema import Schema

ByteRows = npt.NDArray[np.uint8]
"""(rows, bytes of one item's field), C-contiguous."""


class Rows:
    """`count` rows of items, allocated and touched at once, so that lack of memory shows here and nowhere later.

    The copies go through numpy: `take` and row assignment copy whole rows on the calling thread alone and release the
    interpreter's lock, whereas torch would start a pool of spinning threads for every thread that copies.
    """

    def __init__(self, schema: Schema, count: int, *, pinned: bool = False) -> None:
        self.schema = schema
        self.count = count
        self.tensors: dict[str, torch.Tensor] = {}
        self.bytes: dict[str, ByteRows] = {}
        for name, field in schema.items():
            raw = torch.zeros(count * field.nbytes, dtype=torch.uint8, pin_memory=pinned)
            self.tensors[name] = raw.view(field.torch_dtype).view(count, *field.shape)
            self.bytes[name] = raw.numpy().reshape(count, field.nbytes)

    def write(self, row: int, batch: dict[str, torch.Tensor], item: int) -> None:
        """Copy item `item` of `batch` into `row`; from a GPU the copy is queued on the current stream."""
        for name, tensor in self.tensors.items():
            tensor[row].copy_(batch[name][item], non_blocking=True)

    def copy_row(self, source: int, target: int) -> None:
        """Copy one row onto another."""
        for rows in self.bytes.values():
            rows[target] = rows[source]

    def copy_of(self, rows: npt.NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """New tensors with a copy of `rows`, (len(rows), *shape) per field."""
        return {
            name: torch.from_numpy(source[rows]).view(field.torch_dtype).view(len(rows), *field.shape)
            for (name, field), source in zip(self.schema.items(), self.bytes.values(), strict=True)
        }

    def gather(self, rows: npt.NDArray[np.int64], into: Rows, *, first: int) -> int:
        """Copy `rows` to `into` from row `first` on; returns the bytes copied."""
        for name, source in self.bytes.items():
            np.take(source, rows, axis=0, out=into.bytes[name][first : first + len(rows)], mode="clip")
        return len(rows) * self.schema.nbytes

    def parts(self, first: int, count: int) -> Iterator[memoryview]:
        """The memory of rows `first` to `first + count`, one writable view of bytes per field in the schema's order."""
        for rows in self.bytes.values():
            yield rows[first : first + count].reshape(-1).data


def byte_rows(tensor: torch.Tensor) -> ByteRows:
    """A CPU tensor (items, *shape) as rows of bytes; without a copy if it is contiguous."""
    items = tensor.shape[0]
    rows: ByteRows = tensor.contiguous().view(-1).view(torch.uint8).numpy().reshape(items, -1 if items else 0)
    return rows
