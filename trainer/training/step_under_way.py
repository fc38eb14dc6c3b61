"""A step that was begun, while a GPU may still be computing it."""

from __future__ import annotations

import torch
from torch import Tensor


class StepUnderWay:
    """What a step gave, and, once it is known, whether it was made.

    Args:
        share: this rank's share of the loss, (terms,).
        made: bool, on the device: whether the optimiser may make its step. None: no step was due.
    """

    def __init__(self, share: Tensor, made: Tensor | None) -> None:
        self.share = share
        self._made = made
        self._arrived: torch.cuda.Event | None = None
        if made is not None and made.is_cuda:
            self._made = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(made, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    @property
    def is_due(self) -> bool:
        """Whether this is a step; else its gradient waits for others to be averaged with."""
        return self._made is not None

    @property
    def is_known(self) -> bool:
        """Whether `made` need not wait."""
        return self._arrived is None or bool(self._arrived.query())  # type: ignore[no-untyped-call]

    @property
    def made(self) -> bool:
        """Whether nothing kept the step from being made; waits until the device has found out."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._made is None or bool(self._made)
