"""Preprocessing: frames of a badly oriented file come back to the conventions, and the probe with them."""

import h5py
import numpy as np
import pytest

from ptychoflow.acquisition.preprocess import FrameTransform
from ptychoflow.acquisition.propagation import far_field_intensity
from ptychoflow.acquisition.simulate import simulate_to_file
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import PreprocessSettings, ProbeSettings, ReplaySettings, SimulationSettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.errors import UserError

SETTINGS = SimulationSettings(perspectives=1, frames_per_perspective=36, frame_shape_px=(32, 40))


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "scan.h5"
    simulate_to_file(SETTINGS, path)
    return path


def open_first(path, **preprocess):
    return open_scan(ReplaySettings(path=path, preprocess=PreprocessSettings(**preprocess))).perspective(0)


def rewrite_frames(path, change):
    name = "entry_1/data_1/data"
    with h5py.File(path, "a") as file:
        frames = change(file[name][...])
        del file[name]
        file[name] = frames


def random_wave(rng, shape):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


@pytest.mark.parametrize("shape", [(8, 10), (9, 7)])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize(("flip_y", "flip_x"), [(False, False), (True, False), (False, True), (True, True)])
def test_probe_follows_the_frames_through_transpose_and_flips(shape, transpose, flip_y, flip_x):
    settings = PreprocessSettings(transpose=transpose, flip_y=flip_y, flip_x=flip_x)
    transform = FrameTransform(settings, shape)
    probe = random_wave(np.random.default_rng(0), (2, *shape))
    frame = far_field_intensity(probe, np.ones((1, *shape), np.complex64))
    moved = transform.apply_to_probe(probe)
    frame_of_moved = far_field_intensity(moved, np.ones((1, *transform.shape), np.complex64))
    np.testing.assert_allclose(transform.apply(frame), frame_of_moved, rtol=1e-4, atol=1e-4)


def test_flip_keeps_the_beam_on_its_pixel_and_masks_the_row_that_it_lacks():
    frame = np.arange(48.0).reshape(1, 6, 8)
    transform = FrameTransform(PreprocessSettings(flip_y=True), (6, 8))
    flipped = transform.apply(frame)[0]
    np.testing.assert_array_equal(flipped[3], frame[0, 3])
    np.testing.assert_array_equal(flipped[4], frame[0, 2])
    np.testing.assert_array_equal(flipped[1:], frame[0, :0:-1])
    np.testing.assert_array_equal(transform.outside, np.arange(6)[:, np.newaxis] == np.zeros((1, 8)))


def test_crop_is_centred_on_the_beam_and_pads_where_the_frame_ends():
    frame = np.arange(1.0, 101.0).reshape(1, 10, 10)
    transform = FrameTransform(PreprocessSettings(crop_px=(4, 6), centre_px=(2, 8)), (10, 10))
    cut = transform.apply(frame)[0]
    np.testing.assert_array_equal(cut[:, :5], frame[0, 0:4, 5:10])
    assert cut[2, 3] == frame[0, 2, 8]
    assert (cut[:, 5] == 0).all()
    assert transform.outside[:, 5].all()
    assert transform.outside.sum() == 4


def test_centre_is_given_in_the_stored_frame_before_transpose_and_flip():
    frame = np.zeros((1, 10, 12))
    frame[0, 3, 7] = 1
    settings = PreprocessSettings(crop_px=(6, 4), centre_px=(3, 7), transpose=True, flip_x=True)
    cut = FrameTransform(settings, (10, 12)).apply(frame)[0]
    assert cut.shape == (6, 4)
    assert cut[3, 2] == 1


@pytest.mark.parametrize(
    ("damage", "repair"),
    [
        (lambda frames: frames.swapaxes(1, 2), {"transpose": True}),
        (lambda frames: np.roll(frames[:, ::-1], 1, axis=1), {"flip_y": True}),
        (lambda frames: np.roll(frames[:, :, ::-1], 1, axis=2), {"flip_x": True}),
        (lambda frames: np.roll(frames, (3, -2), axis=(1, 2)), {"centre_px": (16 + 3, 20 - 2)}),
    ],
)
def test_damaged_orientation_is_repaired(recording, damage, repair):
    original = SimulatedScan(SETTINGS).perspective(0).read(0, 36)
    rewrite_frames(recording, damage)
    with h5py.File(recording, "a") as file:
        del file["entry_1/instrument_1/source_1/illumination"]
    perspective = open_first(recording, **repair)
    frames = perspective.read(0, 36)
    valid = np.ones((32, 40), bool) if perspective.mask is None else ~perspective.mask
    assert valid.mean() > 0.85
    np.testing.assert_array_equal(frames[:, valid], original[:, valid])


def test_crop_makes_object_pixels_larger_and_keeps_positions_in_metres(recording):
    whole, cut = open_first(recording), open_first(recording, crop_px=(16, 20))
    assert cut.geometry.object_pixel_size_m == pytest.approx(np.array(whole.geometry.object_pixel_size_m) * 2)
    np.testing.assert_allclose(cut.positions_px * 2, whole.positions_px)
    assert cut.probe.shape == (1, 16, 20)
    assert cut.ground_truth is None
    assert any("ground truth is left out" in note for note in cut.notes)


def test_positions_are_swapped_then_signed_and_scaled(recording):
    original = open_first(recording).positions_px
    pixel = np.array(open_first(recording).geometry.object_pixel_size_m)
    changed = open_first(recording, swap_positions=True, position_sign_x=-1, position_scale=0.5)
    expected = original[:, ::-1] * pixel[::-1] / pixel * (0.5, -0.5)
    np.testing.assert_allclose(changed.positions_px, expected)


def test_mask_file_and_saturation_are_added_and_read_zero(recording, tmp_path):
    mask = np.zeros((32, 40))
    mask[0, :] = 1
    np.save(tmp_path / "mask.npy", mask)

    def saturate(frames):
        frames[::3, 5, 6] = 60000
        return frames

    rewrite_frames(recording, saturate)
    perspective = open_first(recording, mask=tmp_path / "mask.npy", saturation_counts=60000)
    assert perspective.mask[0].all()
    assert perspective.mask[5, 6]
    assert perspective.mask.sum() == 41
    assert not perspective.read(0, 36)[:, perspective.mask].any()
    assert perspective.notes == ["1 pixels are saturated, or negative in every frame looked at; they are ignored"]


def test_gap_markers_are_masked_and_removed_background_is_cut_at_zero(recording):
    def float_frames(frames):
        frames = frames.astype(np.float32) - 0.5
        frames[:, 10] = -1
        frames[:, 11, 3] = np.nan
        return frames

    rewrite_frames(recording, float_frames)
    perspective = open_first(recording)
    assert perspective.mask[10].all()
    assert perspective.mask[11, 3]
    frames = perspective.read(0, 36)
    assert np.isfinite(frames).all()
    assert frames.min() == 0


def test_a_mask_file_must_fit(recording, tmp_path):
    np.save(tmp_path / "mask.npy", np.zeros((8, 8)))
    with pytest.raises(UserError, match=r"the mask has shape \(8, 8\) but stored frames have \(32, 40\)"):
        open_first(recording, mask=tmp_path / "mask.npy")
    with pytest.raises(UserError, match="the mask cannot be read"):
        open_first(recording, mask=tmp_path / "absent.npy")


def test_a_mask_file_that_is_no_array_of_numbers_is_one_line(recording, tmp_path):
    path = tmp_path / "mask.npy"
    np.save(path, np.zeros((32, 40)))
    whole = path.read_bytes()
    np.savez(tmp_path / "archive", mask=np.zeros((32, 40)))
    for content in (
        whole[:70],
        whole[:200],
        whole.replace(b"'<f8'", b"'<O8'"),
        whole.replace(b"(32, 40)", b"(32, 4<)"),
        whole.replace(b"'<f8'", b"'<U2'"),
        whole.replace(b"(32, 40), ", b"(10**99,), "),
        (tmp_path / "archive.npz").read_bytes(),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"the mask (cannot be read|must be numbers)"):
            open_first(recording, mask=path)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_missing_probe_is_estimated_with_the_right_defocus(tmp_path, mirrored):
    settings = SimulationSettings(perspectives=1, probe=ProbeSettings(diameter_fraction=0.5), seed=2)
    path = tmp_path / "scan.h5"
    simulate_to_file(settings, path)
    true_probe = SimulatedScan(settings).perspective(0).probe[0]
    with h5py.File(path, "a") as file:
        del file["entry_1/instrument_1/source_1/illumination"]
        if mirrored:
            # The same frames with negated positions are those of the conjugate probe, defocused the other way.
            file["entry_1/ptychoflow_1/position_px"][...] *= -1
    scan = open_scan(ReplaySettings(path=path))
    probe = scan.perspective(0).probe[0]
    assert any("no probe; it was estimated from" in note for note in scan.notes)
    true_probe = true_probe.conj() if mirrored else true_probe

    def similarity(other):
        return np.abs(np.vdot(probe, other)) / np.linalg.norm(probe) / np.linalg.norm(other)

    assert similarity(true_probe) > 0.75
    assert similarity(true_probe) > similarity(true_probe.conj()) + 0.3
    mean_counts = scan.perspective(0).read(0, 400).sum(axis=(1, 2)).mean()
    assert np.sum(np.abs(probe) ** 2) == pytest.approx(mean_counts, rel=0.02)


def test_frames_without_counts_cannot_show_the_probe(recording):
    rewrite_frames(recording, np.zeros_like)
    with h5py.File(recording, "a") as file:
        del file["entry_1/instrument_1/source_1/illumination"]
    with pytest.raises(UserError, match="frames without counts cannot show it"):
        open_first(recording)
