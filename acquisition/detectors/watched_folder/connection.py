"""Watches a folder and delivers the files that are written into it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ptychoflow.acquisition.detectors.interface import POLL_S, Connection, Deliver, Part
from ptychoflow.acquisition.detectors.watched_folder.contents import frames_in
from ptychoflow.acquisition.detectors.watched_folder.files import FolderWatch, NewFile
from ptychoflow.acquisition.detectors.watched_folder.messages import (
    MAX_HEAD_BYTES,
    MESSAGES,
    FileCame,
    FileUnusable,
    SeriesClosed,
    SeriesOpened,
    WatchBegan,
    decode,
    encode,
)
from ptychoflow.acquisition.detectors.watched_folder.settings import SeriesBy, WatchedFolderSettings
from ptychoflow.streaming.errors import UserError

log = logging.getLogger(__name__)

SERIES_REMEMBERED = 64


@dataclass
class _Delivered:
    """What was delivered of a series."""

    names: set[str] = field(default_factory=set)
    """Of its files."""
    closed: bool = False
    gone: bool = False
    """Its folder is there no more."""


class WatchedFolderConnection(Connection):
    """Delivers every file that is whole, as it is."""

    def __init__(self, settings: WatchedFolderSettings) -> None:
        self._settings = settings
        self._delivered: dict[str, _Delivered] = {}
        """Of the last series."""
        self._told: set[tuple[str, str]] = set()
        """Series and names of files that were recalled."""
        self._left_out_ns: int | None = None
        """When the last of the files that are left out was changed last."""

    recalls = True

    def recall(self, parts: Sequence[Part]) -> None:
        """Take in which files were delivered."""
        try:
            message = decode(parts)
        except ValueError:
            return
        match message:
            case WatchBegan(newest_ns=newest_ns):
                self._left_out_ns = newest_ns
            case SeriesOpened(series=series, folder_is_new=folder_is_new):
                if folder_is_new:
                    self._told = {told for told in self._told if told[0] != series}
                self._open(series)
            case FileCame(series=series, name=name):
                self._told.add((series, name))
                self._of(series).names.add(name)
            case SeriesClosed(series=series):
                self._of(series).closed = True

    def drain(self, deliver: Deliver, stop: threading.Event) -> None:
        """Deliver what is written, until `stop` is set.

        Raises:
            UserError: there is no such folder.
        """
        folder = self._settings.folder
        try:
            watch = FolderWatch(self._settings)
        except OSError as error:
            raise UserError(
                f"{folder}: {error.strerror}; make this folder, or name the one that files are written into"
            ) from error
        self._leave_out_earlier(watch, deliver)
        while not stop.is_set():
            began_s = time.monotonic()
            files = watch.look()
            looked_s = time.monotonic() - began_s
            self._note_gone(watch)
            for file in files:
                self._take(watch, file, deliver)
                if stop.is_set():
                    return
            stop.wait(max(POLL_S, looked_s))  # large folders take long to list

    @staticmethod
    def begins_series(parts: Sequence[Part]) -> bool:
        """Whether this is the first file of a series."""
        return MESSAGES.is_a(SeriesOpened, parts, most_bytes=MAX_HEAD_BYTES)

    def _leave_out_earlier(self, watch: FolderWatch, deliver: Deliver) -> None:
        until_ns = -1 if self._settings.earlier_files else self._left_out_ns
        count, newest_ns = watch.leave_out(self._told, until_ns=until_ns)
        if until_ns is None:
            deliver([encode(WatchBegan(newest_ns))])
        log.info("%s: %d files that were there before are left out", self._settings.folder, count)
        self._told = set()  # the watch may need those

    def _open(self, series: str) -> _Delivered:
        self._delivered.pop(series, None)
        self._delivered[series] = delivered = _Delivered()
        if len(self._delivered) > SERIES_REMEMBERED:
            del self._delivered[next(iter(self._delivered))]
        return delivered

    def _of(self, series: str) -> _Delivered:
        return self._delivered.get(series) or self._open(series)

    def _note_gone(self, watch: FolderWatch) -> None:
        for folder in watch.gone:
            if (delivered := self._delivered.get(folder)) is not None:
                delivered.gone = True
        watch.gone.clear()

    def _take(self, watch: FolderWatch, file: NewFile, deliver: Deliver) -> None:
        """Deliver a file that does not change any more, if it is whole."""
        if file.failed is None:
            try:
                content = watch.read(file)
                self._check(file, content)
            except (ValueError, OSError) as error:
                file.failed = str(error)
            else:
                watch.taken(file)
                self._deliver(file, content, deliver)
                return
        if time.monotonic() - file.settled_s >= self._settings.unreadable_s:
            watch.taken(file)
            deliver([encode(FileUnusable(file.path[-255:], file.failed[:300]))])

    def _check(self, file: NewFile, content: bytes) -> None:
        by_file = self._settings.series is SeriesBy.FILE
        most = len(content) if by_file else self._settings.frames_per_file
        frames_in(content, file.name, most_frames=most, max_frame_px=self._settings.max_frame_px)

    def _deliver(self, file: NewFile, content: bytes, deliver: Deliver) -> None:
        series = file.series
        delivered = self._delivered.get(series)
        # a file is taken once: one of the same name is of another series
        if delivered is None or delivered.gone or file.name in delivered.names:
            if delivered is not None and not delivered.closed:
                deliver([encode(SeriesClosed(series, complete=False))])
            folder_is_new = delivered is not None and delivered.gone
            delivered = self._open(series)
            deliver([encode(SeriesOpened(series, folder_is_new))])
        deliver([encode(FileCame(series, file.name, file.number)), content])
        delivered.names.add(file.name)
        last = 1 if self._settings.series is SeriesBy.FILE else self._settings.files_per_series
        if len(delivered.names) == last:
            delivered.closed = True
            deliver([encode(SeriesClosed(series))])
