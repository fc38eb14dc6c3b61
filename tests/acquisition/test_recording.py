"""Recordings: what was scanned is what is read, and nothing half-written is taken for a recording."""

import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest

from ptychoflow.acquisition.recorder import Recorder
from ptychoflow.acquisition.scan import FrameBatch
from ptychoflow.acquisition.simulate import simulate_to_file
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import ReplaySettings, SimulationSettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.errors import UserError

SETTINGS = SimulationSettings(
    perspectives=3, frames_per_perspective=40, frame_shape_px=(32, 24), dead_pixel_fraction=0.02, energy_eV=7123.4567
)


def open_file(path):
    return open_scan(ReplaySettings(path=path))


def _batch(perspective, start, stop):
    indices = np.arange(start, stop, dtype=np.int32)
    return FrameBatch(indices, perspective.positions_px[indices], perspective.read(start, stop))


def test_a_recording_gives_back_every_bit(tmp_path):
    path = tmp_path / "scan.h5"
    written = []
    simulate_to_file(SETTINGS, path, on_frames=written.append)
    assert sum(written) == 120
    recorded, simulated = open_file(path), SimulatedScan(SETTINGS)
    assert recorded.name == simulated.name
    assert len(recorded) == len(simulated) == 3
    for one, other in zip(recorded, simulated, strict=True):
        assert (one.index, one.angle_deg, one.geometry) == (other.index, other.angle_deg, other.geometry)
        np.testing.assert_array_equal(one.positions_px, other.positions_px, strict=True)
        np.testing.assert_array_equal(one.probe, other.probe, strict=True)
        np.testing.assert_array_equal(one.mask, other.mask, strict=True)
        np.testing.assert_array_equal(one.ground_truth.values, other.ground_truth.values, strict=True)
        assert one.ground_truth.origin_px == other.ground_truth.origin_px
        np.testing.assert_array_equal(one.read(0, 40), other.read(0, 40), strict=True)


def test_the_first_perspective_is_plain_cxi(tmp_path):
    path = tmp_path / "scan.h5"
    simulate_to_file(SETTINGS, path)
    exact = SimulatedScan(SETTINGS).perspective(0)
    with h5py.File(path, "a") as file:
        del file.attrs["ptychoflow_recording"]
        for name in ("entry_1", "entry_2", "entry_3"):
            del file[f"{name}/ptychoflow_1"]
    plain = open_file(path).perspective(0)
    np.testing.assert_allclose(plain.positions_px, exact.positions_px, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(plain.read(0, 40), exact.read(0, 40))
    np.testing.assert_array_equal(plain.probe, exact.probe)


def test_the_file_appears_only_when_the_scan_is_complete(tmp_path):
    path = tmp_path / "scan.h5"
    perspective = SimulatedScan(SETTINGS).perspective(0)
    with Recorder(path) as recorder:
        recorder.start_perspective(perspective)
        recorder.append(_batch(perspective, 0, 40))
        assert not path.exists()
    assert [file.name for file in tmp_path.iterdir()] == ["scan.h5"]


def test_after_a_failure_only_a_partial_file_is_left_and_it_is_refused(tmp_path):
    path = tmp_path / "scan.h5"
    perspective = SimulatedScan(SETTINGS).perspective(0)
    with pytest.raises(ZeroDivisionError), Recorder(path) as recorder:
        recorder.start_perspective(perspective)
        recorder.append(_batch(perspective, 0, 8))
        _ = 1 / 0
    assert [file.name for file in tmp_path.iterdir()] == ["scan.h5.partial"]
    with pytest.raises(UserError, match="this recording was never finished"):
        open_file(tmp_path / "scan.h5.partial")


def test_a_stopped_scan_keeps_the_frames_that_were_taken(tmp_path):
    path = tmp_path / "scan.h5"
    scan = SimulatedScan(SETTINGS)
    with Recorder(path) as recorder:
        recorder.start_perspective(scan.perspective(0))
        recorder.append(_batch(scan.perspective(0), 0, 40))
        recorder.start_perspective(scan.perspective(1))
        recorder.append(_batch(scan.perspective(1), 0, 16))
        recorder.append(_batch(scan.perspective(1), 16, 20))
        recorder.start_perspective(scan.perspective(2))
    recorded = open_file(path)
    assert [len(perspective) for perspective in recorded] == [40, 20]
    np.testing.assert_array_equal(recorded.perspective(1).positions_px, scan.perspective(1).positions_px[:20])
    np.testing.assert_array_equal(recorded.perspective(1).read(0, 20), scan.perspective(1).read(0, 20))


@pytest.mark.parametrize(("again", "kept"), [(40, 40), (20, 24)])
def test_what_was_recorded_of_a_scan_that_was_stopped_is_replaced_by_more_of_it_alone(tmp_path, again, kept):
    path, perspective = tmp_path / "scan.h5", SimulatedScan(SETTINGS).perspective(0)
    for frames in (24, again):
        with Recorder(path, goes_on=True) as recorder:
            recorder.start_perspective(perspective)
            recorder.append(_batch(perspective, 0, frames))
            recorder.stopped = frames < 40
    assert len(open_file(path).perspective(0)) == kept
    assert [file.name for file in tmp_path.iterdir()] == ["scan.h5"]
    if again == 40:
        with pytest.raises(UserError, match="exists and is not overwritten"):
            Recorder(path, goes_on=True)


def test_a_series_that_was_broken_off_at_once_spoils_no_recording(tmp_path):
    """Three frames at nearly one place show nothing; the others of the night do."""
    path, scan = tmp_path / "scan.h5", SimulatedScan(SETTINGS)
    with Recorder(path) as recorder:
        for index, frames in enumerate((3, 40, 40)):
            perspective = scan.perspective(index)
            recorder.start_perspective(perspective)
            batch = _batch(perspective, 0, frames)
            near = batch.positions_px[:1] + np.linspace(0, 1, frames)[:, None]
            recorder.append(replace(batch, positions_px=near) if frames == 3 else batch)
    recorded = open_file(path)
    assert [len(perspective) for perspective in recorded] == [40, 40]
    assert [perspective.index for perspective in recorded] == [0, 1]
    np.testing.assert_array_equal(recorded.perspective(0).read(0, 40), scan.perspective(1).read(0, 40))
    assert any("is left out: it was broken off after 3 frames" in note for note in recorded.notes)


def test_frames_that_are_missing_leave_no_gap_and_positions_stay_with_their_frames(tmp_path):
    perspective = SimulatedScan(SETTINGS).perspective(0)
    with Recorder(tmp_path / "scan.h5") as recorder:
        recorder.start_perspective(perspective)
        for start, stop in ((20, 30), (0, 8)):
            recorder.append(_batch(perspective, start, stop))
    recorded = open_file(tmp_path / "scan.h5").perspective(0)
    came = [*range(20, 30), *range(8)]
    np.testing.assert_array_equal(recorded.positions_px, perspective.positions_px[came])
    np.testing.assert_array_equal(recorded.read(0, 18), perspective.read(0, 40)[came])


def test_an_existing_file_is_not_overwritten(tmp_path):
    path = tmp_path / "scan.h5"
    path.write_text("precious")
    with pytest.raises(UserError, match="exists and is not overwritten"):
        simulate_to_file(SETTINGS, path)
    assert path.read_text() == "precious"


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="the recording cannot be written"):
        simulate_to_file(SETTINGS, tmp_path / "file" / "scan.h5")


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path):
    code = f"""
import resource, signal, sys
from pathlib import Path
from ptychoflow.acquisition.simulate import simulate_to_file
from ptychoflow.acquisition.source_settings import SimulationSettings
from ptychoflow.streaming.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))
try:
    simulate_to_file(SimulationSettings(perspectives=2), Path({str(tmp_path / "scan.h5")!r}))
except UserError as error:
    print(error)
    sys.exit(2)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "the recording cannot be written" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_recording_of_another_version_is_refused(tmp_path):
    path = tmp_path / "scan.h5"
    simulate_to_file(SETTINGS, path)
    with h5py.File(path, "a") as file:
        file.attrs["ptychoflow_recording"] = 99
    with pytest.raises(UserError, match="the recording has version 99"):
        open_file(path)
