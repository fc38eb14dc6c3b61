"""A scan as a detector sends it: the arrivals file is read as it grows, series become perspectives."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.arrivals import FramesCame, SeriesHeader
from ptychoflow.acquisition.detectors.arrivals_file import DROPPED, LISTENING, STOPPED, ArrivalsReader
from ptychoflow.acquisition.detectors.first_look import Look, look_at_first_frames
from ptychoflow.acquisition.detectors.frame_decoder import Cut, FrameDecoder, Frames
from ptychoflow.acquisition.detectors.interface import Decoder
from ptychoflow.acquisition.detectors.joiner import PlacedFrames, missing_in_words
from ptychoflow.acquisition.detectors.message import Run
from ptychoflow.acquisition.detectors.series import Series
from ptychoflow.acquisition.detectors.series_table import SeriesTable
from ptychoflow.acquisition.detectors.settings import LiveSettings
from ptychoflow.acquisition.frame_check import shows_counts
from ptychoflow.acquisition.position_check import Reach, outliers
from ptychoflow.acquisition.publishing.ledger import Ledger
from ptychoflow.acquisition.readers.geometry import FoundGeometry, complete_geometry
from ptychoflow.acquisition.scan import FrameBatch, Geometry, OpenEndedPerspective, OpenEndedScan
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import Unplaced

MESSAGES_AT_ONCE = 256
PLACED_AT_MOST = 4096
"""No more is read from the arrivals file while so many frames of the perspective wait to be taken."""
LEAST_FRAMES = 2
LOOK_BYTES = 1 << 30
"""Of frames that are looked at together, at most."""
BATCH_S = 0.05
"""As long as frames come, a batch is filled for so long at most."""


class LiveScan(OpenEndedScan):
    """The series of a detector, in the order in which they begin.

    Everything is read from the arrivals files, which another process writes: so a scan that is resumed is the same.

    Args:
        settings: of the scan.
        arrivals: what came, and comes.
        decoders: of the sources, in the order of the arrivals' names.
        attend: called again and again, for what must be looked after while frames come; returns the time until which
            all that came is in the arrivals, None while no receiver listens. What does not come is given up by it: what
            waits for a slow disk is on its way.
        probe: starting probe (mode, y, x) as `load_probe` returns it; None has it estimated from the first frames.
        ledger: counts frames that are in no batch: those without a place, and those that never came.
        warn: told what a person should know.
        time_of_day_s: makes a `time.time()`, as the clock is set now, of when something came by the receiver's clock;
            leaves it as it is by default.
    """

    def __init__(
        self,
        settings: LiveSettings,
        arrivals: ArrivalsReader,
        decoders: Sequence[Decoder],
        *,
        attend: Callable[[], float | None],
        probe: npt.NDArray[np.complex64] | None,
        ledger: Ledger,
        warn: Callable[[str], None],
        time_of_day_s: Callable[[float], float] = float,
    ) -> None:
        self.name = " and ".join(one.kind for one in settings.sources)
        self.settings, self.probe = settings, probe
        self.time_of_day_s = time_of_day_s
        self.ledger = ledger
        self.table = SeriesTable(settings.join, idle_s=settings.idle_s)
        self.decode = FrameDecoder(settings.decoders or os.cpu_count() or 1)
        self.look: Look | None = None
        """What was found in the first frames that were looked at."""
        self.header = SeriesHeader()
        """Of the series before: what was said, or in the ones before that."""
        self._arrivals, self._decoders, self._attend = arrivals, decoders, attend
        self._records = arrivals.records()
        self.told = 0
        """So many perspectives an earlier process of the run has read to their end: they are read again."""
        self._warn = warn
        self._now_s = 0.0
        """When what is being read came; if all has been read, until when nothing else came."""
        self._came = 0
        self._skip = settings.skipped_series

    @property
    def notes(self) -> list[str]:
        """What was found in the first frames."""
        return [] if self.look is None else list(self.look.perspective.notes)

    @property
    def perspectives(self) -> int | None:
        """How many series are to be taken."""
        return self.settings.perspectives

    @property
    def frames(self) -> None:
        """Nobody knows."""
        return None

    def warn(self, text: str) -> None:
        """Tell what a person should know, unless an earlier process told it; of the last that it read, once more."""
        if self._came >= self.told:
            self._warn(text)

    def arriving(self) -> Iterator[OpenEndedPerspective | None]:
        """Yield a perspective for each series that shows enough, when its first frames have been looked at."""
        while self._came != self.settings.perspectives and not self._over():
            if not self.advance():
                yield None
            series = self.table.first
            if series is None:
                continue
            opening = Opening(self, series)
            while not opening.enough and not self.finished(series):
                if not self.advance():
                    yield None
                opening.take()
            perspective = opening.perspective(self._came) if self._skip == 0 else None
            if perspective is None:
                yield from self._pass_over(series, opening)
            else:
                self._came += 1
                yield perspective

    def advance(self) -> bool:
        """Read on in the arrivals; return whether anything came."""
        written_until_s = self._attend()
        first = self.table.first
        if first is not None and len(first.joiner.placed) >= PLACED_AT_MOST:
            return True
        read = 0
        for record in self._records:
            for run in record.runs():
                self._take(run)
                read += len(run)
            if read >= MESSAGES_AT_ONCE:
                break
        else:
            self._records = self._arrivals.records()
        if read == 0 and written_until_s is not None:
            self._now_s = max(self._now_s, written_until_s)
            self.table.pass_time(self._now_s)
        self._tell(self.table.late)
        while self.table.notes:
            self.warn(self.table.notes.popleft())
        return read > 0

    def finished(self, series: Series) -> bool:
        """Whether nothing more comes of a series; tells the ledger what was given up."""
        self._tell(series.joiner.unplaced)
        return not series.joiner.placed and series.over

    def close(self) -> None:
        """Close the arrivals."""
        self.decode.close()
        self._records = iter(())
        self._arrivals.close()

    def _take(self, run: Run) -> None:
        if run.source < len(self._decoders):
            for arrival, at_s in self._decoders[run.source].decode_run(run):
                if isinstance(arrival, FramesCame):
                    self.table.apply_frames(arrival)
                else:
                    self.table.apply(arrival, at_s=at_s)
        for message in run.messages() if run.source >= len(self._decoders) else ():
            if message.source == DROPPED:
                lost = bytes(message.parts[0]).decode(errors="replace")
                self.table.notes.append(f"the disk was slow: {lost} messages could not be kept")
            elif message.source == LISTENING:
                self.table.listen(message.received_at_s)
            elif message.source == STOPPED:
                self.table.pass_time(message.received_at_s)
        self._now_s = float(run.received_at_s[-1])

    def _tell(self, unplaced: Counter[Unplaced]) -> None:
        for reason, count in unplaced.items():
            self.ledger.count_unplaced(count, reason)
        unplaced.clear()

    def _over(self) -> bool:
        """Whether nothing has come for so long that the scan is over."""
        limit_s, last_s = self.settings.end_after_idle_s, self.table.last_arrival_s
        if limit_s is None or last_s is None or self.table.first is not None:
            return False
        return self._now_s - last_s >= limit_s

    def _pass_over(self, series: Series, opening: Opening) -> Iterator[None]:
        """Leave out a series that is to be skipped, or that shows too little."""
        series.joiner.unplaced[Unplaced.SERIES_UNUSABLE] += len(opening)
        while not self.finished(series):
            series.joiner.give_up_all()
            if not self.advance():
                yield None
        self.table.let_go(series)
        if self._skip > 0:
            self._skip -= 1
            self.warn(f"series {series.name} is skipped, as set")
        else:
            self.warn(f"series {series.name} is left out: {opening.why_not}")


class Opening:
    """The first frames of a series, from which everything is found that a perspective needs to know before."""

    def __init__(self, scan: LiveScan, series: Series) -> None:
        self._scan, self._series = scan, series
        self._placed: list[PlacedFrames] = []
        self._frames: list[Frames] = []
        self._notes: list[str] = []
        self._showing = self._held_bytes = 0
        self._geometry: Geometry | None = None
        self._said: list[str] = []
        self.why_not = ""
        self.take()

    def __len__(self) -> int:
        return len(self._placed)

    @property
    def enough(self) -> bool:
        """Whether so many frames that show counts came that the perspective can begin, or all that memory takes.

        So it is as well where the series can be no perspective, whatever comes.
        """
        needed = LEAST_FRAMES if self._look_serves() else self._scan.settings.first_frames
        return bool(self.why_not) or self._full or self._showing >= needed

    def take(self) -> None:
        """Take the frames that have been placed meanwhile, if more are needed.

        Raises:
            UserError: the geometry of the first series is not known, or cannot be.
        """
        queue = self._series.joiner.placed
        while queue and not self.enough:
            frame = queue.take(1)
            self._placed.append(frame)
            decoded = self._scan.decode(frame, self._geometry, self._notes)
            if self._geometry is None:
                try:
                    self._find_geometry(decoded.shape[1:])
                except UserError as error:
                    self._leave_out_because(error)
                    return
            self._frames.append(decoded)
            self._held_bytes += decoded.nbytes
            mask = self._series.header.mask_for(decoded.shape[1:])
            self._showing += int(shows_counts(decoded, mask).sum())

    def perspective(self, index: int) -> LivePerspective | None:
        """Return the perspective; None if there is too little to see.

        Raises:
            UserError: what is seen in the first series is no far-field ptychographic scan.
        """
        # a long dark beginning of a series like one before is no reason to leave it out: more may come
        begins = self._showing >= LEAST_FRAMES or (self._full and self._look_serves())
        if self._geometry is None or not begins:
            self.why_not = self.why_not or f"only {self._showing} of its frames have a position and show anything"
            return None
        placed, stored = PlacedFrames.joined(self._placed), np.concatenate(self._frames)
        positions_px = np.array(placed.positions_m) / self._geometry.object_pixel_size_m
        scale, field_px = self._scan.settings.preprocess.position_scale, max(self._geometry.frame_shape_px)
        near = ~outliers(scale * positions_px, field_px)
        placed, stored = placed.select(near), stored[near]
        try:
            look = self._scan.look
            if not self._look_serves():
                look = look_at_first_frames(
                    stored,
                    positions_px[near],
                    where=self._where,
                    index=index,
                    header=self._series.header,
                    geometry=self._geometry,
                    probe=self._scan.probe,
                    settings=self._scan.settings,
                    notes=self._said,
                )
        except UserError as error:
            self._leave_out_because(error)
            return None
        assert look is not None  # noqa: S101
        self._scan.look = look
        return LivePerspective(
            self._scan,
            self._series,
            look,
            index=index,
            placed=placed,
            stored=stored,
            strays=int((~near).sum()),
            notes=self._notes,
        )

    def _leave_out_because(self, error: UserError) -> None:
        """Leave the series out; an error in the first one is raised, for it is of the settings or of all series."""
        if self._scan.look is None:
            raise error
        self.why_not = str(error)

    @property
    def _full(self) -> bool:
        return self._held_bytes >= LOOK_BYTES

    def _look_serves(self) -> bool:
        """Whether what was found in an earlier series holds for this one."""
        look = self._scan.look
        return look is not None and not self._scan.settings.look_again and look.sent == self._geometry

    def _find_geometry(self, shape_px: tuple[int, int]) -> None:
        """Find out about the geometry; what a lost header does not say is as in the series before."""
        header = self._series.header.completed_by(self._scan.header)
        self._series.header = header
        found = FoundGeometry(
            energy_eV=header.energy_eV,
            detector_distance_m=header.detector_distance_m,
            detector_pixel_size_m=header.detector_pixel_size_m or (None, None),
        )
        self._geometry, self._said = complete_geometry(
            found, self._scan.settings.geometry, frame_shape_px=shape_px, where=self._where, said_by="detector"
        )
        self._scan.header = header

    @property
    def _where(self) -> str:
        return f"series {self._series.name}"


class LivePerspective(OpenEndedPerspective):
    """A series of a detector, while it comes."""

    ground_truth = None

    def __init__(
        self,
        scan: LiveScan,
        series: Series,
        look: Look,
        *,
        index: int,
        placed: PlacedFrames,
        stored: Frames,
        strays: int,
        notes: Sequence[str],
    ) -> None:
        self.index = index
        self.angle_deg = series.header.angle_deg or 0.0
        found = look.perspective
        self.geometry, self.probe, self.mask = found.geometry, found.probe, found.mask
        self.notes = list(found.notes) if found.index == index else []
        self._scan, self._series, self._look = scan, series, look
        self._first: tuple[PlacedFrames, Frames, Sequence[str]] | None = placed, stored, notes
        self._known_m = series.joiner.known_positions_m(placed)
        self._reach = Reach(max(self.geometry.frame_shape_px))
        self._reach.holds(look.place(np.array(placed.positions_m)))
        self._strays = 0
        self._set_aside(strays)

    @property
    def known_positions_px(self) -> npt.NDArray[np.float64] | None:
        """Known where all positions came before the first frame, as from a table."""
        return None if self._known_m is None else self._look.place(self._known_m)

    @property
    def most_frames(self) -> int | None:
        """As the detector said, or the source of positions if that said less."""
        said = (self._series.header.most_frames, self._series.most_placed)
        return min((frames for frames in said if frames is not None), default=None)

    @property
    def extent_px(self) -> npt.NDArray[np.float64] | None:
        """As the settings say it."""
        extent_m = self._scan.settings.extent_m
        return None if extent_m is None else np.sort(self._look.place(np.array(extent_m)), axis=0)

    def batches(self, batch_frames: int) -> Iterator[FrameBatch | None]:
        """Yield frames in the order in which the later of frame and position came."""
        if self._first is not None:
            placed, stored, notes = self._first
            self._first = None
            for start in range(0, len(placed), batch_frames):
                some = slice(start, start + batch_frames)
                prepared = self._look.perspective.prepare(stored[some].copy())
                yield self._batch(placed[some], prepared, notes if start == 0 else ())
            del placed, stored
        queue = self._series.joiner.placed
        patience_until_s = 0.0
        while not self._scan.finished(self._series):
            came = self._scan.advance()
            if came and len(queue) < batch_frames and time.monotonic() < patience_until_s:
                continue
            patience_until_s = time.monotonic() + BATCH_S
            if queue:
                taken = queue.take(batch_frames)
                said: list[str] = []
                yield self._batch(taken, self._decode(taken, said), said)
            else:
                yield None
        self._end()

    def _decode(self, placed: PlacedFrames, notes: list[str]) -> Frames:
        """Return frames as they are published; what is cut out of large ones is all that is kept of them."""
        perspective, sent = self._look.perspective, self._look.sent
        if perspective.cuts_frames:
            cut = Cut(perspective.prepare, perspective.rows_looked_at)
            return self._scan.decode(placed, sent, notes, cut=cut)
        return perspective.prepare(self._scan.decode(placed, sent, notes))

    def _set_aside(self, strays: int) -> None:
        """Count frames that lie where no scan reaches: an encoder's glitch, a sample of before."""
        if strays:
            self._strays += strays
            self._series.joiner.unplaced[Unplaced.NO_POSITION] += strays

    def _batch(self, placed: PlacedFrames, frames: Frames, notes: Sequence[str]) -> FrameBatch | None:
        positions_px = self._look.place(np.array(placed.positions_m))
        near = self._reach.holds(positions_px)
        if not near.all():
            self._set_aside(int((~near).sum()))
            placed, positions_px, frames = placed.select(near), positions_px[near], frames[near]
        if not len(placed):
            return None
        return FrameBatch(
            indices=np.array(placed.triggers, np.int32),
            positions_px=positions_px,
            frames=frames,
            notes=tuple(notes),
            acquired_at_s=self._scan.time_of_day_s(placed.received_at_s[-1]),
        )

    def _end(self) -> None:
        joiner, scan = self._series.joiner, self._scan
        assert joiner.ending is not None  # noqa: S101
        self.ending = joiner.ending
        missing = joiner.missing()
        for how, count in missing.items():
            scan.ledger.count_missing(count, how)
        said = {
            f"frames never came: {missing_in_words(missing.items())}": missing.total(),
            "frames came again and are left out": joiner.repeated,
            "frames are left out, for their positions lie far from all others": self._strays,
            "trigger numbers are below source.join.first_frame, or too large": joiner.refused,
        }
        for text, count in said.items():
            if count:
                scan.warn(f"perspective {self.index}: {count} {text}")
        scan.table.let_go(self._series)
