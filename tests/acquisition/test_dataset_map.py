"""What a dataset map can say: second files, text columns, indices, signs, attributes, links, grids, units."""

import h5py
import numpy as np
import pytest
from scan_files import DISTANCE_M, ENERGY_EV, PIXEL_M, MeasuredScan, opened, refusal

from ptychoflow.acquisition.readers.choosing import UnknownLayout
from ptychoflow.acquisition.readers.draft import FILL_IN, draft_map
from ptychoflow.acquisition.readers.hdf5 import find_dataset
from ptychoflow.acquisition.readers.survey import Role, survey
from ptychoflow.streaming.errors import UserError

SCAN = MeasuredScan()
GEOMETRY = """
[geometry]
energy = {path = "/beam", attribute = "energy_keV", unit = "keV"}
detector_distance = {path = "/distance"}
detector_pixel_size = {value = 75, unit = "um"}
detector_pixel_size_y = {attribute = "pixel_y", unit = "m"}
"""


@pytest.fixture
def scan_file(tmp_path):
    """Frames in two datasets behind links, geometry in attributes; positions are written by each test."""
    path = tmp_path / "scan_007.h5"
    with h5py.File(tmp_path / "raw.h5", "w") as raw:
        raw["stack_1"], raw["stack_2"] = SCAN.frames[:10], SCAN.frames[10:]
    with h5py.File(path, "w") as file:
        file["det/part_9"] = h5py.ExternalLink("raw.h5", "/stack_1")
        file["there"] = h5py.ExternalLink("raw.h5", "/stack_2")
        file["det/part_10"] = h5py.SoftLink("/there")
        file["beam"] = 0
        file["beam"].attrs["energy_keV"] = np.array([ENERGY_EV / 1e3])
        file["distance"] = np.full(25, DISTANCE_M * 1e3)
        file["distance"].attrs["units"] = np.array([b"mm"])
        file.attrs["pixel_y"] = PIXEL_M[0]
    return path


def with_map(path, positions, frames='path = "/det/part_*"'):
    written = path.with_name("map.toml")
    written.write_text(f"[frames]\n{frames}\n[positions]\n{positions}\n{GEOMETRY}")
    return written


@pytest.mark.parametrize(
    ("unit", "spread", "accepted"), [("deg", 2e-3, True), ("rad", 1e-4, True), ("deg", 1.0, False)]
)
def test_an_angle_read_at_every_frame_may_tremble_also_about_zero(scan_file, unit, spread, accepted):
    with h5py.File(scan_file, "a") as file:
        file["rot"] = np.linspace(-spread / 2, spread / 2, 25)
        file["rot"].attrs["units"] = unit
    np.savetxt(scan_file.with_name("where.txt"), SCAN.positions_m)
    written = with_map(scan_file, 'file = "where.txt"\ncolumns = "yx"\nunit = "m"')
    written.write_text(written.read_text() + '\n[angle_deg]\npath = "/rot"\n')
    if accepted:
        assert opened(scan_file, dataset_map=written).perspective(0).angle_deg == pytest.approx(0.0, abs=1e-9)
    else:
        assert "the rotation angle must be one number, but it varies" in refusal(scan_file, dataset_map=written)


def test_what_is_missing_at_the_root_of_a_file_is_told_of_the_file(scan_file):
    written = with_map(scan_file, 'path = "/det/part_9"\nunit = "m"', frames='path = "/nowhere"')
    assert refusal(scan_file, dataset_map=written).startswith(f"{scan_file}: the file has no frames where the dataset")


def test_text_columns_with_names_index_and_sign_in_a_second_file(scan_file):
    rows = [f"{7 + n};{x * 1e9};0;{-y * 1e9}" for n, (y, x) in enumerate(SCAN.positions_m)]
    text = "\n".join(["a title", "number; px; other; py", *rows[::-1]])
    scan_file.with_name("scan_007_motors.csv").write_text(text)
    written = with_map(
        scan_file,
        'file = "{stem}_*.csv"\ncolumn_y = "py"\ncolumn_x = "px"\nunit = "nm"\nsign_y = -1\n'
        'index = {column = "number", origin = 7}',
    )
    SCAN.assert_is(opened(scan_file, dataset_map=written).perspective(0))


def test_positions_of_one_frame_are_averaged_and_frames_without_are_left_out(scan_file):
    with h5py.File(scan_file, "a") as file:
        frames = np.repeat(np.delete(np.arange(25), [3, 24]), 2)
        file["table"] = np.column_stack([frames, SCAN.positions_m[frames]])
        file["table"].attrs["unit"] = "m"
        file["table"][::2, 1:] += 1e-9
        file["table"][1::2, 1:] -= 1e-9
    written = with_map(scan_file, 'path = "/table"\ncolumn_y = 1\ncolumn_x = 2\nindex = {column = 0, origin = 0}')
    scan = opened(scan_file, dataset_map=written)
    SCAN.assert_is(scan.perspective(0), kept=np.delete(np.arange(25), [3, 24]))
    assert "2 of 25 frames have no position and are left out" in scan.notes


@pytest.mark.parametrize("name", ["where.npy", "where.npz"])
def test_positions_in_numpy_files(scan_file, name):
    save = np.save if name.endswith("npy") else lambda path, values: np.savez(path, other=1, yx=values)
    save(scan_file.with_name(name), SCAN.positions_m * 1e6)
    path = 'path = "yx"\n' if name.endswith("npz") else ""
    written = with_map(scan_file, f'file = "{name}"\n{path}columns = "yx"\nunit = "um"')
    SCAN.assert_is(opened(scan_file, dataset_map=written).perspective(0))


def test_a_scan_grid_in_any_order_of_axes(scan_file):
    with h5py.File(scan_file, "a") as file:
        file["grid"] = SCAN.frames.reshape(5, 5, *SCAN.shape).transpose(3, 1, 0, 2)
        file["y"], file["x"] = (one.reshape(5, 5) for one in SCAN.positions_m.T)
    written = with_map(
        scan_file, 'path_y = "/y"\npath_x = "/x"\nunit = "m"', 'path = "/grid"\naxes = ["x", "column", "row", "y"]'
    )
    perspective = opened(scan_file, dataset_map=written).perspective(0)
    SCAN.assert_is(perspective)
    np.testing.assert_array_equal(perspective.read(3, 12), SCAN.frames[3:12])


def test_a_unit_is_demanded_where_nothing_says_it(scan_file):
    np.save(scan_file.with_name("where.npy"), SCAN.positions_m)
    written = with_map(scan_file, 'file = "where.npy"')
    assert "nothing says which unit the positions have" in refusal(scan_file, dataset_map=written)


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        ('file = "absent.txt"\nunit = "m"', "absent.txt: there is no such file; put it beside scan_007.h5"),
        ('file = "*.txt"\nunit = "m"', "fits 2 files"),
        ('file = "one.txt"\ncolumn_y = 5\ncolumn_x = 0\nunit = "m"', "there is no column 5; it has 2 columns"),
        ('file = "two.txt"\nunit = "m"', "line 2 has 3 columns, those before it 2"),
        ('path = "/a"\npath_y = "/b"\npath_x = "/c"\nunit = "m"', "give either path, or both path_y and path_x"),
    ],
)
def test_mistakes_are_named(scan_file, positions, words):
    scan_file.with_name("one.txt").write_text("1 2\n3 4\n")
    scan_file.with_name("two.txt").write_text("1 2\n3 4 5\n")
    assert words in refusal(scan_file, dataset_map=with_map(scan_file, positions))


def test_positions_can_be_set_for_a_file_without_them(scan_file):
    np.savetxt(scan_file.with_name("where.txt"), SCAN.positions_m * 1e6)
    written = scan_file.with_name("map.toml")
    written.write_text(f'[frames]\npath = "/det/part_*"\n{GEOMETRY}')
    assert "the file has no positions; name the file that holds them" in refusal(scan_file, dataset_map=written)
    positions = {"file": "where.txt", "columns": "yx", "unit": "um"}
    SCAN.assert_is(opened(scan_file, dataset_map=written, positions=positions).perspective(0))


def test_the_draft_for_a_file_of_unknown_layout_works_when_it_is_completed(tmp_path):
    path = tmp_path / "strange.nxs"
    with h5py.File(tmp_path / "raw.h5", "w") as raw:
        raw["stack"] = SCAN.frames
    with h5py.File(path, "w") as file:
        file["measurement/eiger/images"] = h5py.ExternalLink("raw.h5", "/stack")
        file["measurement/broken"] = h5py.ExternalLink("gone.h5", "/stack")
        file["again"] = h5py.SoftLink("/measurement")
        file["motors/stage_y"], file["motors/stage_x"] = SCAN.positions_m.T * 1e6
        file["motors/stage_x"].attrs["units"] = file["motors/stage_y"].attrs["units"] = "µm"
        file["mono/energy"] = np.full(25, ENERGY_EV)
        file["mono/energy"].attrs["units"] = b"eV"
        file["det/distance"], file["det/y_pixel_size"], file["det/x_pixel_size"] = DISTANCE_M, *PIXEL_M
        file["det/bad"] = np.zeros(SCAN.shape, np.uint8)
    with pytest.raises(UnknownLayout):
        opened(path)
    with h5py.File(path) as file:
        found = survey(file)
    assert [one.path for one in found.of(Role.FRAMES)] == ["/measurement/eiger/images"]
    assert found.of(Role.FRAMES)[0].shape == SCAN.frames.shape
    assert {one.path for one in found.of(Role.POSITIONS) if one.named} == {"/motors/stage_x", "/motors/stage_y"}
    assert found.of(Role.ENERGY)[0].values == f"{ENERGY_EV:g} to {ENERGY_EV:g}"
    assert len(found.missing) == 1
    assert "gone.h5" in found.missing[0]
    draft = draft_map(found, name=path.name)
    written = tmp_path / "draft.toml"
    written.write_text(draft)
    assert "mistake in the dataset map at geometry.detector_distance.unit" in refusal(path, dataset_map=written)
    written.write_text(draft.replace(FILL_IN, "m"))
    SCAN.assert_is(opened(path, dataset_map=written).perspective(0))


def test_numbers_of_a_kind_that_nothing_can_read_are_named(tmp_path):
    """Damage can make a floating-point type that NumPy has no equal of."""
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        kind = h5py.h5t.IEEE_F64LE.copy()
        kind.set_ebias(20_000)
        h5py.h5d.create(file.id, b"odd", kind, h5py.h5s.create_simple((5, 32, 32)))
        file["frames"] = np.ones((5, 32, 32), np.uint16)
    with h5py.File(path) as file:
        found = survey(file)
        with pytest.raises(UserError, match=r"odd\.h5: /odd cannot be read: Insufficient precision"):
            find_dataset(file, ["odd"])
    assert [one.path for one in found.candidates] == ["/frames"]
    assert found.missing == ["/odd (cannot be read)"]
