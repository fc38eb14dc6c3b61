"""Where a series begins and ends, as the settings state it: an NTNDArray does not say."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping

from ptychoflow.acquisition.detectors.ntndarray.messages import MAX_TEXT, Began, Ended, Scalar
from ptychoflow.acquisition.detectors.ntndarray.settings import (
    Series,
    SeriesByAcquire,
    SeriesByAttribute,
    SeriesByPause,
)

log = logging.getLogger(__name__)

Notice = Began | Ended


class SeriesRule(ABC):
    """Follows what comes, and says which series it belongs to. Times are those of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self.series: str | None = None
        """The one that is going on."""

    @abstractmethod
    def frame(self, attributes: Mapping[str, Scalar], *, now_s: float) -> tuple[list[Notice], str | None]:
        """Take note of a frame; return what must be said before it, and its series, None where it belongs to none."""

    def pause(self, *, now_s: float) -> list[Notice]:
        """Return what must be said although nothing came."""
        return []

    def _change(self, series: str | None, *, aborted: bool = False) -> list[Notice]:
        """End the series that is going on, and begin one."""
        notices: list[Notice] = [] if self.series is None else [Ended(self.series, aborted)]
        self.series = series
        return notices if series is None else [*notices, Began(series)]


class AcquireRule(SeriesRule):
    """A series lasts while a PV says so.

    It is named by when the PV rose: a receiver that is started again goes on with the same one.
    """

    def __init__(self, settings: SeriesByAcquire) -> None:
        super().__init__()
        self._settle_s = settings.settle_s
        self._acquiring = self._lost = False
        self._last_s = 0.0
        self._outside = 0

    def acquiring(self, on: bool, *, stamp: str, now_s: float) -> list[Notice]:
        """Take note of what the PV says; `stamp` is when it said so by its own clock, "" if that is not known."""
        rose = on and not self._acquiring
        rose_unseen = on and self._acquiring and self._lost and stamp != self.series
        notices = []
        if rose or rose_unseen:
            self._warn_of_haste(now_s - self._last_s)
            self._outside = 0
            notices = self._change(stamp or str(time.time_ns()), aborted=rose_unseen)
        if on != self._acquiring:
            self._last_s = now_s
        self._acquiring, self._lost = on, False
        return notices

    def lost(self) -> None:
        """Take note that the PV is gone: it may change unseen."""
        self._lost = True

    def frame(self, attributes: Mapping[str, Scalar], *, now_s: float) -> tuple[list[Notice], str | None]:
        """Frames that come while nothing is acquired are left out."""
        notices = self.pause(now_s=now_s)
        self._last_s = now_s
        if self.series is None:
            self._outside += 1
            if self._outside == 1:
                log.warning("frames come although nothing is acquired, as the PV says: they are left out")
        return notices, self.series

    def pause(self, *, now_s: float) -> list[Notice]:
        """Return the end, once frames that were on their way have come."""
        settled = not self._acquiring and now_s - self._last_s >= self._settle_s
        return self._change(None) if settled and self.series is not None else []

    def _warn_of_haste(self, since_last_s: float) -> None:
        if self.series is not None and since_last_s < self._settle_s:
            log.warning(
                "a series begins %.2g s after the last frame of the one before, sooner than settle_s = %g: frames on "
                "their way are taken for those of the new one",
                since_last_s,
                self._settle_s,
            )


class AttributeRule(SeriesRule):
    """A series ends when a frame says another one; how long to wait for that is not the connection's business."""

    def __init__(self, settings: SeriesByAttribute) -> None:
        super().__init__()
        self._attribute = settings.attribute
        self._missing = False

    def frame(self, attributes: Mapping[str, Scalar], *, now_s: float) -> tuple[list[Notice], str | None]:
        """Frames without the attribute are left out."""
        value = attributes.get(self._attribute)
        if value is None:
            if not self._missing:
                log.warning("frames come without the attribute %s, which says their series: left out", self._attribute)
            self._missing = True
            return [], None
        series = str(value)[:MAX_TEXT]
        return ([] if series == self.series else self._change(series)), series


class PauseRule(SeriesRule):
    """A series is what comes without a pause; it is named by when its first frame came."""

    def __init__(self, settings: SeriesByPause) -> None:
        super().__init__()
        self._pause_s = settings.pause_s
        self._last_s = 0.0

    def frame(self, attributes: Mapping[str, Scalar], *, now_s: float) -> tuple[list[Notice], str | None]:
        """Every frame belongs to a series."""
        notices = self.pause(now_s=now_s)
        self._last_s = now_s
        return notices + ([] if self.series else self._change(str(time.time_ns()))), self.series

    def pause(self, *, now_s: float) -> list[Notice]:
        """Return the end, once nothing has come for long enough."""
        return self._change(None) if self.series and now_s - self._last_s >= self._pause_s else []


def series_rule(settings: Series) -> AcquireRule | AttributeRule | PauseRule:
    """Return what follows the rule that is set."""
    if isinstance(settings, SeriesByAcquire):
        return AcquireRule(settings)
    return AttributeRule(settings) if isinstance(settings, SeriesByAttribute) else PauseRule(settings)
