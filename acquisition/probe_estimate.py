"""A starting probe for scans that come without one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from acquisition.propagation import back_propagate


def estimate_probe(frames: npt.NDArray[np.generic]) -> npt.NDArray[np.complex64]:
    """Return a probe (1, y, x) from frames (n, y, x): the square root of their mean, propagated back.

    The wave at the detector is given a flat phase, so the probe is in focus: phase retrieval has to find the defocus.
    """
    amplitude = np.sqrt(np.clip(frames.mean(axis=0, dtype=np.float64), 0.0, None))
    return back_propagate(amplitude.astype(np.complex128)).astype(np.complex64)[np.newaxis]
