"""Stitching against a slow reference implementation, and its conventions."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import closing
from functools import partial

import numpy as np
import pytest
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from ptychoflow.inference_edge.stitching.area import Area
from ptychoflow.inference_edge.stitching.mosaic import Mosaic, StitchedImage, crop_centre, place_patches
from ptychoflow.inference_edge.stitching.row_owners import AHEAD_MAX, ALL_ROWS, RowOwners, choose_threads
from ptychoflow.inference_edge.stitching.spreading import AMPLITUDE, COSINE, COUNT, SINE, WEIGHT, draw_rows

STITCH_AS_AN_EDGE = """
import numpy as np
from ptychoflow.inference_edge.stitching.mosaic import Mosaic, place_patches
from ptychoflow.inference_edge.stitching.row_owners import RowOwners
from ptychoflow.inference_edge.stitching.spreading import add_patches, draw_rows, prepare_stitching

prepare_stitching()
compiled = [len(loop.signatures) for loop in (add_patches, draw_rows)]
patches = np.ones((2, 4, 4), np.float32)
for threads in (1, 2):
    for amplitude in (patches, None):
        mosaic = Mosaic(RowOwners(threads))
        mosaic.stitch(place_patches(amplitude, patches, np.zeros((2, 2))))
        mosaic.image()
assert [len(loop.signatures) for loop in (add_patches, draw_rows)] == compiled, add_patches.signatures
"""


def stitch(amplitude, phase, positions_px, batches=1) -> StitchedImage:
    mosaic = Mosaic()
    for chosen in np.array_split(np.arange(len(positions_px)), batches):
        mosaic.stitch(place_patches(amplitude[chosen], phase[chosen], positions_px[chosen]))
    return mosaic.image()


def stitch_slowly(amplitude, phase, positions_px):
    """Pixel by pixel in dictionaries: {(y, x): (amplitude, phase, coverage)}."""
    sums: dict[tuple[int, int], list[complex]] = {}
    frames_at: dict[tuple[int, int], set[int]] = {}
    for frame, (values, angles, position) in enumerate(zip(amplitude, phase, positions_px, strict=True)):
        for i, j in np.ndindex(values.shape):
            y = position[0] + i - values.shape[0] // 2
            x = position[1] + j - values.shape[1] // 2
            for row in (int(np.floor(y)), int(np.floor(y)) + 1):
                for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                    weight = (1 - abs(y - row)) * (1 - abs(x - column))
                    if weight <= 0:
                        continue
                    total = sums.setdefault((row, column), [0, 0, 0])
                    total[0] += weight * values[i, j]
                    total[1] += weight * np.exp(1j * angles[i, j])
                    total[2] += weight
                    frames_at.setdefault((row, column), set()).add(frame)
    return {
        pixel: (total[0].real / total[2].real, np.angle(total[1]), len(frames_at[pixel]))
        for pixel, total in sums.items()
    }


def assert_equal_to_slow(image: StitchedImage, expected: dict) -> None:
    assert int((image.coverage > 0).sum()) == len(expected)
    assert np.isnan(image.amplitude[image.coverage == 0]).all()
    for (y, x), (amplitude, phase, coverage) in expected.items():
        pixel = y - image.origin_px[0], x - image.origin_px[1]
        assert image.coverage[pixel] == coverage
        assert image.amplitude[pixel] == pytest.approx(amplitude, abs=1e-6)
        assert abs(np.angle(np.exp(1j * (image.phase[pixel] - phase)))) < 1e-6


def random_patches(count, shape, seed=0):
    rng = np.random.default_rng(seed)
    amplitude = rng.uniform(0, 1.5, (count, *shape)).astype(np.float32)
    phase = rng.uniform(-0.6, 0.6, (count, *shape)).astype(np.float32)
    return amplitude, phase


@pytest.mark.parametrize("shape", [(6, 6), (5, 8)])
def test_equals_slow_reference_at_fractional_negative_and_integer_positions(shape):
    amplitude, phase = random_patches(7, shape)
    amplitude[:, 1:3] = 0.0
    positions = np.array([[0, 0], [-7.25, 3.5], [2.999, -4.001], [3, -4], [-0.5, 0.5], [1e-3, 2], [4.75, -6]])
    for batches in (1, 3, 7):
        assert_equal_to_slow(stitch(amplitude, phase, positions, batches), stitch_slowly(amplitude, phase, positions))


def test_grows_in_every_direction():
    amplitude, phase = random_patches(5, (4, 4), seed=1)
    positions = np.array([[0, 0], [200.25, -3], [-150.5, 90.75], [3, -170], [1.5, 1.5]])
    assert_equal_to_slow(stitch(amplitude, phase, positions, 5), stitch_slowly(amplitude, phase, positions))


def test_true_zeros_count_in_the_mean():
    amplitude = np.stack([np.zeros((4, 4)), np.ones((4, 4))]).astype(np.float32)
    image = stitch(amplitude, np.zeros_like(amplitude), np.zeros((2, 2)))
    assert image.amplitude.tolist() == [[0.5] * 4] * 4
    assert (image.coverage == 2).all()
    assert image.origin_px == (-2, -2)


def test_patches_without_an_amplitude_are_stitched_as_if_it_were_one():
    amplitude, phase = random_patches(6, (5, 4))
    positions = np.random.default_rng(2).uniform(0, 6, (6, 2))
    amplitude[3:] = 1
    images = []
    for left_out in (False, True):
        mosaic = Mosaic()
        mosaic.stitch(place_patches(amplitude[:3], phase[:3], positions[:3]))
        without = place_patches(None if left_out else amplitude[3:], phase[3:], positions[3:])
        mosaic.stitch(without.select(np.array([True, False, True])))
        images.append(mosaic.image())
    expected, image = images
    np.testing.assert_array_equal(image.amplitude, expected.amplitude)
    np.testing.assert_array_equal(image.phase, expected.phase)
    assert image.origin_px == expected.origin_px


@pytest.mark.parametrize("threads", [2, 3, 16])
@pytest.mark.parametrize("with_amplitude", [True, False])
def test_an_image_is_the_same_to_the_bit_however_many_threads_stitch_it(threads, with_amplitude):
    amplitude, phase = random_patches(40, (9, 17), seed=3)
    positions = np.random.default_rng(5).uniform(-20, 30, (40, 2))
    positions[:5] = np.floor(positions[:5])
    images = []
    with closing(RowOwners(threads)) as owners:
        for mosaic in (Mosaic(), Mosaic(owners)):
            for n in range(0, 40, 8):
                some = slice(n, n + 8)
                sizes = amplitude[some] if with_amplitude or n == 16 else None
                mosaic.stitch(place_patches(sizes, phase[some], positions[some]))
                images.append(mosaic.image())
    for alone, shared in zip(images[:5], images[5:], strict=True):
        for name in ("amplitude", "phase", "coverage"):
            np.testing.assert_array_equal(getattr(shared, name), getattr(alone, name), strict=True)
    if not with_amplitude:
        expected = np.where(images[1].coverage > 0, np.float32(1), np.float32(np.nan))
        np.testing.assert_array_equal(images[1].amplitude, expected)
        amplitude[:16] = amplitude[24:] = 1
    assert_equal_to_slow(images[-1], stitch_slowly(amplitude, phase, positions))


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_every_row_has_one_owner(threads):
    owned: list[tuple[int, int]] = []
    with closing(RowOwners(threads)) as owners:
        owners.give(lambda strips: owned.extend((y, strips.owner) for y in range(300) if _owns(strips, y)))
        owners.settle()
    assert sorted(y for y, _ in owned) == list(range(300))
    of_a_patch = {owner for y, owner in owned if 48 <= y < 112}
    assert len(of_a_patch) == min(threads, 4)


def _owns(strips, y):
    return y // strips.height_px % strips.owners == strips.owner


def test_work_is_done_later_in_the_order_in_which_it_is_given_and_not_much_of_it_waits():
    may_go_on, done = threading.Event(), {0: [], 1: []}

    def do(number, strips):
        assert may_go_on.wait(30)
        done[strips.owner].append(number)

    with closing(RowOwners(2)) as owners:
        for number in range(AHEAD_MAX):
            owners.give(partial(do, number))
        assert done == {0: [], 1: []}
        giver = threading.Thread(target=lambda: owners.give(partial(do, AHEAD_MAX)))
        giver.start()
        giver.join(0.2)
        assert giver.is_alive(), "takes any number"
        may_go_on.set()
        giver.join(30)
        owners.settle()
        assert done == {0: list(range(AHEAD_MAX + 1)), 1: list(range(AHEAD_MAX + 1))}


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_of_what_was_given_is_raised_and_the_threads_go_on(threads):
    def fail(strips):
        raise ValueError("no more")

    done = []
    with closing(RowOwners(threads)) as owners:
        with pytest.raises(ValueError, match="no more"):
            owners.give(fail)
            owners.settle()
        for _ in range(threads - 1):
            with pytest.raises(ValueError, match="no more"):
                owners.settle()
        owners.give(lambda strips: done.append(strips.owner))
        owners.settle()
    assert sorted(done) == list(range(threads))


def test_an_image_holds_what_threads_still_had_to_stitch():
    amplitude, phase = random_patches(12, (9, 17))
    positions = np.random.default_rng(1).uniform(-20, 30, (12, 2))
    may_go_on = threading.Event()
    with closing(RowOwners(2)) as owners:
        mosaic = Mosaic(owners)
        mosaic.stitch(place_patches(None, phase[:6], positions[:6]))
        owners.give(lambda strips: may_go_on.wait(30))
        mosaic.stitch(place_patches(None, phase[:6], positions[:6]))
        assert mosaic.frames == 12
        # amplitudes, for which the sums are copied, far off, for which the canvas is: both wait for what was given
        threading.Timer(0.1, may_go_on.set).start()
        mosaic.stitch(place_patches(amplitude[6:], phase[6:], positions[6:] + 300))
        image = mosaic.image()
    amplitude[:6] = 1
    twice = [*range(6), *range(6), *range(6, 12)]
    positions[6:] += 300
    assert_equal_to_slow(image, stitch_slowly(amplitude[twice], phase[twice], positions[twice]))


@pytest.mark.parametrize(("processors", "computing", "at_most", "threads"), [(2, 1, 4, 1), (1, 1, 4, 1), (8, 2, 4, 4)])
def test_as_many_threads_stitch_as_processors_are_free(caplog, processors, computing, at_most, threads):
    caplog.set_level("INFO")
    assert choose_threads(processors=processors, computing=computing, at_most=at_most) == threads
    assert f"stitching with {threads} threads: {processors} processors" in caplog.text


def test_nothing_is_compiled_any_more_once_stitching_is_prepared():
    subprocess.run([sys.executable, "-c", STITCH_AS_AN_EDGE], check=True, timeout=120)


def test_phases_are_drawn_as_numpy_computes_them():
    rng = np.random.default_rng(7)
    coverage = rng.integers(0, 3, (40, 50), np.int32)
    sums = (rng.normal(size=(3, 40, 50)) * 10.0 ** rng.integers(-12, 12, (40, 50))).astype(np.float32)
    sums[:2, 0, :4] = [[0.0, 0.0, 1.0, -1.0], [1.0, -1.0, 0.0, 0.0]]
    sums[:2, 1, :2] = [[0.0, 1e-44], [0.0, 1e-44]]
    borders = np.zeros((40, 50, 2), np.float32)
    borders[..., COUNT] = rng.integers(0, coverage + 1)
    borders[..., WEIGHT] = rng.uniform(1e-6, 1, (40, 50)) * borders[..., COUNT]
    weight = (coverage - borders[..., COUNT] + borders[..., WEIGHT]).astype(float)
    drawn = np.full((2, 40, 50), 5, np.float32)
    draw_rows(sums, coverage, borders, drawn, (0, 40), (0, 48), ALL_ROWS)
    covered = coverage > 0
    covered[:, 48:] = False
    phase = np.arctan2(sums[SINE].astype(float), sums[COSINE])[covered].astype(np.float32)
    amplitude = (sums[AMPLITUDE][covered] / weight[covered]).astype(np.float32)
    np.testing.assert_array_max_ulp(drawn[1, covered], phase, maxulp=1)
    np.testing.assert_array_equal(drawn[0, covered], amplitude)
    assert np.isnan(drawn[:, :, :48][:, ~covered[:, :48]]).all()
    assert (drawn[:, :, 48:] == 5).all()


def test_phase_wraps_do_not_tear():
    phase = np.stack([np.full((4, 4), np.pi - 0.1), np.full((4, 4), -np.pi + 0.1)]).astype(np.float32)
    image = stitch(np.ones_like(phase), phase, np.zeros((2, 2)))
    assert np.abs(image.phase) == pytest.approx(np.pi, abs=1e-6)


def test_an_integer_position_puts_the_patch_centre_there_untouched():
    amplitude, phase = random_patches(1, (8, 8))
    image = stitch(amplitude, phase, np.array([[10.0, -3.0]]))
    assert image.origin_px == (10 - 4, -3 - 4)
    np.testing.assert_array_equal(image.amplitude[:8, :8], amplitude[0])
    assert image.coverage.sum() == 64


@pytest.mark.parametrize("missed_px", [-1e-9, 1e-9, 1e-12, -1e-12])
def test_a_position_that_misses_an_integer_by_rounding_covers_no_further_row(missed_px):
    amplitude, phase = random_patches(2, (4, 4), seed=3)
    positions = np.array([[10.0, 20.0], [11.0, 18.0]])
    exact, rounded = stitch(amplitude, phase, positions), stitch(amplitude, phase, positions + missed_px)
    assert rounded.origin_px == exact.origin_px
    assert np.array_equal(rounded.coverage, exact.coverage)
    assert np.array_equal(rounded.amplitude, exact.amplitude, equal_nan=True)


def test_nothing_added_gives_an_empty_image():
    image = Mosaic().image()
    assert image.amplitude.shape == (0, 0)


def test_patches_where_no_scan_reaches_are_left_out_and_counted():
    amplitude, phase = random_patches(6, (4, 4))
    positions = np.array([[0, 0], [1e9, 0], [3, 3], [5, -9000], [4, 1], [2, 2]], dtype=float)
    mosaic = Mosaic()
    assert mosaic.stitch(place_patches(amplitude, phase, positions)) == 2
    good = [0, 2, 4, 5]
    assert mosaic.frames == 4
    assert_equal_to_slow(mosaic.image(), stitch_slowly(amplitude[good], phase[good], positions[good]))
    assert mosaic.stitch(place_patches(amplitude[:1], phase[:1], np.array([[3.0, -1e12]]))) == 1
    assert mosaic.frames == 4


def test_patches_that_would_make_the_image_too_large_are_left_out(monkeypatch):
    monkeypatch.setattr("ptychoflow.inference_edge.stitching.mosaic.MAX_CANVAS_PX", 10_000)
    amplitude, phase = random_patches(1, (4, 4))
    mosaic = Mosaic()
    taken = [mosaic.stitch(place_patches(amplitude, phase, np.array([[step, step]]))) for step in np.arange(3) * 80.0]
    assert taken == [0, 0, 1]


def test_images_between_additions_redraw_what_changed_and_nothing_else():
    amplitude, phase = random_patches(30, (7, 7), seed=2)
    positions = np.random.default_rng(4).uniform(-40, 60, (30, 2))
    mosaic, image = Mosaic(), None
    changes = mosaic.watch()
    for n in range(0, 30, 3):
        before = image
        mosaic.stitch(place_patches(amplitude[n : n + 3], phase[n : n + 3], positions[n : n + 3]))
        image, changed = mosaic.image(), changes.pop()
        assert_equal_to_slow(image, stitch_slowly(amplitude[: n + 3], phase[: n + 3], positions[: n + 3]))
        np.testing.assert_array_equal(
            mosaic.image(changed).amplitude, image.amplitude[changed.slices(image.origin_px)], strict=True
        )
        if before is not None:
            outside = np.full_like(image.amplitude, np.nan)
            outside[
                Area(*before.origin_px, *np.add(before.origin_px, before.amplitude.shape)).slices(image.origin_px)
            ] = before.amplitude
            outside[changed.slices(image.origin_px)] = image.amplitude[changed.slices(image.origin_px)]
            np.testing.assert_array_equal(outside, image.amplitude)
    assert not changes.pop()


def test_a_finished_mosaic_keeps_its_image_and_takes_nothing_more():
    amplitude, phase = random_patches(2, (4, 4))
    mosaic = Mosaic()
    mosaic.stitch(place_patches(amplitude, phase, np.array([[0.5, 0], [3, 2]])))
    before = mosaic.image()
    mosaic.finish()
    np.testing.assert_array_equal(mosaic.image().phase, before.phase)
    np.testing.assert_array_equal(mosaic.image(Area(0, 0, 2, 3)).phase, before.phase[2:4, 2:5])
    with pytest.raises(RuntimeError, match="finished"):
        mosaic.stitch(place_patches(amplitude, phase, np.zeros((2, 2))))


def test_many_overlapping_patches_keep_the_precision():
    """Compared with shifting whole patches in float64; phases of several turns, some hundred patches per pixel."""
    amplitude, phase = random_patches(400, (16, 16), seed=6)
    phase *= 40
    positions = np.random.default_rng(8).uniform(0, 6, (400, 2))
    image = stitch(amplitude, phase, positions, 7)
    phasor_sum, amplitude_sum, weight = np.zeros((3, 40, 40), dtype=complex)
    for a, p, position in zip(amplitude.astype(float), phase.astype(float), positions, strict=True):
        padded = [np.zeros((40, 40), dtype=complex) for _ in range(3)]
        corner = np.floor(position).astype(int)
        at = slice(corner[0] + 8, corner[0] + 24), slice(corner[1] + 8, corner[1] + 24)
        for canvas, values in zip(padded, (np.exp(1j * p), a, np.ones_like(a)), strict=True):
            canvas[at] = values
        for total, canvas in zip((phasor_sum, amplitude_sum, weight), padded, strict=True):
            np.add(total, ndimage.shift(canvas, position - corner, order=1, mode="constant"), out=total)
    shown = Area(*image.origin_px, *np.add(image.origin_px, image.amplitude.shape)).slices((-16, -16))
    assert image.coverage.max() > 200
    np.testing.assert_allclose(image.amplitude, (amplitude_sum[shown] / weight[shown]).real, atol=1e-6)
    turned = np.exp(1j * image.phase) * np.abs(phasor_sum[shown])
    np.testing.assert_allclose(turned, phasor_sum[shown], atol=1e-6 * image.coverage.max())


def test_crop_keeps_the_pixel_at_the_position():
    for size, cropped in [(8, 4), (8, 5), (9, 4), (9, 9), (6, 20)]:
        patch = np.zeros((1, size, size))
        patch[0, size // 2, size // 2] = 1
        central = crop_centre(patch, cropped)
        kept = min(size, cropped)
        assert central.shape == (1, kept, kept)
        assert central[0, kept // 2, kept // 2] == 1
    assert crop_centre(patch, None) is patch


def asymmetric_object(shape=(120, 140)):
    """Smooth and random: no mirror image, transpose or conjugate of it resembles it."""
    rng = np.random.default_rng(3)
    amplitude = 0.8 + 0.1 * ndimage.gaussian_filter(rng.standard_normal(shape), 3) * 10
    phase = 5 * ndimage.gaussian_filter(rng.standard_normal(shape), 3)
    return amplitude, phase


def cut_patches(values, positions_px, size):
    """Sample the object at each patch pixel's exact position (cubic splines)."""
    offsets = np.mgrid[:size, :size] - size // 2
    return np.stack(
        [ndimage.map_coordinates(values, offsets + position[:, None, None], order=3) for position in positions_px]
    ).astype(np.float32)


def correlation(first, second):
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def shift_between(first, second):
    window = np.outer(*(np.hanning(length) for length in first.shape))
    windowed = [(values - values.mean()) * window for values in (first, second)]
    return np.abs(phase_cross_correlation(*windowed, upsample_factor=100, normalization=None)[0]).max()


def test_stitching_true_patches_gives_the_object_back_in_its_orientation():
    amplitude, phase = asymmetric_object()
    size = 24
    rng = np.random.default_rng(5)
    grid = np.stack(np.meshgrid(np.arange(20, 100, 7), np.arange(20, 120, 7), indexing="ij"), -1).reshape(-1, 2)
    positions = grid + rng.uniform(-1, 1, grid.shape)
    patches = cut_patches(amplitude, positions, size), cut_patches(phase, positions, size)
    image = stitch(*patches, positions)

    top, left = image.origin_px
    inner = slice(12, -12), slice(12, -12)
    true = slice(top, top + image.amplitude.shape[0]), slice(left, left + image.amplitude.shape[1])
    for stitched, expected in (
        (image.amplitude[inner], amplitude[true][inner]),
        (image.phase[inner], phase[true][inner]),
    ):
        assert correlation(stitched, expected) > 0.999
        assert shift_between(stitched, expected) < 0.05
        half_pixel_off = ndimage.shift(expected, (0.5, 0.5), order=3, mode="mirror")
        assert shift_between(stitched, half_pixel_off) > 0.4
        for wrong in (expected[::-1], expected[:, ::-1], expected[::-1, ::-1], -expected):
            assert correlation(stitched, wrong) < 0.5

    for wrong_positions in (positions[:, ::-1], positions + 0.5):
        wrong = stitch(*patches, np.ascontiguousarray(wrong_positions))
        height, width = wrong.phase[inner].shape
        expected = phase[wrong.origin_px[0] + 12 :, wrong.origin_px[1] + 12 :][:height, :width]
        shown = wrong.phase[inner][: expected.shape[0], : expected.shape[1]]
        assert correlation(shown, expected) < 0.995
