"""Images and scores on a real Tiled server, read by its own client."""

from __future__ import annotations

import json
import math
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from output_news import FIRST_PASS, REFERENCE, REFRESHED, SCAN, image, news, serving
from peers import peer_python
from support import free_ports, wait_until
from telemetry_samples import PIXEL_SIZE_M, mosaic, quality, ramp, scores

from ptychoflow.dashboard.outputs import delivery as delivering
from ptychoflow.dashboard.outputs import service
from ptychoflow.dashboard.outputs import tiled as module
from ptychoflow.dashboard.outputs.delivery import Delivery
from ptychoflow.dashboard.outputs.mailbox import Mailbox
from ptychoflow.dashboard.outputs.output import ConsumerAway
from ptychoflow.dashboard.outputs.settings import OutputsSettings, TiledOutputSettings
from ptychoflow.dashboard.outputs.tiled import TiledOutput
from ptychoflow.streaming.events import HeldOutScores
from ptychoflow.streaming.settings import NetworkSettings

TILED = "tiled[all]==0.2.20"
PEER = Path(__file__).with_name("peer_tiled.py")


@contextmanager
def server(python: Path, folder: Path, port: int) -> Iterator[None]:
    started = subprocess.Popen(
        [python, PEER, "serve", folder, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == "serving\n"
        yield
    finally:
        started.kill()
        started.communicate()


@pytest.fixture(scope="module")
def python() -> Path:
    return peer_python(TILED)


@pytest.fixture(scope="module")
def port(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    (chosen,) = free_ports(1)
    with server(python, tmp_path_factory.mktemp("tiled"), chosen):
        yield chosen


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILED_API_KEY", "secret")


def settings(port: int) -> TiledOutputSettings:
    return TiledOutputSettings(url=f"http://127.0.0.1:{port}", pause_s=0.0)


def read(python: Path, port: int, run: str = "first") -> dict[str, Any]:
    done = subprocess.run(
        [python, PEER, "read", f"http://127.0.0.1:{port}", run], capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def pixels(item: dict[str, Any]) -> np.ndarray:
    assert (item["dtype"], item["dims"]) == ("float32", ["y", "x"])
    return np.frombuffer(bytes.fromhex(item["hex"]), np.float32).reshape(item["shape"])


def test_tileds_client_reads_exact_images_that_grow_and_their_scores(
    network: NetworkSettings, tmp_path: Path, python: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LAST_DELIVERIES_S", 100.0)
    phase = ramp() / 7
    phase[0, 0] = np.nan
    grown = np.pad(phase, 3, constant_values=np.nan)
    with serving(OutputsSettings(tiled=settings(port)), network, tmp_path) as run:
        run.sender.send(SCAN)
        run.sender.send(*mosaic(0, FIRST_PASS, np.cos(phase), phase, (-3.0, 5.0)))
        run.sender.send(scores(0, FIRST_PASS, 21.5))
        run.sender.send(*mosaic(0, REFERENCE, np.cos(phase), phase + 1, (-3.0, 5.0)))
        run.sender.send(*mosaic(1, FIRST_PASS, np.cos(phase), phase + 2, (0.0, 0.0)))
        run.sender.send(HeldOutScores(1, 57, quality(18.25), quality(math.nan), 4))
        run.sender.send(*mosaic(0, FIRST_PASS, np.cos(grown), grown, (-6.0, 2.0)))
    found = read(python, port)
    assert found[""]["metadata"] == {"run": "first", "source": "star", "energy_eV": 6200.0}
    np.testing.assert_array_equal(pixels(found["/perspective_0000/first_pass/phase"]), grown)
    np.testing.assert_array_equal(pixels(found["/perspective_0000/first_pass/amplitude"]), np.cos(grown))
    np.testing.assert_array_equal(pixels(found["/perspective_0000/reference/phase"]), phase + 1)
    np.testing.assert_array_equal(pixels(found["/perspective_0001/first_pass/phase"]), phase + 2)
    about = found["/perspective_0000/first_pass"]["metadata"]
    assert (about["origin_px"], about["pixel_size_m"], about["model_version"]) == ([-6.0, 2.0], list(PIXEL_SIZE_M), 7)
    assert about["scores"]["psnr_phase_db"] == 21.5
    assert about["scores"]["constant_psnr_phase_db"] == 9.0
    assert (about["scores"]["frames"], about["scores"]["angle_deg"]) == (400, 1.5)
    held_out = found["/perspective_0001"]["metadata"]["held_out"]
    assert (held_out["psnr_phase_db"], held_out["model_version"]) == (18.25, 4)
    assert "constant_psnr_phase_db" not in held_out
    assert "undelivered" not in run.last_word
    assert run.warnings == []


def test_a_run_that_is_resumed_goes_on_in_its_container(python: Path, port: int) -> None:
    for value, shape in ((1.0, (6, 8)), (2.0, (6, 8)), (3.0, (9, 9))):
        with closing(TiledOutput(settings(port), run="resumed")) as output:
            output.send(news(image(value=value, shape=shape)))
    newest = pixels(read(python, port, "resumed")["/perspective_0000/first_pass/phase"])
    np.testing.assert_array_equal(newest, image(value=3.0, shape=(9, 9)).channels["phase"])


def test_a_server_that_was_killed_and_comes_back_empty_gets_what_is_newest(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(delivering, "LONGEST_PAUSE_S", 0.1)
    (port,) = free_ports(1)
    warnings: list[str] = []
    delivery = Delivery(TiledOutput(settings(port), run="first"), warn=warnings.append)
    delivery.put(news(image(0)))
    with server(python, tmp_path / "one", port):
        wait_until(lambda: delivery.undelivered == 0)
    for value in range(10):
        delivery.put(news(image(0, REFRESHED, value=value)))
    with server(python, tmp_path / "two", port):
        wait_until(lambda: delivery.undelivered == 0)
        newest = pixels(read(python, port)["/perspective_0000/refreshed/phase"])
    np.testing.assert_array_equal(newest, image(0, REFRESHED, value=9).channels["phase"])
    delivery.stop()
    assert delivery.join(20)
    assert len(warnings) == 1
    assert warnings[0].startswith(f"output tiled: http://127.0.0.1:{port} does not answer (")
    assert delivery.overtaken + delivery.sent == 11


def test_a_server_that_never_answers_slows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    warnings: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        output = TiledOutput(settings(deaf.getsockname()[1]), run="first")
        delivery = Delivery(output, warn=warnings.append, mailbox=Mailbox(max_news=8))
        for perspective in range(1000):
            delivery.put(news(image(perspective)))
        wait_until(lambda: bool(warnings))
        delivery.stop()
        assert delivery.join(20)
    assert delivery.sent == 0
    assert delivery.undelivered == 8
    assert delivery.dropped == 992
    assert "does not answer" in warnings[0]


def test_a_wrong_key_is_said_with_what_to_do(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILED_API_KEY", "wrong")
    with (
        closing(TiledOutput(settings(port), run="first")) as output,
        pytest.raises(ConsumerAway, match=r"answers 401 to POST /metadata/: it wants a key .* TILED_API_KEY"),
    ):
        output.send(news(image()))
