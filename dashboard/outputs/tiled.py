"""Images and scores on a Tiled server, by its HTTP interface: its own client would bring a dozen large packages."""

from __future__ import annotations

import math
import os
from typing import Any, ClassVar

from ptychoflow.dashboard.mosaics import Channel, FloatImage, Mosaic
from ptychoflow.dashboard.outputs.news import News
from ptychoflow.dashboard.outputs.output import ConsumerAway, Output
from ptychoflow.dashboard.outputs.settings import TiledOutputSettings
from ptychoflow.streaming.events import HeldOutScores, PerspectiveScores, Quality
from ptychoflow.streaming.libraries import library
from ptychoflow.streaming.state.run import figures_of

KEY_VARIABLE = "TILED_API_KEY"
TIMEOUT_S = 5.0
PATHS_KNOWN = 1000
CONFLICT, NO_KEY = 409, (401, 403)
Metadata = dict[str, Any]


class TiledOutput(Output):
    """Writes `RUN/perspective_0000/first_pass/{amplitude, phase}`, and likewise the other kinds of images.

    Arrays are float32 (y, x), NaN where nothing covers the pixel; one that has grown is made anew. What else there is
    to say of an image, its place and its scores, is metadata of the container around it; scores of held-out frames are
    those of the perspective. The key, if the server wants one, is the environment's `TILED_API_KEY`.

    Raises:
        UserError: httpx is not installed.
    """

    name: ClassVar[str] = "tiled"
    takes: ClassVar[tuple[type, ...]] = (Mosaic, PerspectiveScores, HeldOutScores)

    def __init__(self, settings: TiledOutputSettings, *, run: str) -> None:
        self._httpx = library("httpx", extra="tiled")
        self._url, self._run = settings.url, run
        self.rest_s = settings.pause_s
        self._root = "/".join([*settings.container.split("/"), run]).lstrip("/")
        key = os.environ.get(KEY_VARIABLE)
        self._client = self._httpx.Client(
            base_url=f"{settings.url.rstrip('/')}/api/v1",
            headers={"Authorization": f"Apikey {key}"} if key else {},
            timeout=TIMEOUT_S,
        )
        self._known: dict[str, tuple[int, ...]] = {}
        """What the server has, with the shapes of arrays; that of a container is empty."""

    def send(self, news: News) -> None:
        """Write an image or a score. Raises `ConsumerAway` where the server does not take it."""
        try:
            self._send(news)
        except ConsumerAway:
            # it may be another server by now
            self._known.clear()
            raise
        except self._httpx.HTTPError as error:
            self._known.clear()
            raise ConsumerAway(f"{self._url} does not answer ({error or type(error).__name__})") from error

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _send(self, news: News) -> None:
        match news.what:
            case Mosaic(info=info) as mosaic:
                place = self._kind_place(news, info.perspective, info.kind)
                for channel in Channel:
                    self._write_array(f"{place}/{channel}", mosaic.channels[channel])
                about: Metadata = {
                    "origin_px": list(info.origin_px),
                    "pixel_size_m": list(info.pixel_size_m),
                    "model_version": info.model_version,
                    "time_s": news.time_s,
                }
                self._describe(place, about)
            case PerspectiveScores() as scores:
                place = self._kind_place(news, scores.perspective, scores.kind)
                about = {
                    "angle_deg": scores.angle_deg,
                    "frames": scores.frames,
                    "model_versions": scores.model_versions,
                }
                self._describe(place, {"scores": about | _both(scores.quality, scores.constant)})
            case HeldOutScores() as scores:
                place = self._perspective_place(news, scores.perspective)
                about = {"frames": scores.frames, "model_version": scores.model_version}
                self._describe(place, {"held_out": about | _both(scores.quality, scores.constant)})

    def _perspective_place(self, news: News, perspective: int) -> str:
        about: Metadata = {"run": self._run}
        if (scan := news.scan) is not None:
            about |= {"source": scan.source, "energy_eV": scan.energy_eV}
        self._make_container(self._root, about)
        place = f"{self._root}/perspective_{perspective:04d}"
        self._make_container(place, {"perspective": perspective})
        return place

    def _kind_place(self, news: News, perspective: int, kind: str) -> str:
        place = f"{self._perspective_place(news, perspective)}/{kind}"
        self._make_container(place, {"kind": kind})
        return place

    def _make_container(self, place: str, about: Metadata) -> None:
        if place not in self._known:
            self._create(place, {"structure_family": "container", "metadata": about})
            self._note(place, ())

    def _write_array(self, place: str, image: FloatImage) -> None:
        shape = image.shape
        if self._known.get(place) != shape:
            structure = {
                "shape": shape,
                "chunks": [[size] for size in shape],
                "dims": ["y", "x"],
                "data_type": {"endianness": "little", "kind": "f", "itemsize": 4},
            }
            source = {"structure_family": "array", "structure": structure}
            array = {"structure_family": "array", "metadata": {}, "data_sources": [source]}
            if not self._create(place, array) and self._shape_there(place) != shape:
                self._ask("DELETE", f"/metadata/{place}", params={"external_only": False})
                self._create(place, array)
            self._note(place, shape)
        pixels = image.astype("<f4").tobytes()
        self._ask("PUT", f"/array/full/{place}", content=pixels, headers={"Content-Type": "application/octet-stream"})

    def _create(self, place: str, what: Metadata) -> bool:
        """Make something; return whether it was not there before."""
        parent, _, name = place.rpartition("/")
        answer = self._ask("POST", f"/metadata/{parent}", json={**what, "id": name}, accepted=CONFLICT)
        return bool(answer.status_code != CONFLICT)

    def _shape_there(self, place: str) -> tuple[int, ...]:
        attributes = self._ask("GET", f"/metadata/{place}").json()["data"]["attributes"]
        return tuple(attributes["structure"]["shape"])

    def _describe(self, place: str, about: Metadata) -> None:
        patch = {"content-type": "application/merge-patch+json", "metadata": about, "specs": None}
        self._ask("PATCH", f"/metadata/{place}", json=patch, params={"drop_revision": True})

    def _note(self, place: str, shape: tuple[int, ...]) -> None:
        if len(self._known) >= PATHS_KNOWN:
            self._known.clear()
        self._known[place] = shape

    def _ask(self, method: str, path: str, *, accepted: int | None = None, **content: Any) -> Any:
        answer = self._client.request(method, path, **content)
        if answer.is_success or answer.status_code == accepted:
            return answer
        said = f"{self._url} answers {answer.status_code} to {method} {path}"
        if answer.status_code in NO_KEY:
            said += f": it wants a key that may write, in the environment variable {KEY_VARIABLE}"
        raise ConsumerAway(said)


def _both(quality: Quality, constant: Quality) -> dict[str, float]:
    """Return all figures that JSON can hold."""
    figures = figures_of(quality) | {f"constant_{name}": value for name, value in figures_of(constant).items()}
    return {name: value for name, value in figures.items() if math.isfinite(value)}
