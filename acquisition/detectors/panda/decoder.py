"""Makes positions of a PandA's headers, blocks of samples and ends."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.arrivals import (
    Arrival,
    Malformed,
    PositionsBegan,
    PositionsCame,
    PositionsEnded,
)
from ptychoflow.acquisition.detectors.interface import Decoder, Part
from ptychoflow.acquisition.detectors.panda.framing import BLOCK, BLOCK_PREFIX_BYTES, END, HEADER_BEGIN
from ptychoflow.acquisition.detectors.panda.header import MAX_NUMBER, SCALED, CapturedField, CaptureHeader, parse_header
from ptychoflow.acquisition.detectors.panda.settings import PandaSettings
from ptychoflow.acquisition.readers.units import Quantity, parse_unit, scale
from ptychoflow.acquisition.scan import Ending

COMPLETED = ("Ok", "Disarmed")
"""Of the reasons that a capture ends with; disarming is how many scans end that are complete."""
_ENDS = re.compile(rb"END (\d{1,16}) ([^\r\n]{1,80})")


@dataclass
class _Capture:
    """A capture that is going on."""

    run: str
    header: CaptureHeader
    factors_m: tuple[float, float]
    places: tuple[int, int]
    trigger_place: int | None
    next_number: int
    header_came: bytes
    """When; what is of the capture says the same."""
    messages: int = 0
    """Behind the header."""
    broken: bool = False
    """Samples are missing, and nobody knows how many: those that follow have no numbers."""
    since_header: int = 0
    lost: int = 0


class PandaDecoder(Decoder):
    """Decodes the positions of captures, one run each.

    When the connection broke in a capture, the box says by `missed` where its samples go on, and the run goes on. Where
    messages were lost behind the connection, samples have no position until then, unless a field holds their numbers.
    """

    def __init__(self, settings: PandaSettings) -> None:
        self._settings = settings
        self._capture: _Capture | None = None
        self._captures = 0

    def decode(self, parts: Sequence[Part]) -> Iterable[Arrival]:
        """Return what a header, block or end says."""
        if not parts:
            return [Malformed("an empty message")]
        first = memoryview(parts[0])
        start = bytes(first[: len(HEADER_BEGIN)])
        if start == HEADER_BEGIN:
            return list(self._begin(bytes(first), parts[1:]))
        if start.startswith(BLOCK):
            return [*self._follow(parts[1:]), *self._samples(first)]
        if start.startswith(END):
            return [*self._follow(parts[1:]), *self._end(bytes(first[:128]))]
        return [Malformed(f"{start!r} begins neither a header nor samples nor an end")]

    def _begin(self, data: bytes, arrival_time: Sequence[Part]) -> Iterator[Arrival]:
        self._captures += 1
        came = bytes(arrival_time[0][:32]) if arrival_time else str(self._captures).encode()
        try:
            capture = self._understand(parse_header(data), came)
        except ValueError as error:
            yield from self._give_up(Ending.NEXT_SERIES)
            yield Malformed(f"positions of the PandA cannot be used: {error}")
            return
        before = self._capture
        if before is not None and _goes_on(before, capture.header):
            capture.run = before.run
            capture.lost = before.lost + capture.header.missed - before.next_number
            self._capture = capture
            return
        yield from self._give_up(Ending.NEXT_SERIES)
        self._capture = capture
        yield PositionsBegan(capture.run, series=None, captured=True)

    def _follow(self, place: Sequence[Part]) -> Iterator[Arrival]:
        """Take note of where behind its header a message came; messages that were kept before this was said say not."""
        capture = self._capture
        if capture is None or not place:
            return
        header_came, _, number = bytes(place[0][:64]).partition(b" ")
        if header_came != capture.header_came:
            yield from self._give_up(Ending.NEXT_SERIES)
            return
        capture.messages += 1
        if number == b"%d" % capture.messages:
            return
        capture.messages = int(number) if number.isdigit() else capture.messages
        if capture.trigger_place is None and not capture.broken:
            capture.broken = True
            yield Malformed(
                "messages of the PandA were lost: the samples behind them cannot be numbered, and their frames have no "
                "position; trigger_field would number them"
            )

    def _understand(self, header: CaptureHeader, came: bytes) -> _Capture:
        if header.process != SCALED:
            raise ValueError(f"the values are {header.process[:40]!r}, not {SCALED!r}")
        places = header.place(self._settings.field_y), header.place(self._settings.field_x)
        trigger = self._settings.trigger_field
        return _Capture(
            run=f"panda-{came.decode('ascii', 'replace')}",
            header=header,
            factors_m=(self._metres(header.fields[places[0]]), self._metres(header.fields[places[1]])),
            places=places,
            trigger_place=None if trigger is None else header.place(trigger),
            next_number=header.missed,
            header_came=came,
            lost=header.missed,
        )

    def _metres(self, field: CapturedField) -> float:
        unit = self._settings.unit or parse_unit(field.unit or "", Quantity.LENGTH)
        if unit is None:
            raise ValueError(
                f"{field.full_name} has the unit {(field.unit or '')[:40]!r}, which is no length; set its unit in the "
                "settings of the PandA or on the box"
            )
        return scale(unit)

    def _samples(self, block: memoryview) -> Iterator[Arrival]:
        capture = self._capture
        if capture is None:
            yield Malformed("samples came without a header that can be used")
            return
        length = int.from_bytes(block[4:BLOCK_PREFIX_BYTES], "little")
        dtype = capture.header.dtype
        if length != len(block) or (length - BLOCK_PREFIX_BYTES) % dtype.itemsize:
            # the numbers of all samples that follow would be wrong
            yield from self._give_up(Ending.ABORTED)
            yield Malformed(f"a block of {len(block)} bytes holds no whole samples of {dtype.itemsize} bytes")
            return
        if capture.broken:
            return
        samples = np.frombuffer(block, dtype, offset=BLOCK_PREFIX_BYTES)
        first = capture.next_number
        capture.next_number += len(samples)
        capture.since_header += len(samples)
        try:
            numbers = _numbers(samples, capture, first)
        except ValueError as error:
            yield Malformed(str(error))
            return
        columns = [
            samples[str(place)].astype(np.float64) * factor
            for place, factor in zip(capture.places, capture.factors_m, strict=True)
        ]
        positions = np.stack(columns, axis=1)
        if first == 0 and self._settings.stale_first_sample:
            positions[:1] = np.nan
        if len(samples):
            yield PositionsCame(capture.run, numbers, positions)

    def _end(self, line: bytes) -> Iterator[Arrival]:
        found = _ENDS.fullmatch(line)
        if found is None:
            yield from self._give_up(Ending.ABORTED)
            yield Malformed(f"{line[:40]!r} is no end of a capture")
            return
        if self._capture is not None:
            self._capture.lost += max(int(found[1]) - self._capture.since_header, 0)
        reason = found[2].decode("ascii", "replace").strip()
        yield from self._give_up(Ending.COMPLETE if reason in COMPLETED else Ending.ABORTED)

    def _give_up(self, ending: Ending) -> Iterator[Arrival]:
        if self._capture is not None:
            yield PositionsEnded(self._capture.run, ending, self._capture.lost)
            self._capture = None


def _goes_on(before: _Capture, header: CaptureHeader) -> bool:
    """Whether a header says again what is being captured, after a break of the connection."""
    if before.header.arm_time != header.arm_time or header.missed < before.next_number:
        return False
    return header.arm_time is not None or before.next_number > 0


def _numbers(samples: npt.NDArray[np.void], capture: _Capture, first: int) -> npt.NDArray[np.int64]:
    if capture.trigger_place is None:
        return np.arange(first, first + len(samples), dtype=np.int64)
    values = samples[str(capture.trigger_place)].astype(np.float64)
    if not (np.abs(values) <= MAX_NUMBER).all() or (values != np.round(values)).any():
        raise ValueError("the field of trigger numbers holds what is no whole number; check trigger_field")
    return values.astype(np.int64)
