"""What all outputs share: what they are told, and what becomes of one that fails."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from output_news import FIRST_PASS, SCAN
from support import wait_until
from telemetry_samples import mosaic, ramp, scores

from ptychoflow.dashboard.mosaics import Mosaic
from ptychoflow.dashboard.outputs import service
from ptychoflow.dashboard.outputs.delivery import Delivery
from ptychoflow.dashboard.outputs.news import News
from ptychoflow.dashboard.outputs.output import Output
from ptychoflow.dashboard.outputs.service import Distributor, serve_outputs
from ptychoflow.dashboard.outputs.settings import OutputsSettings, PtychodusOutputSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import Part, PerspectiveScores, Telemetry, WarningRaised
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.streaming.telemetry import TelemetryHub, TelemetrySender


class Keeping(Output):
    """Keeps what it is told."""

    name = "keeping"
    takes = (Mosaic, PerspectiveScores)

    def __init__(self) -> None:
        self.told: list[News] = []
        self.closed = False

    def send(self, news: News) -> None:
        self.told.append(news)

    def close(self) -> None:
        self.closed = True


class Failing(Keeping):
    name = "failing"

    def send(self, news: News) -> None:
        raise LookupError("a fault in a library")


def test_who_was_started_late_learns_from_the_history_what_is_scanned(tmp_path: Path) -> None:
    history = tmp_path / "telemetry.jsonl"
    history.write_bytes(msgspec.json.encode(Telemetry(900.0, Part.ACQUISITION, 0, SCAN)) + b"\n")
    output = Keeping()
    delivery = Delivery(output, warn=print)
    distributor = Distributor([delivery], history, warn=print)
    distributor.take(Telemetry(1000.0, Part.EDGE, 0, scores(0, FIRST_PASS, 20.0)), {})
    distributor.look_back()
    distributor.take(Telemetry(1001.0, Part.EDGE, 0, scores(1, FIRST_PASS, 21.0)), {})
    delivery.stop()
    assert delivery.join(20)
    assert [(one.scan, one.time_s) for one in output.told] == [(None, 1000.0), (SCAN, 1001.0)]
    assert output.closed


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_output_that_fails_is_told_and_the_others_get_everything(
    network: NetworkSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping, failing = Keeping(), Failing()
    monkeypatch.setattr(service, "open_outputs", lambda *_, **__: [failing, keeping])
    settings = OutputsSettings(ptychodus=PtychodusOutputSettings(folder=tmp_path))
    warnings: list[str] = []

    def note(telemetry: Telemetry, _arrays: object) -> None:
        if isinstance(telemetry.event, WarningRaised):
            warnings.append(telemetry.event.text)

    stop, ended = threading.Event(), []

    def serve() -> None:
        with pytest.raises(RuntimeError, match="output failing failed: a fault in a library"):
            serve_outputs(settings, network=network, run=RunContext("first", tmp_path, 0), stop=stop)
        ended.append(True)

    with (
        closing(TelemetryHub(network, jsonl=tmp_path / "telemetry.jsonl", on_event=note)),
        closing(TelemetrySender(network, part=Part.EDGE)) as sender,
    ):
        running = threading.Thread(target=serve)
        running.start()

        def heard() -> bool:
            sender.send(*mosaic(0, FIRST_PASS, ramp(), ramp()))
            return bool(keeping.told) and bool(warnings)

        wait_until(heard)
        before = len(keeping.told)
        sender.send(scores(0, FIRST_PASS, 20.0))
        wait_until(lambda: any(isinstance(one.what, PerspectiveScores) for one in keeping.told[before:]))
        stop.set()
        running.join(30)
    assert ended == [True]
    assert warnings[0] == "output failing failed and gets nothing more: a fault in a library"
    assert failing.closed
    assert keeping.closed


def test_without_any_output_there_is_nothing_to_serve(network: NetworkSettings, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\[outputs\] names no output"):
        serve_outputs(OutputsSettings(), network=network, run=RunContext("x", tmp_path, 0), stop=threading.Event())
