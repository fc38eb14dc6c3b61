"""Tensors that tell how they were moved."""

from __future__ import annotations

from typing import Any, ClassVar

import torch


class Moved(torch.Tensor):
    """Keeps how tensors of its kind were moved."""

    moves: ClassVar[list[tuple[torch.device, bool]]] = []
    """Where to, and whether without waiting."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.to and isinstance(args[1], torch.device):
            cls.moves.append((args[1], bool(kwargs and kwargs.get("non_blocking"))))
        return super().__torch_function__(function, types, args, kwargs)
