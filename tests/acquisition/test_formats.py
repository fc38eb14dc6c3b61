"""File formats, each written here as the program that it comes from writes it, and read back with the right numbers."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import tifffile
from format_files import (
    GEOMETRY,
    SCAN,
    SQUARE,
    SQUARE_PIXEL_M,
    X_M,
    Y_M,
    write_eiger,
    write_fold_slice,
    write_nexus,
    write_ptychodus,
)
from scan_files import DISTANCE_M, ENERGY_EV, PIXEL_M, opened, probe_of, refusal


def test_eiger_master_with_its_data_files_and_positions_in_a_text_file(tmp_path):
    path = write_eiger(tmp_path)
    assert "the file has no positions" in refusal(path)
    np.savetxt(tmp_path / "run_12_motors.txt", np.stack([X_M, Y_M], 1) * 1e6, header="x y")
    scan = opened(path, positions={"file": "{name}_motors.txt", "column_x": "x", "column_y": "y", "unit": "um"})
    perspective = scan.perspective(0)
    assert set(zip(*np.nonzero(perspective.mask), strict=True)) == {(4, 7), (9, 20)}
    expected = SCAN.frames * ~perspective.mask
    np.testing.assert_array_equal(perspective.read(0, 25), expected)
    np.testing.assert_array_equal(perspective.read(7, 20), expected[7:20])
    np.testing.assert_allclose(perspective.positions_px, SCAN.positions_px, atol=1e-6)
    assert perspective.geometry.energy_eV == pytest.approx(ENERGY_EV)
    assert perspective.geometry.detector_distance_m == pytest.approx(DISTANCE_M)
    assert scan.name == "run_12"
    assert "The detector was set for 30 images; there are 25" in scan.notes
    assert any("--set 'source.preprocess.centre_px=[5,12]'" in note for note in scan.notes)


def test_a_data_file_of_an_eiger_that_is_missing_is_named(tmp_path):
    path = write_eiger(tmp_path)
    (tmp_path / "run_12_data_000002.h5").unlink()
    assert "run_12_data_000002.h5, which is missing" in refusal(path)
    with h5py.File(path, "a") as file:
        del file["entry/data/data_000002"]
    assert "this data file begins with image 18, but image 10 is next" in refusal(path)


def test_ptyd(tmp_path):
    path = tmp_path / "scan.ptyd"
    with h5py.File(path, "w") as file:
        for number, indices in enumerate(np.array_split(np.arange(25), 11)):
            chunk = file.create_group(f"chunks/{number}")
            chunk["data"], chunk["indices"] = SCAN.frames[indices], indices
            chunk["positions"] = SCAN.positions_m[indices]
            weights = np.ones((len(indices), *SCAN.shape), bool)
            weights[:, 2, 3] = False
            weights[0, 5, 6] = number != 10
            chunk["weights"] = weights
        file["meta/energy"], file["meta/distance"], file["meta/psize"] = ENERGY_EV / 1e3, DISTANCE_M, PIXEL_M
        file["meta/center"] = [8.0, 12.0]
        file["info/weight2d"] = True
    scan = opened(path)
    perspective = scan.perspective(0)
    assert set(zip(*np.nonzero(perspective.mask), strict=True)) == {(2, 3), (5, 6)}
    np.testing.assert_array_equal(perspective.read(0, 25), SCAN.frames * ~perspective.mask)
    np.testing.assert_allclose(perspective.positions_px, SCAN.positions_px, rtol=1e-6)
    assert "1 pixels have no weight in some frames only; they are ignored in all of them" in scan.notes


def test_ptyd_without_metadata_asks_for_it(tmp_path):
    path = tmp_path / "scan.ptyd"
    with h5py.File(path, "w") as file:
        file["chunks/0/data"], file["chunks/0/positions"] = SCAN.frames, SCAN.positions_m
        file["meta/energy"], file["meta/distance"], file["meta/psize"] = ENERGY_EV / 1e3, [0.0], PIXEL_M
    assert "the file has no detector distance" in refusal(path)
    SCAN.assert_is(opened(path, geometry={"detector_distance_m": DISTANCE_M}).perspective(0))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("named", [0, 1])
def test_ptychodus_product_and_frames_are_joined_by_index(tmp_path, named, old):
    *paths, kept = write_ptychodus(tmp_path, old=old)
    scan = opened(paths[named])
    perspective = scan.perspective(0)
    SCAN.assert_is(perspective, kept=kept)
    assert perspective.angle_deg == 31.0
    np.testing.assert_allclose(perspective.probe, probe_of(SCAN.shape, modes=2))
    assert "1 of 25 frames have no position and are left out" in scan.notes
    assert any("1 of 25 positions belong to no frame" in note for note in scan.notes)


def test_the_other_file_of_ptychodus_is_found_or_asked_for(tmp_path):
    product, _, kept = write_ptychodus(tmp_path, names=("a.h5", "b.h5"))
    SCAN.assert_is(opened(product).perspective(0), kept=kept)
    (tmp_path / "c.h5").write_bytes((tmp_path / "b.h5").read_bytes())
    assert "2 files beside it could; name it with --set source.companion=FILE" in refusal(product)
    SCAN.assert_is(opened(product, companion="b.h5").perspective(0), kept=kept)
    (tmp_path / "b.h5").unlink()
    (tmp_path / "c.h5").unlink()
    assert "another file must hold the frames of this scan, but no file beside it does" in refusal(product)


@pytest.mark.parametrize("named", ["scan_dp.hdf5", "scan_para.hdf5"])
def test_fold_slice_pair(tmp_path, named):
    write_fold_slice(tmp_path)
    assert "--set source.geometry.detector_pixel_size_m=75e-6" in refusal(tmp_path / named)
    scan = opened(tmp_path / named, geometry={"detector_pixel_size_m": 75e-6})
    perspective = scan.perspective(0)
    np.testing.assert_array_equal(perspective.read(0, 25), SQUARE.frames)
    np.testing.assert_allclose(perspective.positions_px, SQUARE.positions_px, atol=1e-6)
    assert perspective.geometry.detector_distance_m == pytest.approx(DISTANCE_M, rel=1e-6)
    assert perspective.angle_deg == 7.5
    (tmp_path / "scan_para.hdf5").unlink()
    if named == "scan_dp.hdf5":
        assert "another file must hold the positions of this scan" in refusal(tmp_path / named)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_tike_npz(tmp_path, save):
    path = tmp_path / "scan.npz"
    corner = np.fft.ifftshift(SCAN.frames, axes=(1, 2)).astype(np.float32)
    save(path, data=corner, scan=SCAN.positions_px.astype(np.float32), probe=probe_of(SCAN.shape)[None, None])
    assert "the file has no photon energy" in refusal(path)
    perspective = opened(path, geometry=GEOMETRY).perspective(0)
    SCAN.assert_is(perspective)
    np.testing.assert_array_equal(perspective.read(20, 25), SCAN.frames[20:])
    np.testing.assert_array_equal(perspective.read(3, 5), SCAN.frames[3:5])
    np.testing.assert_array_equal(perspective.probe, probe_of(SCAN.shape))


def test_ptychonn_npz(tmp_path):
    path = tmp_path / "scan.npz"
    np.savez(
        path,
        reciprocal=SQUARE.frames.astype(np.float32),
        real=np.ones((25, 16, 16), np.complex64),
        position=SQUARE.positions_px * SQUARE_PIXEL_M,
        pixelsize=SQUARE_PIXEL_M,
    )
    geometry = {"energy_eV": ENERGY_EV, "detector_pixel_size_m": 75e-6}
    perspective = opened(path, geometry=geometry).perspective(0)
    np.testing.assert_array_equal(perspective.read(0, 25), SQUARE.frames)
    np.testing.assert_allclose(perspective.positions_px, SQUARE.positions_px, atol=1e-6)
    assert perspective.geometry.detector_distance_m == pytest.approx(DISTANCE_M, rel=1e-6)


def test_no_pickle_is_read(tmp_path):
    np.savez(tmp_path / "evil.npz", data=np.array([{}, {}], object), scan=np.zeros((2, 2)))
    assert "holds Python objects (pickle), which are not read" in refusal(tmp_path / "evil.npz")
    np.save(tmp_path / "evil.npy", np.array([{}, {}], object))
    assert "holds Python objects (pickle), which are not read" in refusal(tmp_path / "evil.npy")


POSITIONS = {"file": "where.txt", "columns": "yx", "unit": "m"}


def test_positions_of_a_second_file_are_foreshortened_by_the_angle_of_the_scan_file(tmp_path):
    write_ptychodus(tmp_path)
    positions_m = (SCAN.positions_m - SCAN.positions_m[0]) @ np.diag([1.0, 1 / np.cos(np.radians(31.0))])
    np.savetxt(tmp_path / "where.txt", positions_m, fmt="%.12e")
    shortened = POSITIONS | {"foreshortened_x": True}
    long, short = (opened(tmp_path / "product.h5", positions=said).perspective(0) for said in (POSITIONS, shortened))
    np.testing.assert_allclose(np.ptp(short.positions_px, axis=0), np.ptp(SCAN.positions_px, axis=0), rtol=1e-3)
    np.testing.assert_allclose(
        np.ptp(long.positions_px, axis=0) / np.ptp(short.positions_px, axis=0), [1, 1.1666], rtol=1e-3
    )


def test_positions_cannot_be_foreshortened_by_an_angle_that_nobody_says(tmp_path):
    np.save(tmp_path / "frames.npy", SCAN.frames)
    np.savetxt(tmp_path / "where.txt", SCAN.positions_m, fmt="%.12e")
    said = refusal(tmp_path / "frames.npy", geometry=GEOMETRY, positions=POSITIONS | {"foreshortened_x": True})
    assert "say that they are not with --set source.positions.foreshortened_x=false" in said


def test_npy_file_with_a_positions_file(tmp_path):
    np.save(tmp_path / "frames.npy", SCAN.frames.reshape(5, 5, *SCAN.shape))
    np.savetxt(tmp_path / "where.txt", SCAN.positions_m, fmt="%.12e")
    assert "the file has no photon energy" in refusal(tmp_path / "frames.npy")
    assert "the file has no positions" in refusal(tmp_path / "frames.npy", geometry=GEOMETRY)
    SCAN.assert_is(opened(tmp_path / "frames.npy", geometry=GEOMETRY, positions=POSITIONS).perspective(0))


def test_folder_of_npy_files_in_natural_order(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(SCAN.frames):
        np.save(folder / f"frame_{number}.npy", frame)
    np.save(folder / "where.npy", SCAN.positions_m)
    positions = {"file": "where.npy", "columns": "yx", "unit": "m"}
    scan = opened(folder, geometry=GEOMETRY, positions=positions)
    SCAN.assert_is(scan.perspective(0))
    assert "where.npy has shape (25, 2) and is not taken for frames" in scan.notes


def test_a_folder_may_hold_more_npy_files_than_may_be_open(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(120):
        np.save(folder / f"frame_{number}.npy", np.full((16, 16), number, np.uint16))
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from ptychoflow.acquisition.readers.npy import NpyReader\n"
        "from ptychoflow.acquisition.readers.reader import ScanFiles\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "frames = NpyReader(ScanFiles(Path(sys.argv[1]))).read(0).frames\n"
        "print(frames.count, frames.read(118, 120)[:, 3, 4].tolist())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.stdout.strip() == "120 [118, 119]", ended.stderr


def test_folder_of_tiff_files_and_files_of_many_pages(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    tifffile.imwrite(folder / "part_9.tif", SCAN.frames[:8])
    tifffile.imwrite(folder / "part_10.tif", SCAN.frames[8:24], compression="zlib")
    tifffile.imwrite(folder / "part_11.tiff", SCAN.frames[24])
    np.savetxt(folder / "where.txt", SCAN.positions_m, fmt="%.12e")
    perspective = opened(folder, geometry=GEOMETRY, positions=POSITIONS).perspective(0)
    SCAN.assert_is(perspective)
    np.testing.assert_array_equal(perspective.read(6, 25), SCAN.frames[6:])
    assert perspective.read(24, 30).shape == (1, *SCAN.shape)
    tifffile.imwrite(folder / "part_12.tif", SCAN.frames[0, :8])
    assert "part_12.tif: pages are uint16 of (8, 24) pixels" in refusal(folder, geometry=GEOMETRY, positions=POSITIONS)
    (folder / "part_12.tif").write_bytes(b"no TIFF at all")
    assert "this cannot be read as TIFF" in refusal(folder, geometry=GEOMETRY, positions=POSITIONS)


@pytest.mark.parametrize("definition", ["NXptycho", "NXcxi_ptycho"])
def test_nexus_asks_for_the_order_of_axes(tmp_path, definition):
    path = tmp_path / "scan.nxs"
    write_nexus(path, definition=definition)
    assert "say it with --set source.frame_axes=yx or xy" in refusal(path)
    scan = opened(path, frame_axes="yx")
    SCAN.assert_is(scan.perspective(0))
    assert any("8000 can only be eV" in note for note in scan.notes)
    scan.close()
    write_nexus(path, definition=definition, frames=SCAN.frames.transpose(0, 2, 1))
    SCAN.assert_is(opened(path, frame_axes="xy").perspective(0))


def test_nexus_that_says_the_order_of_axes_is_not_asked(tmp_path):
    path = tmp_path / "scan.nxs"
    write_nexus(path, frames=SCAN.frames.transpose(0, 2, 1))
    with h5py.File(path, "a") as file:
        detector = file["entry_1/instrument_1/detector_1"]
        detector["x_pixel_offset"], detector["y_pixel_offset"] = np.arange(24), np.arange(16)
    scan = opened(path)
    SCAN.assert_is(scan.perspective(0))
    scan.close()
    write_nexus(path)
    with h5py.File(path, "a") as file:
        file["entry_1/instrument_1/detector_1"].attrs["axes"] = np.array(["time", "y", "x"], object)
    SCAN.assert_is(opened(path).perspective(0))


def test_nexus_with_a_translation_and_a_grid(tmp_path):
    path = tmp_path / "scan.nxs"
    write_nexus(path, frames=SCAN.frames.reshape(5, 5, *SCAN.shape))
    with h5py.File(path, "a") as file:
        del file["entry_1/sample_1"]
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        file["entry_1/data_1/translation"] = np.stack([X_M, Y_M, 0 * X_M], 1)
    SCAN.assert_is(opened(path, frame_axes="yx").perspective(0))


def test_nexus_asks_which_positioner_is_which(tmp_path):
    path = tmp_path / "scan.nxs"
    write_nexus(path)
    with h5py.File(path, "a") as file:
        del file["entry_1/sample_1/positioner_1/name"], file["entry_1/sample_1/positioner_2/name"]
    assert "which positioner is x and which is y is not said" in refusal(path, frame_axes="yx")


def test_a_packed_file_and_an_empty_folder_say_what_to_do(tmp_path):
    (tmp_path / "scan.npz.bz2").write_bytes(b"BZh9")
    assert "the file is packed; unpack it first" in refusal(tmp_path / "scan.npz.bz2")
    assert "this is a folder" in refusal(tmp_path)
