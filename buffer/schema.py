"""What one item of the buffer is made of: named fields of fixed shape and dtype."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch

DTypeName = Literal[
    "bool",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
    "complex128",
]


MOST_FIELDS = 63
"""As many as one message between ranks can name."""


@dataclass(frozen=True)
class Field:
    """Shape and dtype of one tensor per item, without the batch dimension; `()` is a scalar.

    Raises:
        ValueError: the dtype is unknown, or a size is below 1.
    """

    shape: tuple[int, ...]
    dtype: DTypeName = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if self.dtype not in get_args(DTypeName):
            raise ValueError(f"Field dtype {self.dtype!r} is unknown; use one of {', '.join(get_args(DTypeName))}.")
        if any(size < 1 for size in self.shape):
            raise ValueError(f"Field shape {self.shape} has a size below 1.")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch knows it."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def nbytes(self) -> int:
        """Bytes of one item's tensor."""
        return math.prod(self.shape) * self.torch_dtype.itemsize


class Schema(Mapping[str, Field]):
    """The fields of an item by name, in the order given: `Schema(image=Field((1, 64, 64), "uint16"), ...)`.

    A mapping, so that one schema can be extended to another: `Schema(**schema, logits=Field((10,), "float16"))`.

    Args:
        **fields: 1 to 63 of them.

    Raises:
        ValueError: there are none, or more.
    """

    def __init__(self, **fields: Field) -> None:
        if not 1 <= len(fields) <= MOST_FIELDS:
            raise ValueError(f"A schema has 1 to {MOST_FIELDS} fields, not {len(fields)}.")
        self._fields = fields

    @classmethod
    def like(cls, batch: Mapping[str, torch.Tensor], *, exclude: Collection[str] = ()) -> Self:
        """Make the schema of a batch's samples.

        Args:
            batch: An example; tensors (samples, *shape).
            exclude: Names that the buffer need not keep.

        Raises:
            ValueError: `exclude` names what is not there, or a tensor has no batch dimension or a dtype that a field
                cannot have.
        """
        if unknown := sorted(set(exclude) - set(batch)):
            raise ValueError(f"The batch has no {unknown} to exclude; it has {sorted(batch)}.")
        fields = {}
        for name, tensor in batch.items():
            if name not in exclude:
                if tensor.ndim == 0:
                    raise ValueError(f"{name!r} has no batch dimension.")
                fields[name] = Field(tuple(tensor.shape[1:]), str(tensor.dtype).removeprefix("torch."))  # type: ignore[arg-type]
        return cls(**fields)

    def __getitem__(self, name: str) -> Field:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Schema({', '.join(f'{name}={field.shape}:{field.dtype}' for name, field in self.items())})"

    @property
    def nbytes(self) -> int:
        """Bytes of one item, all fields together."""
        return sum(field.nbytes for field in self.values())

    def check_batch(self, batch: Mapping[str, torch.Tensor], *, names: tuple[str, ...] | None = None) -> int:
        """Return the number of items in a batch.

        Args:
            batch: Tensors (items, *shape).
            names: The fields that must be there, and no other; None stands for all of the schema.

        Raises:
            ValueError: the batch does not fit the schema.
        """
        expected = tuple(self) if names is None else names
        if set(batch) != set(expected):
            missing, unknown = sorted(set(expected) - set(batch)), sorted(set(batch) - set(expected))
            raise ValueError(
                f"The batch does not match the schema: missing fields {missing}, unknown fields {unknown}."
            )
        lengths = {name: self._check_tensor(name, batch[name]) for name in expected}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"The batch's fields differ in their number of items: {lengths}.")
        return next(iter(lengths.values()))

    def _check_tensor(self, name: str, tensor: torch.Tensor) -> int:
        field = self._fields[name]
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"Field {name!r} is a {type(tensor).__name__}, not a tensor.")
        if tensor.dtype != field.torch_dtype:
            raise ValueError(f"Field {name!r} has dtype {tensor.dtype}; the schema says torch.{field.dtype}.")
        if tensor.ndim != len(field.shape) + 1 or tuple(tensor.shape[1:]) != field.shape:
            raise ValueError(
                f"Field {name!r} has shape {tuple(tensor.shape)}; the schema says (items, *{field.shape})."
            )
        return int(tensor.shape[0])
