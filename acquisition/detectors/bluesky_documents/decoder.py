"""Makes frames and positions of documents."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.arrivals import (
    Arrival,
    FrameCame,
    Malformed,
    PositionsBegan,
    PositionsCame,
    PositionsEnded,
    SeriesBegan,
    SeriesEnded,
    SeriesHeader,
)
from ptychoflow.acquisition.detectors.bluesky_documents.documents import (
    DataKey,
    Descriptor,
    Document,
    Event,
    EventPage,
    Start,
    Stop,
    StreamDatum,
    StreamResource,
    read,
    split,
)
from ptychoflow.acquisition.detectors.bluesky_documents.settings import BlueskyDocumentsSettings
from ptychoflow.acquisition.detectors.hdf5_swmr.image import DTYPES, Hdf5Image
from ptychoflow.acquisition.detectors.interface import Decoder, Part
from ptychoflow.acquisition.readers.units import Quantity, parse_unit, scale
from ptychoflow.acquisition.scan import Ending

RUNS_KEPT = 16
"""Runs that are open at the same time: plans may nest them, and a RunEngine that is killed ends none."""
STREAMS_KEPT = FILES_KEPT = 256
MOST_AT_ONCE = 100_000
"""Frames that one document may announce, and events that one page may hold."""
MOST_POINTS = 1 << 53
LARGEST = 1e300
HDF5 = "application/x-hdf5"
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class _Layout:
    """How frames are stored."""

    per_event: int
    shape_px: tuple[int, int]
    dtype: np.dtype[np.generic]


@dataclass(frozen=True)
class _Stream:
    """What a descriptor says that is needed; an error where it says what cannot be used."""

    run: str
    layout: _Layout | ValueError
    metres: tuple[float, float] | ValueError
    """One of the unit of y and of x."""


@dataclass(frozen=True)
class _File:
    """Where frames are."""

    uri: str
    dataset: str


@dataclass
class _Run:
    """A run that is going on."""

    header: SeriesHeader | None
    """None if its start was lost."""
    has_frames: bool = False
    has_positions: bool = False


class BlueskyDocumentsDecoder(Decoder):
    """Understands documents. Events are counted from 0, so event `seq_num` 1 has number 0.

    Where an event has several frames, they are numbered on, and each has the event's position.
    """

    def __init__(self, settings: BlueskyDocumentsSettings) -> None:
        self._settings = settings
        self._prefix = None if settings.prefix is None else settings.prefix.encode()
        self._runs: dict[str, _Run] = {}
        self._streams: dict[str, _Stream | None] = {}
        """By descriptor; None for those that are not taken."""
        self._files: dict[str, _File | None] = {}
        """By resource, which may be used by several runs; None for those of other detectors."""

    def decode(self, parts: Sequence[Part]) -> Iterable[Arrival]:
        """Return what a message says."""
        if len(parts) != 1 or len(parts[0]) > self._settings.max_message_bytes:
            size = sum(len(part) for part in parts)
            return [Malformed.because(f"a message with a document has {len(parts)} parts and {size} bytes")]
        if (found := split(parts[0])) is None:
            return [Malformed.because("a message that is no document: prefix, name and content were expected")]
        prefix, name, content = found
        if self._prefix is not None and prefix != self._prefix:
            return []
        try:
            known = read(name, content)
            return [] if known is None else list(self._arrivals(*known))
        except ValueError as error:
            return [Malformed.because(error)]

    def _arrivals(self, document: Document, values: Mapping[str, Any]) -> Iterator[Arrival]:
        match document:
            case Start():
                self._begin(document, values)
            case Descriptor():
                self._describe(document)
            case StreamResource():
                self._name_resource(document)
            case StreamDatum():
                yield from self._frames(document)
            case Event():
                yield from self._positions(document.descriptor, [document.seq_num], document.data, one=True)
            case EventPage():
                yield from self._positions(document.descriptor, document.seq_num, document.data, one=False)
            case Stop():
                yield from self._end(document)

    def _begin(self, start: Start, values: Mapping[str, Any]) -> None:
        settings, points = self._settings, start.num_points
        header = SeriesHeader(
            energy_eV=_number(values, settings.energy_key, above=0.0),
            angle_deg=_number(values, settings.angle_key, above=-math.inf),
            most_frames=points if isinstance(points, int) and 0 < points < MOST_POINTS else None,
        )
        _keep(self._runs, start.uid, _Run(header), RUNS_KEPT)

    def _describe(self, descriptor: Descriptor) -> None:
        if descriptor.run_start not in self._runs:
            _keep(self._runs, descriptor.run_start, _Run(None), RUNS_KEPT)
        stream = self._stream(descriptor) if descriptor.name == self._settings.stream else None
        _keep(self._streams, descriptor.uid, stream, STREAMS_KEPT)

    def _stream(self, descriptor: Descriptor) -> _Stream:
        settings, keys = self._settings, descriptor.data_keys
        layout: _Layout | ValueError
        metres: tuple[float, float] | ValueError
        try:
            layout = _layout(keys.get(settings.frames or ""), settings.max_frame_px)
        except ValueError as error:
            layout = error
        try:
            metres = self._metres(keys, settings.field_y or ""), self._metres(keys, settings.field_x or "")
        except ValueError as error:
            metres = error
        return _Stream(descriptor.run_start, layout, metres)

    def _metres(self, keys: Mapping[str, DataKey], name: str) -> float:
        units = keys[name].units if name in keys else None
        said = units[:40] if isinstance(units, str) else ""
        unit = self._settings.unit or parse_unit(said, Quantity.LENGTH)
        if unit is None:
            raise ValueError(f"{name} has the unit {said!r}, which is no length; set its unit in the settings")
        return scale(unit)

    def _name_resource(self, resource: StreamResource) -> None:
        if self._settings.frames is None:
            return
        if resource.data_key != self._settings.frames:
            _keep(self._files, resource.uid, None, FILES_KEPT)
            return
        dataset = resource.parameters.get("dataset")
        if resource.mimetype != HDF5:
            raise ValueError(f"frames are written as {resource.mimetype}, of which only {HDF5} is read")
        if not isinstance(dataset, str) or not 0 < len(dataset) <= 1024:
            raise ValueError(f"nothing says in which dataset of {resource.uri} the frames are")
        _keep(self._files, resource.uid, _File(resource.uri, dataset), FILES_KEPT)

    def _stream_of(self, descriptor: str, what: str) -> _Stream | None:
        """Return what is known of a descriptor; None if it is of a stream that is not taken, or of a run that is over.

        Raises:
            ValueError: nothing is.
        """
        if descriptor not in self._streams:
            raise ValueError(f"{what} of a run whose beginning was lost, or sent before anybody listened")
        stream = self._streams[descriptor]
        return None if stream is None or stream.run not in self._runs else stream

    def _frames(self, datum: StreamDatum) -> Iterator[Arrival]:
        if self._settings.frames is None or (stream := self._stream_of(datum.descriptor, "frames")) is None:
            return
        if datum.stream_resource not in self._files:
            raise ValueError("frames of a file whose name was lost, or sent before anybody listened")
        if (file := self._files[datum.stream_resource]) is None:
            return
        if isinstance(layout := stream.layout, ValueError):
            raise layout
        rows = len(datum.indices)
        if not 0 < rows <= MOST_AT_ONCE or rows != len(datum.seq_nums) * layout.per_event or datum.seq_nums.start < 1:
            raise ValueError(f"rows {datum.indices} cannot be the frames of events {datum.seq_nums}")
        assert self._settings.folder is not None  # noqa: S101
        name, run = self._name(file.uri), self._runs[stream.run]
        if not run.has_frames and run.header is not None:
            yield SeriesBegan(stream.run, run.header)
        run.has_frames = True
        first = (datum.seq_nums.start - 1) * layout.per_event
        for place in range(rows):
            image = Hdf5Image(
                folder=self._settings.folder,
                name=name,
                dataset=file.dataset,
                row=datum.indices.start + place,
                shape_px=layout.shape_px,
                dtype=layout.dtype,
                max_chunk_bytes=self._settings.max_chunk_bytes,
                patience_s=self._settings.visible_within_s,
            )
            yield FrameCame(stream.run, first + place, image)

    def _name(self, uri: str) -> str:
        """Return the path of a file within the folder of the settings."""
        assert self._settings.folder is not None  # noqa: S101
        there = self._settings.folder_there or PurePosixPath(self._settings.folder.absolute())
        parts = urlsplit(uri)
        path = PurePosixPath(unquote(parts.path))
        if parts.scheme != "file" or "\0" in str(path):
            raise ValueError(f"frames are said to be at {uri}, which is no file")
        if not path.is_relative_to(there) or ".." in path.parts:
            raise ValueError(
                f"frames are said to be in {path}, which is not within {there}: set folder, and folder_there where it "
                "has another name for the detector"
            )
        return str(path.relative_to(there))

    def _positions(
        self, descriptor: str, seq_nums: Sequence[int], data: Mapping[str, Any], *, one: bool
    ) -> Iterator[Arrival]:
        if not self._settings.gives_positions or (stream := self._stream_of(descriptor, "an event")) is None:
            return
        if isinstance(metres := stream.metres, ValueError):
            raise metres
        names = (self._settings.field_y, self._settings.field_x)
        axes = [_values(data, str(name), len(seq_nums), one=one) for name in names]
        numbers, positions_m = np.array(seq_nums, np.int64) - 1, np.stack(axes, axis=1) * metres
        if isinstance(stream.layout, _Layout) and (per_event := stream.layout.per_event) > 1:
            numbers = (numbers[:, None] * per_event + np.arange(per_event)).ravel()
            positions_m = np.repeat(positions_m, per_event, axis=0)
        run = self._runs[stream.run]
        if not run.has_positions:
            run.has_positions = True
            yield PositionsBegan(stream.run, series=None if self._settings.frames is None else stream.run)
        yield PositionsCame(stream.run, numbers, positions_m)

    def _end(self, stop: Stop) -> Iterator[Arrival]:
        run = self._runs.pop(stop.run_start, None)
        ending = Ending.COMPLETE if stop.exit_status == "success" else Ending.ABORTED
        if run is not None and run.has_positions:
            yield PositionsEnded(stop.run_start, ending)
        if run is not None and run.has_frames:
            yield SeriesEnded(stop.run_start, ending)


def _keep(kept: dict[str, Kept], name: str, value: Kept, most: int) -> None:
    """Remember something; beyond `most`, what came first is forgotten."""
    kept[name] = value
    if len(kept) > most:
        del kept[next(iter(kept))]


def _number(values: Mapping[str, Any], key: str | None, *, above: float) -> float | None:
    value = None if key is None else values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST:
        return None
    return float(value) if above < value else None


def _layout(key: DataKey | None, max_frame_px: int) -> _Layout:
    """Return how frames are stored, from the description of their data key."""
    shape, said = (None, None) if key is None else (key.shape, key.dtype_numpy)
    lengths = shape if isinstance(shape, list) and all(type(length) is int for length in shape) else []
    if len(lengths) not in {2, 3} or not all(0 < length < MOST_POINTS for length in lengths):
        raise ValueError(f"frames of shape {repr(shape)[:100]} were announced, not (y, x)")
    height, width = lengths[-2:]
    per_event = lengths[0] if len(lengths) == 3 else 1
    if height * width > max_frame_px or per_event > MOST_AT_ONCE:
        raise ValueError(f"{per_event} frames of {height} × {width} pixels in an event are not taken; see max_frame_px")
    try:
        dtype = np.dtype(said if isinstance(said, str) and len(said) <= 16 else object)
    except (TypeError, ValueError, SyntaxError):
        dtype = np.dtype(object)
    if dtype.name not in DTYPES:
        raise ValueError(f"frames of type {repr(said)[:100]} were announced, not of numbers")
    return _Layout(per_event, (height, width), dtype)


def _values(data: Mapping[str, Any], name: str, count: int, *, one: bool) -> npt.NDArray[np.float64]:
    """Return the values of a key, one for each event; NaN says that one is not known."""
    if name not in data:
        raise ValueError(f"an event without {name}; it holds {', '.join(str(key)[:40] for key in list(data)[:8])}")
    values = [data[name]] if one else data[name]
    if not isinstance(values, list) or len(values) != count or count > MOST_AT_ONCE:
        raise ValueError(f"{name} does not have a value for each of {count} events")
    if not all(type(value) in {int, float} and not abs(value) > LARGEST for value in values):
        raise ValueError(f"{name} holds what is no number")
    return np.array(values, np.float64)
