"""What `orientation_trial` and its process say to each other: one JSON line each, arrays as files in one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

PART, TRIAL = "part.npz", "trial.npz"


@dataclass(frozen=True)
class TrialPart:
    """A small part of a scan."""

    frames: npt.NDArray[np.float32]
    """Counts (n, y, x)."""
    positions_px: npt.NDArray[np.float64]
    """(n, 2) as (y, x), as they lie in the scan."""
    left_out: npt.NDArray[np.bool_]
    """(n,), True for the frames that are predicted."""
    mask: npt.NDArray[np.bool_]
    """(y, x), True for pixels that must be ignored."""


class TrialMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Retrieve from the positions and the probe that lie in the folder."""

    epochs: int


class PredictedMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="predicted"):
    """How well the frames left out were predicted."""

    error: float | None
    """Squared error of the amplitudes over their squares; None if the retrieval gave no finite numbers."""


class TrialFailedMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="failed"):
    """The retrieval could not be made."""

    reason: str


TrialAnswer = PredictedMessage | TrialFailedMessage


def write_part(part: TrialPart, folder: Path) -> None:
    """Write what all trials share."""
    np.savez(folder / PART, **vars(part))


def read_part(folder: Path) -> TrialPart:
    """Invert `write_part`."""
    return TrialPart(**_arrays(folder / PART))


def write_trial(positions_px: npt.NDArray[np.float64], probe: npt.NDArray[np.complex64], folder: Path) -> None:
    """Write positions (n, 2) of the part's frames, and the starting probe (mode, y, x), of the next trial."""
    np.savez(folder / TRIAL, positions_px=positions_px, probe=probe)


def read_trial(folder: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.complex64]]:
    """Return positions and probe of the next trial."""
    arrays = _arrays(folder / TRIAL)
    return arrays["positions_px"], arrays["probe"]


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
