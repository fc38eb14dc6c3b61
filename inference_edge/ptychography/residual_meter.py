"""Scoring predictions against their frames in a bounded share of the time."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychoflow.inference_edge.backends.prediction import Prediction
from ptychoflow.inference_edge.ptychography.residual import forward_residuals
from ptychoflow.streaming.illumination import Illumination

FIRST_FRAMES = 8
"""Scored to learn what scoring takes."""
SAVED_S = 10.0
"""Time of so many seconds that was not used may be used later."""
LARGEST_SHARE = 0.5
"""Of what the network takes for a batch, though more was saved: its frames wait meanwhile."""
UNNOTICED_S = 0.005
"""But so long they may wait in any case: a small network takes less than its frames take to be scored."""
PIXELS_AT_ONCE = 1 << 19
"""Of all modes together: what fits into a processor's cache or little more."""
NEWEST_SHARE = 0.2
"""Weight of the newest frames in the mean time per frame."""


class ResidualMeter:
    """Scores as many frames as fit into a share of the time, evenly chosen of those that are imaged.

    Use it from one thread. On a busy host the network takes longer than it computes: what it computes counts, and of
    its rests the same part.

    Args:
        share: of the time that the network takes and of its rests; 0 scores nothing.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._left_s = 0.0
        self._ended_at_s = time.perf_counter()
        self._rest_s = 0.0
        self._began_s = self._ended_at_s, time.process_time()
        self._frame_s: float | None = None

    def begin(self) -> None:
        """Note that the network begins with a batch."""
        now_s = time.perf_counter()
        self._rest_s = now_s - self._ended_at_s
        self._began_s = now_s, time.process_time()

    def measure(
        self, counts: npt.NDArray[Any], prediction: Prediction, illumination: Illumination
    ) -> npt.NDArray[np.float64]:
        """Return the residuals (n,) of frames (n, y, x), NaN for those that are not scored. Blocks for its share.

        The network began with these frames at the last `begin`, and is done with them now.
        """
        residuals = np.full(len(counts), np.nan)
        began_at_s, began_cpu_s = self._began_s
        took_s = time.perf_counter() - began_at_s
        network_s = min(took_s, time.process_time() - began_cpu_s)
        # on a busy host a rest is no longer than what could be computed in it
        rest_s = self._rest_s * network_s / took_s if took_s > 0 else 0.0
        chosen = self._choose(len(counts), network_s, rest_s)
        if chosen.any():
            began_s = time.thread_time()
            residuals[chosen] = _residuals(counts[chosen], prediction.select(chosen), illumination)
            self._record(int(chosen.sum()), time.thread_time() - began_s)
        self._ended_at_s = time.perf_counter()
        return residuals

    def _choose(self, frames: int, network_s: float, rest_s: float) -> npt.NDArray[np.bool_]:
        self._left_s += self._share * (rest_s + network_s)
        self._left_s = min(self._left_s, self._share * SAVED_S)
        if self._share == 0:
            affordable = 0
        elif self._frame_s is None:
            affordable = FIRST_FRAMES
        else:
            at_most_s = max(LARGEST_SHARE * network_s, self._frame_s, UNNOTICED_S)
            affordable = int(max(0.0, min(self._left_s, at_most_s)) / self._frame_s)
        number = min(frames, affordable)
        chosen = np.zeros(frames, bool)
        chosen[(np.arange(number) * frames + frames // 2) // max(number, 1)] = True
        return chosen

    def _record(self, frames: int, seconds: float) -> None:
        newest_s = seconds / frames
        if self._frame_s is None:
            # what the first ones take, libraries that wake up, is nobody's debt
            self._frame_s, self._left_s = newest_s, self._share * SAVED_S
            return
        self._left_s -= seconds
        self._frame_s += NEWEST_SHARE * (newest_s - self._frame_s)


def _residuals(counts: npt.NDArray[Any], prediction: Prediction, illumination: Illumination) -> npt.NDArray[np.float64]:
    amplitude = np.ones_like(prediction.phase) if prediction.amplitude is None else prediction.amplitude
    at_once = max(1, PIXELS_AT_ONCE // illumination.probe.size)
    parts = [slice(start, start + at_once) for start in range(0, len(counts), at_once)]
    return np.concatenate(
        [
            forward_residuals(
                counts[part], amplitude[part], prediction.phase[part], illumination.probe, illumination.mask
            )
            for part in parts
        ]
    )
