"""Where the network runs."""

from __future__ import annotations

import torch

from ptychoflow.streaming.device import Device, use_cuda


def choose_device(choice: Device, *, gpu: int = 0) -> torch.device:
    """Return the device asked for.

    Args:
        choice: what the configuration says.
        gpu: the one that this process was to see, of those of the host.

    Raises:
        UserError: it is CUDA and there is none, or not so many.
    """
    on_gpu = use_cuda(choice, found=torch.cuda.device_count(), gpu=gpu, setting="edge.device")
    return torch.device("cuda" if on_gpu else "cpu")
