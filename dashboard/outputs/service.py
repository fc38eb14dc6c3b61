"""Runs the outputs of a run: telemetry in, images and scores out."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ptychoflow.dashboard.mosaics import MosaicStore
from ptychoflow.dashboard.outputs.choice import open_outputs
from ptychoflow.dashboard.outputs.delivery import Delivery
from ptychoflow.dashboard.outputs.news import News
from ptychoflow.dashboard.outputs.settings import OutputsSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import (
    HeldOutScores,
    MosaicArea,
    MosaicImage,
    Part,
    PartState,
    PartStatus,
    PerspectiveScores,
    ScanInfo,
    Telemetry,
    WarningRaised,
)
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.streaming.telemetry import TelemetrySender, TelemetrySubscriber
from ptychoflow.streaming.telemetry_log import TelemetryLog

log = logging.getLogger(__name__)

POLL_S = 0.1
SUBSCRIBED_S = 3.0
"""A subscription takes a moment to reach the hub; by now it has."""
LAST_WORDS_S = 1.0
LAST_DELIVERIES_S = 4.0
"""How long the end of a run waits for consumers; parts are killed some seconds later."""
KEPT_PERSPECTIVES = 4
"""Whose images can be completed by what changed of them."""
KEPT_BYTES = 1 << 29


def serve_outputs(
    settings: OutputsSettings, *, network: NetworkSettings, run: RunContext, stop: threading.Event
) -> None:
    """Deliver images and scores of a run to all outputs until `stop` is set. Blocks.

    Then what waits still has a few seconds to leave. What became of everything is logged and reported.

    Raises:
        UserError: nothing is switched on, a library is missing, or an address cannot be listened on.
        RuntimeError: an output has failed otherwise than by the absence of its consumer; the others went on.
    """
    if not settings.chosen:
        raise UserError("[outputs] names no output: there is nothing to do; --set outputs.ntndarray.prefix=PTYCHO: ...")
    with (
        closing(TelemetrySubscriber(network)) as subscriber,
        closing(TelemetrySender(network, part=Part.OUTPUTS)) as sender,
    ):

        def warn(text: str) -> None:
            sender.send(WarningRaised(text))

        deliveries = [Delivery(output, warn=warn) for output in open_outputs(settings, run=run)]
        distributor = Distributor(deliveries, run.folder.telemetry, warn=warn)
        sender.send(PartStatus(PartState.RUNNING, ", ".join(settings.chosen)))
        _distribute(distributor, subscriber, stop)
        _end(deliveries)
        said = "; ".join(delivery.describe() for delivery in deliveries)
        log.info("%s", said)
        for delivery in deliveries:
            if delivery.lost:
                warn(f"output {delivery.describe()}")
        for delivery in deliveries:
            if delivery.failure is not None:
                raise RuntimeError(f"output {delivery.name} failed: {delivery.failure}") from delivery.failure
        sender.send(PartStatus(PartState.DONE, said))


class Distributor:
    """Makes news of telemetry and gives them to every output.

    Args:
        deliveries: who gets them.
        history: telemetry so far, which tells what is being scanned to who came later.
        warn: told once that an output has failed.
    """

    def __init__(self, deliveries: Sequence[Delivery], history: Path, *, warn: Callable[[str], None]) -> None:
        self._deliveries, self._warn = deliveries, warn
        self._failed: set[str] = set()
        self._history_path, self._history = history, TelemetryLog(history)
        self._mosaics = MosaicStore(kept_perspectives=KEPT_PERSPECTIVES, max_bytes=KEPT_BYTES)
        self._scan: ScanInfo | None = None

    def take(self, telemetry: Telemetry, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take in one event; never waits for a consumer."""
        match telemetry.event:
            case ScanInfo() as scan:
                self._scan = scan
            case MosaicImage() | MosaicArea() as event:
                if (mosaic := self._mosaics.take(event, arrays)) is not None:
                    self._tell(News(mosaic, telemetry.time_s, self._scan))
            case PerspectiveScores() | HeldOutScores() as scores:
                self._tell(News(scores, telemetry.time_s, self._scan))

    def look_back(self) -> None:
        """Find out what is being scanned from the telemetry of before, if nothing has told it since."""
        if self._scan is not None or not self._history_path.exists():
            return
        try:
            scans = [one.event for one in self._history if isinstance(one.event, ScanInfo)]
        except UserError as error:
            log.warning("outputs will not say what is scanned: %s", error)
            return
        self._scan = scans[-1] if scans else None

    def tell_failures(self) -> None:
        """Say, once, that an output has failed; the others go on."""
        for delivery in self._deliveries:
            if delivery.failure is not None and delivery.name not in self._failed:
                self._failed.add(delivery.name)
                self._warn(f"output {delivery.name} failed and gets nothing more: {delivery.failure}")

    def _tell(self, news: News) -> None:
        for delivery in self._deliveries:
            delivery.put(news)


def _distribute(distributor: Distributor, subscriber: TelemetrySubscriber, stop: threading.Event) -> None:
    subscribed_at_s: float | None = time.monotonic() + SUBSCRIBED_S
    while not stop.is_set():
        _take(distributor, subscriber)
        distributor.tell_failures()
        if subscribed_at_s is not None and time.monotonic() > subscribed_at_s:
            distributor.look_back()
            subscribed_at_s = None
    deadline_s = time.monotonic() + LAST_WORDS_S
    while _take(distributor, subscriber) and time.monotonic() < deadline_s:
        pass


def _take(distributor: Distributor, subscriber: TelemetrySubscriber) -> bool:
    received = subscriber.receive(POLL_S)
    if received is not None:
        distributor.take(received.body, received.arrays)
    return received is not None


def _end(deliveries: Sequence[Delivery]) -> None:
    """Give all outputs together a few seconds to deliver what waits."""
    for delivery in deliveries:
        delivery.stop()
    deadline_s = time.monotonic() + LAST_DELIVERIES_S
    for delivery in deliveries:
        if not delivery.join(max(0.0, deadline_s - time.monotonic())):
            log.warning("output %s does not end: its consumer does not answer", delivery.name)
