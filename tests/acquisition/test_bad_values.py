"""Values that show nothing are ignored or refused, and always said: pixels, frames, positions.

What is retrieved from the rest is compared with an object that is simulated without the project.
"""

import h5py
import numpy as np
import pytest
from asymmetric_scan import PHOTONS, RIGHT, N, correlation, frames, positions_px, translation, write_scan
from scan_files import FRAMES, TRANSLATION, opened, refusal, write_cxi

from ptychoflow.acquisition import frame_survey
from ptychoflow.acquisition.frame_check import ranges_in_words, usable
from ptychoflow.acquisition.inspect import inspect_scan
from ptychoflow.acquisition.position_check import outliers, step_px, unwritten_tail
from ptychoflow.acquisition.probe_estimate import Turn

GAP = np.zeros((N, N), bool)
GAP[:, 40:43] = GAP[20:22] = True


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scan.cxi"


def notes_with(scan, words):
    return [note for note in scan.notes if words in note]


def test_nothing_is_found_where_nothing_is_wrong(path):
    scan = opened(write_scan(path))
    assert scan.perspective(0).mask is None
    assert len(scan.notes) == 2
    assert correlation(scan.perspective(0)) > RIGHT


@pytest.mark.parametrize(
    ("dtype", "marker"),
    [("uint32", 2**32 - 1), ("uint16", 2**16 - 1), ("uint32", 2**16 - 1), ("int32", 2**31 - 1), ("float32", 2**32 - 1)],
)
def test_gaps_that_hold_the_largest_value_are_ignored(path, dtype, marker):
    counts = frames().astype(dtype)
    counts[:, GAP] = marker
    scan = opened(write_scan(path, counts, dtype=dtype))
    perspective = scan.perspective(0)
    np.testing.assert_array_equal(perspective.mask, GAP)
    assert notes_with(scan, "314 pixels hold 429496729" if marker > 2**31 else f"314 pixels hold {marker} in every")
    assert not perspective.read(0, 144)[:, GAP].any()
    if marker == 2**32 - 1 and dtype == "uint32":
        assert correlation(perspective) > RIGHT


def test_saturation_in_some_frames_only_is_no_gap(path):
    counts = frames().astype("uint16")
    counts[::2, 5, 6] = 65535
    scan = opened(write_scan(path, counts, with_probe=True))
    assert scan.perspective(0).mask is None
    assert notes_with(scan, "1 pixels hold 65535, the largest value of their type, in some of the frames looked at")
    told = opened(path, preprocess={"saturation_counts": 65535})
    assert np.argwhere(told.perspective(0).mask).tolist() == [[5, 6]]
    assert not notes_with(told, "largest value of their type")


@pytest.mark.parametrize("dtype", ["uint32", "int32"])
def test_what_no_detector_counts_is_ignored_though_it_is_in_some_frames_only(path, dtype):
    counts = frames().astype(dtype)
    largest = np.iinfo(dtype).max
    counts[7, 10, 10] = counts[::3, 40, 41] = largest
    scan = opened(write_scan(path, counts, dtype=dtype))
    assert np.argwhere(scan.perspective(0).mask).tolist() == [[10, 10], [40, 41]]
    assert notes_with(scan, f"2 pixels hold {largest} in some of the frames looked at, no count; they are ignored")
    assert not notes_with(scan, "off the middle")
    assert correlation(scan.perspective(0)) > RIGHT


def test_a_frame_with_a_pixel_that_was_never_counted_is_set_aside_though_nobody_looked_at_it(path, monkeypatch):
    monkeypatch.setattr(frame_survey, "LOOKED_AT_BYTES", 1)
    counts = frames().astype("uint32")
    counts[7, 10, 10] = 2**32 - 1
    perspective = opened(write_scan(path, counts, dtype="uint32", with_probe=True)).perspective(0)
    assert perspective.mask is None, "16 of 144 frames are looked at"
    assert np.flatnonzero(~usable(perspective.read(0, 144))).tolist() == [7]


def test_a_frame_half_of_which_overflows_does_not_take_half_of_the_detector_along(path):
    counts = frames().astype("uint32")
    counts[5, :32] = 2**32 - 1
    scan = opened(write_scan(path, counts, dtype="uint32", with_probe=True))
    assert scan.perspective(0).mask is None
    assert notes_with(scan, "2048 pixels hold 4294967295, the largest value of their type, in some of the frames")
    assert np.flatnonzero(~usable(scan.perspective(0).read(0, 144))).tolist() == [5]


def test_positions_along_a_line_are_said(path):
    """As of a scan along x and z, whose third column is y."""
    where_m = translation()[:, [0, 2, 1]]
    scan = opened(write_scan(path, positions_m=where_m))
    assert notes_with(scan, "All positions lie along one line: y spans 0 object pixels, x 7")
    columns = {"path": f"/{TRANSLATION}", "column_x": 0, "column_y": 2, "unit": "m"}
    right = opened(path, positions=columns)
    assert not notes_with(right, "along one line")
    assert correlation(right.perspective(0)) > RIGHT


def test_a_stored_probe_that_was_not_shifted_is_said(path):
    with h5py.File(write_scan(path, with_probe=True), "a") as file:
        stored = file["entry_1/instrument_1/source_1/illumination"]
        assert not notes_with(opened(path), "off the middle of its array")
        stored[...] = np.fft.ifftshift(stored[...])
    assert notes_with(opened(path), "The file's probe is off the middle of its array by (-32, -32) px")
    assert correlation(opened(path, probe="ignore").perspective(0)) > RIGHT


@pytest.mark.parametrize("places", [[(50, 50)], [(50, 50), (50, 51), (51, 50)], [(0, 0), (63, 20)]])
def test_hot_pixels_are_ignored_and_the_probe_is_as_without_them(path, places):
    counts = frames().astype("int32")
    rows, columns = zip(*places, strict=True)
    counts[:, rows, columns] = 500_000
    scan = opened(write_scan(path, counts, dtype="int32"))
    perspective = scan.perspective(0)
    assert sorted(map(tuple, np.argwhere(perspective.mask).tolist())) == sorted(places)
    assert notes_with(scan, f"{len(places)} pixels are hot, at ({places[0][0]}, {places[0][1]})")
    without = opened(write_scan(path.with_name("without.cxi"))).perspective(0).orientation().fits[Turn.NONE]
    # Diameters are tried in steps of 0.02.
    assert perspective.orientation().fits[Turn.NONE].diameter == pytest.approx(without.diameter, abs=0.021)
    assert np.sum(np.abs(perspective.probe) ** 2) == pytest.approx(PHOTONS, rel=0.1)


def test_a_beam_of_one_bright_spot_is_not_hot(path):
    y, x = np.mgrid[:N, :N] - N // 2
    spot = 1e4 * np.exp(-(y**2 + x**2) / 1.5)
    counts = np.random.default_rng(0).poisson(spot, (144, N, N))
    assert opened(write_scan(path, counts, with_probe=True)).perspective(0).mask is None


def test_looking_for_bad_pixels_can_be_left_out(path):
    counts = frames().astype("uint16")
    counts[:, 50, 50] = 60_000
    scan = opened(write_scan(path, counts, with_probe=True), preprocess={"find_bad_pixels": False})
    assert scan.perspective(0).mask is None
    assert not notes_with(scan, "hot")


@pytest.mark.parametrize(
    ("value", "why"),
    [(np.nan, "without a finite value"), (0, "without counts")],
)
def test_frames_that_show_nothing_are_set_aside_before_the_probe_is_estimated(path, value, why):
    counts = frames().astype("float32")
    counts[[10, 120, 121, 122]] = value
    scan = opened(write_scan(path, counts, dtype="float32"))
    assert notes_with(scan, f"4 of 144 frames show nothing (4 {why}): 10, 120 to 122; such frames are set aside")
    assert correlation(scan.perspective(0)) > RIGHT
    assert inspect_scan(scan).counts.mean_per_frame == pytest.approx(frames().sum() / 144, rel=0.02)


def test_saturated_frames_are_set_aside_beside_gaps(path):
    counts = frames().astype("uint16")
    counts[:, GAP] = 65535
    counts[3] = 65535
    counts[7, 10:] = 65535
    scan = opened(write_scan(path, counts))
    assert notes_with(scan, "2 of 144 frames show nothing (2 saturated all over): 3, 7;")
    np.testing.assert_array_equal(scan.perspective(0).mask, GAP)
    assert np.flatnonzero(~usable(scan.perspective(0).read(0, 144))).tolist() == [3, 7]


@pytest.mark.parametrize("with_probe", [True, False])
@pytest.mark.parametrize(
    ("value", "dtype", "why"),
    [
        (0, "uint16", "without counts"),
        (65535, "uint16", "saturated all over"),
        (np.nan, "f4", "without a finite value"),
    ],
)
def test_a_scan_that_shows_nothing_is_refused(path, with_probe, value, dtype, why):
    counts = np.full(frames().shape, value)
    said = refusal(write_scan(path, counts, dtype=dtype, with_probe=with_probe))
    assert f"none of the 144 frames looked at shows anything (144 {why})" in said


def test_a_damaged_frame_does_not_hide_the_others(path):
    write_cxi(path)
    with h5py.File(path, "a") as file:
        counts = file[FRAMES][...]
        del file[FRAMES]
        dataset = file.create_dataset(FRAMES, data=counts, chunks=(1, 16, 24), compression="gzip")
        chunk = dataset.id.get_chunk_info(12)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * 60)
    assert notes_with(opened(path), "1 of 30 frames show nothing (1 that cannot be read): 12;")


@pytest.mark.parametrize("shows", [True, False])
def test_a_later_perspective_that_shows_nothing_is_said_and_the_others_are_read(path, shows):
    write_scan(path)
    with h5py.File(path, "a") as file:
        file.copy("entry_1", "entry_2")
        file.copy("entry_1", "entry_3")
        if not shows:
            file["entry_2/data_1/data"][...] = 0
    scan = opened(path)
    assert [perspective.probe is not None for perspective in scan] == [True, shows, True]
    said = notes_with(scan, "shows anything (144 without counts); is this the right dataset, and was the shutter open?")
    assert len(said) == (not shows)
    assert all(note.startswith("Perspective 1: The file has no probe, and frames without counts") for note in said)


def test_usable_frames():
    counts = np.ones((6, 2, 3), np.float32)
    counts[1, 0, 0], counts[2, 1, 1], counts[3], counts[4, 0, 0] = np.nan, -1, 0, np.inf
    assert usable(counts).tolist() == [True, False, False, False, False, True]
    bytes_ = np.array([[[255, 255, 0]], [[255, 3, 2]], [[0, 0, 0]]], np.uint8)
    assert usable(bytes_).tolist() == [False, True, False]
    assert ranges_in_words([0, 2, 3, 4, 9]) == "0, 2 to 4, 9"


@pytest.mark.parametrize("inverted", [False, True])
def test_a_mask_that_ignores_most_of_the_frame_is_said(path, inverted):
    write_scan(path, mask=(~GAP).astype("u4"))
    scan = opened(path, preprocess={"invert_mask": inverted})
    if inverted:
        np.testing.assert_array_equal(scan.perspective(0).mask, GAP)
        assert notes_with(scan, "The file's mask is inverted, as set: 314 pixels are ignored")
        assert correlation(scan.perspective(0)) > RIGHT
    else:
        words = "ignores 92% of the pixels and 94% of the light; if the mask is meant the other way round, "
        assert notes_with(scan, f"{words}--set source.preprocess.invert_mask=true")


def test_the_polarity_of_a_mask_is_told_by_the_light(path):
    """A detector half of which is gaps that hold no counts: its mask ignores less than half of it, either way round."""
    gaps = np.zeros((N, N), bool)
    gaps[:, ::2] = gaps[:13] = True  # 60 %
    counts = np.where(gaps, 0, frames())
    assert not notes_with(opened(write_scan(path, counts, mask=gaps.astype("u4"), with_probe=True)), "of the light")
    said = (
        "The file's mask ignores 100% of the light; if the mask is meant the other way round, --set source.preprocess.i"
    )
    inverted = write_scan(path.with_name("inverted.cxi"), counts, mask=(~gaps).astype("u4"), with_probe=True)
    assert notes_with(opened(inverted), said)
    # Without a probe there is nothing to estimate it from.
    assert f"cannot show it. {said}" in refusal(inverted, probe="ignore")


def test_masks_of_hot_pixels_and_about_the_beam_are_not_doubted(path):
    counts = frames().astype("uint32")
    counts[:, 5, 5] = np.random.default_rng(0).poisson(1e6, 144)
    hot = np.zeros((N, N), "u4")
    hot[5, 5] = 1
    assert not notes_with(opened(write_scan(path, counts, dtype="uint32", mask=hot)), "other way round")
    y, x = np.mgrid[:N, :N] - N // 2
    about = (np.hypot(y, x) > 15).astype("u4")
    said = notes_with(opened(write_scan(path.with_name("about.cxi"), mask=about)), "other way round")
    assert [note.split(";")[0] for note in said] == ["The file's mask ignores 83% of the pixels"]


def test_a_mask_that_leaves_nothing_is_refused_with_the_setting(path):
    said = refusal(write_scan(path, mask=np.ones((N, N), "u4")))
    assert "the mask leaves no pixel; if the mask is meant the other way round" in said
    assert opened(path, preprocess={"invert_mask": True}).perspective(0).mask is None


@pytest.mark.parametrize("tail", [np.nan, 0.0])
def test_positions_that_were_never_written_are_set_aside_with_their_frames(path, tail):
    positions = translation()
    positions[120:] = tail
    scan = opened(write_scan(path, positions_m=positions))
    assert len(scan.perspective(0)) == 120
    assert notes_with(scan, "The last 24 of 144 positions are no numbers or zero")
    assert notes_with(scan, "frames 120 to 143 are set aside")
    assert correlation(scan.perspective(0)) > RIGHT


def test_a_missing_position_amid_others_is_refused_with_the_setting(path):
    positions = translation()
    positions[17, 0] = np.nan
    assert "source.drop_frames=[17]" in refusal(write_scan(path, positions_m=positions))
    assert len(opened(path, drop_frames=[17]).perspective(0)) == 143


def test_a_missing_position_is_named_by_its_number_in_the_file_where_others_are_left_out(path):
    positions = translation()
    positions[17, 0] = np.nan
    text = refusal(write_scan(path, positions_m=positions), drop_frames=[[0, 4], 9])
    assert "the first one of frame 17" in text
    assert "--set 'source.drop_frames=[17]', beside those that are left out already" in text
    assert len(opened(path, drop_frames=[[0, 4], 9, 17]).perspective(0)) == 137


def test_a_scan_may_end_at_zero(path):
    positions = translation() - translation()[-1]
    assert unwritten_tail(positions[:, :2]) == 0
    assert len(opened(write_scan(path, positions_m=positions)).perspective(0)) == 144


@pytest.mark.parametrize("away_m", [1.0, 50e-6])
def test_single_positions_far_away_are_set_aside(path, away_m):
    positions = translation()
    positions[7, 0] += away_m
    scan = opened(write_scan(path, positions_m=positions))
    assert notes_with(scan, "1 of 144 positions lie far from all others")
    assert notes_with(scan, "frames 7 are set aside")
    kept = np.delete(frames(), 7, axis=0)
    np.testing.assert_array_equal(scan.perspective(0).read(0, 143), kept)
    assert correlation(scan.perspective(0)) > RIGHT


def test_a_scan_of_two_areas_has_no_outliers():
    area = np.random.default_rng(0).uniform(0, 50, (100, 2))
    assert not outliers(np.concatenate([area, area + 5000]), 64).any()
    assert not outliers(np.array([[0.0, 0.0], [1000.0, 0.0]]), 64).any()


def test_positions_that_ask_for_terabytes_are_refused(path):
    positions = translation()
    positions[::2] += 0.5
    assert "object pixels, an image of" in refusal(write_scan(path, positions_m=positions))


@pytest.mark.parametrize(
    ("factor", "words", "scale"),
    [
        (1e-3, "only 0.00", 1000.0),
        (1e-6, "only 5", 1e6),
        (1e3, "so nothing overlaps; check units", 1e-3),
        (1e6, "so nothing overlaps; check units", 1e-6),
    ],
)
def test_steps_that_cannot_be_are_refused_with_the_likely_unit(path, factor, words, scale):
    said = refusal(write_scan(path, positions_m=translation() * factor))
    assert words in said
    assert f"--set source.preprocess.position_scale={scale:g}" in said
    there = opened(path, preprocess={"position_scale": scale}).perspective(0).positions_px
    np.testing.assert_allclose(np.ptp(there, axis=0), np.ptp(positions_px(), axis=0), rtol=1e-3)


def test_many_frames_along_few_lines_are_no_small_steps(path):
    positions = np.zeros((144, 3))
    positions[:, 0] = np.tile(np.arange(48) * 0.5, 3) * 0.97e-6 / 15
    positions[:, 1] = np.repeat(np.arange(3), 48) * 1e-6
    assert len(opened(write_scan(path, positions_m=positions, with_probe=True)).perspective(0)) == 144


def test_the_step_between_positions_is_that_of_finite_ones():
    positions = np.array([[0.0, 0.0], [0.0, 3.0], [0.0, 6.0], [np.nan, 9.0], [0.0, np.inf]])
    assert step_px(positions) == 3.0
    assert step_px(positions[3:]) is None
