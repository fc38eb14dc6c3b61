"""Drains a channel of NTNDArrays."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from ptychoflow.acquisition.detectors.interface import POLL_S, Connection, Deliver, Part
from ptychoflow.acquisition.detectors.ntndarray.messages import (
    MAX_ATTRIBUTES,
    MAX_TEXT,
    Began,
    Frame,
    Scalar,
    decode,
    encode,
)
from ptychoflow.acquisition.detectors.ntndarray.series import AcquireRule, Notice, series_rule
from ptychoflow.acquisition.detectors.ntndarray.settings import NtndarraySettings, SeriesByAcquire
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.libraries import library, require_library

log = logging.getLogger(__name__)

NTNDARRAY = "epics:nt/NTNDArray:"
NANOSECONDS = 1_000_000_000
Update = tuple[str, Any]
"""The name of a PV, and its new value or what became of it."""


class NtndarrayConnection(Connection):
    """Subscribes to the frames, and to the PV that says when a series begins where one is set.

    What a channel holds when it is first seen is the last frame of before: it is left out unless it is newer than the
    subscription or the series. Pixels are handed on without a copy.

    Raises:
        UserError: p4p is not installed.
    """

    def __init__(self, settings: NtndarraySettings) -> None:
        require_library("p4p", extra="epics")
        self._settings = settings
        self._rule = series_rule(settings.series)
        self._named = _named_attributes(settings)
        self._since_ns = 0
        self._first = True
        self._again = False
        self._last: tuple[int, int] | None = None
        """Number and time of the newest frame."""

    def drain(self, deliver: Deliver, stop: threading.Event) -> None:
        """Deliver until `stop` is set. Raises `UserError` where the channel holds no NTNDArray."""
        with closing(_Subscriptions(self._settings)) as updates:
            if isinstance(self._settings.series, SeriesByAcquire):
                updates.watch(self._settings.series.pv)
            else:
                self._watch_frames(updates)
            while not stop.is_set():
                try:
                    name, value = updates.next(POLL_S / 2)
                except Empty:
                    self._tell(self._rule.pause(now_s=time.monotonic()), deliver)
                    continue
                if isinstance(value, Exception):
                    self._note_loss(name, value)
                elif name == self._settings.pv:
                    self._take_frame(value, deliver)
                else:
                    self._take_acquire(value, deliver)
                    # frames are asked for once it is known whether a series is going on
                    self._watch_frames(updates)

    @staticmethod
    def begins_series(parts: Sequence[Part]) -> bool:
        """Whether this message begins a series."""
        try:
            return isinstance(decode(parts), Began)
        except ValueError:
            return False

    def _watch_frames(self, updates: _Subscriptions) -> None:
        if self._settings.pv not in updates.watched:
            self._since_ns = self._since_ns or time.time_ns()
            updates.watch(self._settings.pv)

    def _note_loss(self, name: str, error: Exception) -> None:
        """Log it; p4p connects again by itself."""
        if type(error).__name__ != "Disconnected":
            log.warning("%s: %s", name, error)
        elif name == self._settings.pv and self._last is None:
            log.info("%s is not there yet", name)
        else:
            log.warning("%s is gone; waiting for it", name)
        if name == self._settings.pv:
            self._again = True
        elif isinstance(self._rule, AcquireRule):
            self._rule.lost()

    def _take_acquire(self, value: Any, deliver: Deliver) -> None:
        if not isinstance(self._rule, AcquireRule):
            return
        stamp_ns = _stamp_ns(value)
        on = _is_on(value)
        if on and self._first:
            self._since_ns = stamp_ns
        notices = self._rule.acquiring(on, stamp=str(stamp_ns) if stamp_ns else "", now_s=time.monotonic())
        self._tell(notices, deliver)

    def _take_frame(self, value: Any, deliver: Deliver) -> None:
        if not value.getID().startswith(NTNDARRAY):
            raise UserError(f"{self._settings.pv} is no NTNDArray but {value.getID()}; name the channel of NDPluginPva")
        if not value.dimension or value.value is None:
            self._first = False  # a channel that has seen no frame yet
            return
        if self._is_old(value):
            return
        attributes = _attributes(value, self._named)
        notices, series = self._rule.frame(attributes, now_s=time.monotonic())
        self._tell(notices, deliver)
        if series is not None:
            deliver(_parts(value, series, attributes))

    def _is_old(self, value: Any) -> bool:
        first, again = self._first, self._again
        self._first = self._again = False
        stamp_ns = _stamp_ns(value)
        last, self._last = self._last, (value.uniqueId, stamp_ns)
        if first and stamp_ns < self._since_ns:
            log.info("frame %d was there before: left out", value.uniqueId)
            return True
        return again and self._last == last

    @staticmethod
    def _tell(notices: list[Notice], deliver: Deliver) -> None:
        for notice in notices:
            log.info("series %s %s", notice.series, "begins" if isinstance(notice, Began) else "has ended")
            deliver([encode(notice)])


class _Subscriptions:
    """A client of PvAccess, whose updates come one by one and in order."""

    def __init__(self, settings: NtndarraySettings) -> None:
        client, util = (library(name, extra="epics") for name in ("p4p.client.thread", "p4p.util"))
        self.watched: dict[str, Any] = {}
        """Subscriptions by name; one that nobody holds ends."""
        self._request = f"record[queueSize={settings.queue_updates}]field()"
        self._updates: SimpleQueue[Update] = SimpleQueue()
        # of one worker: with several, updates of two PVs overtake each other
        self._work = util.WorkQueue(maxsize=0)
        self._worker = threading.Thread(target=self._work.handle, name="pvaccess", daemon=True)
        self._worker.start()
        self._client = client.Context("pva", conf=_where(settings.servers), useenv=not settings.servers, nt=False)

    def watch(self, name: str) -> None:
        log.info("subscribing to %s", name)

        def take(value: Any) -> None:
            self._updates.put((name, value))

        self.watched[name] = self._client.monitor(
            name, take, request=self._request, notify_disconnect=True, queue=self._work
        )

    def next(self, timeout_s: float) -> Update:
        return self._updates.get(timeout=timeout_s)

    def close(self) -> None:
        for subscription in self.watched.values():
            subscription.close()
        self._client.close()
        self._work.interrupt()
        self._worker.join()


def _where(servers: Sequence[str]) -> dict[str, str] | None:
    """Return where servers are asked for a channel: over TCP, which only new ones answer, and over UDP."""
    if not servers:
        return None
    hosts = [re.sub(r":\d+$", "", server) for server in servers]
    return {
        "EPICS_PVA_NAME_SERVERS": " ".join(servers),
        "EPICS_PVA_ADDR_LIST": " ".join(hosts),
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
    }


def _named_attributes(settings: NtndarraySettings) -> frozenset[str]:
    positions = settings.positions
    names = (
        getattr(settings.series, "attribute", None),
        settings.number_attribute,
        settings.angle_attribute,
        settings.energy_attribute,
        *((positions.y, positions.x) if positions else ()),
    )
    return frozenset(name for name in names if name is not None)


def _is_on(value: Any) -> bool:
    """Whether a PV, a number or an enumeration, is not 0."""
    state = value.value
    # a list has an `index` too
    number = state if isinstance(state, int | float) else getattr(state, "index", None)
    if not isinstance(number, int | float):
        raise UserError(f"source.series.pv names no PV of one number, but one of {type(state).__name__}: name another")
    return bool(number)


def _stamp_ns(value: Any) -> int:
    """Return when a PV says that its value was taken, 0 where it does not."""
    if "timeStamp" not in value:
        return 0
    return int(value.timeStamp.secondsPastEpoch) * NANOSECONDS + int(value.timeStamp.nanoseconds)


def _attributes(value: Any, named: frozenset[str]) -> dict[str, Scalar]:
    """Return attributes that are one number or text in UTF-8: those that the settings name, others up to a bound."""
    found: dict[str, Scalar] = {}
    for attribute in value.attribute:
        try:
            name, content = attribute.name[:MAX_TEXT], attribute.value
        except UnicodeDecodeError:  # drivers write a text as they have it, such as a unit in Latin-1
            continue
        if name not in named and len(found) >= MAX_ATTRIBUTES:
            continue
        if isinstance(content, str):
            found[name] = content[:MAX_TEXT]
        elif isinstance(content, int | float):
            found[name] = content
    return found


def _parts(value: Any, series: str, attributes: dict[str, Scalar]) -> list[Part]:
    pixels = np.ascontiguousarray(value.value)
    parameters = value.codec.parameters
    header = Frame(
        series=series,
        unique_id=value.uniqueId,
        sizes_px=[dimension.size for dimension in value.dimension],
        dtype=pixels.dtype.str,
        codec=value.codec.name[:MAX_TEXT],
        codec_type=parameters if isinstance(parameters, int) else None,
        uncompressed_bytes=value.uncompressedSize,
        attributes=attributes,
    )
    return [encode(header), pixels.data.cast("B")]
