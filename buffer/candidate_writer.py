"""Copies the candidates of a minibatch into free rows, so that the caller may reuse its tensors at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ptychoflow.buffer.cuda import DeviceWriter
from ptychoflow.buffer.free_rows import FreeRows
from ptychoflow.buffer.index import Candidate
from ptychoflow.buffer.memory import Rows


@dataclass(frozen=True)
class Offer:
    """Candidates whose tensors stand, or are about to arrive, in `rows` of the store."""

    rows: list[int]
    candidates: Callable[[], list[Candidate]]
    """What is known of them; to be called once they have arrived."""
    arrival: Future[None] | None = None
    """Done when the tensors have arrived; None if they are there."""


def no_candidates() -> Offer:
    """An offer that only begins a draw."""
    return Offer([], list)


class CandidateWriter:
    """Writes to the store's free rows from the caller's thread."""

    def __init__(self, rows: Rows, free: FreeRows, device: torch.device) -> None:
        self._rows = rows
        self._free = free
        self._own_device = device
        self._device = DeviceWriter(device) if device.type == "cuda" else None

    def write(
        self,
        minibatch: Mapping[str, torch.Tensor],
        chosen: npt.NDArray[np.int64],
        *,
        labels: torch.Tensor | None,
        scores: torch.Tensor | None,
        features: torch.Tensor | None,
    ) -> Offer:
        """Copy the samples `chosen`; blocks only while two earlier offers are not inserted yet."""
        targets = self._free.reserve(len(chosen))
        index = torch.from_numpy(chosen)
        on_gpu = {name: tensor.detach() for name, tensor in minibatch.items() if self._arrives_later(tensor)}
        on_host = {name: tensor.cpu() for name, tensor in minibatch.items() if name not in on_gpu}
        self._rows.write(targets, on_host, chosen.tolist())
        beside = (labels, scores, features)
        known = [None if values is None else self._to_host(values.detach()[index]) for values in beside]
        arrival = None
        if self._device is not None and (on_gpu or any(map(self._arrives_later, beside))):
            arrival = self._device.write(self._rows, targets, self._device.select(on_gpu, index))
        return Offer(targets, lambda: _candidates(len(chosen), *known), arrival)

    def _arrives_later(self, values: torch.Tensor | None) -> bool:
        if self._device is None or values is None:
            return False
        return arrives_later(values.device, own=self._own_device)

    def _to_host(self, values: torch.Tensor) -> torch.Tensor:
        """A copy on the host, queued on the caller's stream and so ahead of the event that tells of the arrival."""
        return values.to("cpu", non_blocking=self._arrives_later(values))

    def close(self) -> None:
        """Release the device's part."""
        if self._device is not None:
            self._device.close()


def arrives_later(where: torch.device, *, own: torch.device) -> bool:
    """Whether a tensor that lies there is copied without waiting, so that its offer must wait for an event.

    That is so for the buffer's `own` GPU alone, whose streams the event follows; what lies on any other device is
    copied before `offer` returns.
    """
    return own.type == "cuda" and where == own


def _candidates(
    count: int, labels: torch.Tensor | None, scores: torch.Tensor | None, features: torch.Tensor | None
) -> list[Candidate]:
    label_list = [0] * count if labels is None else labels.tolist()
    score_list = [0.0] * count if scores is None else scores.tolist()
    feature_list = [None] * count if features is None else list(features.float().numpy())
    return [Candidate(*known) for known in zip(label_list, score_list, feature_list, strict=True)]
