"""The rehearsal buffer with tensors of the device: items are whole although nothing waits for it."""

from __future__ import annotations

import torch

from ptychoflow.buffer import Field, RehearsalBuffer, Schema
from ptychoflow.workflow.benchmarks.gpu.section import Figures, Setup, Unmet

SCHEMA = Schema(number=Field((), "int64"), counts=Field((64, 64), "uint16"), state=Field((64, 64), "bfloat16"))
ITEMS, DRAWN = 16, 24
BUSY_CYCLES = 1_000_000


def whole_items(setup: Setup) -> Figures:
    """Draw while the tensors that were offered are overwritten at once and the device lags behind."""
    steps, mixed, unscored = (6 if setup.short else 200), 0, 0
    with RehearsalBuffer(
        SCHEMA, capacity=100, representatives=DRAWN, candidates=14, policy="loss_aware", device=setup.device
    ) as buffer:
        for step in range(steps):
            drawn = buffer.take()
            numbers = torch.arange(ITEMS * step, ITEMS * (step + 1), device=setup.device) % 200
            images = numbers.view(-1, 1, 1).expand(ITEMS, 64, 64)
            items = {"number": numbers, "counts": images.to(torch.uint16), "state": images.bfloat16()}
            _lag(setup)
            buffer.offer(items, scores=1.0 + numbers.float())
            for tensor in items.values():
                tensor.zero_()
            expected = drawn.tensors["number"].view(-1, 1, 1)
            mixed += int((drawn.tensors["counts"].long() != expected).sum())
            mixed += int((drawn.tensors["state"] != expected).sum())
    with RehearsalBuffer(
        Schema(x=Field((4,))), capacity=64, representatives=4, candidates=8, policy="loss_aware", device=setup.device
    ) as buffer:
        for step in range(steps // 3):
            scores = torch.arange(8, device=setup.device, dtype=torch.float32) + 1 + step
            _lag(setup)
            buffer.offer({"x": torch.zeros(8, 4)}, scores=scores + 0.0)  # items on the host, scores on the device
            buffer.take()
            unscored += int((_stored_scores(buffer) == 0.0).sum())
    figures = {"steps": steps, "mixed_elements": mixed, "items_without_score": unscored}
    if mixed or unscored:
        raise Unmet("items were stored before they had arrived", figures)
    return figures


def _lag(setup: Setup) -> None:
    if setup.device.type == "cuda":
        torch.cuda._sleep(BUSY_CYCLES)  # type: ignore[no-untyped-call]


def _stored_scores(buffer: RehearsalBuffer) -> torch.Tensor:
    """Return the scores that the saved state holds."""
    scores = buffer.state_dict()["scores"]
    if not isinstance(scores, torch.Tensor):
        raise Unmet("the buffer's state holds no scores")
    return scores
