"""Where a part computes: on processors, or on which of the host's GPUs."""

from __future__ import annotations

import os
import sys
from enum import StrEnum

from ptychoflow.streaming.errors import UserError

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


class Device(StrEnum):
    """Where a network runs, or phase retrieval."""

    AUTO = "auto"
    """CUDA where there is a GPU, else CPU; the choice is logged."""
    CPU = "cpu"
    CUDA = "cuda"


def available_processors() -> int:
    """Return how many processors this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_cuda(choice: Device, *, found: int, setting: str, gpu: int = 0) -> bool:
    """Return whether to use a GPU.

    Args:
        choice: what the configuration says.
        found: GPUs that this process can use.
        setting: name of the choice in the configuration.
        gpu: the one of the host's that the process was left with; see `gpu_to_see`.

    Raises:
        UserError: CUDA or a certain GPU is asked for and there is none.
    """
    if choice is not Device.CPU and gpu > 0 and not found:
        part = setting.partition(".")[0]
        raise UserError(f'{part}.gpu = {gpu}, counted from 0, is not there: name another, or set {setting} = "cpu"')
    if choice is Device.CUDA and not found:
        raise UserError(f'{setting} = "cuda", but this host has no usable GPU: set it to "cpu"')
    return choice is not Device.CPU and found > 0


def gpu_to_see(choice: Device, number: int, *, setting: str) -> dict[str, str]:
    """Return the environment in which a process sees one GPU of those that are visible to this one, or none.

    Libraries that spread over all they see, and threads that wake the first one, then keep off the others, and off all
    where everything is computed on processors. It counts for what has not looked for GPUs yet.

    Args:
        choice: what the configuration says.
        number: of the GPU, from 0.
        setting: name of the number in the configuration.

    Raises:
        UserError: fewer are visible.
    """
    if choice is Device.CPU:
        return {VISIBLE_GPUS: ""}
    visible = os.environ.get(VISIBLE_GPUS)
    if visible is None:
        return {VISIBLE_GPUS: str(number)}
    names = [name.strip() for name in visible.split(",") if name.strip()]
    if number == 0 and not names:
        return {VISIBLE_GPUS: ""}
    if number >= len(names):
        raise UserError(f"{setting} = {number}, but {VISIBLE_GPUS} = {visible!r} names {len(names)}, counted from 0")
    return {VISIBLE_GPUS: names[number]}
