"""One series of frames of a live scan."""

from __future__ import annotations

from dataclasses import dataclass, field

from ptychoflow.acquisition.detectors.arrivals import SeriesHeader
from ptychoflow.acquisition.detectors.joiner import SeriesJoiner
from ptychoflow.acquisition.scan import Ending


@dataclass
class Series:
    """One series, from its first word to its last."""

    name: str
    number: int
    """Series are numbered as they began."""
    joiner: SeriesJoiner
    former_s: tuple[float, float] | None = None
    """When the first and the last frame of the series before came."""
    header: SeriesHeader = field(default_factory=SeriesHeader)
    run: str | None = None
    """The run of positions that belongs to it."""
    run_ending: Ending | None = None
    """How that ended; None while it goes on."""
    most_placed: int | None = None
    """Frames that there will be positions for, where their source has said."""
    over: bool = False
    """Nothing more is taken: what still comes is late."""
    over_told: bool = False
    """A person knows what may be wrong with a series that is over and had no positions."""

    @property
    def awaits_run(self) -> bool:
        """Whether a run of positions may still be joined to it."""
        return self.run is None and not self.over

    @property
    def number_if_seen(self) -> int | None:
        """Its number, None while no frame has come."""
        return None if self.joiner.first_frame_s is None else self.number

    def lagged(self, at_s: float) -> bool:
        """Whether the detector still sent the former series at a time: its frames were not taken for a while."""
        return self.former_s is not None and self.former_s[0] < at_s < self.former_s[1]

    def listen(self, now_s: float) -> None:
        """See `SeriesTable.listen`."""
        self.joiner.listen(now_s)
        if self.former_s is not None:
            first_s, last_s = self.former_s
            self.former_s = min(first_s, now_s), min(last_s, now_s)
