"""Reading scans: CXI, mapped HDF5, and a clear refusal of everything that is not a far-field scan."""

import h5py
import hdf5plugin
import numpy as np
import pytest
from scan_files import (
    DETECTOR,
    DISTANCE_M,
    ENERGY_EV,
    FRAMES,
    PIXEL_M,
    SOURCE,
    TRANSLATION,
    object_pixel_m,
    probe_of,
    replace_dataset,
    write_cxi,
)

from ptychoflow.acquisition.scan import ELEMENTARY_CHARGE_C
from ptychoflow.acquisition.source_settings import ReplaySettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.errors import UserError


def open_file(path, **settings):
    return open_scan(ReplaySettings(path=path, **settings))


def test_cxi_gives_frames_geometry_positions_and_probe(cxi):
    positions_px = write_cxi(cxi)
    scan = open_file(cxi)
    assert len(scan) == 1
    assert scan.name == "scan"
    perspective = scan.perspective(0)
    assert perspective.geometry.energy_eV == pytest.approx(ENERGY_EV)
    assert perspective.geometry.detector_pixel_size_m == PIXEL_M
    assert perspective.geometry.object_pixel_size_m == pytest.approx(object_pixel_m())
    np.testing.assert_allclose(perspective.positions_px, positions_px, rtol=1e-7)
    np.testing.assert_array_equal(perspective.probe, probe_of())
    assert perspective.mask is None
    assert perspective.ground_truth is None
    with h5py.File(cxi) as file:
        np.testing.assert_array_equal(perspective.read(7, 19), file[FRAMES][7:19])
        assert perspective.read(0, 1).dtype == np.uint16
    assert perspective.read(28, 40).shape == (2, 16, 24)
    scan.close()


def test_perspectives_of_different_frames_are_refused(cxi):
    with h5py.File(cxi, "r+") as file:
        file.copy("entry_1", "entry_2")
        frames = file[FRAMES][:, :-2]
        del file["entry_2/data_1/data"], file["entry_2/instrument_1/source_1/illumination"]
        file["entry_2/data_1/data"] = frames
    with pytest.raises(UserError, match=r"entry_2: frames have \(\d+, \d+\) pixels but those of .*entry_1 have"):
        open_scan(ReplaySettings(path=cxi))


def test_every_cxi_entry_with_frames_is_a_perspective_in_order_of_its_number(cxi):
    with h5py.File(cxi, "a") as file:
        for number in (10, 2):
            file.copy("entry_1", f"entry_{number}")
        file[f"entry_10/{FRAMES[8:]}"][...] = 10
        file.create_group("entry_3/data_1")
    scan = open_file(cxi)
    assert len(scan) == 3
    assert scan.perspective(2).read(0, 1).max() == 10
    assert [perspective.index for perspective in scan] == [0, 1, 2]


def test_photon_energy_of_the_beam_comes_before_that_of_the_source(cxi):
    replace_dataset(cxi, "entry_1/instrument_1/beam_1/energy", 9.0)
    with h5py.File(cxi, "a") as file:
        file["entry_1/instrument_1/beam_1/energy"].attrs["units"] = "keV"
        file[f"{SOURCE}/energy"][...] = 3e9 * ELEMENTARY_CHARGE_C
    assert open_file(cxi).perspective(0).geometry.energy_eV == pytest.approx(9000)


def test_mask_marks_bad_pixels_and_they_read_zero(cxi):
    mask = np.zeros((16, 24), np.uint32)
    mask[3, 5], mask[7, :] = 1, 512
    replace_dataset(cxi, f"{DETECTOR}/mask", mask)
    perspective = open_file(cxi).perspective(0)
    np.testing.assert_array_equal(perspective.mask, mask != 0)
    frames = perspective.read(0, 30)
    assert not frames[:, mask != 0].any()
    assert frames[:, mask == 0].mean() == pytest.approx(20, rel=0.02)


def test_compressed_big_endian_chunked_frames_are_read(cxi):
    frames = np.random.default_rng(5).integers(0, 1000, (30, 16, 24)).astype(">i4")
    with h5py.File(cxi, "a") as file:
        del file[FRAMES]
        file.create_dataset(FRAMES, data=frames, chunks=(4, 16, 24), **hdf5plugin.Bitshuffle(cname="lz4"))
    part = open_file(cxi).perspective(0).read(3, 11)
    np.testing.assert_array_equal(part, frames[3:11])
    assert part.dtype == np.dtype("<i4")


def test_two_dimensional_probe_is_one_mode_and_several_modes_stay(cxi):
    replace_dataset(cxi, f"{SOURCE}/illumination", probe_of()[0])
    assert open_file(cxi).perspective(0).probe.shape == (1, 16, 24)
    replace_dataset(cxi, f"{SOURCE}/illumination", probe_of(modes=3))
    np.testing.assert_array_equal(open_file(cxi).perspective(0).probe, probe_of(modes=3))


def test_measured_scan_has_exact_positions(measured_data):
    perspective = open_file(measured_data / "siemens_star.cxi").perspective(0)
    assert len(perspective) == 516
    assert perspective.geometry.frame_shape_px == (128, 128)
    assert perspective.geometry.object_pixel_size_m == pytest.approx((10e-9, 10e-9), rel=1e-6)
    np.testing.assert_allclose(perspective.positions_px[0], (167.57963562, -159.73396301), atol=1e-5)
    assert perspective.read(0, 516).sum() == pytest.approx(461212.8934 * 516, abs=30)


@pytest.mark.parametrize(
    ("object_m", "said"),
    [
        (2e-7, "With that distance, object pixels are 4.5e-07 m along y, not 2e-07 m as set"),
        ([4.5e-7, 2e-7], None),
    ],
)
def test_an_object_pixel_that_detector_and_frames_contradict_is_said(cxi, object_m, said):
    """Frames are 16 × 24 pixels of 50 × 75 µm: only one of the two can be had by a distance."""
    replace_dataset(cxi, f"{DETECTOR}/distance", None)
    scan = open_file(cxi, geometry={"object_pixel_size_m": object_m})
    assert scan.perspective(0).geometry.object_pixel_size_m == pytest.approx((4.5e-7, 2e-7), rel=1e-6)
    about_y = [note for note in scan.notes if "along y" in note]
    assert [note.split(":")[0] for note in about_y] == ([] if said is None else [said])


BROKEN_CXI = [
    (TRANSLATION, None, "the file has no positions"),
    (TRANSLATION, np.zeros((29, 3)), "30 frames but 29 positions"),
    (TRANSLATION, np.full((30, 3), np.nan), "30 positions are not finite numbers, the first one of frame 0"),
    (TRANSLATION, np.ones((30, 3)), "all positions are the same"),
    (TRANSLATION, np.zeros((30, 5)), "positions must be numbers of shape"),
    (TRANSLATION, np.random.default_rng(0).random((30, 3)), "nothing overlaps; check units"),
    (FRAMES, np.zeros((30, 1, 1, 16, 24), np.uint16), r"frames must have axes \(frame, y, x\)"),
    (FRAMES, np.zeros((30, 16, 24), np.complex64), "the frames are complex"),
    (FRAMES, np.zeros((30, 16, 24), bool), "the frames are of type bool"),
    (f"{DETECTOR}/distance", None, "the file has no detector distance"),
    (f"{DETECTOR}/distance", 0.0, "the detector distance is 0; it must be a positive number"),
    (f"{DETECTOR}/x_pixel_size", None, "the file has no detector pixel size along x"),
    (f"{DETECTOR}/y_pixel_size", -1e-6, "detector pixel size along y is -1e-06"),
    (f"{DETECTOR}/distance", [1.0, 2.0], "the detector distance must be one number"),
    (f"{SOURCE}/energy", None, "the file has no photon energy"),
    (f"{SOURCE}/energy", 8000.0, "check its unit"),
    (f"{SOURCE}/energy", np.nan, "the photon energy is nan"),
    (f"{SOURCE}/illumination", np.ones((16, 24)), "the probe must be complex"),
    (f"{SOURCE}/illumination", probe_of((16, 16)), r"the probe has \(16, 16\) pixels but the frames have \(16, 24\)"),
    (f"{SOURCE}/illumination", np.zeros((16, 24), np.complex64), "the probe is zero or not finite"),
    (f"{DETECTOR}/mask", np.zeros((8, 8)), r"the mask has \(8, 8\) pixels"),
    (f"{DETECTOR}/mask", np.zeros(8), "the mask must have axes"),
]


@pytest.mark.parametrize(("name", "value", "words"), BROKEN_CXI)
def test_a_broken_cxi_file_is_refused_in_one_line_that_names_the_file(cxi, name, value, words):
    replace_dataset(cxi, name, value)
    with pytest.raises(UserError, match=words) as caught:
        open_file(cxi)
    assert str(cxi) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_position_that_is_not_finite_is_named(cxi):
    with h5py.File(cxi, "a") as file:
        file[TRANSLATION][17, 0] = np.inf
    with pytest.raises(UserError, match="1 positions are not finite numbers, the first one of frame 17"):
        open_file(cxi)


def test_a_near_field_geometry_is_refused(cxi):
    with h5py.File(cxi, "a") as file:
        file[f"{DETECTOR}/distance"][...] = 0.01
        file[f"{DETECTOR}/x_pixel_size"][...] = file[f"{DETECTOR}/y_pixel_size"][...] = 0.2e-6
        file[f"{SOURCE}/energy"][...] = 1000 * ELEMENTARY_CHARGE_C
        file[TRANSLATION][...] *= 10
    with pytest.raises(UserError, match=r"Fresnel number of the probe is .*near-field"):
        open_file(cxi)


def test_missing_folder_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        open_file(tmp_path / "absent.cxi")
    with pytest.raises(UserError, match="this is a folder"):
        open_file(tmp_path)
    (tmp_path / "text.h5").write_text("not HDF5 at all, " * 100)
    with pytest.raises(UserError, match="this is not an HDF5 file"):
        open_file(tmp_path / "text.h5")
    (tmp_path / "empty.h5").write_bytes(b"")
    with pytest.raises(UserError, match="this is not an HDF5 file"):
        open_file(tmp_path / "empty.h5")


def test_truncated_file_is_refused(cxi):
    content = cxi.read_bytes()
    cxi.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(UserError, match="the file is truncated"):
        open_file(cxi)


def test_damaged_frames_are_reported_when_they_are_read(cxi):
    with h5py.File(cxi, "a") as file:
        del file[FRAMES]
        frames = np.random.default_rng(0).integers(0, 60000, (30, 16, 24)).astype(np.uint16)
        dataset = file.create_dataset(FRAMES, data=frames, chunks=(10, 16, 24), compression="gzip")
        chunk = dataset.id.get_chunk_info(2)
    with cxi.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * 200)
    perspective = open_file(cxi).perspective(0)
    np.testing.assert_array_equal(perspective.read(0, 20), frames[:20])
    with pytest.raises(UserError, match="frames 20 to 30 cannot be read"):
        perspective.read(20, 30)


def test_hdf5_of_unknown_layout_names_the_datasets_that_may_be_frames(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["measurement/eiger/data"] = np.zeros((4, 8, 8))
        file["positions"] = np.zeros((4, 2))
    with pytest.raises(UserError, match=r"neither CXI nor a recording.*: /measurement/eiger/data$"):
        open_file(path)


MAP = """
[frames]
path = "/diffamp"
axes = ["x", "frame", "y"]
values = "amplitudes"
zero_frequency = "corner"

[positions]
path = "/points"
columns = "{columns}"
unit = "um"

[geometry]
wavelength = {{path = "/lambda_nm", unit = "nm"}}
detector_distance = {{path = "/z_m", unit = "m"}}
detector_pixel_size = {{value = 75, unit = "um"}}
detector_pixel_size_y = {{value = 0.05, unit = "mm"}}

[probe]
path = "/probe"

[mask]
path = "/good"
good = 1

[angle_deg]
path = "/angle"
"""


@pytest.fixture
def mapped(tmp_path):
    counts = np.random.default_rng(0).poisson(30, (30, 16, 24))
    positions_px = write_cxi(tmp_path / "same.cxi")
    good = np.ones((16, 24), np.uint8)
    good[2, 3] = 0
    path = tmp_path / "hxn.h5"
    with h5py.File(path, "w") as file:
        amplitudes = np.sqrt(np.fft.ifftshift(counts, axes=(1, 2)))
        file["diffamp"] = amplitudes.transpose(2, 0, 1).astype(np.float32)
        file["points"] = (positions_px * object_pixel_m()).T[::-1] * 1e6
        file["lambda_nm"], file["z_m"], file["angle"] = 1239.841984 / ENERGY_EV, [DISTANCE_M], 12.5
        file["probe"], file["good"] = probe_of(), good
    dataset_map = tmp_path / "map.toml"
    dataset_map.write_text(MAP.format(columns="xy"))
    return path, dataset_map, counts, positions_px, good


def test_dataset_map_brings_any_layout_to_the_conventions(mapped):
    path, dataset_map, counts, positions_px, good = mapped
    perspective = open_file(path, dataset_map=dataset_map).perspective(0)
    np.testing.assert_allclose(perspective.read(4, 9), counts[4:9] * good, rtol=1e-5)
    np.testing.assert_allclose(perspective.positions_px, positions_px, rtol=1e-7)
    assert perspective.geometry.object_pixel_size_m == pytest.approx(object_pixel_m())
    np.testing.assert_array_equal(perspective.mask, good == 0)
    assert perspective.angle_deg == 12.5
    dataset_map.write_text(MAP.format(columns="yx"))
    swapped = open_file(path, dataset_map=dataset_map).perspective(0).positions_px * object_pixel_m()
    np.testing.assert_allclose(swapped[:, ::-1], positions_px * object_pixel_m(), rtol=1e-7)


def test_positions_may_be_two_datasets_in_object_pixels(mapped):
    path, dataset_map, _, positions_px, _ = mapped
    with h5py.File(path, "a") as file:
        file["row"], file["column"] = positions_px.T
    text = MAP.format(columns="xy").replace('path = "/points"', 'path_y = "/row"\npath_x = "/column"')
    dataset_map.write_text(text.replace('unit = "um"\n\n[geo', 'unit = "px"\n\n[geo'))
    perspective = open_file(path, dataset_map=dataset_map).perspective(0)
    np.testing.assert_array_equal(perspective.positions_px, positions_px)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('"/points"', '"/nowhere"', "has no positions where the dataset map says"),
        ('unit = "um"', 'unit = "furlong"', r"mistake in the dataset map at positions.unit: .*'um'.*'px'$"),
        ('axes = ["x", "frame", "y"]', 'axes = ["x", "x", "y"]', "axes must name frame, y and x once each"),
        ("[positions]", "[positions", "not valid TOML"),
        ('values = "amplitudes"', "colour = 3", "mistake in the dataset map at frames.colour"),
        ('{path = "/z_m", unit = "m"}', '{unit = "m"}', "give either path or value"),
        ('wavelength = {path = "/lambda_nm", unit = "nm"}', "", "give either energy or wavelength"),
    ],
)
def test_mistakes_in_a_dataset_map_are_named(mapped, before, after, words):
    path, dataset_map, *_ = mapped
    text = MAP.format(columns="xy")
    assert before in text
    dataset_map.write_text(text.replace(before, after))
    with pytest.raises(UserError, match=words):
        open_file(path, dataset_map=dataset_map)


def test_a_dataset_map_must_exist(cxi, tmp_path):
    with pytest.raises(UserError, match="the dataset map cannot be read: No such file"):
        open_file(cxi, dataset_map=tmp_path / "absent.toml")
