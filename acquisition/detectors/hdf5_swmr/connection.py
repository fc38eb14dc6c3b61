"""Watches a folder and says what is written into the files in it."""

from __future__ import annotations

import fnmatch
import logging
import os
import threading
import time
from collections.abc import Iterable, Sequence

from ptychoflow.acquisition.detectors.hdf5_swmr.files import Stage, stage_of
from ptychoflow.acquisition.detectors.hdf5_swmr.followed_file import FollowedFile
from ptychoflow.acquisition.detectors.hdf5_swmr.messages import Message, begins, encode
from ptychoflow.acquisition.detectors.hdf5_swmr.settings import Hdf5SwmrSettings
from ptychoflow.acquisition.detectors.interface import POLL_S, Connection, Deliver, Part
from ptychoflow.streaming.errors import UserError

log = logging.getLogger(__name__)


class Hdf5SwmrConnection(Connection):
    """Follows one file after the other. Positions are in the messages; of frames, they say where they are."""

    def __init__(self, settings: Hdf5SwmrSettings) -> None:
        self._settings = settings
        self._known: set[str] = set()
        self._waiting: list[str] = []

    def drain(self, deliver: Deliver, stop: threading.Event) -> None:
        """Deliver what is written, until `stop` is set.

        Raises:
            UserError: there is no such folder.
        """
        folder = self._settings.folder
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder; make it, or name the one that files are written into")
        self._look()
        if not self._settings.earlier_files:
            self._leave_out_earlier()
        while not stop.is_set():
            if self._waiting:
                self._follow(self._waiting.pop(0), deliver, stop)
            else:
                stop.wait(POLL_S)
            self._look()

    @staticmethod
    def begins_series(parts: Sequence[Part]) -> bool:
        """Whether a file is there."""
        return begins(parts)

    def _leave_out_earlier(self) -> None:
        folder, settle_s, there = self._settings.folder, self._settings.settle_s, len(self._waiting)
        stages = {name: stage_of(folder / name, settle_s=settle_s) for name in self._waiting}
        self._waiting = [name for name in self._waiting if stages[name] is not Stage.WRITTEN]
        log.info("%s: %d files that were written before are left out", folder, there - len(self._waiting))

    def _follow(self, name: str, deliver: Deliver, stop: threading.Event) -> None:
        log.info("%s: this file is followed", self._settings.folder / name)
        grew_s = time.monotonic()
        with FollowedFile(self._settings, name) as followed:
            while not followed.over and not stop.is_set():
                if self._tell(followed.advance(), deliver):
                    grew_s = time.monotonic()
                elif time.monotonic() - grew_s < self._settings.quiet_s or not self._look():
                    stop.wait(POLL_S)
                else:
                    self._tell(followed.give_up(), deliver)

    def _tell(self, messages: Iterable[Message], deliver: Deliver) -> bool:
        told = False
        for message in messages:
            deliver([encode(message)])
            told = True
        return told

    def _look(self) -> bool:
        """Put new files behind those that wait, in the order of their last change; return whether any wait."""
        names, new = set(), []
        try:
            with os.scandir(self._settings.folder) as entries:
                for entry in entries:
                    fits = entry.name.isprintable() and fnmatch.fnmatchcase(entry.name, self._settings.pattern)
                    if fits and entry.is_file():
                        names.add(entry.name)
                        if entry.name not in self._known:
                            new.append((entry.stat().st_mtime_ns, entry.name))
        except OSError as error:  # a folder may go away for a while, and a file at any moment
            log.debug("%s: %s", self._settings.folder, error)
            return bool(self._waiting)
        self._known = names
        self._waiting += [name for _, name in sorted(new)]
        return bool(self._waiting)
