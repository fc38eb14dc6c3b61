"""Values that no later part could work with are refused or set aside when a scan is opened, in every perspective."""

from contextlib import closing

import h5py
import numpy as np
import pytest
from scan_files import DETECTOR, PIXEL_M, refusal, replace_dataset, write_cxi

from ptychoflow.acquisition.readers.layout import ANGLE_DEG, ENERGY_EV, OBJECT, OBJECT_ORIGIN_PX, entry_name
from ptychoflow.acquisition.simulate import simulate_to_file
from ptychoflow.acquisition.source_settings import ReplaySettings, SimulationSettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.errors import UserError

SMALL = SimulationSettings(perspectives=2, frames_per_perspective=8, frame_shape_px=(16, 16), seed=1)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "recording.h5"
    simulate_to_file(SMALL, path)
    return path.read_bytes()


def damaged(recording, path, perspective, name, value):
    path.write_bytes(recording)
    replace_dataset(path, f"{entry_name(perspective)}/{name}", value)
    return ReplaySettings(path=path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (ENERGY_EV, -8000.0, "the photon energy is -8000; it must be a positive number"),
        (ENERGY_EV, np.nan, "the photon energy is nan"),
    ],
)
@pytest.mark.parametrize("perspective", [0, 1])
def test_an_energy_that_is_none_is_refused_at_once(recording, tmp_path, perspective, name, value, words):
    with pytest.raises(UserError) as refused:
        open_scan(damaged(recording, tmp_path / "recording.h5", perspective, name, value))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (OBJECT_ORIGIN_PX, [np.nan, 0.0], "it does not lie where the positions are"),
        (OBJECT_ORIGIN_PX, [0.0, 1e9], "it does not lie where the positions are"),
        (OBJECT, np.ones((4, 4), np.complex64), "it does not lie where the positions are"),
        (OBJECT, np.zeros((400, 400), np.complex64), "it is zero, or not finite everywhere"),
        (OBJECT, np.full((400, 400), np.nan + 1j, np.complex64), "it is zero, or not finite everywhere"),
    ],
)
@pytest.mark.parametrize("perspective", [0, 1])
def test_an_object_that_no_patch_can_be_cut_from_is_left_out_and_said(
    recording, tmp_path, perspective, name, value, words
):
    with closing(open_scan(damaged(recording, tmp_path / "recording.h5", perspective, name, value))) as scan:
        assert scan.perspective(perspective).ground_truth is None
        assert scan.perspective(1 - perspective).ground_truth is not None
        assert any(f"The recorded ground truth is left out: {words}" in note for note in scan.notes)


@pytest.mark.parametrize("angle", [np.nan, -np.inf])
def test_an_angle_that_is_no_number_is_taken_as_zero_and_said(recording, tmp_path, angle):
    with closing(open_scan(damaged(recording, tmp_path / "recording.h5", 0, ANGLE_DEG, angle))) as scan:
        assert scan.perspective(0).angle_deg == 0.0
        assert "The rotation angle is no number; it is taken as 0" in scan.notes


def test_a_mask_of_everything_is_refused(tmp_path):
    write_cxi(tmp_path / "scan.cxi")
    replace_dataset(tmp_path / "scan.cxi", f"{DETECTOR}/mask", np.ones((16, 24), np.uint32))
    assert "the mask leaves no pixel" in refusal(tmp_path / "scan.cxi")


def test_a_file_without_any_perspective_is_refused(recording, tmp_path):
    path = tmp_path / "recording.h5"
    path.write_bytes(recording)
    for perspective in range(2):
        replace_dataset(path, entry_name(perspective), None)
    assert "there is no perspective in it" in refusal(path)


@pytest.mark.parametrize("shape", [(25, 0, 24), (25, 1, 24), (25, 16, 0)])
def test_frames_without_pixels_are_refused(tmp_path, shape):
    np.save(tmp_path / "scan.npy", np.zeros(shape, np.uint16))
    np.save(tmp_path / "where.npy", np.arange(50.0).reshape(25, 2) * 1e-6)
    geometry = {"energy_eV": 8000.0, "detector_distance_m": 2.0, "detector_pixel_size_m": 75e-6}
    positions = {"file": "where.npy", "columns": "yx", "unit": "m"}
    words = refusal(tmp_path / "scan.npy", geometry=geometry, positions=positions)
    assert "are no diffraction patterns; check the axes" in words


def test_frames_larger_than_any_detector_are_refused(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("diffamp", (9, 2**20, 2**20), np.float32, chunks=(1, 64, 64))
        file["points"] = np.arange(18.0).reshape(2, 9)
        file["lambda_nm"], file["z_m"], file["ccd_pixel_um"], file["angle"] = 0.15, 2.0, 75.0, 0.0
    assert "are larger than any detector" in refusal(tmp_path / "scan.h5", dataset_map="hxn")


def test_a_wavelength_next_to_nothing_is_refused(tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["diffamp"], file["points"] = np.ones((9, 16, 16)), np.arange(18.0).reshape(2, 9)
        file["lambda_nm"], file["z_m"], file["ccd_pixel_um"], file["angle"] = 1e-310, 2.0, 75.0, 0.0
    assert "the photon energy is inf" in refusal(path, dataset_map="hxn")


@pytest.mark.parametrize("source", [".", "scan.cxi"])
def test_a_virtual_dataset_that_is_made_of_itself_is_refused(tmp_path, source):
    """HDF5 would follow it until the process has no stack left."""
    path = tmp_path / "scan.cxi"
    write_cxi(path)
    layout = h5py.VirtualLayout(shape=(16, 24), dtype=np.uint32)
    layout[...] = h5py.VirtualSource(source, f"/{DETECTOR}/mask", shape=(16, 24))
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset(f"{DETECTOR}/mask", layout)
    assert "which is missing" in refusal(path)


def test_masks_that_were_never_written_are_read_at_once(tmp_path):
    path = tmp_path / "scan.cxi"
    write_cxi(path)
    with h5py.File(path, "a") as file:
        file.create_dataset(f"{DETECTOR}/mask", (2**40, 16, 24), np.uint32, chunks=(1, 16, 24))
    with h5py.File(path, "r") as file:
        assert file[f"{DETECTOR}/mask"].id.get_storage_size() == 0
    scan = open_scan(ReplaySettings(path=path))
    assert scan.perspective(0).mask is None or not scan.perspective(0).mask.any()
    scan.close()
    with h5py.File(path, "a") as file:
        file[f"{DETECTOR}/mask"][7] = 1
    assert "are too many to be read" in refusal(path)


@pytest.mark.parametrize(("axis", "usual"), [("x", f"{PIXEL_M[0]:g}"), ("y", f"{PIXEL_M[1]:g}")])
def test_a_pixel_with_one_side_in_another_unit_is_refused_with_the_likely_size(tmp_path, axis, usual):
    path = tmp_path / "scan.cxi"
    write_cxi(path)
    replace_dataset(path, f"{DETECTOR}/{axis}_pixel_size", 75.0)
    said = refusal(path)
    assert f"75 m along {axis}" in said
    assert said.endswith(f"--set source.geometry.detector_pixel_size_m={usual}")
    assert "\n" not in said
