from __future__ import annotations

import pytest
import torch

from ptychoflow.trainer.settings import ScheduleKind, ScheduleSettings
from ptychoflow.trainer.training.schedule import ScanSchedule

CYCLIC = ScheduleSettings(kind=ScheduleKind.CYCLIC)


def test_constant_rate_stays() -> None:
    assert {ScanSchedule(ScheduleSettings(), 1e-3).rate(step, 0.0) for step in (0, 1, 1000)} == {1e-3}


def test_cycles_are_those_of_pytorch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CyclicLR(
        optimizer, 1e-4, 8.8e-4, step_size_up=184, mode="exp_range", gamma=0.996, cycle_momentum=False
    )
    for step in range(800):
        assert ScanSchedule(CYCLIC, 8.8e-4).rate(step, 0.0) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()


def test_the_rate_falls_linearly_late_after_the_end_of_the_stream() -> None:
    settings = ScheduleSettings(finish_hold=0.6, finish_fraction=0.1)
    rates = [ScanSchedule(settings, 1.0).rate(7, finish) for finish in (0.0, 0.6, 0.8, 1.0)]
    assert rates == pytest.approx([1.0, 1.0, 0.55, 0.1])
