"""Runs of the acquisition service with real sockets and receivers that keep what they get."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.ptychography.service import acquire
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.scan_settings import ScanSourceSettings
from ptychoflow.acquisition.settings import AcquisitionSettings
from ptychoflow.acquisition.source_settings import SimulationSettings
from ptychoflow.streaming.events import (
    AcquisitionCounts,
    AnyEvent,
)
from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.messages import (
    FirstPassImage,
    FirstPassScore,
    Frames,
    GroundTruthSource,
    PerspectiveEnd,
    Probe,
    Reference,
    Samples,
    ScanEnd,
    ScanStart,
    UnlabelledFrames,
)
from ptychoflow.streaming.publisher import rank_name
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.streaming.telemetry import TelemetryHub

SOURCE = SimulationSettings(perspectives=3, frames_per_perspective=60, frame_shape_px=(32, 32), seed=3)
MANY = SOURCE.model_copy(update={"perspectives": 12, "frames_per_perspective": 16})
TRUE_OBJECT = RetrievalSettings(source=GroundTruthSource.SIMULATED)
Id = tuple[int, int]


@dataclass
class Receiver:
    """What one consumer got, by frame id."""

    consumer: str
    frames: dict[Id, npt.NDArray[Any]] = field(default_factory=dict)
    positions_px: dict[Id, npt.NDArray[Any]] = field(default_factory=dict)
    roles: dict[Id, int] = field(default_factory=dict)
    phases: dict[Id, npt.NDArray[Any]] = field(default_factory=dict)
    repeated: int = 0
    differing: list[Id] = field(default_factory=list)
    """Frames that came again otherwise than before."""
    ends: list[int] = field(default_factory=list)
    probes: dict[int, npt.NDArray[Any]] = field(default_factory=dict)
    """By perspective, those that came before its frames."""
    references: dict[int, tuple[Reference, npt.NDArray[Any]]] = field(default_factory=dict)
    psnr_db: Mapping[int, float] = field(default_factory=dict)
    """What an edge says of each perspective once it has the reference."""
    images: Mapping[int, tuple[FirstPassImage, Mapping[str, npt.NDArray[Any]]]] = field(default_factory=dict)
    """What an edge has made of each perspective when it has all of it."""
    unlabelled: dict[int, list[dict[str, npt.NDArray[Any]]]] = field(default_factory=dict)
    """By perspective, those that came after its probe and before any sample."""
    started: list[ScanStart] = field(default_factory=list)
    done: bool = False

    def run(self, network: NetworkSettings, port: int, world_size: int) -> None:
        with Inbox(network, consumer=self.consumer, port=port, world_size=world_size) as inbox:
            while not self.done:
                if (delivery := inbox.receive(0.2)) is not None:
                    self._take(delivery.message, delivery.arrays)
                    inbox.acknowledge([delivery.sequence])
                    if isinstance(delivery.message, PerspectiveEnd) and delivery.message.perspective in self.images:
                        inbox.send_image(*self.images[delivery.message.perspective])
                    if isinstance(delivery.message, Reference) and delivery.message.perspective in self.psnr_db:
                        perspective = delivery.message.perspective
                        inbox.report_score(FirstPassScore(perspective, self.psnr_db[perspective], 0.9, 10.0))

    def _take(self, message: object, arrays: dict[str, npt.NDArray[Any]]) -> None:
        match message:
            case Probe() if all(perspective != message.perspective for perspective, _ in self.frames):
                self.probes[message.perspective] = arrays["probe"].copy()
            case UnlabelledFrames() if message.perspective in self.probes and not self.frames:
                copies = {name: array.copy() for name, array in arrays.items()}
                self.unlabelled.setdefault(message.perspective, []).append(copies)
            case Frames() | Samples():
                self._take_frames(message.perspective, arrays)
            case Reference():
                self.references[message.perspective] = message, arrays["phase"].copy()
            case PerspectiveEnd():
                self.ends.append(message.perspective)
            case ScanStart():
                self.started.append(message)
            case ScanEnd():
                self.done = True

    def _take_frames(self, perspective: int, arrays: dict[str, npt.NDArray[Any]]) -> None:
        for row, index in enumerate(arrays["index"]):
            frame_id = perspective, int(index)
            if frame_id in self.frames:
                self.repeated += 1
                self._compare(frame_id, arrays, row)
            self.frames[frame_id] = arrays["diffraction"][row].copy()
            self.roles[frame_id] = int(arrays["role"][row])
            if "phase" in arrays:
                self.phases[frame_id] = arrays["phase"][row].copy()
            else:
                self.positions_px[frame_id] = arrays["position_px"][row].copy()

    def _compare(self, frame_id: Id, arrays: dict[str, npt.NDArray[Any]], row: int) -> None:
        same = self.roles[frame_id] == arrays["role"][row]
        same &= np.array_equal(self.frames[frame_id], arrays["diffraction"][row])
        if "position_px" in arrays:
            same &= np.array_equal(self.positions_px[frame_id], arrays["position_px"][row])
        if not same:
            self.differing.append(frame_id)


@dataclass
class Outcome:
    edge: Receiver
    ranks: list[Receiver]
    events: list[AnyEvent]

    @property
    def counts(self) -> AcquisitionCounts:
        return [event for event in self.events if isinstance(event, AcquisitionCounts)][-1]

    @property
    def samples(self) -> dict[Id, int]:
        return {frame_id: role for rank in self.ranks for frame_id, role in rank.roles.items()}


@contextmanager
def receivers(network: NetworkSettings, ranks: int, edge_port: int | None = None) -> Iterator[list[Receiver]]:
    started = [Receiver("edge"), *(Receiver(rank_name(rank)) for rank in range(ranks))]
    ports = [edge_port or network.frames_port, *(network.samples_port + rank for rank in range(ranks))]
    threads = [
        threading.Thread(target=one.run, args=(network, port, 0 if one.consumer == "edge" else ranks))
        for one, port in zip(started, ports, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        yield started
    finally:
        for one in started:
            one.done = True
        for thread in threads:
            thread.join()


def hub_into(events: list[AnyEvent], network: NetworkSettings, directory: Path) -> TelemetryHub:
    return TelemetryHub(
        network, jsonl=directory / "telemetry.jsonl", on_event=lambda telemetry, _: events.append(telemetry.event)
    )


def run_acquisition(
    network: NetworkSettings,
    directory: Path,
    *,
    source: ScanSourceSettings = SOURCE,
    settings: AcquisitionSettings | None = None,
    retrieval: RetrievalSettings = TRUE_OBJECT,
    ranks: int = 1,
    edge_port: int | None = None,
    psnr_db: Mapping[int, float] | None = None,
    images: Mapping[int, tuple[FirstPassImage, Mapping[str, npt.NDArray[Any]]]] | None = None,
    keep_frames: bool = False,
) -> Outcome:
    directory.mkdir(exist_ok=True)
    events: list[AnyEvent] = []
    hub = TelemetryHub(
        network, jsonl=directory / "telemetry.jsonl", on_event=lambda event, _: events.append(event.event)
    )
    with receivers(network, ranks, edge_port) as (edge, *others):
        edge.psnr_db, edge.images = psnr_db or {}, images or {}
        acquire(
            source,
            settings or AcquisitionSettings(),
            retrieval,
            network=network,
            run=RunContext("test", directory, seed=1),
            stop=threading.Event(),
            keep_frames=keep_frames,
        )
    hub.close()
    return Outcome(edge, others, events)
