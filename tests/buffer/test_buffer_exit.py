"""A process that used the buffer ends quietly, also while it still holds what `take` returned."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import distributed as dist

from ptychoflow.buffer import Field, RehearsalBuffer, Schema


def draw_and_close(rank: int, port: int) -> None:
    """Draw over UCX, in place, close the buffer, and end with a draw in hand."""
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    schema = Schema(number=Field((), "int64"), image=Field((40, 40)))
    with RehearsalBuffer(schema, capacity=60, representatives=40, candidates=10, transport="ucx") as buffer:
        numbers = torch.arange(10)
        held = buffer.update({"number": numbers, "image": torch.ones(10, 40, 40)})
        received = 0
        while received < 200:
            held = buffer.update(None)
            received += int((held.ids & 1 != rank).sum())  # an id ends with the rank that stored the item
        dist.barrier()
        assert buffer.stats().served_in_place > 0
    sys.stdout.write(f"whole: {bool((held.tensors['image'] == 1).all())}\n")
    dist.destroy_process_group()
    globals()["held"] = held


def test_ranks_that_drew_in_place_say_nothing_when_they_end() -> None:
    pytest.importorskip("ucxx")
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(store.port)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [rank.communicate(timeout=60)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert said == ["whole: True\n", "whole: True\n"]
    assert [rank.returncode for rank in ranks] == [0, 0]


if __name__ == "__main__":
    draw_and_close(int(sys.argv[1]), int(sys.argv[2]))
