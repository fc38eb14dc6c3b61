"""CXI to the letter: units, mask bits, basis vectors, probes, entries, grids, and files that are not there."""

import h5py
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
    opened,
    probe_of,
    refusal,
    replace_dataset,
    write_cxi,
)

from ptychoflow.acquisition.readers.units import EnergyUnit, LengthUnit, Quantity, as_text, parse_unit
from ptychoflow.acquisition.scan import ELEMENTARY_CHARGE_C
from ptychoflow.streaming.errors import UserError


def first(path, **settings):
    return opened(path, **settings).perspective(0)


def with_unit(path, name, value, unit):
    replace_dataset(path, name, value)
    with h5py.File(path, "a") as file:
        file[name].attrs["units"] = unit


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("m", LengthUnit.METRE),
        ("MM", LengthUnit.MILLIMETRE),
        ("µm", LengthUnit.MICROMETRE),
        ("\N{GREEK SMALL LETTER MU}m", LengthUnit.MICROMETRE),
        ("Microns", LengthUnit.MICROMETRE),
        ("nm", LengthUnit.NANOMETRE),
        ("Å", LengthUnit.ANGSTROM),
        ("\N{ANGSTROM SIGN}", LengthUnit.ANGSTROM),
        ("Angstrom", LengthUnit.ANGSTROM),
        ("eV", None),
        ("furlong", None),
    ],
)
def test_lengths_are_understood_in_any_spelling(text, unit):
    assert parse_unit(text, Quantity.LENGTH) is unit


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("J", EnergyUnit.JOULE),
        ("joule", EnergyUnit.JOULE),
        ("EV", EnergyUnit.ELECTRONVOLT),
        ("kev", EnergyUnit.KILOELECTRONVOLT),
        ("MeV", EnergyUnit.MEGAELECTRONVOLT),
        ("m", None),
    ],
)
def test_energies_are_understood_in_any_spelling(text, unit):
    assert parse_unit(text, Quantity.ENERGY) is unit


@pytest.mark.parametrize("value", ["mm", b"mm", np.array(["mm"], object), np.array([b"mm"]), np.bytes_(b"mm\0")])
def test_an_attribute_is_text_bytes_or_an_array_of_one(value):
    assert as_text(value) == "mm"


@pytest.mark.parametrize("unit", ["mm", b"MM", [b"millimetre"]])
def test_units_of_the_distance_are_honoured(cxi, unit):
    with_unit(cxi, f"{DETECTOR}/distance", DISTANCE_M * 1e3, unit)
    assert first(cxi).geometry.detector_distance_m == pytest.approx(DISTANCE_M)


def test_units_of_pixel_sizes_and_positions_are_honoured(cxi):
    positions_px = write_cxi(cxi)
    with_unit(cxi, f"{DETECTOR}/x_pixel_size", PIXEL_M[1] * 1e6, "µm")
    with_unit(cxi, f"{DETECTOR}/y_pixel_size", PIXEL_M[0] * 1e9, "nm")
    with_unit(cxi, TRANSLATION, np.pad((positions_px * object_pixel_m())[:, ::-1] * 1e10, ((0, 0), (0, 1))), "Angstrom")
    perspective = first(cxi)
    assert perspective.geometry.detector_pixel_size_m == pytest.approx(PIXEL_M)
    np.testing.assert_allclose(perspective.positions_px, positions_px, rtol=1e-6)


@pytest.mark.parametrize(("factor", "unit"), [(1.0, "eV"), (1e-3, "KEV"), (1e-6, "MeV"), (ELEMENTARY_CHARGE_C, "J")])
def test_units_of_the_energy_are_honoured(cxi, factor, unit):
    with_unit(cxi, f"{SOURCE}/energy", ENERGY_EV * factor, unit)
    assert first(cxi).geometry.energy_eV == pytest.approx(ENERGY_EV)


def test_a_unit_that_is_not_known_is_refused_with_the_setting_that_goes_on(cxi):
    with_unit(cxi, f"{DETECTOR}/distance", 2.0, "parsec")
    assert "'parsec' is not known as the unit of the detector distance; one of m, cm, mm" in refusal(cxi)


def test_an_energy_that_is_the_same_for_every_frame_counts(cxi):
    replace_dataset(cxi, f"{SOURCE}/energy", np.full(30, ENERGY_EV * ELEMENTARY_CHARGE_C))
    assert first(cxi).geometry.energy_eV == pytest.approx(ENERGY_EV)


def test_an_energy_that_varies_is_refused(cxi):
    replace_dataset(cxi, f"{SOURCE}/energy", np.linspace(7000, 8000, 30) * ELEMENTARY_CHARGE_C)
    assert "the photon energy must be one number, but it varies" in refusal(cxi)


@pytest.mark.parametrize("value", [0.0, -2.0, np.nan, np.inf])
def test_a_distance_that_is_no_positive_number_is_refused(cxi, value):
    replace_dataset(cxi, f"{DETECTOR}/distance", value)
    assert "the detector distance is" in refusal(cxi)


def test_geometry_that_is_set_counts_and_says_so(cxi):
    replace_dataset(cxi, f"{DETECTOR}/distance", None)
    assert "--set source.geometry.detector_distance_m=2" in refusal(cxi)
    scan = opened(cxi, geometry={"detector_distance_m": DISTANCE_M, "energy_eV": 9000, "detector_pixel_size_m": 75e-6})
    geometry = scan.perspective(0).geometry
    assert (geometry.energy_eV, geometry.detector_distance_m) == (9000, DISTANCE_M)
    assert geometry.detector_pixel_size_m == (75e-6, 75e-6)
    assert "The photon energy is 9000 as set, not 8000 as the file says" in scan.notes


def test_information_bits_do_not_make_a_pixel_bad(cxi):
    mask = np.full((16, 24), 0x1000 | 0x800, np.uint32)
    mask[3, 5], mask[4, 6], mask[5, 7] = 0x1000 | 0x8, 0x200, 0x400
    replace_dataset(cxi, f"{DETECTOR}/mask", mask)
    scan = opened(cxi)
    assert set(zip(*np.nonzero(scan.perspective(0).mask), strict=True)) == {(3, 5), (4, 6)}
    assert any("Bits 0x1c00 of the mask mark no bad pixels" in note for note in scan.notes)


@pytest.mark.parametrize("lead", [1, 30])
def test_a_mask_may_have_an_axis_of_frames(cxi, lead):
    mask = np.zeros((lead, 16, 24), np.uint8)
    mask[:, 2, 3] = 1
    mask[-1, 5, 6] = 8
    replace_dataset(cxi, f"{DETECTOR}/mask", mask)
    scan = opened(cxi)
    assert set(zip(*np.nonzero(scan.perspective(0).mask), strict=True)) == {(2, 3), (5, 6)}
    assert any("1 pixels are masked in some frames only" in note for note in scan.notes) == (lead > 1)


def test_pixel_sizes_may_come_from_the_basis_vectors(cxi):
    replace_dataset(cxi, f"{DETECTOR}/x_pixel_size", None)
    replace_dataset(cxi, f"{DETECTOR}/y_pixel_size", None)
    replace_dataset(cxi, f"{DETECTOR}/basis_vectors", [[0, -PIXEL_M[0], 0], [-PIXEL_M[1], 0, 0]])
    with h5py.File(cxi) as file:
        before = file[FRAMES][:]
    perspective = first(cxi)
    assert perspective.geometry.detector_pixel_size_m == pytest.approx(PIXEL_M)
    np.testing.assert_array_equal(perspective.read(0, 30), before)


def test_frames_of_a_detector_mounted_otherwise_are_turned(cxi):
    """Rows run along x to the left, columns along y upwards: transposed, then mirrored along y."""
    positions_px = write_cxi(cxi)
    with h5py.File(cxi) as file:
        usual = file[FRAMES][:]
    mirrored = np.roll(usual[:, ::-1], 1, 1)
    replace_dataset(cxi, FRAMES, mirrored.transpose(0, 2, 1))
    replace_dataset(cxi, f"{DETECTOR}/basis_vectors", [[-PIXEL_M[1], 0, 0], [0, PIXEL_M[0], 0]])
    replace_dataset(cxi, f"{DETECTOR}/x_pixel_size", None)
    replace_dataset(cxi, f"{DETECTOR}/y_pixel_size", None)
    mask = np.zeros((24, 16), np.uint8)
    mask[5, 1] = 1
    replace_dataset(cxi, f"{DETECTOR}/mask", mask)
    scan = opened(cxi)
    perspective = scan.perspective(0)
    assert perspective.geometry.detector_pixel_size_m == pytest.approx(PIXEL_M)
    assert list(zip(*np.nonzero(perspective.mask), strict=True)) == [(15, 5)]
    usual[:, 15, 5] = 0
    np.testing.assert_array_equal(perspective.read(0, 30), usual)
    np.testing.assert_allclose(perspective.positions_px, positions_px, rtol=1e-6)
    assert any("transpose, flip_y" in note for note in scan.notes)


@pytest.mark.parametrize(("rotated_deg", "said"), [(0.2, False), (12.0, True), (90.0, False), (97.0, True)])
def test_a_detector_that_is_rotated_about_the_beam_is_told_of(cxi, rotated_deg, said):
    """Frames can be turned by whole quarters alone."""
    sine, cosine = np.sin(np.radians(rotated_deg)), np.cos(np.radians(rotated_deg))
    pixel_y_m, pixel_x_m = PIXEL_M
    vectors = [[sine * pixel_y_m, -cosine * pixel_y_m, 0], [-cosine * pixel_x_m, -sine * pixel_x_m, 0]]
    replace_dataset(cxi, f"{DETECTOR}/basis_vectors", vectors)
    if rotated_deg > 45:
        replace_dataset(cxi, f"{SOURCE}/illumination", probe_of((24, 16)))
    notes = [note for note in opened(cxi).notes if "is rotated by" in note]
    expected = f"The detector is rotated by {rotated_deg % 90:.3g}° about the beam"
    assert [note.split(",")[0] for note in notes] == ([expected] if said else [])


def compound(probe):
    packed = np.zeros(probe.shape, [("real", "f4"), ("imag", "f4")])
    packed["real"], packed["imag"] = probe.real, probe.imag
    return packed


@pytest.mark.parametrize(
    "stored",
    [
        compound(probe_of(modes=2)),
        np.stack([probe_of(modes=2).real, probe_of(modes=2).imag], -1),
        probe_of(modes=2)[np.newaxis],
        np.stack([probe_of(modes=2), 2 * probe_of(modes=2)]),
    ],
    ids=["compound", "last axis", "4-D", "4-D that changes over the scan"],
)
def test_probes_in_other_layouts_are_read(cxi, stored):
    replace_dataset(cxi, f"{SOURCE}/illumination", stored)
    np.testing.assert_allclose(first(cxi).probe, probe_of(modes=2), rtol=1e-6)


def test_a_probe_of_another_size_is_fitted_as_set(cxi):
    large = np.pad(probe_of(), ((0, 0), (8, 8), (12, 12)))
    replace_dataset(cxi, f"{SOURCE}/illumination", large)
    assert "source.probe=same_pixel or same_field, or --set source.probe=ignore" in refusal(cxi)
    np.testing.assert_array_equal(first(cxi, probe="same_pixel").probe, probe_of())
    same_field = first(cxi, probe="same_field").probe
    assert same_field.shape == (1, 16, 24)
    # Every second sample of a smooth wave over the same field: half as many pixels along each axis, twice as wide.
    fine = np.pad(np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(large[0]))), 0)[8:24, 12:36]
    expected = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(fine)))
    assert abs(np.vdot(same_field[0], expected)) == pytest.approx(
        np.linalg.norm(same_field[0]) * np.linalg.norm(expected), rel=1e-5
    )


def test_a_probe_can_be_ignored(cxi):
    replace_dataset(cxi, f"{SOURCE}/illumination", np.ones((16, 24)))
    assert "source.probe=ignore" in refusal(cxi)
    replace_dataset(cxi, f"{SOURCE}/illumination", probe_of((16, 16)))
    notes = opened(cxi, probe="ignore").notes
    assert "The file's probe is left out, as set" in notes
    assert any("it was estimated" in note for note in notes)


def test_an_empty_entry_is_left_out_with_a_note(cxi):
    with h5py.File(cxi, "a") as file:
        file.create_group("entry_2/data_1")
        file.copy("entry_1", "entry_3")
        del file["entry_3/data_1/data"]
        file["entry_3/data_1/data"] = np.zeros((0, 16, 24), np.uint16)
    scan = opened(cxi)
    assert len(scan) == 1
    assert "entry_2, entry_3: no frames in it; left out" in scan.notes


def test_the_incident_energy_of_the_beam_comes_before_the_ring(cxi):
    with_unit(cxi, "entry_1/instrument_1/beam_1/incident_energy", 9.0, "keV")
    with h5py.File(cxi, "a") as file:
        file[f"{SOURCE}/energy"][...] = 3e9 * ELEMENTARY_CHARGE_C
    assert first(cxi).geometry.energy_eV == pytest.approx(9000)


def test_a_scan_grid_is_read_as_frames(cxi):
    with h5py.File(cxi) as file:
        frames, translation = file[FRAMES][:], file[TRANSLATION][:]
    replace_dataset(cxi, FRAMES, frames.reshape(5, 6, 16, 24))
    replace_dataset(cxi, TRANSLATION, translation.reshape(5, 6, 3))
    perspective = first(cxi)
    assert len(perspective) == 30
    np.testing.assert_array_equal(perspective.read(0, 30), frames)
    np.testing.assert_array_equal(perspective.read(4, 17), frames[4:17])
    assert perspective.read(28, 40).shape == (2, 16, 24)


def test_a_link_to_a_file_that_is_not_there_names_it(cxi, tmp_path):
    path = tmp_path / "linked.cxi"
    with h5py.File(path, "w") as file:
        file["entry_1"] = h5py.ExternalLink("gone.cxi", "/entry_1")
    assert "entry_1 links to" in refusal(path)
    assert "gone.cxi, which is missing" in refusal(path)
    with h5py.File(path, "a") as file:
        del file["entry_1"]
        file["entry_1"] = h5py.ExternalLink("scan.cxi", "/entry_1")
    assert len(first(path)) == 30


def test_chained_links_are_followed_and_the_last_missing_file_is_named(cxi, tmp_path):
    with h5py.File(tmp_path / "middle.h5", "w") as file:
        file["here"] = h5py.ExternalLink("scan.cxi", "/entry_1")
        file["broken"] = h5py.ExternalLink("gone.h5", "/entry_1")
    with h5py.File(tmp_path / "top.cxi", "w") as file:
        file["entry_1"] = h5py.ExternalLink("middle.h5", "/here")
    assert len(first(tmp_path / "top.cxi")) == 30
    with h5py.File(tmp_path / "top.cxi", "a") as file:
        del file["entry_1"]
        file["entry_1"] = h5py.ExternalLink("middle.h5", "/broken")
    assert "gone.h5, which is missing" in refusal(tmp_path / "top.cxi")


def make_virtual(path):
    """Make the frames a virtual dataset whose second half has no source."""
    with h5py.File(path, "a") as file:
        frames = file[FRAMES][:]
        del file[FRAMES]
        with h5py.File(path.with_name("first.h5"), "w") as part:
            part["data"] = frames[:18]
        layout = h5py.VirtualLayout(frames.shape, frames.dtype)
        layout[:18] = h5py.VirtualSource("first.h5", "data", (18, 16, 24))
        layout[18:] = h5py.VirtualSource("moved.h5", "data", (12, 16, 24))
        file.create_virtual_dataset(FRAMES, layout)
    return frames


def test_a_virtual_dataset_without_its_source_is_refused_until_its_frames_are_dropped(cxi):
    frames = make_virtual(cxi)
    text = refusal(cxi)
    assert "frames 18 to 29 are kept in" in text
    assert "moved.h5, which is missing" in text
    assert "--set 'source.drop_frames=[[18,29]]'" in text
    scan = opened(cxi, drop_frames=[[18, 29]])
    assert len(scan.perspective(0)) == 18
    np.testing.assert_array_equal(scan.perspective(0).read(0, 18), frames[:18])
    assert "12 frames are left out, as set" in scan.notes


def test_virtual_positions_without_their_source_are_refused(cxi):
    with h5py.File(cxi, "a") as file:
        del file[TRANSLATION]
        layout = h5py.VirtualLayout((30, 3), "f8")
        layout[:] = h5py.VirtualSource("motors.h5", "data", (30, 3))
        file.create_virtual_dataset(TRANSLATION, layout)
    assert "motors.h5, which is missing" in refusal(cxi)


@pytest.mark.parametrize(("choice", "kept"), [("first", slice(0, 28)), ("last", slice(2, 30))])
def test_more_frames_than_positions_are_paired_as_set(cxi, choice, kept):
    positions_px = write_cxi(cxi)
    with h5py.File(cxi) as file:
        frames, translation = file[FRAMES][:], file[TRANSLATION][kept]
    replace_dataset(cxi, TRANSLATION, translation)
    assert "30 frames but 28 positions" in refusal(cxi)
    assert "--set source.frames=first" in refusal(cxi)
    scan = opened(cxi, frames=choice)
    np.testing.assert_array_equal(scan.perspective(0).read(0, 28), frames[kept])
    np.testing.assert_allclose(scan.perspective(0).positions_px, positions_px[kept], rtol=1e-6)
    assert any("2 frames at the" in note for note in scan.notes)


def test_more_positions_than_frames_are_paired_as_set(cxi):
    positions_px = write_cxi(cxi)
    with h5py.File(cxi) as file:
        frames = file[FRAMES][:]
    replace_dataset(cxi, FRAMES, frames[:25])
    np.testing.assert_allclose(first(cxi, frames="first").positions_px, positions_px[:25], rtol=1e-6)
    np.testing.assert_allclose(first(cxi, frames="last").positions_px, positions_px[5:], rtol=1e-6)


def test_single_frames_can_be_dropped(cxi):
    positions_px = write_cxi(cxi)
    with h5py.File(cxi) as file:
        frames = file[FRAMES][:]
    kept = [0, 1, 2, 4, 5, 6, *range(10, 29)]
    perspective = first(cxi, drop_frames=[3, [7, 9], 29])
    np.testing.assert_array_equal(perspective.read(0, 30), frames[kept])
    np.testing.assert_array_equal(perspective.read(5, 8), frames[kept[5:8]])
    np.testing.assert_allclose(perspective.positions_px, positions_px[kept], rtol=1e-6)


def test_several_files_are_perspectives_in_natural_order_of_their_names(tmp_path):
    paths = [tmp_path / f"scan_{number}.cxi" for number in (10, 9, 100)]
    for number, path in enumerate(paths):
        write_cxi(path)
        with h5py.File(path, "a") as file:
            file[FRAMES][:] = number + 1
    scan = opened(tuple(paths))
    assert [perspective.read(0, 1)[0, 0, 0] for perspective in scan] == [2, 1, 3]
    assert [perspective.index for perspective in scan] == [0, 1, 2]
    assert "3 files are perspectives of one scan, in the order of their name" in scan.notes
    assert scan.frames == 90


def test_several_files_with_frames_of_different_size_are_refused(tmp_path, cxi):
    other = tmp_path / "other.cxi"
    write_cxi(other)
    with h5py.File(other, "a") as file:
        frames = file[FRAMES][:, :8]
        del file[FRAMES], file[f"{SOURCE}/illumination"]
        file[FRAMES] = frames
    with pytest.raises(UserError, match=r"frames have \(16, 24\) pixels but those of .* have \(8, 24\)"):
        opened((cxi, other))
