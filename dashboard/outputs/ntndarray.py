"""Images as NTNDArrays over PvAccess."""

from __future__ import annotations

import logging
from typing import ClassVar

import numpy as np

from ptychoflow.dashboard.mosaics import Channel, Mosaic
from ptychoflow.dashboard.outputs.news import News
from ptychoflow.dashboard.outputs.output import Output
from ptychoflow.dashboard.outputs.settings import NtndarrayOutputSettings
from ptychoflow.streaming.events import MosaicKind, PerspectiveScores
from ptychoflow.streaming.libraries import library
from ptychoflow.streaming.pvaccess import serve_channels
from ptychoflow.streaming.state.run import figures_of

log = logging.getLogger(__name__)

Attributes = dict[str, float | int]


class NtndarrayOutput(Output):
    """A PvAccess server with a channel for each kind of image and each of amplitude and phase.

    The newest image is what a channel holds; a client that does not keep up is sent the newest by PvAccess itself.
    Pixels are float32, NaN where nothing covers them. Attributes: `Perspective`, `ModelVersion`, `OriginY` and
    `OriginX` in pixels, `PixelSizeY` and `PixelSizeX` in metres, and, as soon as the image is scored, `PsnrPhase`,
    `SsimPhase`, `CorrelationPhase`, likewise of `Amplitude`, and with `Constant` before them those of the constant
    prediction.

    Raises:
        UserError: p4p is not installed, or the address cannot be listened on.
    """

    name: ClassVar[str] = "ntndarray"
    takes: ClassVar[tuple[type, ...]] = (Mosaic, PerspectiveScores)

    def __init__(self, settings: NtndarrayOutputSettings) -> None:
        p4p, types = (library(name, extra="epics") for name in ("p4p", "p4p.nt"))
        shared = library("p4p.server.thread", extra="epics").SharedPV
        self._value, self._type = p4p.Value, types.NTNDArray.buildType()
        self._channels = {
            (kind, channel): shared(initial=self._value(self._type, {})) for kind in MosaicKind for channel in Channel
        }
        self._newest: dict[MosaicKind, Mosaic] = {}
        self._scores: dict[MosaicKind, PerspectiveScores] = {}
        self._posted = 0
        names = {channel_name(settings.prefix, *key): pv for key, pv in self._channels.items()}
        self._server, self.port = serve_channels(
            names,
            host=settings.host,
            port=settings.port,
            where="outputs.ntndarray: ",
            choose="choose another with --set outputs.ntndarray.port=N, or 0 for any",
        )
        log.info("NTNDArrays at %s:%d: %s", settings.host, self.port, ", ".join(names))

    def send(self, news: News) -> None:
        """Post an image, or once more the one that a score is about."""
        match news.what:
            case Mosaic(info=info):
                kind = info.kind
                self._newest[kind] = news.what
            case PerspectiveScores(kind=kind):
                self._scores[kind] = news.what
            case _:
                raise ValueError(f"{news.what} is not for this output")
        if kind in self._newest:
            self._post(kind, news.time_s)

    def close(self) -> None:
        """Stop the server."""
        self._server.stop()

    def _post(self, kind: MosaicKind, time_s: float) -> None:
        mosaic, scores = self._newest[kind], self._scores.get(kind)
        attributes = _attributes(mosaic)
        if scores is not None and scores.perspective == mosaic.info.perspective:
            attributes |= _figures(scores)
        self._posted += 1
        seconds = int(time_s)
        stamp = {"secondsPastEpoch": seconds, "nanoseconds": int((time_s - seconds) * 1e9)}
        for channel in Channel:
            image = np.ascontiguousarray(mosaic.channels[channel], np.float32)
            height, width = image.shape
            self._channels[kind, channel].post(
                self._value(
                    self._type,
                    {
                        "value": ("floatValue", image.ravel()),
                        "compressedSize": image.nbytes,
                        "uncompressedSize": image.nbytes,
                        "uniqueId": self._posted,
                        "dataTimeStamp": stamp,
                        "timeStamp": stamp,
                        "dimension": [{"size": size, "fullSize": size, "binning": 1} for size in (width, height)],
                        "attribute": [{"name": name, "value": value} for name, value in attributes.items()],
                    },
                )
            )


def channel_name(prefix: str, kind: MosaicKind, channel: Channel) -> str:
    """Return the name under which a channel is found."""
    return f"{prefix}{_pascal_case(kind)}:{_pascal_case(channel)}"


def _pascal_case(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _attributes(mosaic: Mosaic) -> Attributes:
    info = mosaic.info
    return {
        "Perspective": info.perspective,
        "ModelVersion": info.model_version,
        "OriginY": float(info.origin_px[0]),
        "OriginX": float(info.origin_px[1]),
        "PixelSizeY": float(info.pixel_size_m[0]),
        "PixelSizeX": float(info.pixel_size_m[1]),
    }


def _figures(scores: PerspectiveScores) -> Attributes:
    named = {"": scores.quality, "constant_": scores.constant}
    return {
        _pascal_case(f"{before}{name.removesuffix('_db')}"): float(value)
        for before, quality in named.items()
        for name, value in figures_of(quality).items()
    }
