"""Makes frames and positions of what the connection says of files."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

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
from ptychoflow.acquisition.detectors.hdf5_swmr.image import DTYPES, Hdf5Image
from ptychoflow.acquisition.detectors.hdf5_swmr.messages import (
    MOST_ROWS,
    FileBegan,
    FileEnded,
    FileUnusable,
    FramesWritten,
    Message,
    PositionsWritten,
    WatchBegan,
    decode,
)
from ptychoflow.acquisition.detectors.hdf5_swmr.settings import Hdf5SwmrSettings
from ptychoflow.acquisition.detectors.interface import Decoder, Part
from ptychoflow.acquisition.scan import Ending

MAX_MESSAGE_BYTES = MOST_ROWS * 24 + (1 << 12)
RUNS_REMEMBERED = 64


class Hdf5SwmrDecoder(Decoder):
    """Decodes one series, and one run of positions, for each file. The name of a file may come again."""

    def __init__(self, settings: Hdf5SwmrSettings) -> None:
        self._settings = settings
        self._runs: OrderedDict[str, str] = OrderedDict()
        """Of positions, by the names of the last files that have not ended."""
        self._runs_begun = 0

    def decode(self, parts: Sequence[Part]) -> Iterable[Arrival]:
        """Return what a message says."""
        if len(parts) != 1 or len(parts[0]) > MAX_MESSAGE_BYTES:
            size = sum(len(part) for part in parts)
            return [Malformed(f"a message about files has {len(parts)} parts and {size} bytes")]
        try:
            return list(self._arrivals(decode(parts[0])))
        except ValueError as error:
            return [Malformed.because(error)]

    def _arrivals(self, message: Message) -> Iterator[Arrival]:
        match message:
            case FileBegan():
                yield from self._begin(message)
            case FramesWritten():
                yield from self._frames(message)
            case PositionsWritten():
                yield from self._begin_run(message.name)
                yield _positions(message, self._runs[message.name])
            case FileEnded():
                yield from self._end(message)
            case FileUnusable():
                yield Malformed.because(f"{message.name} is left out: {message.reason}")
            case WatchBegan():
                pass

    def _begin(self, message: FileBegan) -> Iterator[Arrival]:
        if self._settings.frames is not None:
            yield SeriesBegan(message.name, SeriesHeader(shape_px=message.shape_px))
        yield from self._begin_run(message.name)

    def _begin_run(self, name: str) -> Iterator[Arrival]:
        if name in self._runs:
            return
        self._runs_begun += 1
        self._runs[name] = f"{name} ({self._runs_begun})"
        while len(self._runs) > RUNS_REMEMBERED:
            self._runs.popitem(last=False)
        if self._settings.positions is not None:
            yield PositionsBegan(self._runs[name], series=None if self._settings.frames is None else name)

    def _frames(self, message: FramesWritten) -> Iterator[Arrival]:
        height, width = message.shape_px
        if message.dtype not in DTYPES or height * width > self._settings.max_frame_px:
            raise ValueError(f"frames of {height} × {width} pixels of {message.dtype!r} are not taken")
        for row in range(message.first, message.first + message.count):
            image = Hdf5Image(
                folder=self._settings.folder,
                name=message.name,
                dataset=message.dataset,
                row=row,
                shape_px=message.shape_px,
                dtype=np.dtype(message.dtype),
                max_chunk_bytes=self._settings.max_chunk_bytes,
            )
            yield FrameCame(message.name, row, image)

    def _end(self, message: FileEnded) -> Iterator[Arrival]:
        ending = Ending.COMPLETE if message.complete else Ending.ABORTED
        run = self._runs.pop(message.name, None)
        if self._settings.positions is not None and run is not None:
            yield PositionsEnded(run, ending)
        if self._settings.frames is not None:
            yield SeriesEnded(message.name, ending)


def _positions(message: PositionsWritten, run: str) -> PositionsCame:
    numbers, values = message.numbers, message.positions_m
    if len(numbers) % 8 or 2 * len(numbers) != len(values):
        raise ValueError(f"positions of {message.name} have {len(values)} bytes, and their numbers {len(numbers)}")
    positions_m = np.frombuffer(values, "<f8").reshape(-1, 2).astype(np.float64)
    return PositionsCame(run, np.frombuffer(numbers, "<i8").astype(np.int64), positions_m)
