"""Open a scan source, files or a simulation; and a probe that is given, which may be in such files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.position_check import is_scrap
from ptychoflow.acquisition.preprocess import FilePerspective
from ptychoflow.acquisition.readers.assembling import assemble
from ptychoflow.acquisition.readers.choosing import choose_reader
from ptychoflow.acquisition.readers.contents import FileContents
from ptychoflow.acquisition.readers.hdf5 import damage_told
from ptychoflow.acquisition.readers.natural import natural_order
from ptychoflow.acquisition.readers.numpy_arrays import mapped_array
from ptychoflow.acquisition.readers.outside import links_allowed_to
from ptychoflow.acquisition.readers.positions import as_seen, read_positions
from ptychoflow.acquisition.readers.probes import to_modes
from ptychoflow.acquisition.readers.reader import ScanFiles
from ptychoflow.acquisition.readers.stored import StoredPerspective, check
from ptychoflow.acquisition.scan import Scan
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import PreprocessSettings, ReplaySettings, SimulationSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.run_folder import RunFolder

log = logging.getLogger(__name__)


def open_scan(settings: ReplaySettings | SimulationSettings) -> Scan:
    """Open the source. Every perspective's positions and geometry are checked; frames are read later, in parts.

    Raises `UserError` for a file that is missing, damaged, of unknown layout, or no far-field ptychographic scan.
    """
    if isinstance(settings, SimulationSettings):
        given = settings.probe.measured
        return SimulatedScan(settings, None if given is None else load_probe(given))
    absent = [str(path) for path in settings.paths if not path.exists()]
    if len(absent) > 1:
        raise UserError(
            f"{', '.join(absent[:5])}: there are no such files; check the paths ({len(absent)} are missing)"
        )
    _check_different(settings.paths)
    with ExitStack() as opened:
        files = _in_order([_open_file(path, settings, opened) for path in settings.paths])
        return FileScan(files, settings, opened)


def load_probe(path: Path) -> npt.NDArray[np.complex64]:
    """Return a probe (mode, y, x): of frames as stored, or, of a run, as that published them.

    Args:
        path: the folder of a run, a `.npy` file, or a scan file with a probe.

    Raises:
        UserError: there is no probe.
    """
    if path.is_dir():
        path = RunFolder(path).probe
        if not path.exists():
            raise UserError(f"{path}: this run has kept no probe; give one that has, or leave source.probe out")
    if path.suffix == ".npy":
        return to_modes(mapped_array(path), where=str(path))[0]
    with closing(open_scan(ReplaySettings(path=path))) as scan:
        probe = scan.perspective(0).probe
    if probe is None:
        raise UserError(f"{path}: there is no probe in it, and none can be estimated")
    return probe


@dataclass(frozen=True)
class OpenedFile:
    """One file of a scan: what its reader found."""

    path: Path
    name: str
    notes: list[str]
    perspectives: list[FileContents]


def _check_different(paths: Sequence[Path]) -> None:
    """Raise `UserError` if a file is named twice, which would count its perspective twice."""
    seen: dict[Path, Path] = {}
    for path in paths:
        if (before := seen.setdefault(path.resolve(), path)) is not path:
            text = "this file is named twice" if before == path else f"this is the same file as {before}"
            raise UserError(f"{path}: {text}; name each perspective of a scan once")


def _open_file(path: Path, settings: ReplaySettings, opened: ExitStack) -> OpenedFile:
    with damage_told(path), links_allowed_to(settings.links_to):
        files = ScanFiles(path, companion=settings.companion)
        opened.callback(files.close)
        reader = choose_reader(files, settings)
        log.info("%s: read as %s", path, reader.format_name)
        perspectives = [reader.read(index) for index in range(len(reader))]
        if (given := settings.positions) is not None:
            found = read_positions(files, given)
            section = "source.positions"
            perspectives = [
                replace(one, positions=as_seen(found, given, one.angle_deg, where=one.where, section=section))
                for one in perspectives
            ]
    return OpenedFile(path, reader.name, [f"Read as {reader.format_name}", *reader.notes], perspectives)


def _in_order(files: list[OpenedFile]) -> list[OpenedFile]:
    """Return files by their angle if every one says it and they differ, or else by their name; say which."""
    if len(files) < 2:
        return files
    angles = [contents.angle_deg for file in files for contents in file.perspectives]
    if None not in angles and len(set(angles)) > 1:
        ordered = sorted(files, key=lambda file: file.perspectives[0].angle_deg or 0.0)
        by = "angle"
    else:
        ordered = sorted(files, key=lambda file: natural_order(str(file.path)))
        by = "name"
    said = f"{len(files)} files are perspectives of one scan, in the order of their {by}"
    notes = list(dict.fromkeys(note for file in ordered for note in file.notes))
    return [replace(ordered[0], notes=[said, *notes]), *(replace(file, notes=[]) for file in ordered[1:])]


def _check_same_frames(perspectives: Sequence[StoredPerspective]) -> None:
    """Raise `UserError` unless one network fits the frames of all perspectives."""
    first, *others = perspectives
    for other in others:
        if other.geometry.frame_shape_px != first.geometry.frame_shape_px:
            raise UserError(
                f"{other.where}: frames have {other.geometry.frame_shape_px} pixels but those of {first.where} have "
                f"{first.geometry.frame_shape_px}; put perspectives of different frames into files of their own"
            )


def _without_scraps(
    perspectives: list[StoredPerspective], position_scale: float
) -> tuple[list[StoredPerspective], list[str]]:
    """Leave out perspectives that were broken off before they showed anything, if there are others; say which."""
    scraps = [one for one in perspectives if is_scrap(one.positions_px * position_scale)]
    if len(scraps) == len(perspectives):
        return perspectives, []
    kept = [one for one in perspectives if not any(one is scrap for scrap in scraps)]
    said = [f"{one.where} is left out: it was broken off after {one.frame_count} frames" for one in scraps]
    return [replace(one, index=index) for index, one in enumerate(kept)], said


class FileScan(Scan):
    """The perspectives of one file or several."""

    def __init__(self, files: Sequence[OpenedFile], settings: ReplaySettings, opened: ExitStack) -> None:
        self.name = files[0].name
        self._preprocess: PreprocessSettings = settings.preprocess
        contents = [one for file in files for one in file.perspectives]
        if not contents:
            raise UserError(f"{files[0].path}: there is no perspective in it; give a file that holds a scan")
        assembled = [assemble(one, settings, index=index) for index, one in enumerate(contents)]
        self._stored, left_out = _without_scraps(assembled, self._preprocess.position_scale)
        for stored in self._stored:
            check(stored, position_scale=self._preprocess.position_scale)
        _check_same_frames(self._stored)
        self._perspectives: dict[int, FilePerspective] = {}
        self._notes_of_files = [note for file in files for note in file.notes] + left_out
        self.perspective(0)
        self._opened = opened.pop_all()

    def __len__(self) -> int:
        """Return the number of perspectives."""
        return len(self._stored)

    @property
    def frames(self) -> int:
        """Frames of all perspectives together."""
        return sum(len(stored.positions_px) for stored in self._stored)

    def perspective(self, index: int) -> FilePerspective:
        """Return perspective `index`. Reads frames where a probe or bad pixels must be found."""
        if not 0 <= index < len(self):
            raise IndexError(f"perspective {index} of {len(self)}")
        if index not in self._perspectives:
            self._perspectives[index] = FilePerspective(self._stored[index], self._preprocess)
        return self._perspectives[index]

    @property
    def notes(self) -> list[str]:
        """What the files say, the first perspective's notes, and those of others that say something else."""
        first = self.perspective(0).notes
        others = [(one.index, note) for one in self._stored[1:] for note in one.notes]
        others += [(one.index, note) for index, one in self._perspectives.items() if index for note in one.notes]
        different = dict.fromkeys(f"Perspective {index}: {note}" for index, note in others if note not in first)
        return [*self._notes_of_files, *first, *different]

    def close(self) -> None:
        """Close the files."""
        self._opened.close()
