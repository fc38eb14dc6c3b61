"""Makes frames of files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ptychoflow.acquisition.detectors.arrivals import (
    Arrival,
    FrameCame,
    Malformed,
    SeriesBegan,
    SeriesEnded,
    SeriesHeader,
)
from ptychoflow.acquisition.detectors.interface import Decoder, Part
from ptychoflow.acquisition.detectors.watched_folder.contents import frames_in
from ptychoflow.acquisition.detectors.watched_folder.messages import (
    FileCame,
    FileUnusable,
    SeriesClosed,
    SeriesOpened,
    decode,
)
from ptychoflow.acquisition.detectors.watched_folder.settings import SeriesBy, WatchedFolderSettings
from ptychoflow.acquisition.scan import Ending


class WatchedFolderDecoder(Decoder):
    """Decodes what the connection delivers; frames stay encoded as they are in their file."""

    def __init__(self, settings: WatchedFolderSettings) -> None:
        self._settings = settings

    def decode(self, parts: Sequence[Part]) -> Iterable[Arrival]:
        """Return what a message says."""
        try:
            match decode(parts):
                case SeriesOpened(series=series):
                    return [SeriesBegan(series, SeriesHeader())]
                case SeriesClosed(series=series, complete=complete):
                    return [SeriesEnded(series, Ending.COMPLETE if complete else Ending.NEXT_SERIES)]
                case FileUnusable(name=name, reason=reason):
                    return [Malformed.because(f"{name} is left out: {reason}")]
                case FileCame() as file:
                    return self._frames(file, parts[1])
                case _:
                    return []
        except ValueError as error:
            return [Malformed.because(error)]

    def _frames(self, file: FileCame, content: Part) -> list[Arrival]:
        settings = self._settings
        if len(content) > settings.max_file_bytes:
            raise ValueError(f"{file.name}: {len(content)} bytes are above max_file_bytes")
        most = len(content) if settings.series is SeriesBy.FILE else settings.frames_per_file
        first = 0 if settings.series is SeriesBy.FILE else file.number * settings.frames_per_file
        try:
            images = frames_in(content, file.name, most_frames=most, max_frame_px=settings.max_frame_px)
        except ValueError as error:
            raise ValueError(f"{file.name}: {error}") from error
        return [FrameCame(file.series, number, image) for number, image in enumerate(images, first)]
