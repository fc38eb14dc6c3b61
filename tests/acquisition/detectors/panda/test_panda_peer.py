"""Beside `pandablocks`, the client of the makers: recorded streams, and our simulated data port read by it."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from peers import peer_python, peer_sources
from support import wait_until

from ptychoflow.acquisition.detectors.arrivals import Malformed, PositionsCame, PositionsEnded
from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.acquisition.detectors.panda.connection import PandaConnection
from ptychoflow.acquisition.detectors.panda.decoder import PandaDecoder
from ptychoflow.acquisition.detectors.panda.framing import BLOCK, BLOCK_PREFIX_BYTES
from ptychoflow.acquisition.detectors.panda.header import parse_header
from ptychoflow.acquisition.detectors.panda.settings import PandaSettings, PandaSimulatorSettings
from ptychoflow.acquisition.detectors.panda.simulator import PandaSimulator
from ptychoflow.acquisition.readers.units import LengthUnit
from ptychoflow.acquisition.scan import Ending, Perspective

PEER = "pandablocks==0.10.4"
SCRIPT = Path(__file__).with_name("peer_pandablocks.py")
PIECES_BYTES = (1, 2, 3, 5, 7, 11, 13, 1021)


def settings(port: int) -> PandaSettings:
    return PandaSettings(
        host="127.0.0.1",
        port=port,
        field_y="COUNTER1.OUT.Mean",
        field_x="COUNTER2.OUT.Mean",
        unit=LengthUnit.MICROMETRE,
        stale_first_sample=False,
    )


def drained(stream: bytes) -> list[list[bytes]]:
    """Serve a stream in odd-sized pieces to our connection; return the messages that it delivers."""
    messages: list[list[bytes]] = []
    stop = threading.Event()

    def deliver(parts: Any) -> None:
        messages.append([bytes(part) for part in parts])

    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = PandaConnection(settings(server.getsockname()[1]))
        thread = threading.Thread(target=connection.drain, args=(deliver, stop))
        thread.start()
        client, _ = server.accept()
        with client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            start = 0
            while start < len(stream):
                size = PIECES_BYTES[start % len(PIECES_BYTES)]
                client.sendall(stream[start : start + size])
                start += size
            wait_until(lambda: bool(messages) and messages[-1][0].startswith(b"END"))
            stop.set()
            thread.join()
    return messages


@pytest.mark.parametrize("name", ["slow", "fast", "raw"])
def test_recorded_streams_say_what_the_peer_says(name: str) -> None:
    python, dump = peer_python(PEER), peer_sources(PEER) / "tests" / "data_dumps" / f"{name}_dump.bin"
    peer = json.loads(subprocess.run([python, SCRIPT, dump], check=True, capture_output=True).stdout)
    messages = drained(dump.read_bytes())

    header = parse_header(messages[0][0])
    assert [[field.full_name, field.unit] for field in header.fields] == peer["fields"]
    assert (header.missed, header.process) == (peer["missed"], peer["process"])
    blocks = [message[0] for message in messages if message[0].startswith(BLOCK)]
    samples = np.concatenate([np.frombuffer(block, header.dtype, offset=BLOCK_PREFIX_BYTES) for block in blocks])
    assert len(samples) == peer["end"][0]
    for place, field in enumerate(header.fields):
        np.testing.assert_array_equal(samples[str(place)], np.array(peer["columns"][field.full_name]))

    decoder = PandaDecoder(settings(1))
    arrivals = [arrival for message in messages for arrival in decoder.decode(cast(list[Part], message))]
    if header.process == "Raw":
        assert all(isinstance(arrival, Malformed) for arrival in arrivals)
        return
    positions = np.concatenate([one.positions_m for one in arrivals if isinstance(one, PositionsCame)])
    columns = [peer["columns"]["COUNTER1.OUT.Mean"], peer["columns"]["COUNTER2.OUT.Mean"]]
    np.testing.assert_array_equal(positions, np.array(columns).T * 1e-6)
    assert isinstance(arrivals[-1], PositionsEnded)
    assert (arrivals[-1].ending, arrivals[-1].lost) == (Ending.COMPLETE, 0)


def test_the_peer_reads_our_simulated_data_port() -> None:
    simulator = PandaSimulator(PandaSimulatorSettings(port=0, unit=LengthUnit.MICROMETRE))
    command = [str(peer_python(PEER)), str(SCRIPT), str(simulator.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        simulator.begin(cast(Perspective, None), series=1)
        for index in range(10):
            simulator.send(index, np.zeros((2, 2)), (index * 1e-6, index * -2e-6))
        simulator.end(aborted=False)
        peer = json.loads(process.communicate(timeout=30)[0])
    simulator.close()
    assert peer["end"] == [10, "Ok"]
    assert dict(peer["fields"])["INENC2.VAL.Mean"] == "um"
    assert peer["columns"]["COUNTER1.OUT.Value"] == list(range(1, 11))
    np.testing.assert_allclose(peer["columns"]["INENC2.VAL.Mean"], np.arange(10))
    np.testing.assert_allclose(peer["columns"]["INENC1.VAL.Mean"], np.arange(10) * -2.0)
