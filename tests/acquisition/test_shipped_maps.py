"""Dataset maps that come with the project: each reads a file as its beamline writes it, or asks what it must know."""

import h5py
import numpy as np
import pytest
from scan_files import DISTANCE_M, ENERGY_EV, PIXEL_M, MeasuredScan, opened, refusal

from ptychoflow.acquisition.readers.map_files import SHIPPED
from ptychoflow.acquisition.source_settings import ShippedMap

WAVELENGTH_NM = 1239.841984 / ENERGY_EV
SCAN = MeasuredScan()
GEOMETRY = {"energy_eV": ENERGY_EV, "detector_distance_m": DISTANCE_M, "detector_pixel_size_m": PIXEL_M}
Y_M, X_M = SCAN.positions_m.T


def test_every_name_has_its_map():
    assert {path.stem for path in SHIPPED.glob("*.toml")} == set(ShippedMap)


def test_hxn(tmp_path):
    path = tmp_path / "scan.h5"
    square = MeasuredScan(shape=(16, 16))
    with h5py.File(path, "w") as file:
        file["diffamp"] = np.sqrt(square.frames).astype(np.float64)
        pixel_m = WAVELENGTH_NM * 1e-9 * DISTANCE_M / (16 * 75e-6)
        file["points"] = square.positions_px.T[::-1] * pixel_m * 1e6
        file["lambda_nm"], file["z_m"], file["ccd_pixel_um"], file["angle"] = WAVELENGTH_NM, DISTANCE_M, 75.0, 12.5
    perspective = opened(path, dataset_map="hxn").perspective(0)
    assert perspective.angle_deg == 12.5
    np.testing.assert_allclose(perspective.read(0, 25), square.frames, rtol=1e-6)
    np.testing.assert_allclose(perspective.positions_px, square.positions_px, rtol=1e-6, atol=1e-9)
    assert perspective.geometry.detector_pixel_size_m == pytest.approx((75e-6, 75e-6))


@pytest.mark.parametrize("frames", ["diff_data/merlin1/det_images", "entry/data/data"])
def test_hxn_raw_asks_for_the_unit_of_the_energy(tmp_path, frames):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file[frames] = SCAN.frames
        file["scan/scan_positions"] = SCAN.positions_m.T[::-1] * 1e6
        file["scan/energy"] = ENERGY_EV / 1e3
    geometry = {"detector_distance_m": DISTANCE_M, "detector_pixel_size_m": PIXEL_M}
    words = refusal(path, dataset_map="hxn-raw", geometry=geometry)
    assert "in eV or keV: say it with --set source.map_values.geometry.energy.unit=" in words
    unit = {"geometry": {"energy": {"unit": "keV"}}}
    SCAN.assert_is(opened(path, dataset_map="hxn-raw", geometry=geometry, map_values=unit).perspective(0))
    assert "the file has no detector distance" in refusal(
        path, dataset_map="hxn-raw", map_values=unit, geometry={"detector_pixel_size_m": PIXEL_M}
    )


@pytest.mark.parametrize("frames", ["entry/measurement/eiger1m/frames", "entry/measurement/Eiger/data"])
def test_nanomax_asks_for_the_geometry(tmp_path, frames):
    path = tmp_path / "000123.h5"
    with h5py.File(path, "w") as file:
        file[frames] = SCAN.frames
        file["entry/measurement/pseudo/y"], file["entry/measurement/pseudo/x"] = Y_M * 1e6, X_M * 1e6
    assert "no photon energy" in refusal(path, dataset_map="nanomax")
    SCAN.assert_is(opened(path, dataset_map="nanomax", geometry=GEOMETRY).perspective(0))


def write_velociprobe(folder, *, chi=0.0):
    """An Eiger master with two data files, and positions with three samples for each frame."""
    with h5py.File(folder / "fly001_master.h5", "w") as master:
        for number, part in enumerate(np.array_split(SCAN.frames, 2), start=1):
            with h5py.File(folder / f"fly001_data_{number:06d}.h5", "w") as data:
                data["entry/data/data"] = part
            link = h5py.ExternalLink(f"fly001_data_{number:06d}.h5", "/entry/data/data")
            master[f"entry/data/data_{number:06d}"] = link
        detector = master.create_group("entry/instrument/detector")
        detector["detector_distance"], detector["y_pixel_size"], detector["x_pixel_size"] = DISTANCE_M, *PIXEL_M
        detector["detectorSpecific/photon_energy"] = ENERGY_EV
        master["entry/sample/goniometer/chi"] = [chi]
    rows = []
    for frame in range(SCAN.count):
        for jitter in (-1, 0, 1):
            row = np.zeros(8, int)
            row[1] = round(X_M[frame] * 1e9 / np.cos(np.radians(chi))) + jitter
            row[2], row[5], row[7] = round(Y_M[frame] * 1e9) + jitter, -round(Y_M[frame] * 1e9) - jitter, frame
            rows.append(row)
    np.savetxt(folder / "fly001_pos.csv", rows, fmt="%d", delimiter=",", header="time,x,y,a,b,encoder,c,trigger")
    return folder / "fly001_master.h5"


@pytest.mark.parametrize("y", [{"column_y": 2}, {"column_y": 5, "sign_y": -1}], ids=["laser interferometer", "encoder"])
@pytest.mark.parametrize("chi", [0.0, 50.0])
def test_velociprobe_asks_which_column_is_y(tmp_path, y, chi):
    path = write_velociprobe(tmp_path, chi=chi)
    words = refusal(path, dataset_map="velociprobe")
    assert "source.map_values.positions.file" in words
    assert "source.map_values.positions.column_y" in words
    positions = {"file": "{name}_pos.csv", **y}
    perspective = opened(path, dataset_map="velociprobe", map_values={"positions": positions}).perspective(0)
    assert perspective.angle_deg == chi
    np.testing.assert_array_equal(perspective.read(0, 25), SCAN.frames)
    np.testing.assert_allclose(perspective.positions_px, SCAN.positions_px, atol=0.02)  # rounded to nanometres


def test_polar_asks_for_the_trigger_of_the_first_frame(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["entry/data/data"] = SCAN.frames
        file["entry/instrument/bluesky/streams/baseline/mono_energy/value_start"] = ENERGY_EV / 1e3
        file["entry/instrument/NDAttributes/DetectorDistance"] = np.full(SCAN.count, DISTANCE_M * 1e3)
    trigger = np.repeat(np.arange(SCAN.count + 1), 4)
    samples = np.zeros((len(trigger), 24))
    samples[:, 2] = trigger
    samples[4:, 3], samples[4:, 4] = -np.repeat(X_M, 4) * 1e9, -np.repeat(Y_M, 4) * 1e9
    with h5py.File(tmp_path / "sgz.h5", "w") as file:
        file["entry/data/data"] = samples
    settings = {"dataset_map": "polar", "geometry": {"detector_pixel_size_m": PIXEL_M}}
    positions = {"file": "sgz.h5"}
    words = refusal(tmp_path / "scan.h5", **settings, map_values={"positions": positions})
    assert "source.map_values.positions.index.origin" in words
    positions["index"] = {"origin": 1}
    scan = opened(tmp_path / "scan.h5", **settings, map_values={"positions": positions})
    SCAN.assert_is(scan.perspective(0))
    assert "4 of 104 positions belong to no frame and are left out" in scan.notes
    positions["index"] = {"origin": 0}
    scan = opened(tmp_path / "scan.h5", **settings, map_values={"positions": positions})
    assert "4 of 104 positions belong to no frame and are left out" in scan.notes


@pytest.mark.parametrize(("index", "origin"), [("Detector_Count", 1), ("DataPoint", 0)])
def test_lamni_asks_how_frames_are_numbered(tmp_path, index, origin):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["entry/data/eiger_4"] = SCAN.frames
        detector = file.create_group("entry/instrument/detector")
        detector["detector_distance"], detector["y_pixel_size"] = [DISTANCE_M * 1e3], [PIXEL_M[0] * 1e6]
        detector["x_pixel_size"] = [PIXEL_M[1] * 1e3]
        detector["x_pixel_size"][...] *= 1e3
        file["entry/instrument/monochromator/energy"] = [ENERGY_EV]
        file["entry/metadata_units/MonoEnergy_EGU"] = np.array([b"eV"])
    order = np.random.default_rng(0).permutation(SCAN.count)
    lines = ["LamNI scan 12, something", f"{index} Average_x_st_fzp Stdev_x_st_fzp Average_y_st_fzp Stdev_y_st_fzp"]
    lines += [f"{frame + origin} {-X_M[frame] * 1e6:.6f} 0.1 {-Y_M[frame] * 1e6:.6f} 0.1" for frame in order]
    (tmp_path / "scan.dat").write_text("\n".join(lines))
    words = refusal(tmp_path / "scan.h5", dataset_map="lamni")
    assert "Detector_Count (from 1) or DataPoint (from 0)" in words
    positions = {"file": "{stem}.dat", "index": {"column": index, "origin": origin}}
    SCAN.assert_is(
        opened(tmp_path / "scan.h5", dataset_map="lamni", map_values={"positions": positions}).perspective(0)
    )
