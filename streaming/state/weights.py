"""Versions of the network: published, applied, refused."""

from __future__ import annotations

from ptychoflow.streaming.events import Telemetry, WeightsApplied, WeightsKept, WeightsPublished, WeightsRejected
from ptychoflow.streaming.state.rows import Distinct, shortened

VERSIONS_KEPT = 20


class WeightsHistory:
    """Follows the weights of one run; a repeated event does no harm."""

    def __init__(self) -> None:
        self.published, self.applied, self.rejected = Distinct(), Distinct(), Distinct()
        self.newest_published: int | None = None
        self.in_use: int | None = None
        """Version that the edge infers with."""
        self.versions: list[int] = []
        """Those that the edge keeps, newest last: it can be rolled back to them."""
        self.last_rejection: str | None = None

    def apply(self, telemetry: Telemetry) -> None:
        """Take in one event; kinds that say nothing of weights are ignored."""
        match telemetry.event:
            case WeightsPublished(version=version):
                self.published.add(version)
                self.newest_published = version
            case WeightsApplied(version):
                self.applied.add(version)
                self.in_use = version
            case WeightsKept(versions):
                self.versions = sorted(set(versions))[-VERSIONS_KEPT:]
            case WeightsRejected(version, reason):
                self.rejected.add(version)
                self.last_rejection = f"version {version}: {shortened(reason)}"
            case _:
                pass
