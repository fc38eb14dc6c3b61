"""Which files are new in a folder, and whether they still change; their content without following links."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import time
from collections.abc import Collection, Container
from dataclasses import dataclass
from pathlib import Path

from ptychoflow.acquisition.detectors.watched_folder.settings import SeriesBy, WatchedFolderSettings
from ptychoflow.acquisition.readers.natural import natural_order

LAST_NUMBER = re.compile(r"^(.*?)(\d{1,12})(\D*)$", re.DOTALL)
LISTED_AGAIN_S = 2.0
"""A folder is listed again for so long after it was first seen to have changed: time stamps are coarse."""
OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass
class NewFile:
    """A file that has not been taken yet."""

    folder: str
    """Within the watched one; empty for that itself."""
    name: str
    series: str
    number: int
    """In the series."""
    state: tuple[int, int] = (-1, -1)
    """Size and time of the last change, ns."""
    settled_s: float = 0.0
    """When it had this state first, on the monotonic clock."""
    failed: str | None = None
    """Why it could not be read in this state."""

    @property
    def path(self) -> str:
        """From the watched folder on."""
        return f"{self.folder}/{self.name}" if self.folder else self.name


@dataclass
class _Listed:
    """How a folder was when it was listed last."""

    changed_ns: int
    """By the clock of its server, which may be any."""
    since_s: float
    """When it was first seen like this, on the monotonic clock."""
    known: bool = False
    """It need not be listed again until it changes."""


class FolderWatch:
    """Lists a folder again and again.

    Args:
        settings: which folder, and which files in it.

    Raises:
        OSError: there is no such folder, or it cannot be read.
    """

    def __init__(self, settings: WatchedFolderSettings) -> None:
        self._settings = settings
        self._listed: dict[str, _Listed] = {}
        self._known: dict[str, set[str]] = {"": set()}
        """Names in each folder that need not be looked at again."""
        self._new: dict[tuple[str, str], NewFile] = {}
        self._inode: int | None = None
        """Of the watched folder."""
        self._away = False
        """An empty folder is in its place."""
        self._left_out: tuple[Container[tuple[str, str]], int] | None = None
        """What is to be left out once the folder is there; None where it was from the beginning."""
        self.gone: set[str] = set()
        """Folders that were there and are no more, since this was cleared."""
        os.close(os.open(settings.folder, os.O_RDONLY | os.O_DIRECTORY))

    def leave_out(self, told: Container[tuple[str, str]], *, until_ns: int | None) -> tuple[int, int]:
        """Leave out files that are there and were told, or that changed last at `until_ns` or before.

        Args:
            told: their series and names.
            until_ns: None leaves out every file that is there; else a folder that is empty now may have to be mounted
                yet, and the same is left out of another one that comes in its place.

        Returns:
            How many were left out, and when the last of them was changed last.
        """
        self.look()
        if until_ns is not None and not self._known[""]:
            self._away, self._left_out = True, (told, until_ns)
        return self._leave_out(told, until_ns)

    def _leave_out(self, told: Container[tuple[str, str]], until_ns: int | None) -> tuple[int, int]:
        present = [
            file
            for file in self._new.values()
            if (file.series, file.name) in told or until_ns is None or file.state[1] <= until_ns
        ]
        for file in present:
            self.taken(file)
        return len(present), max((file.state[1] for file in present), default=0)

    def look(self) -> list[NewFile]:
        """Return the files that have not been taken and do not change any more, in the order of their last change."""
        self._list("")
        if self._settings.series is SeriesBy.FOLDER:
            for folder in self._folders():
                self._list(folder)
        now_s = time.monotonic()
        for key, file in list(self._new.items()):
            try:
                found = os.lstat(self._settings.folder / file.path)
            except OSError:  # it was moved away before it could be taken
                self._forget(file)
                continue
            if not stat.S_ISREG(found.st_mode):
                del self._new[key]
            elif (state := (found.st_size, found.st_mtime_ns)) != file.state:
                file.state, file.settled_s, file.failed = state, now_s, None
        if self._left_out is not None and not self._away:
            self._leave_out(*self._left_out)
            self._left_out = None
        settled = [file for file in self._new.values() if now_s - file.settled_s >= self._settings.settle_s]
        return sorted(settled, key=lambda file: (file.state[1], natural_order(file.path)))

    def taken(self, file: NewFile) -> None:
        """Do not return a file again."""
        del self._new[file.folder, file.name]

    def read(self, file: NewFile) -> bytes:
        """Return the content of a file.

        Raises:
            ValueError: it is too large.
            OSError: it is gone, is a link, or cannot be read.
        """
        most = self._settings.max_file_bytes
        folder = os.open(self._settings.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if file.folder:
                outer, folder = folder, os.open(file.folder, OPEN_FLAGS | os.O_DIRECTORY, dir_fd=folder)
                os.close(outer)
            with os.fdopen(os.open(file.name, OPEN_FLAGS, dir_fd=folder), "rb") as opened:
                found = os.fstat(opened.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise ValueError("it is no file")
                if found.st_size > most:
                    raise ValueError(f"its {found.st_size} bytes are above max_file_bytes = {most}")
                return opened.read(found.st_size)
        finally:
            os.close(folder)

    def _forget(self, file: NewFile) -> None:
        """Take a file that comes back for a new one."""
        del self._new[file.folder, file.name]
        self._known.get(file.folder, set()).discard(file.name)
        self._listed.pop(file.folder, None)

    def _folders(self) -> list[str]:
        return [folder for folder in self._known if folder]

    def _list(self, folder: str) -> None:
        """Find new files in a folder, and new folders in the watched one."""
        path = self._settings.folder / folder
        try:
            # the watched folder itself may be named by a link
            found, now_s = path.stat(follow_symlinks=not folder), time.monotonic()
            changed_ns = found.st_mtime_ns
            listed = self._listed.get(folder)
            if listed is None or listed.changed_ns != changed_ns:
                listed = _Listed(changed_ns, now_s)
            if listed.known:
                return
            with os.scandir(path) as entries:
                names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except OSError:  # a folder may go away for a while
            return
        if not folder and self._is_away(found.st_ino, names):
            return
        listed.known = now_s - listed.since_s > LISTED_AGAIN_S
        self._listed[folder] = listed
        for name in names.keys() - self._known[folder]:
            self._meet(folder, name, is_folder=names[name])
        self._know(folder, names)

    def _is_away(self, inode: int, names: Collection[str]) -> bool:
        """Whether the watched folder is not there, but what nothing is mounted on; what is back then was there before.

        Args:
            inode: of what is there.
            names: in it.
        """
        another = self._inode not in (None, inode)
        if not names and (another or self._left_out is not None):
            self._away = True
            return True
        if another and self._away:
            self._know("", ())
        if not another:  # it was empty, and there
            self._left_out = None
        self._inode, self._away = inode, False
        return False

    def _know(self, folder: str, names: Collection[str]) -> None:
        self._known[folder] = set(names)
        if not folder:
            gone = [one for one in self._known if one and one not in names]
            for one in gone:
                del self._known[one]
                self._listed.pop(one, None)
                self.gone.add(one)

    def _meet(self, folder: str, name: str, *, is_folder: bool) -> None:
        by_folder = self._settings.series is SeriesBy.FOLDER
        if name.startswith(".") or not name.isprintable():
            return
        if is_folder:
            if by_folder and not folder:
                self._known.setdefault(name, set())
            return
        if by_folder != bool(folder) or not fnmatch.fnmatchcase(name, self._settings.pattern):
            return
        if (file := self._named(folder, name)) is not None:
            self._new[folder, name] = file

    def _named(self, folder: str, name: str) -> NewFile | None:
        if self._settings.series is SeriesBy.FILE:
            return NewFile(folder, name, series=name, number=0)
        if (found := LAST_NUMBER.match(Path(name).stem)) is None:
            return None
        before, number, _ = found.groups()
        return NewFile(folder, name, series=folder or before or "files", number=int(number))
