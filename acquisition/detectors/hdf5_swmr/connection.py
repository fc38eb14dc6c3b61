"""Watches a folder and says what is written into the files in it."""

from __future__ import annotations

import fnmatch
import logging
import os
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ptychoflow.acquisition.detectors.hdf5_swmr.files import Stage, stage_of
from ptychoflow.acquisition.detectors.hdf5_swmr.followed_file import GONE, FollowedFile, Told
from ptychoflow.acquisition.detectors.hdf5_swmr.messages import (
    FileBegan,
    FileEnded,
    FileUnusable,
    FramesWritten,
    Message,
    PositionsWritten,
    WatchBegan,
    begins,
    decode,
    encode,
)
from ptychoflow.acquisition.detectors.hdf5_swmr.settings import Hdf5SwmrSettings
from ptychoflow.acquisition.detectors.interface import POLL_S, Connection, Deliver, Part
from ptychoflow.streaming.errors import UserError

log = logging.getLogger(__name__)

NUMBER_BYTES = 8
"""In the message about positions."""


class _State(NamedTuple):
    """What tells a file from another one that comes under its name."""

    inode: int
    size: int
    changed_ns: int


class Hdf5SwmrConnection(Connection):
    """Follows one file after the other. Positions are in the messages; of frames, they say where they are."""

    def __init__(self, settings: Hdf5SwmrSettings) -> None:
        self._settings = settings
        self._known: set[str] = set()
        self._waiting: list[str] = []
        self._done: dict[str, _State] = {}
        """Of files that are read or left out, as they were: one that is moved away and back is not another one."""
        self._told: dict[str, Told] = {}
        """Of files that were recalled."""
        self._left_out_ns: int | None = None
        """When the last of the files that are left out was changed last."""

    recalls = True

    def recall(self, parts: Sequence[Part]) -> None:
        """Take in how far files were told."""
        try:
            message = decode(parts[0])
        except (ValueError, IndexError):
            return
        if isinstance(message, WatchBegan):
            self._left_out_ns = message.newest_ns
            return
        told = self._told.setdefault(message.name, Told())
        match message:
            case FileBegan():  # it is said once of a file, so that this may be another one of the same name
                self._told[message.name] = Told(begun=True)
            case FramesWritten():
                told.frames = message.first + message.count
            case PositionsWritten():
                told.positions += len(message.numbers) // NUMBER_BYTES
            case FileUnusable(gone=True):
                pass
            case FileEnded() | FileUnusable():
                told.over = True

    def drain(self, deliver: Deliver, stop: threading.Event) -> None:
        """Deliver what is written, until `stop` is set.

        Raises:
            UserError: there is no such folder.
        """
        folder = self._settings.folder
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder; make it, or name the one that files are written into")
        self._look()
        empty_inode = None if self._known else _inode_of(folder)
        self._leave_out_told(deliver)
        while not stop.is_set():
            if self._waiting:
                name = self._waiting.pop(0)
                if name in self._known:
                    self._follow(name, deliver, stop)
                else:  # followed now, it would be followed again as one that came back
                    deliver([encode(FileUnusable(name, GONE, gone=True))])
            else:
                stop.wait(POLL_S)
            self._look()
            if empty_inode is not None and self._known:
                if _inode_of(folder) != empty_inode:  # it was not mounted yet
                    self._leave_out_told(deliver)
                else:
                    self._forget_all_but((), deliver)
                empty_inode = None

    @staticmethod
    def begins_series(parts: Sequence[Part]) -> bool:
        """Whether a file is there."""
        return begins(parts)

    def _leave_out_told(self, deliver: Deliver) -> None:
        self._leave_out({name for name, told in self._told.items() if told.over})
        if not self._settings.earlier_files:
            self._leave_out_earlier(deliver)
        if self._known:  # else the folder may have to be mounted yet
            self._forget_all_but(self._known, deliver)

    def _forget_all_but(self, there: Collection[str], deliver: Deliver) -> None:
        """Forget files that are over, and those that are not there: what comes under their names is another one."""
        for name, told in list(self._told.items()):
            if told.over or name not in there:
                del self._told[name]
                if told.begun and not told.over:
                    deliver([encode(FileEnded(name, complete=False))])

    def _leave_out_earlier(self, deliver: Deliver) -> None:
        folder, settle_s = self._settings.folder, self._settings.settle_s
        untold = [name for name in self._waiting if name not in self._told]
        written_ns = {
            name: _changed_ns(folder / name)
            for name in untold
            if stage_of(folder / name, settle_s=settle_s) in {Stage.CLOSED, Stage.WRITTEN}
        }
        if self._left_out_ns is None:
            self._left_out_ns = max(written_ns.values(), default=0)
            deliver([encode(WatchBegan(self._left_out_ns))])
        left_out = {name for name, changed_ns in written_ns.items() if changed_ns <= self._left_out_ns}
        self._leave_out(left_out)
        log.info("%s: %d files that were written before are left out", folder, len(left_out))

    def _leave_out(self, names: Collection[str]) -> None:
        for name in self._waiting:
            if name in names:
                self._note_done(name)
        self._waiting = [name for name in self._waiting if name not in names]

    def _note_done(self, name: str) -> None:
        try:
            self._done[name] = _state_of((self._settings.folder / name).stat())
        except OSError as error:  # one that is moved away before it was read to its end is another one when it is back
            log.debug("%s: %s", name, error)

    def _follow(self, name: str, deliver: Deliver, stop: threading.Event) -> None:
        log.info("%s: this file is followed", self._settings.folder / name)
        grew_s = time.monotonic()
        with FollowedFile(self._settings, name, self._told.pop(name, Told())) as followed:
            while not followed.over and not stop.is_set():
                if self._tell(followed.advance(), deliver):
                    grew_s = time.monotonic()
                elif followed.closed or time.monotonic() - grew_s < self._settings.quiet_s or not self._look():
                    stop.wait(POLL_S)
                else:
                    self._tell(followed.give_up(), deliver)
            if followed.gone:
                self._known.discard(name)  # it may be back before the folder is looked at again
            elif followed.over:
                self._note_done(name)

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
                    if not fits or not entry.is_file():
                        continue
                    if entry.name not in self._known:
                        try:
                            found = entry.stat()
                        except FileNotFoundError:  # a file may go away at any moment
                            continue
                        if self._done.get(entry.name) != _state_of(found):
                            new.append((found.st_mtime_ns, entry.name))
                    names.add(entry.name)
        except OSError as error:  # a folder may go away for a while
            log.debug("%s: %s", self._settings.folder, error)
            return bool(self._waiting)
        self._known = names
        # one that waits may have been moved away and be back
        self._waiting += [name for _, name in sorted(new) if name not in self._waiting]
        return bool(self._waiting)


def _state_of(found: os.stat_result) -> _State:
    return _State(found.st_ino, found.st_size, found.st_mtime_ns)


def _inode_of(folder: Path) -> int | None:
    try:
        return folder.stat().st_ino
    except OSError:
        return None


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
