"""What outputs are told."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from ptychoflow.dashboard.mosaics import Mosaic
from ptychoflow.streaming.events import HeldOutScores, PerspectiveScores, ScanInfo

SCORE_BYTES = 1000
"""About what one takes in memory."""


@dataclass(frozen=True)
class News:
    """A stitched image as it is now, or a score."""

    what: Mosaic | PerspectiveScores | HeldOutScores
    time_s: float
    """When it was told, seconds since 1970."""
    scan: ScanInfo | None
    """What is being scanned, as far as it was known then."""

    @property
    def key(self) -> Hashable:
        """Equal for news of which the later makes the earlier one worthless."""
        match self.what:
            case Mosaic(info=info):
                return "image", info.perspective, info.kind
            case PerspectiveScores(perspective=perspective, kind=kind):
                return "score", perspective, kind
            case HeldOutScores(perspective=perspective):
                return "score", perspective, "held_out"

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.what.nbytes if isinstance(self.what, Mosaic) else SCORE_BYTES
