"""The edge service with a real publisher, real weights and a real telemetry hub."""

from __future__ import annotations

import gc
import time

import h5py
import numpy as np
import pytest
from edge_run import (
    BATCH,
    FRAMES_EACH,
    HELD_OUT_FROM,
    SETTINGS,
    Run,
    assert_shows,
    batch_of,
    expected_image,
    frames_of,
)
from edge_weights import network_of, weights
from support import wait_until

from ptychoflow.inference_edge.backends.runner import run_in_batches
from ptychoflow.inference_edge.backends.runner_factory import RunnerFactory
from ptychoflow.inference_edge.ptychography import frame_residuals, residual_meter
from ptychoflow.inference_edge.ptychography.archive import CLOSED_FRAMES
from ptychoflow.inference_edge.ptychography.residual import forward_residuals
from ptychoflow.inference_edge.ptychography.service import serve_edge
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import (
    EdgeCounts,
    HeldOutScores,
    MosaicImage,
    MosaicKind,
    PartState,
    PartStatus,
    PerspectiveScores,
    ResidualCalibrated,
    ResidualMapped,
    ResidualScores,
    WarningRaised,
    WeightsApplied,
    WeightsRejected,
)
from ptychoflow.streaming.messages import FirstPassResidual, FirstPassScore, Frames, NoReference, Probe, ScanEnd
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.settings import RunContext


@pytest.fixture
def run(network, tmp_path):
    one = Run(network, tmp_path)
    yield one
    one.close()


def test_a_whole_scan(run):
    """Two perspectives: first pass with version 1, a reference that comes late, final weights, everything refreshed."""
    run.start_edge()
    run.trainer.publish(*weights(1))
    run.post_perspective(0)
    run.post_frames(0, 0, 6)
    run.post_perspective(1)
    wait_until(lambda: run.inferred() == 2 * FRAMES_EACH)
    assert run.refreshed() == 0
    assert run.of(PerspectiveScores) == []
    assert gc.get_freeze_count() > 0
    run.post_reference(0)
    wait_until(lambda: run.scores(0, MosaicKind.FIRST_PASS) is not None)
    bad, data = weights(2)
    run.trainer.publish(bad, data[:-8])
    wait_until(lambda: run.of(WeightsRejected) != [])
    run.trainer.publish(*weights(3, final=True))
    run.post_reference(1)
    wait_until(lambda: run.refreshed() == 2 * FRAMES_EACH)
    run.post(ScanEnd(2 * FRAMES_EACH))
    run.wait_for_end()
    assert gc.get_freeze_count() == 0, "what stays exempt from the search for garbage is reported as leaked at the end"

    counts = run.of(EdgeCounts)[-1]
    assert (counts.inferred, counts.refreshed, counts.duplicates) == (2 * FRAMES_EACH, 2 * FRAMES_EACH, 12)
    assert 0 < counts.frame_to_image_p50_ms <= counts.frame_to_image_p99_ms
    assert [one.version for one in run.of(WeightsApplied)] == [1, 3]
    assert [one.version for one in run.of(WeightsRejected)] == [2]
    for perspective in (0, 1):
        assert_shows(run, perspective, MosaicKind.FIRST_PASS, version=1)
        assert_shows(run, perspective, MosaicKind.REFRESHED, version=3)
        first, refreshed = (run.scores(perspective, kind) for kind in (MosaicKind.FIRST_PASS, MosaicKind.REFRESHED))
        assert (first.frames, first.model_versions) == (FRAMES_EACH, [1])
        assert (refreshed.frames, refreshed.model_versions) == (FRAMES_EACH, [3])
        assert refreshed.constant.correlation.amplitude == 0
        for kind in ("first_pass", "refreshed", "reference", "difference"):
            for channel in ("amplitude", "phase"):
                assert (run.folder / "images" / f"perspective_{perspective:04d}_{kind}_{channel}.png").stat().st_size
    firsts = [run.scores(perspective, MosaicKind.FIRST_PASS) for perspective in (0, 1)]
    assert list(run.publisher.scores) == [
        FirstPassScore(one.perspective, one.quality.psnr_db.phase, one.quality.ssim.phase, one.constant.psnr_db.phase)
        for one in firsts
    ]
    for (message, arrays), perspective in zip(run.publisher.images, (0, 1), strict=True):
        expected = expected_image(perspective, 1)
        assert (message.perspective, message.origin_px) == (perspective, expected.origin_px)
        np.testing.assert_allclose(arrays["phase"], expected.phase, atol=2e-3)
        np.testing.assert_allclose(arrays["amplitude"], expected.amplitude, rtol=2e-3)
    held_out = {one.perspective: one for one in run.of(HeldOutScores)}
    assert held_out.keys() == {0, 1}
    assert (held_out[1].frames, held_out[1].model_version) == (FRAMES_EACH - HELD_OUT_FROM, 3)
    assert held_out[1].quality != run.scores(1, MosaicKind.REFRESHED).quality
    assert {one.kind for one in run.of(MosaicImage)} == set(MosaicKind) - {MosaicKind.PREVIEW}
    wait_until(lambda: run.unacknowledged == 0)
    # not that pictures are still being drawn, which is true for a moment alone
    wait_until(lambda: run.of(PartStatus)[-1].text == f"{2 * FRAMES_EACH} frames imaged, {2 * FRAMES_EACH} times again")


def test_frames_are_scored_without_ground_truth_where_the_light_is_known(run, monkeypatch):
    monkeypatch.setattr(frame_residuals, "WINDOW", FRAMES_EACH)
    monkeypatch.setattr(residual_meter, "LARGEST_SHARE", 1e6)
    run.start_edge(SETTINGS.model_copy(update={"residual_share": 1.0}))
    run.trainer.publish(*weights(1))
    probe = np.random.default_rng(1).normal(size=(2, 32, 32)).astype(np.complex64)
    run.post_perspective(0)
    for perspective in (1, 2):
        run.post(Probe(perspective, float(perspective)), {"probe": probe})
        run.post_perspective(perspective)
    wait_until(lambda: any((one.perspective, one.scored) == (2, FRAMES_EACH) for one in run.of(ResidualScores)))
    run.post_reference(2)
    wait_until(lambda: run.of(ResidualCalibrated) != [])
    run.trainer.publish(*weights(3, final=True))
    run.post(ScanEnd(3 * FRAMES_EACH))
    run.wait_for_end()

    for version, kind in ((1, MosaicKind.FIRST_PASS), (3, MosaicKind.REFRESHED)):
        prediction = run_in_batches(
            RunnerFactory(SETTINGS).prepare(network_of(version)), frames_of(2), batch_max=SETTINGS.batch_max
        )
        expected = np.median(forward_residuals(frames_of(2), *prediction, probe))
        told = [one for one in run.of(ResidualScores) if (one.perspective, one.kind) == (2, kind)][-1]
        assert (told.frames, told.scored) == (FRAMES_EACH, FRAMES_EACH)
        assert told.residual == told.newest == pytest.approx(expected, rel=1e-3)
        assert told.error_rad is None, "too few frames to be calibrated"
    kinds = MosaicKind.FIRST_PASS, MosaicKind.REFRESHED
    expected_maps = {(perspective, kind) for perspective in (1, 2) for kind in kinds}
    assert {(one.perspective, one.kind) for one in run.of(ResidualMapped)} == expected_maps
    with h5py.File(run.folder / "images" / "perspective_0002.h5") as file:
        shown = file["refreshed/residual"][()]
        assert np.nanmin(shown) > 0
        assert -(-file["refreshed/phase"].shape[0] // file["refreshed/residual"].attrs["cell_px"]) == len(shown)
    assert (run.folder / "images" / "perspective_0002_refreshed_residual.png").stat().st_size
    residuals = [one for one in run.publisher.scores if isinstance(one, FirstPassResidual)]
    assert (residuals[-1].perspective, residuals[-1].frames) == (2, FRAMES_EACH)
    (score,) = (one for one in run.publisher.scores if isinstance(one, FirstPassScore))
    assert score.residual == residuals[-1].residual


def test_frames_wait_for_the_first_weights_and_the_publisher_holds_the_rest(run):
    run.start_edge(SETTINGS.model_copy(update={"queue_max": 12, "keep": 9}))
    for perspective in range(3):
        run.post_perspective(perspective)
    posted_s = time.time()
    wait_until(lambda: any(one.state is PartState.RUNNING for one in run.of(PartStatus)))
    assert run.inferred() == 0
    assert run.unacknowledged >= 3 * FRAMES_EACH // BATCH
    waited_ms = (time.time() - posted_s) * 1000
    run.trainer.publish(*weights(1, final=True))
    run.post(ScanEnd(3 * FRAMES_EACH))
    run.wait_for_end()
    counts = run.of(EdgeCounts)[-1]
    assert (counts.inferred, counts.refreshed) == (3 * FRAMES_EACH, 0)
    assert counts.frame_to_image_p50_ms > waited_ms
    for perspective in range(3):
        assert_shows(run, perspective, MosaicKind.FIRST_PASS, version=1)
        assert_shows(run, perspective, MosaicKind.REFRESHED, version=1)


def test_a_reference_that_comes_perspectives_later_is_still_scored(run):
    run.start_edge(SETTINGS.model_copy(update={"keep": 1}))
    run.trainer.publish(*weights(1))
    for perspective in range(3):
        run.post_perspective(perspective)
    wait_until(lambda: run.inferred() == 3 * FRAMES_EACH)
    run.trainer.publish(*weights(2, final=True))
    wait_until(lambda: run.refreshed() == FRAMES_EACH)
    assert run.of(PerspectiveScores) == []
    run.post_reference(0)
    wait_until(lambda: run.scores(0, MosaicKind.REFRESHED) is not None)
    run.post_frames(0, 0)
    run.post(ScanEnd(3 * FRAMES_EACH))
    run.wait_for_end()
    assert run.scores(0, MosaicKind.REFRESHED).model_versions == [1]
    assert run.of(EdgeCounts)[-1].duplicates == BATCH
    assert_shows(run, 0, MosaicKind.REFRESHED, version=1)
    assert_shows(run, 2, MosaicKind.REFRESHED, version=2)
    images = run.folder / "images"
    assert (images / "perspective_0000_difference_phase.png").exists()
    assert not (images / "perspective_0001_difference_phase.png").exists()


def closed_perspectives(run: Run) -> set[int]:
    """What the files say; an archive of its own would draw the pictures too."""
    found = set()
    for perspective, path in RunFolder(run.folder).image_files().items():
        with h5py.File(path) as file:
            if CLOSED_FRAMES in file.attrs:
                found.add(perspective)
    return found


def test_a_perspective_that_gets_no_reference_is_let_go_once_its_images_are_written(run):
    run.start_edge(SETTINGS.model_copy(update={"keep": 1}))
    run.trainer.publish(*weights(1, final=True))
    run.post_perspective(0)
    run.post(NoReference(0))
    wait_until(lambda: run.inferred() == FRAMES_EACH)
    run.post_perspective(1)
    run.post_perspective(2)
    wait_until(lambda: run.inferred() == 3 * FRAMES_EACH)
    run.post(NoReference(1))
    wait_until(lambda: {0, 1} <= closed_perspectives(run))
    run.post_reference(0)
    run.post_reference(1)
    run.post(ScanEnd(3 * FRAMES_EACH))
    run.wait_for_end()
    late = [one.text for one in run.of(WarningRaised) if "came after its images were written" in one.text]
    assert [text.split()[4] for text in late] == ["0", "1"]
    for perspective in range(3):
        assert_shows(run, perspective, MosaicKind.FIRST_PASS, version=1)


def test_an_edge_that_can_never_image_says_so(run):
    announced, data = weights(1, final=True)
    run.post_perspective(0)
    run.trainer.publish(announced, data[:-8])
    context = RunContext("test", run.folder, 0)
    with pytest.raises(UserError, match="all weights up to the final ones were refused"):
        serve_edge(SETTINGS, network=run.network, run=context, stop=run.stop)


def test_waiting_for_weights_with_a_full_queue_leaves_the_processor_alone(run):
    run.start_edge(SETTINGS.model_copy(update={"queue_max": 12}))
    run.post_perspective(0)
    wait_until(lambda: any(one.state is PartState.RUNNING for one in run.of(PartStatus)))
    began_s, busy_s = time.monotonic(), time.process_time()
    wait_until(lambda: time.monotonic() - began_s > 1.0)
    assert time.process_time() - busy_s < 0.5


def test_stop_writes_what_is_there(run):
    run.start_edge()
    run.trainer.publish(*weights(1))
    run.post_frames(0, 0, 6)
    wait_until(lambda: run.inferred() == 12)
    run.stop.set()
    began_s = time.monotonic()
    run.wait_for_end()
    assert time.monotonic() - began_s < 10
    amplitude, _, _ = run.image(0, MosaicKind.FIRST_PASS)
    np.testing.assert_allclose(amplitude, expected_image(0, 1, slice(0, 12)).amplitude, atol=1e-4)
    assert run.of(HeldOutScores) == []


def test_malformed_frames_are_dropped_and_the_scan_goes_on(run):
    run.start_edge()
    run.trainer.publish(*weights(1, final=True))
    arrays = batch_of(0, 0)
    run.post(Frames(0, 0.0, time.time()), arrays | {"position_px": arrays["position_px"] * np.nan})
    run.post_frames(0, 6, 12)
    run.post(ScanEnd(18))
    run.wait_for_end()
    assert run.inferred() == 12
    assert any("position" in one.text for one in run.of(WarningRaised))
    wait_until(lambda: run.unacknowledged == 0)


def test_an_edge_that_is_started_again_takes_up_the_scan(run):
    run.start_edge()
    run.trainer.publish(*weights(1))
    run.post_perspective(0)
    wait_until(lambda: run.inferred() == FRAMES_EACH)
    run.stop.set()
    run.wait_for_end()
    run.stop.clear()
    run.events.clear()
    run.post_perspective(1)
    run.trainer.publish(*weights(2, final=True))
    run.start_edge()
    run.post(ScanEnd(2 * FRAMES_EACH))
    run.wait_for_end()
    assert run.of(EdgeCounts)[-1].inferred == 2 * FRAMES_EACH
    for perspective in (0, 1):
        assert_shows(run, perspective, MosaicKind.FIRST_PASS, version=2)
    wait_until(lambda: run.unacknowledged == 0)
