"""Scores as bluesky documents over ZeroMQ."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import Any, ClassVar

import msgspec
import zmq

from ptychoflow.dashboard.outputs.news import News
from ptychoflow.dashboard.outputs.output import ConsumerAway, Output
from ptychoflow.dashboard.outputs.settings import BlueskyOutputSettings, DocumentFormat
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import HeldOutScores, PerspectiveScores, Quality
from ptychoflow.streaming.state.run import figures_of

DOCUMENTS_WAITING = 1000
"""For a subscriber that does not keep up; it misses further ones."""
HEARTBEAT_INTERVAL_MS, HEARTBEAT_TIMEOUT_MS = 2_000, 20_000
LINGER_MS = 1_000
WRITERS = {DocumentFormat.MSGPACK: msgspec.msgpack.encode, DocumentFormat.JSON: msgspec.json.encode}
HELD_OUT = "held_out"
SUBSCRIBED = b"\x01"
"""Begin of the message that somebody subscribes."""
Document = dict[str, Any]
Scores = PerspectiveScores | HeldOutScores


class BlueskyOutput(Output):
    """Publishes every score as an event, in a stream for each kind of image.

    Nothing is published while nobody listens. Whoever subscribes begins with a start document: the bluesky run before
    it is ended then, for all. So no consumer ever sees a document of a run whose start it does not know. (A proxy
    tells of its first subscriber only.)

    Raises:
        UserError: the address cannot be listened on.
    """

    name: ClassVar[str] = "bluesky"
    takes: ClassVar[tuple[type, ...]] = (PerspectiveScores, HeldOutScores)

    def __init__(self, settings: BlueskyOutputSettings, *, run: str) -> None:
        self._settings, self._run_name = settings, run
        self._where = f"{settings.host}:{settings.port}"
        self._write = WRITERS[settings.format]
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.sndhwm = DOCUMENTS_WAITING
        self._socket.xpub_verboser = True
        # a subscription holds from the moment in which it is taken in here
        self._socket.xpub_manual = True
        # sending fails, rather than leave out in silence who does not keep up
        self._socket.xpub_nodrop = True
        self._socket.heartbeat_ivl, self._socket.heartbeat_timeout = HEARTBEAT_INTERVAL_MS, HEARTBEAT_TIMEOUT_MS
        self._socket.ipv6 = ":" in settings.host
        self._listeners = 0
        self._run: _BlueskyRun | None = None
        if settings.proxy:
            self._socket.connect(f"tcp://{self._where}")
            return
        try:
            self._socket.bind(f"tcp://{self._where}")
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise UserError(
                f"outputs.bluesky: cannot listen on {self._where}: {error.strerror}; "
                "choose another with --set outputs.bluesky.port=N"
            ) from error

    def send(self, news: News) -> None:
        """Publish a score. Raises `ConsumerAway` while nobody listens."""
        if not isinstance(news.what, Scores):
            raise ValueError(f"{news.what} is not for this output")
        self._take_listeners_in()
        if not self._listeners:
            self._run = None
            raise ConsumerAway(f"nobody listens at {self._where}")
        if self._run is None:
            self._run = _BlueskyRun()
            self._publish("start", self._run.start(self._run_name, news))
        for kind, document in self._run.event(news.what, news.time_s):
            self._publish(kind, document)

    def close(self) -> None:
        """End the bluesky run; what waits for subscribers has a second to leave."""
        self._stop_run("")
        self._context.destroy(linger=LINGER_MS)

    def _take_listeners_in(self) -> None:
        """Note who has come and gone; before somebody new hears anything, the present bluesky run is ended."""
        while self._socket.poll(0):
            message = self._socket.recv(zmq.DONTWAIT)
            if message[:1] == SUBSCRIBED:
                self._stop_run("somebody else listens from now on")
                self._listeners += 1
                self._socket.subscribe(message[1:])
            else:
                self._listeners -= 1
                self._socket.unsubscribe(message[1:])

    def _stop_run(self, reason: str) -> None:
        if self._run is not None:
            self._publish("stop", self._run.stop(reason))
        self._run = None

    def _publish(self, kind: str, document: Document) -> None:
        message = b" ".join([self._settings.prefix.encode(), kind.encode(), self._write(document)])
        try:
            self._socket.send(message, zmq.DONTWAIT)
        except zmq.Again:
            # somebody does not keep up: it misses this one and those until it has read some, and all others get them
            self.fell_behind += 1
            self._socket.xpub_nodrop = False
            self._socket.send(message, zmq.DONTWAIT)
            self._socket.xpub_nodrop = True


class _BlueskyRun:
    """The documents of one bluesky run."""

    def __init__(self) -> None:
        self._uid = _new_uid()
        self._descriptors: dict[str, str] = {}
        """Their uids, by stream."""
        self._events: Counter[str] = Counter()

    def start(self, run: str, news: News) -> Document:
        about: Document = {"run": run}
        if (scan := news.scan) is not None:
            about |= {
                "source": scan.source,
                "energy_eV": scan.energy_eV,
                "object_pixel_size_m": list(scan.object_pixel_size_m),
                "perspectives": scan.perspectives,
            }
        return {"uid": self._uid, "time": time.time(), "plan_name": "ptychoflow", "ptychoflow": about}

    def event(self, scores: Scores, time_s: float) -> list[tuple[str, Document]]:
        """Return an event with its kind, and before it the descriptor of its stream if it is the first one."""
        stream = scores.kind.value if isinstance(scores, PerspectiveScores) else HELD_OUT
        data = _data(scores)
        documents = []
        if stream not in self._descriptors:
            self._descriptors[stream] = _new_uid()
            documents.append(("descriptor", self._descriptor(stream, data)))
        self._events[stream] += 1
        event = {
            "uid": _new_uid(),
            "descriptor": self._descriptors[stream],
            "time": time.time(),
            "seq_num": self._events[stream],
            "data": data,
            "timestamps": dict.fromkeys(data, time_s),
            "filled": {},
        }
        return [*documents, ("event", event)]

    def stop(self, reason: str) -> Document:
        return {
            "uid": _new_uid(),
            "run_start": self._uid,
            "time": time.time(),
            "exit_status": "success",
            "reason": reason,
            "num_events": dict(self._events),
        }

    def _descriptor(self, stream: str, data: dict[str, float]) -> Document:
        return {
            "uid": self._descriptors[stream],
            "run_start": self._uid,
            "time": time.time(),
            "name": stream,
            "data_keys": {name: _data_key(name, value) for name, value in data.items()},
            "object_keys": {"ptychoflow": list(data)},
            "configuration": {},
            "hints": {"ptychoflow": {"fields": ["psnr_phase_db", "ssim_phase"]}},
        }


def _data(scores: Scores) -> dict[str, float]:
    data: dict[str, float] = {"perspective": scores.perspective, "frames": scores.frames}
    if isinstance(scores, PerspectiveScores):
        data |= {"angle_deg": scores.angle_deg, "model_version": max(scores.model_versions, default=0)}
    else:
        data["model_version"] = scores.model_version
    return data | _figures("", scores.quality) | _figures("constant_", scores.constant)


def _figures(before: str, quality: Quality) -> dict[str, float]:
    return {f"{before}{name}": value for name, value in figures_of(quality).items()}


def _data_key(name: str, value: float) -> Document:
    units = {"db": "dB", "deg": "deg"}.get(name.rpartition("_")[2])
    key: Document = {
        "source": "ptychoflow edge",
        "dtype": "integer" if isinstance(value, int) else "number",
        "shape": [],
    }
    return key if units is None else key | {"units": units}


def _new_uid() -> str:
    return str(uuid.uuid4())
