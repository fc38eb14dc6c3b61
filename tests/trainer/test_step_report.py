"""What the trainer tells of its buffer."""

from __future__ import annotations

import os
import signal

import torch
from ranks_in_processes import run_in_ranks
from support import wait_until
from torch import distributed as dist

from ptychoflow.buffer import Field, RehearsalBuffer, Schema
from ptychoflow.streaming.events import AnyEvent, WarningRaised
from ptychoflow.trainer.online.sample_queue import SampleCounts
from ptychoflow.trainer.online.step_report import StepReport


class Noted:
    """Telemetry that keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def send(self, event: AnyEvent) -> None:
        if isinstance(event, WarningRaised):
            self.warnings.append(event.text)


def be_parted(rank: int) -> list[str]:
    """Stand still on rank 1 for longer than the other waits, then go on; return what each rank warns of."""
    pids = torch.zeros(2, dtype=torch.int64)
    pids[rank] = os.getpid()
    dist.all_reduce(pids)
    noted = Noted()
    with RehearsalBuffer(
        Schema(number=Field((), "int64")), capacity=8, representatives=8, candidates=4, transport="tcp", timeout_s=1.0
    ) as buffer:
        report = StepReport(noted, rank=rank, counts=SampleCounts(), buffer=buffer)
        buffer.offer({"number": torch.arange(4)})
        wait_until(lambda: list(buffer.stats().size_per_rank.values()) == [4, 4])
        report.close()
        assert noted.warnings == []
        dist.barrier()
        if rank == 0:
            os.kill(int(pids[1]), signal.SIGSTOP)
            while 1 not in buffer.stats().lost_ranks:
                buffer.offer(None)
                drawn = len(buffer.take())
            assert drawn == 4, "of its own"
            os.kill(int(pids[1]), signal.SIGCONT)
        wait_until(lambda: 1 - rank in buffer.stats().lost_ranks)
        report.close()
        report.close()
        dist.barrier()
    return noted.warnings


def test_ranks_whose_buffers_were_parted_say_so_once() -> None:
    first, second = run_in_ranks(be_parted, 2)
    assert first == [
        "rank 0 rehearses without what rank 1 has stored, for good: no answer for 1 s; "
        "to rehearse all of it again, stop the run and resume it"
    ]
    (text,) = second
    assert text.startswith("rank 1 rehearses without what rank 0 has stored, for good: connection lost: ")
