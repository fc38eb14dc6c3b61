"""Final weights are waited for until an edge has them, and it is said where none does."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest
from support import wait_until

from ptychoflow.streaming.events import WarningRaised, WeightsPublished
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.weights_channel import WeightsClient
from ptychoflow.trainer.models.tensor_file import Stamp
from ptychoflow.trainer.online import publication as publication_module
from ptychoflow.trainer.online.publication import Publication


def test_without_an_edge_final_weights_wait_a_minute_at_most_and_it_is_said_how_long(
    network: NetworkSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publication_module, "LOADING_S", 0.3)
    told: list[WeightsPublished | WarningRaised] = []
    with Publication(network, folder=RunFolder(tmp_path), run="test", on_published=told.append) as publication:
        publication.publish(lambda _stamp: b"weights", step=1, validation_loss=None, final=True)
        publication.wait_until_served(300.0, threading.Event())
    (warning,) = [one.text for one in told if isinstance(one, WarningRaised)]
    assert "were not fetched by any edge within 0 s" in warning


def test_nobody_is_waited_for_where_the_edge_has_kept_final_weights_and_does_not_ask(
    network: NetworkSettings, tmp_path: Path
) -> None:
    told: list[WeightsPublished | WarningRaised] = []
    RunFolder(tmp_path).final_weights.write_bytes(b"of before the resume")
    with Publication(network, folder=RunFolder(tmp_path), run="test", on_published=told.append) as publication:
        publication.publish(lambda _stamp: b"weights", step=1, validation_loss=None, final=True)
        waiting = threading.Thread(target=publication.wait_until_served, args=(300.0, threading.Event()))
        waiting.start()
        waiting.join(20.0)
        assert not waiting.is_alive()
    assert [type(one) for one in told] == [WeightsPublished]


def test_final_weights_that_an_edge_misses_are_told(network: NetworkSettings, tmp_path: Path) -> None:
    told: list[WeightsPublished | WarningRaised] = []

    def write(_stamp: Stamp) -> bytes:
        return b"weights"

    with (
        Publication(network, folder=RunFolder(tmp_path), run="test", on_published=told.append) as publication,
        closing(WeightsClient(network, edge="the edge of host two")) as client,
    ):
        publication.publish(write, step=1, validation_loss=None, final=False)
        wait_until(lambda: client.poll(0.05) is not None)
        publication.publish(write, step=2, validation_loss=None, final=True)
        publication.wait_until_served(0.5, threading.Event())
        (warning,) = [one.text for one in told if isinstance(one, WarningRaised)]
        assert "were not fetched by the edge of host two within" in warning
        wait_until(lambda: client.poll(0.05) is not None)
        publication.wait_until_served(60.0, threading.Event())
        assert len(told) == 3, "now it has them"
        other = WeightsClient(network, edge="one that comes late")
        wait_until(lambda: other.poll(0.05) is not None)
        other.close()
        stop = threading.Event()
        stop.set()
        publication.wait_until_served(60.0, stop)
