"""Frames that have come before their ground truth, as rank 0 keeps them for a head start."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.codec import Arrays, MalformedMessage
from ptychoflow.streaming.finite import finite_rows
from ptychoflow.streaming.illumination import Illumination, illumination_from_arrays
from ptychoflow.streaming.messages import Probe, ScanStart, UnlabelledFrames
from ptychoflow.trainer.interface.sample_format import shape_fault

log = logging.getLogger(__name__)

KEPT_BYTES = 1 << 28
"""Of frames and probes at most; the acquisition sends fewer."""
CLOSE_PX = 1e6
"""Positions farther from 0 than this are no positions."""


@dataclass
class UnlabelledPerspective:
    """The frames of one perspective so far, and what lights them."""

    illumination: Illumination
    position_px: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    """(n, 2) as (y, x)."""
    parts: list[npt.NDArray[Any]] = field(default_factory=list)
    """Counts (n, y, x), message by message."""


class UnlabelledStore:
    """Keeps frames until training begins. One thread takes messages, another one learns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._perspectives: dict[int, UnlabelledPerspective] = {}

    def take(self, message: Probe | UnlabelledFrames, arrays: Arrays, scan: ScanStart) -> None:
        """Keep what came; what cannot be used is left out, and said in the log."""
        try:
            with self._lock:
                self._take(message, arrays, scan)
        except MalformedMessage as error:
            log.warning("left out of the head start: %s", error)

    def fullest(self) -> UnlabelledPerspective | None:
        """Return the perspective with most frames, as far as they have come; None before the first."""
        with self._lock:
            filled = [one for one in self._perspectives.values() if one.parts]
            if not filled:
                return None
            one = max(filled, key=lambda one: len(one.position_px))
            return UnlabelledPerspective(one.illumination, one.position_px, list(one.parts))

    def _take(self, message: Probe | UnlabelledFrames, arrays: Arrays, scan: ScanStart) -> None:
        if isinstance(message, Probe):
            illumination = illumination_from_arrays(arrays, scan.frame_shape_px)
            # an acquisition that was started again sends everything again
            self._perspectives.pop(message.perspective, None)
            self._require_room(illumination.probe.nbytes)
            self._perspectives[message.perspective] = UnlabelledPerspective(illumination)
            return
        perspective = self._perspectives.get(message.perspective)
        if perspective is None:
            raise MalformedMessage(f"frames of perspective {message.perspective} came without their probe")
        count = arrays["position_px"].shape[0] if "position_px" in arrays and arrays["position_px"].ndim else 0
        shapes = {"position_px": (count, 2), "diffraction": (count, *scan.frame_shape_px)}
        if (fault := shape_fault(arrays, shapes)) is not None:
            raise MalformedMessage(fault)
        counts, position_px = arrays["diffraction"], arrays["position_px"]
        if not np.issubdtype(counts.dtype, np.number) or np.iscomplexobj(counts) or position_px.dtype != np.float64:
            raise MalformedMessage(f"frames of {counts.dtype} at positions of {position_px.dtype}")
        with np.errstate(invalid="ignore"):
            good = finite_rows(counts) & (np.abs(position_px) < CLOSE_PX).all(axis=1)
        self._require_room(counts.nbytes)
        perspective.position_px = np.concatenate([perspective.position_px, position_px[good]])
        perspective.parts.append(counts[good])

    def _require_room(self, more: int) -> None:
        kept = sum(
            one.illumination.probe.nbytes + sum(part.nbytes for part in one.parts)
            for one in self._perspectives.values()
        )
        if kept + more > KEPT_BYTES:
            raise MalformedMessage(f"frames and probes of more than {KEPT_BYTES >> 20} MiB")
