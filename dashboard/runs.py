"""The runs that can be looked at: the one that is watched, and those whose folders lie beside its own."""

from __future__ import annotations

import logging
import re
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ptychoflow.dashboard import models
from ptychoflow.dashboard.archive import ImageArchive, Images
from ptychoflow.dashboard.cache import Cache
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.state import DashboardState
from ptychoflow.streaming.codec import UNREADABLE
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import Whole
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.telemetry_log import TelemetryLog, log_identity

log = logging.getLogger(__name__)

NAME_PATTERN = r"^[^./][^/]{0,199}$"
"""Of folders, which people may have renamed."""
NAME_BYTES = 255
RUNS_LISTED = 200
RUNS_KEPT = 2


class _Frames(msgspec.Struct, frozen=True):
    acquired: Whole | None = None


class _Figures(msgspec.Struct, frozen=True):
    phase: float | None = None


class _HeldOut(msgspec.Struct, frozen=True):
    psnr_db: _Figures = _Figures()


class _Summary(msgspec.Struct, frozen=True):
    """What of a `summary.json` is shown in the list of runs."""

    frames: _Frames = _Frames()
    held_out: _HeldOut | None = None


@dataclass(frozen=True)
class Run:
    """A run to look at."""

    state: DashboardState
    archive: ImageArchive

    def images(self, perspective: int) -> Images:
        """Return a perspective's images of each kind: the newest at hand, or else the one in the run's folder.

        Blocks while a file is read.
        """
        return self.archive.of(perspective) | self.state.images(perspective)

    def perspectives(self) -> list[int]:
        """Return the perspectives that have images, at hand or in the run's folder, in order."""
        return sorted({*self.archive.perspectives(), *self.state.pictured()})

    def newest_perspective(self) -> int | None:
        """Return the newest perspective that has images, or None."""
        return max(self.perspectives(), default=None)


class Runs:
    """Opens runs by name. Thread-safe.

    Args:
        watched: state of the run that is watched.
        folder: its folder.
        settings: how much to keep of an earlier run.
    """

    def __init__(self, watched: DashboardState, folder: RunFolder, settings: DashboardSettings) -> None:
        self._watched = Run(watched, ImageArchive(folder))
        self._path = folder.path.resolve()
        self._settings = settings
        self._opened: Cache[_Earlier] = Cache(RUNS_KEPT)

    @property
    def watched(self) -> Run:
        """The run that this dashboard was started for."""
        return self._watched

    def all(self) -> list[models.RunRow]:
        """Return the newest runs, newest first."""
        beside = map(RunFolder, self._path.parent.glob("*/"))
        found = [(folder, _changed_s(folder)) for folder in beside if _may_be_named(folder.path.name)]
        runs = [(folder, changed_s) for folder, changed_s in found if changed_s is not None]
        newest = sorted(runs, key=lambda run: run[1], reverse=True)[:RUNS_LISTED]
        return [self._row(folder, changed_s) for folder, changed_s in newest]

    def open(self, name: str | None) -> Run | None:
        """Return a run, or None where there is none of this name; None means the run that is watched.

        Blocks while the telemetry of an earlier run is read, or what has come to it: it may be one that others watch.

        Raises:
            UserError: another version of the program wrote its telemetry, or it cannot be read.
        """
        if name is None or name == self._watched.state.run:
            return self._watched
        if not _may_be_named(name):
            return None
        folder = RunFolder(self._path.parent / name)
        if _changed_s(folder) is None:
            return None
        try:
            key = name, log_identity(folder.telemetry)
            return self._opened.get(key, lambda: _Earlier(folder, self._settings)).as_it_is_now()
        except OSError as error:
            raise _unreadable(folder, error) from error

    def _row(self, folder: RunFolder, changed_s: float) -> models.RunRow:
        watched = folder.path == self._path
        summary = _summary(folder.summary)
        return models.RunRow(
            name=folder.path.name,
            watched=watched,
            live=watched and self._watched.state.live,
            changed_s=changed_s,
            frames=summary.frames.acquired,
            psnr_phase_db=summary.held_out.psnr_db.phase if summary.held_out else None,
        )


class _Earlier:
    """A run that is read from its folder. Thread-safe."""

    def __init__(self, folder: RunFolder, settings: DashboardSettings) -> None:
        self._run = Run(DashboardState(folder.path.name, settings, live=False), ImageArchive(folder))
        self._telemetry = TelemetryLog(folder.telemetry)
        self._lock = threading.Lock()

    def as_it_is_now(self) -> Run:
        """Return the run, once what its telemetry holds beyond what was read of it is read too."""
        with self._lock:
            for telemetry in self._telemetry:
                self._run.state.apply(telemetry)
        return self._run


def read_run(folder: RunFolder, settings: DashboardSettings) -> DashboardState:
    """Return the state of an earlier run from the telemetry in its folder. Blocks while that is read.

    Raises:
        UserError: another version of the program wrote it, or it cannot be read.
    """
    try:
        return _Earlier(folder, settings).as_it_is_now().state
    except OSError as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: RunFolder, error: OSError) -> UserError:
    return UserError(f"{folder.telemetry} cannot be read: {error.strerror}; its owner can let others read it")


def _may_be_named(name: str) -> bool:
    """Whether a folder can have this name and be asked for by it; one that is no UTF-8, say, fits into no answer."""
    return name.isprintable() and re.fullmatch(NAME_PATTERN, name) is not None and len(name.encode()) <= NAME_BYTES


def _changed_s(folder: RunFolder) -> float | None:
    """Return when the telemetry of a run changed last; None where there is none, or the folder is not for us to see."""
    try:
        found = folder.telemetry.stat()
    except OSError:  # a folder may also go away at any moment
        return None
    return found.st_mtime if stat.S_ISREG(found.st_mode) else None


def _summary(path: Path) -> _Summary:
    """Return what is listed of a summary; of none, while the run goes on or where it cannot be read, nothing."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Summary)
    except FileNotFoundError:
        return _Summary()
    except (OSError, *UNREADABLE) as error:
        log.warning("cannot read %s: %s", path, error)
        return _Summary()
