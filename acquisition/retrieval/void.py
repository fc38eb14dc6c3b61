"""Which frames show void: nothing of the specimen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.retrieval.settings import AutoVoid

STRONG_PERCENTILE = 95
AUTO_SHARE = 0.1
AUTO_LARGEST_RAD2 = 0.02
QUANTILES = (0.1, 0.5, 0.9)


def squared_phase_rad2(phase: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the mean squared phase (n,) of patches (n, y, x)."""
    return np.asarray(np.mean(phase.astype(np.float64) ** 2, axis=(1, 2)))


def is_void(squared_rad2: npt.NDArray[np.float64], threshold: float | AutoVoid) -> npt.NDArray[np.bool_]:
    """Return which frames, by their mean squared phase (n,), are void."""
    if isinstance(threshold, AutoVoid):
        strong = float(np.percentile(squared_rad2, STRONG_PERCENTILE)) if len(squared_rad2) else 0.0
        threshold = min(AUTO_LARGEST_RAD2, AUTO_SHARE * strong)
    return np.asarray(squared_rad2 < threshold)


def distribution_in_words(squared_rad2: npt.NDArray[np.float64]) -> str:
    """Return quantiles of the mean squared phase as text."""
    low, middle, high = np.quantile(squared_rad2, QUANTILES)
    return (
        f"the mean squared phase is below {low:.2g} rad² for 10 %, {middle:.2g} for 50 %, {high:.2g} for 90 % of them"
    )
