"""Copies between host and device: what pinned memory gives."""

from __future__ import annotations

import torch

from ptychoflow.workflow.benchmarks.gpu.section import Figures, Setup

FRAMES, FRAME_PX = 64, 128


def copies(setup: Setup) -> Figures:
    """Copy a batch of frames to the device and back, from pageable and from pinned memory."""
    setup.require_cuda()
    figures: Figures = {}
    for name, dtype in (("uint16", torch.uint16), ("float32", torch.float32)):
        host = torch.zeros(FRAMES, FRAME_PX, FRAME_PX, dtype=dtype)
        pinned, there = host.pin_memory(), host.to(setup.device)
        gigabytes = host.nbytes / 1e9
        for direction, work in {
            "to_device_pageable": lambda: there.copy_(host),  # noqa: B023  # called at once
            "to_device_pinned": lambda: there.copy_(pinned, non_blocking=True),  # noqa: B023
            "to_host_pageable": lambda: host.copy_(there),  # noqa: B023
            "to_host_pinned": lambda: pinned.copy_(there, non_blocking=True),  # noqa: B023
        }.items():
            figures[f"{name}_{direction}_gb_per_s"] = 1000 * gigabytes / setup.milliseconds(work)
    return figures
