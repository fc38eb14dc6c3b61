"""A scan replayed as a detector, by processes that know nothing of each other, is the scan of the file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from acquisition_runs import Outcome, receivers, run_acquisition
from support import Proxy, free_network, free_ports, listens, wait_until

from ptychoflow.acquisition.detectors.arrivals_file import ArrivalsReader, arrivals_files
from ptychoflow.acquisition.detectors.settings import LiveSettings
from ptychoflow.acquisition.detectors.watched_folder.settings import SeriesBy, WatchedFolderSettings
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.simulate import simulate_to_file
from ptychoflow.acquisition.source_settings import ReplaySettings, SimulationSettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.events import WarningRaised
from ptychoflow.streaming.messages import GroundTruthSource
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.workflow.configuration.config import Config, write_config
from ptychoflow.workflow.configuration.run_settings import RunSettings
from ptychoflow.workflow.launching.lifeline import VARIABLE

SCAN = SimulationSettings(perspectives=2, frames_per_perspective=64, frame_shape_px=(32, 32), seed=3)
FRAMES = 2 * 64
GEOMETRY = {
    "energy_eV": SCAN.energy_eV,
    "detector_distance_m": SCAN.detector_distance_m,
    "detector_pixel_size_m": SCAN.detector_pixel_size_m,
}
PATIENT = {"first_frame": 0, "first_sample": 0, "samples_per_frame": 1, "wait_s": 20.0}
"""What says where the probe was is a process of its own, which may lag behind the frames."""
PTYCHI = RetrievalSettings(source=GroundTruthSource.PTYCHI, epochs=2, target_shape_px=(16, 16))


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    simulate_to_file(SCAN, path)
    return path


@dataclass(frozen=True)
class Closed:
    """The acquisition of the file as it is."""

    outcome: Outcome
    folder: Path


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory, scan_file: Path) -> Closed:
    folder = tmp_path_factory.mktemp("closed") / "run"
    source = ReplaySettings(path=scan_file)
    return Closed(run_acquisition(free_network(), folder, source=source, retrieval=PTYCHI), folder)


@contextmanager
def detector(source: str, scan: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "ptychoflow", "detector", source, str(scan), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def listening_detectors(scan: Path, ports: Mapping[str, int], *arguments: str) -> Iterator[None]:
    """Detectors, by their source, that wait for a receiver: they begin together when it connects."""
    with ExitStack() as stack:
        for source, port in ports.items():
            address = f"{source}://127.0.0.1:{port}"
            process = psutil.Process(stack.enter_context(detector(address, scan, *arguments)).pid)
            wait_until(lambda process=process, port=port: listens(process, port), timeout_s=60.0)
        yield


@contextmanager
def acquisition(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The acquisition alone, as a process that can be killed."""
    process = subprocess.Popen([sys.executable, "-m", "ptychoflow", "acquire", "--config", str(config)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def live(frames: str, frames_port: int, positions_port: int, probe: Path | None, **settings: object) -> LiveSettings:
    return LiveSettings.model_validate(
        {
            "frames": {"kind": frames, "host": "127.0.0.1", "port": frames_port},
            "positions": {
                "kind": "panda",
                "host": "127.0.0.1",
                "port": positions_port,
                "field_y": "INENC2.VAL",
                "field_x": "INENC1.VAL",
                "stale_first_sample": False,
            },
            "join": {"first_frame": 0, "first_sample": 0, "samples_per_frame": 1},
            "geometry": {"detector_distance_m": SCAN.detector_distance_m},
            "perspectives": 2,
            "probe": probe,
            **settings,
        }
    )


def in_files(folder: Path, probe: Path | None, **settings: object) -> LiveSettings:
    """A scan that another process writes into files, with what such files do not say."""
    return LiveSettings.model_validate(
        {
            "frames": {
                "kind": "hdf5-swmr",
                "folder": folder,
                "frames": "/entry/data/data",
                "positions": {"path": "/entry/positions"},
                "earlier_files": True,
            },
            "join": {"first_frame": 0, "first_sample": 0, "samples_per_frame": 1},
            "geometry": GEOMETRY,
            "perspectives": 2,
            "probe": probe,
            **settings,
        }
    )


def assert_same(outcome: Outcome, closed: Outcome) -> None:
    assert outcome.edge.roles == closed.edge.roles
    for frame_id, frame in closed.edge.frames.items():
        np.testing.assert_array_equal(outcome.edge.frames[frame_id], frame)
        np.testing.assert_allclose(outcome.edge.positions_px[frame_id], closed.edge.positions_px[frame_id], atol=1e-6)
    assert set(outcome.edge.frames) == set(closed.edge.frames)


def assert_the_same_scan(outcome: Outcome, closed: Outcome) -> None:
    assert_same(outcome, closed)
    assert (outcome.counts.acquired, outcome.counts.samples) == (FRAMES, closed.counts.samples)
    assert outcome.counts.void == closed.counts.void
    assert not outcome.counts.unplaced_because
    assert not outcome.counts.missing_because
    assert outcome.edge.ends == closed.edge.ends == [0, 1]
    for perspective, (_, phase) in closed.edge.references.items():
        np.testing.assert_allclose(outcome.edge.references[perspective][1], phase, atol=0.05)


@pytest.mark.parametrize("kind", ["dectris-v2", "dectris-v1"])
def test_a_file_replayed_as_a_detector_is_the_same_scan(
    network: NetworkSettings, tmp_path: Path, scan_file: Path, closed: Closed, kind: str
) -> None:
    ports = free_ports(2)
    source = live(kind, *ports, closed.folder, join=PATIENT)
    with listening_detectors(scan_file, {kind: ports[0], "panda": ports[1]}, "--rate", "40", "--pause", "1.5"):
        outcome = run_acquisition(network, tmp_path / "live", source=source, retrieval=PTYCHI)
    assert_the_same_scan(outcome, closed.outcome)
    assert len(arrivals_files(tmp_path / "live" / "arrivals")) >= 2


def test_a_file_served_as_ntndarrays_is_the_same_scan(
    network: NetworkSettings, tmp_path: Path, scan_file: Path, closed: Closed
) -> None:
    port = free_ports(1)[0]
    frames = {
        "kind": "ntndarray",
        "pv": "13SIM1:Pva1:Image",
        "servers": [f"127.0.0.1:{port}"],
        "series": {"by": "acquire", "pv": "13SIM1:cam1:Acquire_RBV"},
        "number_from": "attribute",
        "number_attribute": "FrameNumber",
        "positions": {"y": "SampleY", "x": "SampleX", "unit": "um"},
        "energy_attribute": "Energy",
        "angle_attribute": "Angle",
    }
    source = LiveSettings.model_validate(
        {
            "frames": frames,
            "join": {"first_frame": 0, "first_sample": 0, "samples_per_frame": 1},
            "geometry": GEOMETRY,
            "perspectives": 2,
            "probe": closed.folder,
        }
    )
    with detector(f"ntndarray://127.0.0.1:{port}", scan_file, "--rate", "150", "--pause", "2"):
        outcome = run_acquisition(network, tmp_path / "live", source=source, retrieval=PTYCHI)
    assert_the_same_scan(outcome, closed.outcome)


def test_a_file_written_anew_frame_by_frame_is_the_same_scan(
    network: NetworkSettings, tmp_path: Path, scan_file: Path, closed: Closed
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    with detector(f"hdf5-swmr://{folder}", scan_file, "--rate", "25", "--pause", "0.5"):
        outcome = run_acquisition(network, tmp_path / "live", source=in_files(folder, closed.folder), retrieval=PTYCHI)
    assert_the_same_scan(outcome, closed.outcome)
    arrivals = arrivals_files(tmp_path / "live" / "arrivals")
    assert len(arrivals) >= 2
    frames_bytes = sum(frame.nbytes for frame in outcome.edge.frames.values())
    assert sum(path.stat().st_size for path in arrivals) < frames_bytes / 4, "frames stay in their files"


def test_a_scan_told_by_documents_is_the_same_scan(
    network: NetworkSettings, tmp_path: Path, scan_file: Path, closed: Closed
) -> None:
    """Energy and angle come in the start document, positions in events, frames are in growing files."""
    folder, port = tmp_path / "files", free_ports(1)[0]
    frames = {"kind": "bluesky-documents", "host": "127.0.0.1", "port": port, "frames": "detector", "folder": folder}
    frames |= {"field_y": "sample_y", "field_x": "sample_x", "energy_key": "energy_eV", "angle_key": "angle_deg"}
    source = in_files(folder, closed.folder, frames=frames, geometry=GEOMETRY | {"energy_eV": None})
    publisher = detector(
        f"bluesky-documents://127.0.0.1:{port}", scan_file, "--rate", "60", "--set", f"simulator.folder={folder}"
    )
    with publisher:
        outcome = run_acquisition(network, tmp_path / "live", source=source, retrieval=PTYCHI)
    assert_the_same_scan(outcome, closed.outcome)


def test_files_in_a_watched_folder_are_the_same_scan(
    network: NetworkSettings, tmp_path: Path, scan_file: Path, closed: Closed
) -> None:
    folder, (port, panda_port) = tmp_path / "files", free_ports(2)
    folder.mkdir()
    source = live("dectris-v2", 1, port, closed.folder, geometry=GEOMETRY, join=PATIENT).model_copy(
        update={"frames": WatchedFolderSettings(folder=folder, series=SeriesBy.FOLDER, files_per_series=64)}
    )
    with ExitStack() as stack:

        def begin() -> None:
            """Begin the positions with the files, which wait for nobody."""
            wait_until((tmp_path / "live" / "arrivals").exists, timeout_s=60.0)
            stack.enter_context(listening_detectors(scan_file, {"panda": panda_port}, "--rate", "40", "--pause", "3"))
            stack.enter_context(detector(f"watched-folder://{folder}", scan_file, "--rate", "40", "--pause", "3"))
            wait_until(lambda: any(folder.iterdir()), timeout_s=60.0)
            stack.callback(Proxy(panda_port, port=port).close)

        beginning = threading.Thread(target=begin)
        beginning.start()
        outcome = run_acquisition(network, tmp_path / "live", source=source, retrieval=PTYCHI)
        beginning.join()
    assert_the_same_scan(outcome, closed.outcome)


def kill_receiver(arrivals: Path, *, sources: int) -> None:
    """Kill it when so many sources have each said something a dozen times."""

    def all_have_come() -> bool:
        with closing(ArrivalsReader(arrivals)) as reader:
            came = Counter(message.source for message in reader.read())
        return all(came[source] >= 12 for source in range(sources))

    wait_until(all_have_come, timeout_s=60.0)
    for child in psutil.Process().children(recursive=True):
        if any("receiver_process" in word for word in child.cmdline()):
            os.kill(child.pid, signal.SIGKILL)


def test_nothing_of_files_is_lost_where_the_receiver_is_killed(
    network: NetworkSettings, tmp_path: Path, scan_file: Path, closed: Closed
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    source = in_files(folder, closed.folder)
    killer = threading.Thread(target=kill_receiver, args=(tmp_path / "live" / "arrivals",), kwargs={"sources": 1})
    with detector(f"hdf5-swmr://{folder}", scan_file, "--rate", "25", "--pause", "0.5"):
        killer.start()
        outcome = run_acquisition(network, tmp_path / "live", source=source, retrieval=PTYCHI)
        killer.join()
    assert_the_same_scan(outcome, closed.outcome)
    warnings = [event.text for event in outcome.events if isinstance(event, WarningRaised)]
    assert any("the receiver is gone" in text for text in warnings)
    assert not any("came again" in text for text in warnings)


def test_a_receiver_that_is_killed_is_started_again_and_the_rest_is_exact(
    network: NetworkSettings, tmp_path: Path, scan_file: Path
) -> None:
    """What comes while there is no receiver is missing or without a position, and counted; everything else is right."""
    ports = free_ports(2)
    join = PATIENT | {"wait_s": 8.0}  # so long the frames wait whose positions are lost
    source = live("dectris-v2", *ports, None, idle_s=5.0, first_frames=16, end_after_idle_s=8.0, join=join)
    arrivals = tmp_path / "live" / "arrivals"
    both = {"dectris-v2": ports[0], "panda": ports[1]}
    with listening_detectors(scan_file, both, "--rate", "25", "--pause", "2"):
        killer = threading.Thread(target=kill_receiver, args=(arrivals,), kwargs={"sources": 2})
        killer.start()
        outcome = run_acquisition(network, tmp_path / "live", source=source, retrieval=PTYCHI)
        killer.join()
    closed = open_scan(ReplaySettings(path=scan_file))
    for (perspective, index), frame in outcome.edge.frames.items():
        stored = closed.perspective(perspective)
        np.testing.assert_array_equal(frame, stored.read(index, index + 1)[0])
        place_px = outcome.edge.positions_px[perspective, index]
        np.testing.assert_allclose(place_px, stored.positions_px[index], atol=1e-6)
    counts = outcome.counts
    unplaced, missing = sum(counts.unplaced_because.values()), sum(counts.missing_because.values())
    assert counts.acquired == len(outcome.edge.frames) + unplaced
    assert 0 < missing + unplaced < FRAMES // 2
    assert any("the receiver is gone" in event.text for event in outcome.events if isinstance(event, WarningRaised))
    assert len([one for one in outcome.edge.frames if one[0] == 1]) == 64, "the second series is whole"


@pytest.mark.parametrize("launched", [False, True], ids=["started by itself", "started by a launcher"])
def test_an_acquisition_deletes_arrivals_that_are_not_to_be_kept_if_nobody_else_will(
    network: NetworkSettings, tmp_path: Path, scan_file: Path, closed: Closed, launched: bool
) -> None:
    folder, config, run = tmp_path / "files", tmp_path / "config.toml", RunSettings(directory=tmp_path, name="live")
    folder.mkdir()
    source = in_files(folder, closed.folder, keep_arrivals=False, end_after_idle_s=20.0)
    write_config(Config(source=source, retrieval=PTYCHI, network=network, run=run), config)
    command = [sys.executable, "-m", "ptychoflow", "acquire", "--config", str(config)]
    environment = {**os.environ, **({VARIABLE: "1"} if launched else {})}

    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdin=pipe, stderr=pipe, text=True)

    with (
        detector(f"hdf5-swmr://{folder}", scan_file, "--rate", "200"),
        receivers(network, 1) as (edge, _),
        start() as process,
    ):
        assert process.wait(100) == 0
    assert len(edge.frames) == FRAMES
    assert (tmp_path / "live" / "arrivals").exists() is launched
    if not launched:
        with start() as process:
            _, said = process.communicate(timeout=100)
        assert process.returncode == 2
        assert "of which 2 perspectives were acquired: it has ended (source.keep_arrivals = false)" in said


def test_an_acquisition_that_is_killed_and_started_again_sends_the_same_frames_again(
    network: NetworkSettings, tmp_path: Path, scan_file: Path
) -> None:
    """Ids, roles, positions and pixels are those of before, and what came before it was killed is all there."""
    ports = free_ports(2)
    source = live("dectris-v2", *ports, None, idle_s=5.0, first_frames=16, join=PATIENT | {"wait_s": 8.0})
    config, run = tmp_path / "config.toml", RunSettings(directory=tmp_path, name="live")
    write_config(Config(source=source, retrieval=PTYCHI, network=network, run=run), config)
    with ExitStack() as stack:
        edge, rank = stack.enter_context(receivers(network, 1))
        options = ["--rate", "6", "--pause", "2", "--set", "simulator.loses_unheard=true"]
        stack.enter_context(listening_detectors(scan_file, {"dectris-v2": ports[0], "panda": ports[1]}, *options))
        first = stack.enter_context(acquisition(config))
        wait_until(lambda: len(edge.frames) >= 20, timeout_s=60.0)
        first.kill()
        first.wait()
        before = set(edge.frames)
        second = stack.enter_context(acquisition(config))
        assert second.wait(100) == 0
    assert edge.repeated >= len(before)
    assert edge.differing == rank.differing == []
    assert edge.ends == [0, 1]
    closed = open_scan(ReplaySettings(path=scan_file))
    for (perspective, index), frame in edge.frames.items():
        stored = closed.perspective(perspective)
        np.testing.assert_array_equal(frame, stored.read(index, index + 1)[0])
        np.testing.assert_allclose(edge.positions_px[perspective, index], stored.positions_px[index], atol=1e-6)
    assert set(rank.frames) <= set(edge.frames)
    assert 0 < FRAMES - len(edge.frames) < 64, "some came while nobody listened, and only then"
