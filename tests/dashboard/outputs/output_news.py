"""News, and a run of outputs in this process, that the tests of the outputs share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from support import wait_until
from telemetry_samples import mosaic, ramp

from ptychoflow.dashboard.mosaics import Mosaic, MosaicStore
from ptychoflow.dashboard.outputs.news import News
from ptychoflow.dashboard.outputs.service import serve_outputs
from ptychoflow.dashboard.outputs.settings import OutputsSettings
from ptychoflow.streaming.events import (
    EdgeCounts,
    MosaicKind,
    Part,
    PartState,
    PartStatus,
    ScanInfo,
    Telemetry,
    WarningRaised,
)
from ptychoflow.streaming.messages import GroundTruthSource
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.streaming.telemetry import TelemetryHub, TelemetrySender, TelemetrySubscriber

FIRST_PASS, REFRESHED, REFERENCE = MosaicKind.FIRST_PASS, MosaicKind.REFRESHED, MosaicKind.REFERENCE
SCAN = ScanInfo(
    "star", 3, 1200, (128, 128), (64, 64), (9e-9, 8e-9), 6200.0, GroundTruthSource.PTYCHI, ["the probe was estimated"]
)


def image(
    perspective: int = 0, kind: MosaicKind = FIRST_PASS, value: float = 0.0, shape: tuple[int, int] = (6, 8)
) -> Mosaic:
    """Return an image whose corner nothing covers."""
    phase = ramp(*shape) / 100 + value
    phase[0, 0] = np.nan
    taken = MosaicStore(kept_perspectives=9, max_bytes=1 << 30).take(
        *mosaic(perspective, kind, np.cos(phase), phase, (-3.0, 5.0))
    )
    assert taken is not None
    return taken


def news(what: Any, time_s: float = 1000.5) -> News:
    return News(what, time_s, SCAN)


@dataclass
class Run:
    """A hub and the service of the outputs, with what they said."""

    sender: TelemetrySender
    folder: Path
    events: list[Telemetry] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        return [one.event.text for one in self.events if isinstance(one.event, WarningRaised)]

    @property
    def last_word(self) -> str:
        said = [one.event for one in self.events if isinstance(one.event, PartStatus) and one.part is Part.OUTPUTS]
        return said[-1].text if said and said[-1].state is PartState.DONE else ""


@contextmanager
def serving(settings: OutputsSettings, network: NetworkSettings, folder: Path) -> Iterator[Run]:
    """Run the outputs within the context; at its end they have said what became of everything."""
    stop = threading.Event()
    events: list[Telemetry] = []
    hub = TelemetryHub(network, jsonl=folder / "telemetry.jsonl", on_event=lambda event, _arrays: events.append(event))
    with closing(hub), closing(TelemetrySender(network, part=Part.EDGE)) as sender:
        run = Run(sender, folder, events)
        service = threading.Thread(
            target=serve_outputs,
            args=(settings,),
            kwargs={"network": network, "run": RunContext("first", folder, 0), "stop": stop},
        )
        service.start()
        try:
            wait_until(lambda: any(one.part is Part.OUTPUTS for one in events))
            _wait_for_fanout(network, sender)
            yield run
        finally:
            stop.set()
            service.join(120)
        assert not service.is_alive()
        wait_until(lambda: bool(run.last_word))


def _wait_for_fanout(network: NetworkSettings, sender: TelemetrySender) -> None:
    """Wait until the hub fans out to who subscribed after the outputs did."""
    with closing(TelemetrySubscriber(network)) as subscriber:

        def heard() -> bool:
            sender.send(EdgeCounts(0, 0, 0, 0.0, 0.0, 0.0))
            return subscriber.receive(0.05) is not None

        wait_until(heard)
