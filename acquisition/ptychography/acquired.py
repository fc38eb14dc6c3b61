"""What is kept of an acquired perspective until its ground truth comes, and the messages made of the two."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.retrieval.ground_truth import GroundTruth, GroundTruthJob
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.retrieval.stored_frames import FrameFile, StoredFrames
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
    frames: StoredFrames
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

    def job(self, settings: RetrievalSettings) -> GroundTruthJob:
        """Return what is to be done for the ground truth."""
        perspective = self.perspective
        return GroundTruthJob(
            perspective=perspective.index,
            frames=self.frames,
            positions_px=self.positions_px,
            probe=perspective.probe,
            mask=perspective.mask,
            recorded=perspective.ground_truth,
            target_shape_px=settings.target_shape_for(perspective.geometry.frame_shape_px),
        )

    def forget_frames(self) -> None:
        """Give their place on disk back: nobody is to retrieve anything from them. They can still be read."""
        shutil.rmtree(self.frames.path.parent, ignore_errors=True)

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
    """The frames of one perspective as they come. They lie on disk.

    Args:
        perspective: where they are from.
        folder: for the file; it is there already.
    """

    def __init__(self, perspective: OpenEndedPerspective, folder: Path) -> None:
        self.acquired = 0
        """Usable or not."""
        self.usable = 0
        self._perspective = perspective
        self._frames = FrameFile(folder / "frames", perspective.geometry.frame_shape_px)
        self._indices = [np.zeros(0, np.int32)]
        self._roles = [np.zeros(0, np.uint8)]
        self._positions_px = [np.zeros((0, 2))]

    def add(self, arrays: Arrays, *, acquired: int) -> None:
        """Keep the arrays of a `Frames` message, made of so many frames that came.

        Raises:
            OSError: the disk does not take them; nothing is kept of them, and they can be added again.
        """
        self._frames.append(arrays["diffraction"])
        self.acquired += acquired
        self.usable += len(arrays["index"])
        self._indices.append(arrays["index"])
        self._roles.append(arrays["role"])
        self._positions_px.append(arrays["position_px"])

    def perspective_acquired(self) -> AcquiredPerspective:
        """Return what came so far, in the order of the frames' indices."""
        indices = np.concatenate(self._indices)
        order = np.argsort(indices, kind="stable")
        return AcquiredPerspective(
            self._perspective,
            self.acquired,
            positions_px=np.concatenate(self._positions_px)[order],
            frames=self._frames.frames().reordered(order),
            indices=indices[order],
            roles=np.concatenate(self._roles)[order],
        )
