"""What a section of the check is, and what may become of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch

from ptychoflow.streaming.errors import UserError

Figures = dict[str, Any]
"""Plain JSON values, units in their names."""


class Status(StrEnum):
    """What became of a section."""

    PASS = "PASS"
    FAIL = "FAIL"
    SKIPPED = "SKIPPED"


class Skipped(Exception):
    """The section does not apply here; its text says why."""


class Unmet(Exception):
    """Something is not as it must be; its text says what was found.

    Args:
        text: what is wrong.
        figures: what was measured.
    """

    def __init__(self, text: str, figures: Figures | None = None) -> None:
        super().__init__(text)
        self.figures = figures or {}


@dataclass(frozen=True)
class Setup:
    """Where the sections run, and how thoroughly."""

    device: torch.device
    short: bool
    """Tiny sizes, which show that a section runs rather than what it measures."""

    def require_cuda(self) -> None:
        """Leave the section out on a CPU."""
        if self.device.type != "cuda":
            raise Skipped("needs CUDA")

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def milliseconds(self, work: Callable[[], object], *, repeats: int = 20) -> float:
        """Return how long `work` takes on average, after three times that do not count."""
        repeats = 2 if self.short else repeats
        for _ in range(1 if self.short else 3):
            work()
        self.synchronise()
        began_s = time.perf_counter()
        for _ in range(repeats):
            work()
        self.synchronise()
        return 1000 * (time.perf_counter() - began_s) / repeats


Check = Callable[[Setup], Figures]
"""Returns what it measured; raises Skipped or Unmet."""


@dataclass(frozen=True)
class Outcome:
    """What became of a section."""

    status: Status
    seconds: float
    figures: Figures = field(default_factory=dict)
    reason: str = ""


ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    UserError,
    ValueError,
)
"""What may be wrong on a machine that nothing was tried on; PyTorch's own are RuntimeErrors and AssertionErrors."""


def carry_out(check: Check, setup: Setup) -> Outcome:
    """Do a section. Blocks for as long as it takes."""
    began_s = time.perf_counter()
    status, figures, reason = Status.PASS, Figures(), ""
    try:
        figures = check(setup)
    except Skipped as skipped:
        status, reason = Status.SKIPPED, str(skipped)
    except Unmet as unmet:
        status, figures, reason = Status.FAIL, unmet.figures, str(unmet)
    except ERRORS as error:
        status, reason = Status.FAIL, f"{type(error).__name__}: {error}"
    return Outcome(status, round(time.perf_counter() - began_s, 3), figures, reason)
