"""The frame ledger: where every acquired frame ended, counted from what each part reports by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ptychoflow.streaming.events import (
    AcquisitionCounts,
    EdgeCounts,
    Missing,
    RankCounts,
    Telemetry,
    Unlabelled,
    Unplaced,
)
from ptychoflow.streaming.messages import MAX_RANKS


@dataclass(frozen=True)
class FrameCounts:
    """Frames by their end. `acquired` and `lost` come from different processes, so a lost frame shows."""

    acquired: int = 0
    published: int = 0
    """Sent to the edge."""
    trained: int = 0
    validation: int = 0
    void: int = 0
    held_out: int = 0
    excluded: int = 0
    unlabelled: int = 0
    unlabelled_because: Mapping[Unlabelled, int] = field(default_factory=dict)
    rejected: int = 0
    """Refused by the acquisition or by a trainer rank."""
    unplaced: int = 0
    unplaced_because: Mapping[Unplaced, int] = field(default_factory=dict)
    missing: int = 0
    """Never came, although trigger numbers or positions say that they should have; not acquired."""
    missing_because: Mapping[Missing, int] = field(default_factory=dict)
    inferred: int = 0
    refreshed: int = 0

    @property
    def accounted(self) -> int:
        """Frames whose end is known."""
        set_aside = self.void + self.held_out + self.excluded + self.unlabelled + self.rejected + self.unplaced
        return self.trained + self.validation + set_aside

    @property
    def lost(self) -> int:
        """Acquired frames whose end is unknown: on their way during a run, lost after it. Negative: counted twice."""
        return self.acquired - self.accounted


class FrameLedger:
    """Keeps the newest counts of every part; a lost or repeated event does no harm."""

    def __init__(self) -> None:
        self._acquisition: AcquisitionCounts | None = None
        self._edge: EdgeCounts | None = None
        self._ranks: dict[int, RankCounts] = {}

    def apply(self, telemetry: Telemetry) -> None:
        """Take in one event; kinds that carry no frame counts are ignored."""
        event = telemetry.event
        if isinstance(event, AcquisitionCounts):
            self._acquisition = event
        elif isinstance(event, EdgeCounts):
            self._edge = event
        elif isinstance(event, RankCounts):
            if 0 <= telemetry.rank < MAX_RANKS:
                self._ranks[telemetry.rank] = event
            if event.ranks > 0:
                self._ranks = {rank: counts for rank, counts in self._ranks.items() if rank < event.ranks}

    @property
    def unheard(self) -> list[str]:
        """Who counts frames, in words, and has not said how many in the end: what it ended with is not known."""
        edge, acquisition = self._edge, self._acquisition
        return [
            *(["the acquisition"] if acquisition is not None and not acquisition.final else []),
            *(["the edge"] if edge is not None and not edge.final else []),
            *(f"rank {rank} of the trainer" for rank, counts in sorted(self._ranks.items()) if not counts.final),
        ]

    def counts(self) -> FrameCounts:
        """Return the counts of all parts together, trainer ranks summed."""
        acquisition, edge, ranks = self._acquisition, self._edge, self._ranks.values()
        return FrameCounts(
            acquired=acquisition.acquired if acquisition else 0,
            published=acquisition.published if acquisition else 0,
            trained=sum(rank.trained for rank in ranks),
            validation=sum(rank.validation for rank in ranks),
            void=acquisition.void if acquisition else 0,
            held_out=acquisition.held_out if acquisition else 0,
            excluded=acquisition.excluded if acquisition else 0,
            unlabelled=acquisition.unlabelled if acquisition else 0,
            unlabelled_because=acquisition.unlabelled_because if acquisition else {},
            rejected=(acquisition.rejected if acquisition else 0) + sum(rank.rejected for rank in ranks),
            unplaced=sum(acquisition.unplaced_because.values()) if acquisition else 0,
            unplaced_because=acquisition.unplaced_because if acquisition else {},
            missing=sum(acquisition.missing_because.values()) if acquisition else 0,
            missing_because=acquisition.missing_because if acquisition else {},
            inferred=edge.inferred if edge else 0,
            refreshed=edge.refreshed if edge else 0,
        )
