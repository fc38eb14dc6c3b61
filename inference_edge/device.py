"""Where the network runs."""

from __future__ import annotations

import torch

from ptychoflow.inference_edge.settings import DeviceChoice
from ptychoflow.streaming.errors import UserError


def choose_device(choice: DeviceChoice) -> torch.device:
    """Return the device asked for.

    Raises:
        UserError: it is CUDA and there is none.
    """
    if choice is DeviceChoice.CUDA and not torch.cuda.is_available():
        raise UserError('edge.device = "cuda": this host has no usable CUDA device; set edge.device to "auto" or "cpu"')
    if choice is DeviceChoice.AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(choice.value)
