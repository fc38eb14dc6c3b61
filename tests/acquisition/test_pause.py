"""A pause asked for from a dashboard: no frame is acquired meanwhile, and none is missing in the end."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

from support import wait_until

from ptychoflow.acquisition.ptychography.service import acquire
from ptychoflow.acquisition.publishing.loop import open_loop
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.settings import AcquisitionSettings, PublishingSettings
from ptychoflow.acquisition.source_settings import SimulationSettings
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.commands import CommandHub, CommandSender, Pause, Resume
from ptychoflow.streaming.events import AcquisitionCounts, AnyEvent, PartState, PartStatus, Telemetry
from ptychoflow.streaming.messages import GroundTruthSource
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.streaming.telemetry import TelemetryHub


def test_nothing_is_acquired_during_a_pause_and_nothing_is_lost(network: NetworkSettings, tmp_path: Path) -> None:
    events: list[AnyEvent] = []

    def counts() -> list[int]:
        return [event.acquired for event in events if isinstance(event, AcquisitionCounts)]

    def is_paused() -> bool:
        states = [event.state for event in events if isinstance(event, PartStatus)]
        return bool(states) and states[-1] is PartState.PAUSED

    arguments = (
        SimulationSettings(perspectives=1, frames_per_perspective=60, frame_shape_px=(32, 32), seed=3),
        AcquisitionSettings(edge=False, trainer=False, rate_hz=100.0, batch_frames=4),
        RetrievalSettings(source=GroundTruthSource.SIMULATED),
    )
    context = {"network": network, "run": RunContext("test", tmp_path, seed=1), "stop": threading.Event()}
    service = threading.Thread(target=acquire, args=arguments, kwargs=context)
    hub = TelemetryHub(
        network, jsonl=tmp_path / "telemetry.jsonl", on_event=lambda event, _: events.append(event.event)
    )
    with closing(hub), closing(CommandHub(network)), closing(CommandSender(network)) as sender:
        sender.send(Pause())
        service.start()
        wait_until(is_paused)
        before = len(counts())
        wait_until(lambda: len(counts()) >= before + 2)
        assert len(set(counts()[before:])) == 1
        assert counts()[-1] < 60
        sender.send(Resume())
        service.join()
        wait_until(lambda: isinstance(events[-1], PartStatus) and events[-1].state is PartState.DONE)
    assert counts()[-1] == 60


def test_what_must_not_wait_is_attended_to_during_a_pause(network: NetworkSettings, tmp_path: Path) -> None:
    attended: list[bool] = []
    stop = threading.Event()
    with (
        closing(CommandHub(network)),
        closing(TelemetryHub(network, jsonl=tmp_path / "telemetry.jsonl", on_event=lambda *_: None)),
        open_loop(PublishingSettings(), network=network, run=RunContext("test", tmp_path, seed=1), stop=stop) as loop,
    ):
        loop.control.paused = True

        def attend() -> None:
            attended.append(loop.control.paused)
            loop.control.paused = len(attended) < 5

        loop.attendants += [attend, lambda: None]
        loop.wait_for_turn(0.0)
    assert attended[:5] == [True] * 5


def test_after_a_pause_the_acquisition_says_again_what_it_did_before(network: NetworkSettings, tmp_path: Path) -> None:
    said: list[str] = []

    def hear(event: Telemetry, _: Arrays) -> None:
        if isinstance(event.event, PartStatus):
            said.append(event.event.text)

    with (
        closing(CommandHub(network)),
        closing(TelemetryHub(network, jsonl=tmp_path / "telemetry.jsonl", on_event=hear)),
        open_loop(
            PublishingSettings(), network=network, run=RunContext("test", tmp_path, seed=1), stop=threading.Event()
        ) as loop,
    ):
        loop.begin("streaming images")
        loop.control.paused = True
        loop.attendants.append(lambda: setattr(loop.control, "paused", "paused by a command" not in said))
        loop.wait_for_turn(0.0)
        wait_until(lambda: said.count("streaming images") == 2)
    assert said[-3:] == ["streaming images", "paused by a command", "streaming images"]
