"""The acquisition's side of the frame ledger."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.events import AcquisitionCounts, Missing, Unlabelled, Unplaced
from ptychoflow.streaming.messages import FrameRole


@dataclass
class Ledger:
    """Counts of frames; every frame ends in exactly one of these.

    They are samples, void, held_out, excluded, unlabelled, rejected and unplaced; `missing` frames were never acquired.
    """

    acquired: int = 0
    published: int = 0
    samples: int = 0
    void: int = 0
    held_out: int = 0
    excluded: int = 0
    rejected: int = 0
    unlabelled_because: Counter[Unlabelled] = field(default_factory=Counter)
    """Frames by the reason why they are unlabelled."""
    unplaced_because: Counter[Unplaced] = field(default_factory=Counter)
    """Frames of a detector without a place in a perspective, by reason."""
    missing_because: Counter[Missing] = field(default_factory=Counter)
    """Frames that should have come, by how that is known."""

    @property
    def unlabelled(self) -> int:
        """Training and validation frames without ground truth."""
        return self.unlabelled_because.total()

    def count_unplaced(self, frames: int, because: Unplaced) -> None:
        """Count frames that came and belong nowhere."""
        self.acquired += frames
        self.unplaced_because[because] += frames

    def count_missing(self, frames: int, how: Missing) -> None:
        """Count frames that should have come."""
        self.missing_because[how] += frames

    def count_frames(self, roles: npt.NDArray[np.uint8], usable: npt.NDArray[np.bool_]) -> None:
        """Count frames as they are acquired: arrays (n,) of FrameRole and of whether the frame can be used."""
        self.acquired += len(roles)
        self.published += int(usable.sum())
        self.rejected += int((~usable).sum())
        self.held_out += int((usable & (roles == FrameRole.HELD_OUT)).sum())
        self.excluded += int((usable & (roles == FrameRole.EXCLUDED)).sum())

    def count_labels(self, void: npt.NDArray[np.bool_]) -> None:
        """Count training and validation frames whose ground truth came: `void` (n,) says which are set aside."""
        self.void += int(void.sum())
        self.samples += int((~void).sum())

    def count_unlabelled(self, frames: int, because: Unlabelled) -> None:
        """Count training and validation frames that get no ground truth."""
        self.unlabelled_because[because] += frames

    def count_rest_unlabelled(self) -> None:
        """Count every frame that has no end yet as unlabelled: the scan was stopped before its ground truth came."""
        ended = self.samples + self.void + self.held_out + self.excluded + self.unlabelled + self.rejected
        ended += self.unplaced_because.total()
        self.count_unlabelled(self.acquired - ended, Unlabelled.STOPPED)

    def why_no_sample(self) -> str | None:
        """Return in words what became of the frames if none of them is a sample although some should have been."""
        spared = self.unlabelled_because[Unlabelled.MONITORING] + self.unlabelled_because[Unlabelled.SPARED]
        lost = {
            "show nothing but void": self.void,
            "are without ground truth, because phase retrieval failed": self.unlabelled_because[
                Unlabelled.RETRIEVAL_FAILED
            ],
            "are without ground truth, because phase retrieval was killed": self.unlabelled_because[
                Unlabelled.WORKER_LOST
            ],
            "hold values that are no counts": self.rejected,
            "have no place in a perspective": self.unplaced_because.total(),
        }
        if self.samples or spared or not any(lost.values()):
            return None
        return ", ".join(f"{frames} {what}" for what, frames in lost.items() if frames)

    def event(self, *, resent_batches: int, spooled_bytes: int, final: bool) -> AcquisitionCounts:
        """Return the counts as telemetry."""
        return AcquisitionCounts(
            acquired=self.acquired,
            published=self.published,
            samples=self.samples,
            void=self.void,
            held_out=self.held_out,
            excluded=self.excluded,
            unlabelled=self.unlabelled,
            rejected=self.rejected,
            resent_batches=resent_batches,
            spooled_bytes=spooled_bytes,
            unlabelled_because=dict(+self.unlabelled_because),
            unplaced_because=dict(+self.unplaced_because),
            missing_because=dict(+self.missing_because),
            final=final,
        )
