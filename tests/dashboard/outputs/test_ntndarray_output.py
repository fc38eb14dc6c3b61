"""NTNDArrays over PvAccess, read by pvapy."""

from __future__ import annotations

import ast
import re
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from output_news import FIRST_PASS, REFERENCE, SCAN, serving
from peers import peer_python
from support import free_ports
from telemetry_samples import PIXEL_SIZE_M, mosaic, quality, ramp, scores

from ptychoflow.dashboard.mosaics import Channel
from ptychoflow.dashboard.outputs.ntndarray import NtndarrayOutput, channel_name
from ptychoflow.dashboard.outputs.settings import NtndarrayOutputSettings, OutputsSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import MosaicArea
from ptychoflow.streaming.settings import NetworkSettings

pytest.importorskip("p4p", reason="p4p is not installed: pip install 'ptychoflow[epics]'")

PREFIX = "PTYCHO:"
PVAPY = "pvapy==5.6.0"
PVAPY_CLIENT = """
import sys, time, pvaccess, numpy as np
channel = pvaccess.Channel(sys.argv[1], pvaccess.PVA)
shown = []
def take(image):
    if image["dimension"]:
        width, height = (one["size"] for one in image["dimension"])
        attributes = {one["name"]: one["value"][0]["value"] for one in image["attribute"]}
        values = np.asarray(image["value"][0]["floatValue"], np.float32).reshape(height, width)
        shown.append((values.tobytes().hex(), (height, width), attributes, image["timeStamp"]["secondsPastEpoch"]))
channel.monitor(take, "record[queueSize=100]field()")
print("listening", flush=True)
deadline_s = time.monotonic() + 30
while not (shown and sys.argv[2] in shown[-1][2]) and time.monotonic() < deadline_s:
    time.sleep(0.02)
print(shown[-1])
"""


def client(python: Path, port: int, channel: str, until: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "-c", PVAPY_CLIENT, channel, until],
        stdout=subprocess.PIPE, text=True, env={"EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{port}"},
    )  # fmt: skip


def pixels(shown: tuple[str, tuple[int, int], dict[str, float], int]) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(shown[0]), np.float32).reshape(shown[1])


def test_pvapy_reads_exact_images_as_they_grow_with_their_scores(network: NetworkSettings, tmp_path: Path) -> None:
    python = peer_python(PVAPY, "numpy")
    (port,) = free_ports(1)
    settings = OutputsSettings(ntndarray=NtndarrayOutputSettings(prefix=PREFIX, port=port))
    phase = ramp() / 7
    phase[0, 0] = np.nan
    grown = np.full((8, 8), np.nan, np.float32)
    grown[2:] = phase
    grown[0:2, 1:4] = 0.25
    with serving(settings, network, tmp_path) as run:
        readers = [client(python, port, channel_name(PREFIX, FIRST_PASS, channel), "PsnrPhase") for channel in Channel]
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "listening\n"
        run.sender.send(SCAN)
        run.sender.send(*mosaic(2, FIRST_PASS, np.cos(phase), phase, (-3.0, 5.0)))
        part = np.full((2, 3), 0.25, np.float32)
        area = MosaicArea(2, FIRST_PASS, 9, (-5, 6), (-5, 5), (8, 8), 1)
        run.sender.send(area, {"amplitude": np.cos(part), "phase": part})
        run.sender.send(scores(2, FIRST_PASS, 21.5))
        said = [ast.literal_eval(reader.communicate(timeout=60)[0].splitlines()[-1]) for reader in readers]
    for channel, newest in zip(Channel, said, strict=True):
        shown = {Channel.PHASE: grown, Channel.AMPLITUDE: np.cos(grown)}[channel]
        np.testing.assert_array_equal(pixels(newest), shown.astype(np.float32))
        attributes = newest[2]
        assert {name: attributes[name] for name in ("Perspective", "ModelVersion", "OriginY", "OriginX")} == {
            "Perspective": 2, "ModelVersion": 9, "OriginY": -5.0, "OriginX": 5.0,
        }  # fmt: skip
        assert (attributes["PixelSizeY"], attributes["PixelSizeX"]) == PIXEL_SIZE_M
        assert attributes["PsnrPhase"] == 21.5
        assert attributes["CorrelationAmplitude"] == quality(21.5).correlation.amplitude
        assert attributes["ConstantPsnrPhase"] == 9.0
    delivered, overtaken = map(int, re.findall(r"(\d+) (?:delivered|overtaken)", run.last_word))
    assert delivered + overtaken == 3
    assert run.warnings == []


def test_a_client_that_comes_later_gets_what_is_newest_and_one_that_died_hurts_nobody(
    network: NetworkSettings, tmp_path: Path
) -> None:
    python = peer_python(PVAPY, "numpy")
    (port,) = free_ports(1)
    settings = OutputsSettings(ntndarray=NtndarrayOutputSettings(prefix=PREFIX, port=port))
    with serving(settings, network, tmp_path) as run:
        name = channel_name(PREFIX, REFERENCE, Channel.PHASE)
        killed = client(python, port, name, "never")
        assert killed.stdout is not None
        assert killed.stdout.readline() == "listening\n"
        # a socket that never reads
        with socket.create_connection(("127.0.0.1", port)):
            killed.kill()
            killed.wait()
            for number in range(20):
                run.sender.send(*mosaic(number, REFERENCE, ramp(), ramp() + number))
            run.sender.send(scores(19, REFERENCE, 40.0))
            newest = ast.literal_eval(
                client(python, port, name, "PsnrPhase").communicate(timeout=60)[0].splitlines()[-1]
            )
    np.testing.assert_array_equal(pixels(newest), ramp() + 19)
    assert "undelivered" not in run.last_word


def test_an_address_that_cannot_be_listened_on_is_refused_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = NtndarrayOutputSettings(prefix=PREFIX, port=taken.getsockname()[1])
        with pytest.raises(UserError, match=r"outputs\.ntndarray"):
            NtndarrayOutput(settings)
    with pytest.raises(UserError, match=r"outputs\.ntndarray: cannot listen on 203\.0\.113\.7"):
        NtndarrayOutput(NtndarrayOutputSettings(prefix=PREFIX, host="203.0.113.7"))
