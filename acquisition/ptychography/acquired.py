"""What is kept of an acquired perspective until its ground truth comes, and the messages made of the two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.retrieval.ground_truth import GroundTruth
from ptychoflow.acquisition.scan import OpenEndedPerspective
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.messages import FrameRole, PerspectiveEnd, Reference

LEARNED_FROM = (FrameRole.TRAIN, FrameRole.VALIDATION)


@dataclass(frozen=True)
class AcquiredPerspective:
    """A perspective and its frames; arrays have one row per usable frame."""

    perspective: OpenEndedPerspective
    acquired: int
    """Frames that came, usable or not."""
    positions_px: npt.NDArray[np.float64]
    frames: npt.NDArray[np.generic]
    indices: npt.NDArray[np.int32]
    roles: npt.NDArray[np.uint8]

    @property
    def learned_from(self) -> npt.NDArray[np.bool_]:
        """Which frames become samples unless they show void, bool (n,)."""
        return np.isin(self.roles, LEARNED_FROM)

    @property
    def is_judged(self) -> bool:
        """Whether the perspective is held out as a whole, so that it needs a reference whatever the regime."""
        return not self.learned_from.any()

    def end(self) -> PerspectiveEnd:
        """Return the message that closes this perspective."""
        return PerspectiveEnd(self.perspective.index, self.perspective.angle_deg, self.acquired)

    def reference(self, truth: GroundTruth) -> tuple[Reference, Arrays]:
        """Return the message that brings the edge the perspective's reference image, with its arrays."""
        reference = Reference(
            perspective=self.perspective.index,
            angle_deg=self.perspective.angle_deg,
            origin_px=truth.origin_px,
            source=truth.source,
            seconds=truth.seconds,
        )
        return reference, {"amplitude": truth.reference_amplitude, "phase": truth.reference_phase}

    def sample_batches(self, truth: GroundTruth, *, batch_frames: int) -> Iterator[Arrays]:
        """Yield the arrays of `Samples`: the frames that are learned from and show more than void."""
        chosen = np.flatnonzero(self.learned_from & ~truth.void)
        for start in range(0, len(chosen), batch_frames):
            rows = chosen[start : start + batch_frames]
            yield {
                "index": self.indices[rows],
                "role": self.roles[rows],
                "diffraction": self.frames[rows],
                "amplitude": truth.amplitude[rows],
                "phase": truth.phase[rows],
            }


class TakenFrames:
    """The frames of one perspective as they come."""

    def __init__(self, perspective: OpenEndedPerspective) -> None:
        self.acquired = 0
        """Usable or not."""
        self._perspective = perspective
        self._parts: list[Arrays] = []

    def add(self, arrays: Arrays, *, acquired: int) -> None:
        """Keep the arrays of a `Frames` message, made of so many frames that came."""
        self.acquired += acquired
        self._parts.append(arrays)

    def perspective_acquired(self) -> AcquiredPerspective:
        """Return what came, in the order of the frames' indices."""
        joined = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        order = np.argsort(joined["index"], kind="stable")
        if (np.diff(order) < 0).any():
            joined = {name: array[order] for name, array in joined.items()}
        return AcquiredPerspective(
            self._perspective,
            self.acquired,
            positions_px=joined["position_px"],
            frames=joined["diffraction"],
            indices=joined["index"],
            roles=joined["role"],
        )
