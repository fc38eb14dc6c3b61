"""What a part tells last reaches the hub, also over a link that is down at that moment."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support import Proxy, wait_until

from ptychoflow.streaming import telemetry
from ptychoflow.streaming.events import AnyEvent, Part, PartState, PartStatus, RankCounts
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.telemetry import TelemetryHub, TelemetrySender
from ptychoflow.streaming.telemetry_log import TelemetryLog

FINAL = RankCounts(70, 8, 0, 0, ranks=1, final=True)
DONE = PartStatus(PartState.DONE)


@pytest.fixture
def hub(network: NetworkSettings, tmp_path: Path) -> Iterator[TelemetryHub]:
    with closing(TelemetryHub(network, jsonl=tmp_path / "telemetry.jsonl")) as hub:
        yield hub


@pytest.fixture
def link(network: NetworkSettings) -> Iterator[Proxy]:
    with closing(Proxy(network.telemetry_port)) as link:
        yield link


def over(link: Proxy, network: NetworkSettings) -> NetworkSettings:
    return network.model_copy(update={"telemetry_port": link.port})


def told(folder: Path) -> list[AnyEvent]:
    return [one.event for one in TelemetryLog(folder / "telemetry.jsonl")]


@pytest.mark.usefixtures("hub")
def test_last_counts_arrive_once_though_the_link_is_down_when_a_part_ends(
    network: NetworkSettings, link: Proxy, tmp_path: Path
) -> None:
    sender = TelemetrySender(over(link, network), part=Part.TRAINER)
    sender.send(RankCounts(30, 4, 0, 0, ranks=1))
    wait_until(lambda: len(told(tmp_path)) == 1)
    link.swallows = True
    for event in (FINAL, DONE):
        sender.send(event)
    ending = threading.Thread(target=sender.close)
    ending.start()
    # more than the two events: they have been asked about
    wait_until(lambda: link.swallowed > 600)
    assert ending.is_alive(), "it does not leave without its last counts"
    link.swallows = False
    link.cut()
    ending.join(20.0)
    assert not ending.is_alive()
    assert told(tmp_path)[1:] == [FINAL, DONE]


@pytest.mark.usefixtures("hub")
def test_what_the_hub_has_already_is_not_told_twice(network: NetworkSettings, tmp_path: Path) -> None:
    sender = TelemetrySender(network, part=Part.TRAINER)
    for event in (FINAL, DONE):
        sender.send(event)
    sender.close()
    assert told(tmp_path) == [FINAL, DONE]


@pytest.mark.usefixtures("hub")
def test_a_last_word_that_cannot_be_sent_does_not_keep_a_part_from_ending(
    network: NetworkSettings, tmp_path: Path
) -> None:
    sender = TelemetrySender(network, part=Part.TRAINER)
    sender.send(FINAL)
    sender.send(RankCounts(1 << 64, 8, 0, 0, ranks=1, final=True))
    sender.send(PartStatus(PartState.FAILED, "cannot read sc\udce4n.h5"))
    sender.close()
    assert sender.dropped == 1
    assert told(tmp_path) == [FINAL, PartStatus(PartState.FAILED, r"cannot read sc\udce4n.h5")]


@pytest.mark.usefixtures("hub")
def test_who_sends_while_the_sender_closes_is_neither_kept_nor_struck(
    network: NetworkSettings, link: Proxy, tmp_path: Path
) -> None:
    sender = TelemetrySender(over(link, network), part=Part.TRAINER)
    sender.send(FINAL)
    wait_until(lambda: len(told(tmp_path)) == 1)
    link.swallows = True
    ending = threading.Thread(target=sender.close)
    ending.start()
    wait_until(lambda: link.swallowed > 100)
    other = threading.Thread(target=sender.send, args=(DONE,), daemon=True)
    other.start()
    other.join(20.0)
    was_kept = other.is_alive() or not ending.is_alive()
    link.swallows = False
    link.cut()
    ending.join(20.0)
    assert not was_kept
    sender.send(DONE)
    assert sender.dropped == 2
    assert told(tmp_path) == [FINAL]


@pytest.mark.parametrize("was_there", [True, False])
def test_a_part_leaves_with_a_word_when_the_hub_has_left_or_never_came(
    network: NetworkSettings,
    tmp_path: Path,
    was_there: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(telemetry, "SOON_S", 0.2)
    sender = TelemetrySender(network, part=Part.TRAINER)
    if was_there:
        with closing(TelemetryHub(network, jsonl=tmp_path / "telemetry.jsonl")):
            sender.send(RankCounts(30, 4, 0, 0, ranks=1))
            wait_until(lambda: len(told(tmp_path)) == 1)
    sender.send(FINAL)
    caplog.set_level(logging.WARNING)
    ending = threading.Thread(target=sender.close)
    ending.start()
    ending.join(20.0)
    assert not ending.is_alive()
    assert "has not confirmed the last RankCounts" in caplog.text
