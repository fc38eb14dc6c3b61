"""The buffer with a GPU: whole items though nothing waits for the device."""

from __future__ import annotations

import pytest
import torch

from ptychoflow.buffer import Field, RehearsalBuffer, Schema

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SCHEMA = Schema(number=Field((), "int64"), counts=Field((64, 64), "uint16"), state=Field((64, 64), "bfloat16"))


def batch(step: int) -> dict[str, torch.Tensor]:
    numbers = torch.arange(16 * step, 16 * step + 16, device="cuda") % 200
    images = numbers.view(-1, 1, 1).expand(16, 64, 64)
    return {"number": numbers, "counts": images.to(torch.uint16), "state": images.bfloat16()}


def test_items_are_whole_while_tensors_are_reused_at_once() -> None:
    with RehearsalBuffer(SCHEMA, capacity=100, representatives=24, candidates=14, device="cuda") as buffer:
        for step in range(200):
            drawn = buffer.take()
            minibatch = batch(step)
            torch.cuda._sleep(1_000_000)
            buffer.offer(minibatch, scores=torch.rand(16, device="cuda"))
            for tensor in minibatch.values():
                tensor.zero_()
            assert (drawn.tensors["counts"].long() == drawn.tensors["number"].view(-1, 1, 1)).all()
            assert (drawn.tensors["state"] == drawn.tensors["number"].view(-1, 1, 1)).all()
            assert drawn.labels.is_cuda
            assert len(drawn) == min(24, 14 * step)


def test_offer_and_take_do_not_wait_for_the_device() -> None:
    with RehearsalBuffer(SCHEMA, capacity=100, representatives=24, candidates=14, device="cuda") as buffer:
        for step in range(10):
            buffer.update(batch(step))
        buffer.take()
        minibatch = batch(11)
        torch.cuda.synchronize()
        busy = torch.cuda.Event()
        torch.cuda._sleep(2_000_000_000)
        busy.record()
        buffer.offer(minibatch)
        assert not busy.query()
        torch.cuda.synchronize()
        assert len(buffer.take()) == 24


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_host_minibatches_wait_for_what_lies_on_the_gpu_beside_them(device: str) -> None:
    schema = Schema(number=Field((), "int64"))
    with RehearsalBuffer(
        schema, capacity=400, representatives=400, candidates=16, classes=200, policy="loss_aware", device=device
    ) as buffer:
        for step in range(12):
            numbers = torch.arange(16 * step, 16 * step + 16)
            torch.cuda._sleep(20_000_000)
            buffer.update({"number": numbers}, labels=numbers.cuda(), scores=numbers.cuda().float())
        drawn = buffer.take()
        assert torch.equal(drawn.labels, drawn.tensors["number"])
        shard = buffer.state_dict()
        assert torch.equal(shard["scores"], shard["labels"].double())
