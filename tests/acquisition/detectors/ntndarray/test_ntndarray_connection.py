"""NTNDArrays over real sockets: our simulator, pvapy's server, and pvapy as our simulator's client."""

import subprocess
import sys
import threading
from contextlib import closing, contextmanager

import numpy as np
import pytest
from peers import peer_python
from support import free_ports, wait_until

from ptychoflow.acquisition.detectors.arrivals import FrameCame, Malformed, PositionsCame, SeriesBegan, SeriesEnded
from ptychoflow.acquisition.detectors.ntndarray.connection import NtndarrayConnection
from ptychoflow.acquisition.detectors.ntndarray.decoder import NtndarrayDecoder
from ptychoflow.acquisition.detectors.ntndarray.settings import (
    Compression,
    NtndarraySettings,
    NtndarraySimulatorSettings,
)
from ptychoflow.acquisition.detectors.ntndarray.simulator import NtndarraySimulator
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import SimulationSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.libraries import library

pytest.importorskip("p4p", reason="p4p is not installed: pip install 'ptychoflow[epics]'")

PVAPY = "pvapy==5.6.0"
PREFIX = "TEST:"
POSITIONS = {"y": "SampleY", "x": "SampleX", "unit": "um"}
SERIES = {
    "acquire": {"by": "acquire", "pv": f"{PREFIX}cam1:Acquire_RBV", "settle_s": 0.3},
    "attribute": {"by": "attribute", "attribute": "ScanId"},
    "pause": {"by": "pause", "pause_s": 0.6},
}


class Listener:
    """A connection in a thread, and what its decoder makes of it."""

    def __init__(self, settings: NtndarraySettings) -> None:
        self.messages: list[list[bytes]] = []
        self.failure: BaseException | None = None
        self._settings, self._stop = settings, threading.Event()
        self._connection = NtndarrayConnection(settings)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._connection.drain(lambda parts: self.messages.append([bytes(part) for part in parts]), self._stop)
        except UserError as error:
            self.failure = error

    @property
    def begun(self) -> int:
        return sum(map(NtndarrayConnection.begins_series, self.messages))

    @property
    def sees_channel(self) -> bool:
        """Whether what the channel held at first has come."""
        return not self._connection._first

    def arrivals(self, kind=None):
        decoder = NtndarrayDecoder(self._settings)
        found = [arrival for message in self.messages for arrival in decoder.decode(message)]
        return found if kind is None else [arrival for arrival in found if isinstance(arrival, kind)]

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10.0)
        assert not self._thread.is_alive()


@contextmanager
def simulator(port=0, **changes):
    with closing(NtndarraySimulator(NtndarraySimulatorSettings(port=port, prefix=PREFIX, **changes))) as one:
        yield one


def listening(port, series="acquire", **changes):
    settings = {
        "pv": f"{PREFIX}Pva1:Image", "servers": (f"127.0.0.1:{port}",), "series": SERIES[series],
        "number_from": "from_first", "positions": POSITIONS, "angle_attribute": "Angle",
    }  # fmt: skip
    return closing(Listener(NtndarraySettings(**settings | changes)))


@pytest.fixture(scope="module")
def scan():
    return SimulatedScan(SimulationSettings(perspectives=2, frames_per_perspective=36, frame_shape_px=(32, 32), seed=3))


def replay(speaker, perspective, series, *, frames=30):
    speaker.begin(perspective, series=series)
    pixel_m = perspective.geometry.object_pixel_size_m
    for index, frame in enumerate(perspective.read(0, frames)):
        speaker.send(index, frame, tuple(perspective.positions_px[index] * pixel_m))
    speaker.end(aborted=False)


@pytest.mark.parametrize("series", SERIES)
def test_frames_positions_and_series_arrive_as_they_were_sent(scan, series):
    with simulator() as speaker, listening(speaker.port, series) as listener:
        for number, perspective in enumerate(scan, 1):
            replay(speaker, perspective, number)
            wait_until(lambda due=30 * number: len(listener.arrivals(FrameCame)) >= due)
            if series != "attribute":
                wait_until(lambda due=number: len(listener.arrivals(SeriesEnded)) >= due)
        began, frames = listener.arrivals(SeriesBegan), listener.arrivals(FrameCame)
        assert listener.begun == len(began) == 2
        assert [one.header.angle_deg for one in began] == [perspective.angle_deg for perspective in scan]
        assert [one.number for one in frames] == [*range(30), *range(30)]
        assert [one.series for one in frames] == [began[0].series] * 30 + [began[1].series] * 30
        expected = np.concatenate([perspective.read(0, 30) for perspective in scan])
        np.testing.assert_array_equal([one.image.decode() for one in frames], expected)
        positions_m = np.concatenate([one.positions_m for one in listener.arrivals(PositionsCame)])
        pixel_m = np.array(scan.perspective(0).geometry.object_pixel_size_m)
        np.testing.assert_allclose(
            positions_m, np.concatenate([one.positions_px[:30] * pixel_m for one in scan]), rtol=1e-9
        )


@pytest.mark.parametrize("compression", [one for one in Compression if one])
def test_compressed_frames_arrive_as_they_were_sent(scan, compression):
    with simulator(compression=compression) as speaker, listening(speaker.port) as listener:
        replay(speaker, scan.perspective(0), 1, frames=5)
        wait_until(lambda: len(listener.arrivals(FrameCame)) == 5)
        frames = [one.image.decode() for one in listener.arrivals(FrameCame)]
    np.testing.assert_array_equal(frames, scan.perspective(0).read(0, 5))


def test_what_was_there_before_is_no_frame_of_this_run(scan):
    with simulator() as speaker:
        with listening(speaker.port, "pause") as early:
            replay(speaker, scan.perspective(0), 1, frames=3)
            wait_until(lambda: len(early.arrivals(FrameCame)) == 3)
        with listening(speaker.port, "pause") as late, listening(speaker.port, "acquire") as later:
            wait_until(speaker._watched.is_set)
            replay(speaker, scan.perspective(1), 2, frames=4)
            for listener in (late, later):
                wait_until(lambda one=listener: len(one.arrivals(SeriesEnded)) == 1)
                frames = listener.arrivals(FrameCame)
                np.testing.assert_array_equal(frames[-1].image.decode(), scan.perspective(1).read(3, 4)[0])
                assert len(frames) == 4


def test_attributes_that_are_no_utf8_are_left_out_and_the_others_are_kept(scan):
    with simulator() as speaker, listening(speaker.port, "attribute") as listener:
        post = speaker._image.post

        def post_odd(value):
            odd = [{"name": "Unit", "value": b"\xb5m"}, {"name": b"\xb5", "value": 1.0}]
            value.attribute = [*odd[:1], *value.attribute, *odd[1:]]
            post(value)

        speaker._image.post = post_odd
        replay(speaker, scan.perspective(0), 1, frames=3)
        wait_until(lambda: len(listener.arrivals(FrameCame)) == 3)
        assert np.isfinite([one.positions_m for one in listener.arrivals(PositionsCame)]).all()


def test_a_detector_that_is_started_again_is_found_again(scan):
    (port,) = free_ports(1)
    with listening(port) as listener:
        for number in (1, 2):
            with simulator(port) as speaker:
                replay(speaker, scan.perspective(0), number, frames=5)
                wait_until(lambda due=number: len(listener.arrivals(SeriesEnded)) == due, timeout_s=60.0)
        assert [one.number for one in listener.arrivals(FrameCame)] == [*range(5), *range(5)]


def test_a_series_whose_detector_was_killed_is_over_when_it_comes_back(scan):
    (port,) = free_ports(1)
    with listening(port) as listener:
        with simulator(port) as speaker:
            speaker.begin(scan.perspective(0), series=1)
            speaker.send(0, scan.perspective(0).read(0, 1)[0], (0.0, 0.0))
            wait_until(lambda: len(listener.arrivals(FrameCame)) == 1)
        with simulator(port) as speaker:
            replay(speaker, scan.perspective(1), 2, frames=5)
            wait_until(lambda: len(listener.arrivals(SeriesEnded)) == 2, timeout_s=60.0)
    assert len(listener.arrivals(FrameCame)) == 6
    assert not listener.arrivals(Malformed)


def test_a_simulator_that_nobody_listens_to_can_be_stopped(scan):
    with simulator() as speaker:
        threading.Timer(0.3, speaker.close).start()
        with pytest.raises(InterruptedError):
            speaker.begin(scan.perspective(0), series=1)


def test_a_port_in_use_is_said_in_one_line():
    with simulator() as speaker, pytest.raises(UserError, match=f"port {speaker.port}"), simulator(speaker.port):
        pass


def test_a_channel_that_holds_no_images_is_said_in_one_line():
    with simulator() as speaker, listening(speaker.port, "pause", pv=f"{PREFIX}cam1:Acquire_RBV") as listener:
        wait_until(lambda: listener.failure is not None)
        assert "is no NTNDArray but epics:nt/NTEnum" in str(listener.failure)


def test_a_missing_library_is_said_with_the_command_to_install_it(monkeypatch):
    library.cache_clear()
    monkeypatch.setitem(sys.modules, "p4p.client.thread", None)
    connection = NtndarrayConnection(
        NtndarraySettings(pv="A", series=SERIES["pause"], number_from="unique_id", servers=("127.0.0.1",))
    )
    with pytest.raises(UserError, match=r"p4p.*pip install 'ptychoflow\[epics\]'"):
        connection.drain(lambda _parts: None, threading.Event())


PVAPY_CLIENT = """
import sys, time, pvaccess
channel, frames = pvaccess.Channel(sys.argv[1], pvaccess.PVA), {}
def take(image):
    if image["dimension"]:
        value = image["value"][0]["ushortValue"]
        attributes = {one["name"]: one["value"][0]["value"] for one in image["attribute"]}
        frames[image["uniqueId"]] = int(value.sum()), value.size, attributes["ScanId"]
channel.monitor(take, "record[queueSize=100]field()")
print("listening", flush=True)
deadline_s = time.monotonic() + 30
while len(frames) < int(sys.argv[2]) and time.monotonic() < deadline_s:
    time.sleep(0.05)
print(sorted(frames.items()))
"""


def test_pvapy_reads_what_our_simulator_sends(scan, monkeypatch):
    python = peer_python(PVAPY, "numpy")
    with simulator() as speaker:
        client = subprocess.Popen(
            [python, "-c", PVAPY_CLIENT, f"{PREFIX}Pva1:Image", "20"],
            stdout=subprocess.PIPE, text=True, env={"EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{speaker.port}"},
        )  # fmt: skip
        perspective = scan.perspective(0)
        replay(speaker, perspective, 3, frames=20)
        said = client.communicate(timeout=60)[0].splitlines()[-1]
    sums = perspective.read(0, 20).sum(axis=(1, 2), dtype=np.int64)
    assert said == str([(index + 1, (int(total), 32 * 32, 3)) for index, total in enumerate(sums)])


PVAPY_SERVER = """
import sys, numpy, pvaccess
from pvapy.utility.adImageUtility import AdImageUtility
server, frames = pvaccess.PvaServer(), numpy.load(sys.argv[2])
server.addRecord(sys.argv[1], pvaccess.NtNdArray(), None)
server.start()
sys.stdin.readline()
for number, frame in enumerate(frames, 1):
    server.updateUnchecked(sys.argv[1], AdImageUtility.generateNtNdArray2D(number, frame))
sys.stdin.readline()
"""


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_frames_of_pvapys_server_arrive_without_a_gap(tmp_path, dtype, monkeypatch):
    """It is searched for as EPICS's environment says: its server does not answer over TCP.

    Fewer frames than are queued: none is dropped, whoever of the two has no processor for a while.
    """
    python = peer_python(PVAPY, "numpy")
    ports = [str(port) for port in free_ports(3)]
    monkeypatch.setenv("EPICS_PVA_ADDR_LIST", f"127.0.0.1:{ports[0]}")
    monkeypatch.setenv("EPICS_PVA_AUTO_ADDR_LIST", "NO")
    monkeypatch.setenv("EPICS_PVA_BROADCAST_PORT", ports[1])
    frames = np.random.default_rng(0).integers(0, 60_000, (150, 48, 64)).astype(dtype)
    np.save(tmp_path / "frames.npy", frames)
    where = {"INTF_ADDR_LIST": "127.0.0.1", "BROADCAST_PORT": ports[0], "SERVER_PORT": ports[2]}
    series = {"by": "pause", "pause_s": 600.0}
    settings = NtndarraySettings(pv="pvapy:image", series=series, number_from="unique_id")
    assert len(frames) < settings.queue_updates
    server = subprocess.Popen(
        [python, "-c", PVAPY_SERVER, settings.pv, tmp_path / "frames.npy"],
        stdin=subprocess.PIPE, text=True, env={f"EPICS_PVAS_{name}": value for name, value in where.items()},
    )  # fmt: skip
    try:
        with closing(Listener(settings)) as listener:
            wait_until(lambda: listener.sees_channel, timeout_s=60.0)
            server.stdin.write("go\n")
            server.stdin.flush()
            wait_until(lambda: len(listener.arrivals(FrameCame)) == len(frames), timeout_s=60.0)
            assert len(listener.arrivals(SeriesBegan)) == 1
            came = listener.arrivals(FrameCame)
    finally:
        server.kill()
        server.communicate()
    assert [one.number for one in came] == list(range(1, len(frames) + 1))
    np.testing.assert_array_equal([one.image.decode() for one in came], frames)
