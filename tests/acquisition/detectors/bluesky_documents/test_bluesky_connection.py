"""Documents over real sockets: from the simulated publisher, and from a RunEngine with a detector of ophyd-async."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import h5py
import numpy as np
import pytest
import zmq
import zmq.auth
from bluesky_documents_messages import documents, message, settings
from drained import Drained, drains
from peers import peer_python
from support import wait_until

from ptychoflow.acquisition.detectors.arrivals import (
    FrameCame,
    Malformed,
    SeriesBegan,
    SeriesEnded,
)
from ptychoflow.acquisition.detectors.bluesky_documents.connection import BlueskyDocumentsConnection
from ptychoflow.acquisition.detectors.bluesky_documents.decoder import BlueskyDocumentsDecoder
from ptychoflow.acquisition.detectors.bluesky_documents.settings import (
    BlueskyDocumentsSettings,
    BlueskyDocumentsSimulatorSettings,
)
from ptychoflow.acquisition.detectors.bluesky_documents.simulator import BlueskyDocumentsSimulator
from ptychoflow.acquisition.detectors.hdf5_swmr.image import Hdf5Image
from ptychoflow.acquisition.detectors.player import play
from ptychoflow.acquisition.scan import Ending
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import SimulationSettings
from ptychoflow.streaming.errors import UserError

PEER = ("bluesky==1.15.1", "ophyd-async[sim]==0.21.3", "msgpack==1.2.4", "pyzmq==27.3.0")
SCRIPT = str(Path(__file__).parent.with_name("peer_bluesky.py"))


class Documents(Drained):
    """What a connection delivered, and what a decoder makes of it."""

    def __init__(self, its_settings: BlueskyDocumentsSettings) -> None:
        super().__init__(lambda: BlueskyDocumentsDecoder(its_settings))


@contextmanager
def draining(its_settings: BlueskyDocumentsSettings) -> Iterator[Documents]:
    drained = Documents(its_settings)
    connection = BlueskyDocumentsConnection(its_settings)
    with drains(connection, drained.messages.append):
        yield drained


def simulate(folder: Path, serializer: str, ports: multiprocessing.SimpleQueue[int]) -> None:
    """Publish two runs, the second broken off."""
    scan = SimulatedScan(SimulationSettings(perspectives=2, frames_per_perspective=16, frame_shape_px=(16, 16)))
    simulator_settings = BlueskyDocumentsSimulatorSettings.model_validate(
        {"port": 0, "folder": folder, "serializer": serializer, "prefix": "ours"}
    )
    with closing(BlueskyDocumentsSimulator(simulator_settings)) as simulator:
        ports.put(simulator.port)
        play(simulator, scan, rate_hz=100.0, pause_s=0.1, stop=threading.Event(), broken_off=[2])


@pytest.mark.parametrize("serializer", ["msgpack", "json"])
def test_what_the_simulator_publishes_arrives(tmp_path: Path, serializer: str) -> None:
    """Frames are read while the file is still being written, by another process."""
    context = multiprocessing.get_context("spawn")
    ports = context.SimpleQueue()
    publisher = context.Process(target=simulate, args=(tmp_path, serializer, ports))
    publisher.start()
    its_settings = settings(
        tmp_path,
        port=ports.get(),
        prefix="ours",
        frames="detector",
        field_y="sample_y",
        field_x="sample_x",
        angle_key="angle_deg",
        energy_key="energy_eV",
        visible_within_s=5.0,
    )
    frames: list[np.ndarray] = []
    with draining(its_settings) as drained:
        while len(frames) < 24:
            wait_until(lambda: len(drained.of(FrameCame)) > len(frames))
            frames.append(drained.of(FrameCame)[len(frames)].image.decode())
        wait_until(lambda: len(drained.of(SeriesEnded)) == 2)
    publisher.join()
    assert not drained.of(Malformed)
    scan = SimulatedScan(SimulationSettings(perspectives=2, frames_per_perspective=16, frame_shape_px=(16, 16)))
    came = drained.of(FrameCame)
    first, second = drained.of(SeriesBegan)
    assert [(frame.series, frame.number) for frame in came] == [
        *((first.series, number) for number in range(16)),
        *((second.series, number) for number in range(8)),
    ]
    for index, (series, count) in enumerate(((first, 16), (second, 8))):
        perspective = scan.perspective(index)
        assert series.header.energy_eV == perspective.geometry.energy_eV
        assert series.header.angle_deg == perspective.angle_deg
        np.testing.assert_array_equal(frames[16 * index : 16 * index + count], perspective.read(0, count))
        found, true_m = drained.positions_m(series.series), perspective.positions_px[:count]
        np.testing.assert_allclose(list(found.values()), true_m * perspective.geometry.object_pixel_size_m, rtol=1e-12)
    assert [ended.ending for ended in drained.of(SeriesEnded)] == [Ending.COMPLETE, Ending.ABORTED]
    begins = [BlueskyDocumentsConnection.begins_series(parts) for parts in drained.messages]
    assert sum(begins) == 2
    assert begins[0]


def test_a_simulator_that_nobody_listens_to_can_be_closed(tmp_path: Path) -> None:
    scan = SimulatedScan(SimulationSettings(perspectives=1, frames_per_perspective=16, frame_shape_px=(16, 16)))
    simulator = BlueskyDocumentsSimulator(BlueskyDocumentsSimulatorSettings(port=0, folder=tmp_path))
    with pytest.raises(UserError, match="choose another port"):
        BlueskyDocumentsSimulator(BlueskyDocumentsSimulatorSettings(port=simulator.port))
    closer = threading.Timer(0.3, simulator.close)
    closer.start()
    with pytest.raises(InterruptedError):
        simulator.begin(scan.perspective(0), series=1)
    closer.join()


def test_an_encrypted_proxy_is_understood(tmp_path: Path) -> None:
    _, server_secret = zmq.auth.create_certificates(tmp_path, "server")
    client_public, client_secret = zmq.auth.create_certificates(tmp_path, "client")
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.curve_publickey, publisher.curve_secretkey = zmq.auth.load_certificate(server_secret)
        publisher.curve_server = True
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        keys = {"curve_secret": client_secret, "curve_server": tmp_path / "server.key"}
        with draining(settings(tmp_path, port=port, **keys)) as drained:
            assert publisher.poll(10_000)
            assert publisher.recv() == b"\1"
            publisher.send(message(documents("file://a")[0])[0])
            wait_until(lambda: len(drained.messages) == 1)
        for wrong in (client_public, tmp_path / "absent", Path(__file__)):
            connection = BlueskyDocumentsConnection(settings(tmp_path, port=port, **keys | {"curve_secret": wrong}))
            with pytest.raises(UserError, match=str(wrong)):
                connection.drain(lambda _: None, threading.Event())


@pytest.mark.parametrize("serializer", ["msgpack", "json"])
def test_a_run_engine_with_a_detector_of_ophyd_async(tmp_path: Path, serializer: str) -> None:
    """Three plans, the second one aborted: same runs, positions, frames and endings as its own subscriber saw."""
    command = [str(peer_python(*PEER)), SCRIPT, str(tmp_path), serializer]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        its_settings = settings(
            tmp_path,
            port=int(process.stdout.readline()),
            prefix="ours",
            frames="detector",
            field_y="stage-y",
            field_x="stage-x",
            angle_key="angle_deg",
            visible_within_s=5.0,
        )
        with draining(its_settings) as drained, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as reader:
            wait_until(lambda: bool(drained.messages), timeout_s=30.0)
            process.stdin.write("go\n")
            process.stdin.flush()
            wait_until(lambda: bool(drained.of(FrameCame)), timeout_s=30.0)
            early = reader.submit(Hdf5Image.decode, drained.of(FrameCame)[0].image).result()
            wait_until(lambda: len(drained.of(SeriesEnded)) == 3, timeout_s=60.0)
            runs = json.loads(process.communicate("")[0])
    assert not drained.of(Malformed)
    assert [run["exit_status"] for run in runs] == ["success", "abort", "success"]
    assert drained.of(SeriesEnded) == [
        SeriesEnded(run["uid"], ending)
        for run, ending in zip(runs, (Ending.COMPLETE, Ending.ABORTED, Ending.COMPLETE), strict=True)
    ]
    began = drained.of(SeriesBegan)
    assert [series.header.angle_deg for series in began] == [12.5, None, None]
    assert [series.header.most_frames for series in began] == [6, 6, 3]
    for run, count in zip(runs, (6, 3, 3), strict=True):
        frames = [frame for frame in drained.of(FrameCame) if frame.series == run["uid"]]
        assert [frame.number for frame in frames] == list(range(count))
        with h5py.File(urlsplit(run["files"][0]).path, "r", locking=False) as file:
            written = file["entry/data/data"][:]
        np.testing.assert_array_equal([frame.image.decode() for frame in frames], written[:count])
        positions = drained.positions_m(run["uid"])
        assert list(positions) == list(range(count))
        np.testing.assert_allclose(list(positions.values()), 1e-3 * np.array(run["positions_mm"]), atol=1e-12)
    with h5py.File(urlsplit(runs[0]["files"][0]).path, "r", locking=False) as file:
        np.testing.assert_array_equal(early, file["entry/data/data"][0])


def test_the_default_serializer_is_refused_with_the_remedy(tmp_path: Path) -> None:
    command = [str(peer_python(*PEER)), SCRIPT, str(tmp_path), "pickle"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with draining(settings(tmp_path, port=int(process.stdout.readline()))) as drained:
            wait_until(lambda: bool(drained.messages), timeout_s=30.0)
            process.stdin.write("go\n")
            process.stdin.flush()
            wait_until(lambda: bool(drained.of(Malformed)), timeout_s=30.0)
        process.kill()
    assert "serializer=msgpack.dumps" in drained.of(Malformed)[0].reason
