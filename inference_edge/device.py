"""Where the network runs."""

from __future__ import annotations

import torch

from ptychoflow.streaming.device import Device, use_cuda


def choose_device(choice: Device) -> torch.device:
    """Return the device asked for.

    Raises:
        UserError: it is CUDA and there is none.
    """
    return torch.device("cuda" if use_cuda(choice, found=torch.cuda.device_count(), setting="edge.device") else "cpu")
