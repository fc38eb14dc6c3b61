"""What a network says about frames."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Prediction(NamedTuple):
    """Predicted patches, float32 (n, y, x) each; phase in radians within ±π."""

    amplitude: npt.NDArray[np.float32]
    phase: npt.NDArray[np.float32]

    def finite(self) -> npt.NDArray[np.bool_]:
        """Return which patches are finite throughout, bool (n,)."""
        amplitude, phase = (np.isfinite(channel).all(axis=(1, 2)) for channel in self)
        return np.logical_and(amplitude, phase)

    def select(self, chosen: npt.NDArray[np.bool_]) -> Prediction:
        """Return the patches for which `chosen`, bool (n,), is true."""
        return Prediction(*(channel[chosen] for channel in self))


def join_predictions(parts: list[Prediction]) -> Prediction:
    """Return one prediction of all patches; copies unless there is only one part."""
    return parts[0] if len(parts) == 1 else Prediction(*(np.concatenate(part) for part in zip(*parts, strict=True)))
