"""Which perspectives an edge keeps the frames of, and what becomes of those that it lets go of."""

from __future__ import annotations

from contextlib import closing

import pytest
from edge_run import FRAMES_EACH, SETTINGS, Run, assert_shows, batch_of
from edge_weights import weights
from support import wait_until

from ptychoflow.inference_edge.ptychography.diffraction_block import diffraction_block
from ptychoflow.streaming.events import EdgeCounts, MosaicImage, MosaicKind, WarningRaised
from ptychoflow.streaming.messages import NoReference, PerspectiveEnd, ScanEnd

PERSPECTIVE_BYTES = FRAMES_EACH * diffraction_block(batch_of(0, 0), (32, 32)).head(1).nbytes


@pytest.fixture
def run(network, tmp_path):
    with closing(Run(network, tmp_path)) as one:
        yield one


def too_large(run: Run) -> list[str]:
    return [one.text for one in run.of(WarningRaised) if "edge.keep_bytes" in one.text]


def test_beyond_the_memory_for_frames_the_oldest_perspective_is_let_go_of(run):
    run.start_edge(SETTINGS.model_copy(update={"keep": 9, "keep_bytes": PERSPECTIVE_BYTES * 5 // 2}))
    run.trainer.publish(*weights(1))
    for perspective in range(3):
        run.post_perspective(perspective)
        run.post_reference(perspective)
    wait_until((run.folder / "images" / "perspective_0000_difference_phase.png").exists)
    wait_until(lambda: run.inferred() == 3 * FRAMES_EACH)
    run.trainer.publish(*weights(2, final=True))
    run.post(ScanEnd(3 * FRAMES_EACH))
    run.wait_for_end()
    assert run.of(EdgeCounts)[-1].refreshed == 2 * FRAMES_EACH
    for perspective, newest in enumerate((1, 2, 2)):
        assert_shows(run, perspective, MosaicKind.FIRST_PASS, version=1)
        assert_shows(run, perspective, MosaicKind.REFRESHED, version=newest)
    assert not too_large(run)


def test_a_perspective_larger_than_the_memory_for_frames_is_imaged_shown_and_written_but_not_refreshed(run):
    run.start_edge(SETTINGS.model_copy(update={"keep_bytes": PERSPECTIVE_BYTES // 2}))
    run.trainer.publish(*weights(1))
    run.post_perspective(0)
    wait_until(lambda: run.inferred() == FRAMES_EACH)
    run.trainer.publish(*weights(2))
    run.post_reference(0)
    wait_until(lambda: (scores := run.scores(0, MosaicKind.FIRST_PASS)) is not None and scores.frames == FRAMES_EACH)
    run.post_perspective(1)
    wait_until(lambda: run.inferred() == 2 * FRAMES_EACH)
    run.trainer.publish(*weights(3, final=True))
    run.post(ScanEnd(2 * FRAMES_EACH))
    run.wait_for_end()
    counts = run.of(EdgeCounts)[-1]
    assert (counts.inferred, counts.refreshed) == (2 * FRAMES_EACH, 0)
    assert [text.split(":")[0] for text in too_large(run)] == ["perspective 0", "perspective 1"]
    assert {0, 1} <= {one.perspective for one in run.of(MosaicImage)}
    assert_shows(run, 0, MosaicKind.REFRESHED, version=1)
    assert (run.folder / "images" / "perspective_0001.h5").exists()
    wait_until(lambda: run.unacknowledged == 0)


@pytest.mark.parametrize("ends_late", [False, True])
def test_a_perspective_that_was_let_go_of_before_it_ended_is_written_when_it_has(run, ends_late):
    run.start_edge(SETTINGS.model_copy(update={"keep": 1}))
    run.trainer.publish(*weights(1))
    run.post_frames(0)
    run.post_perspective(1)
    wait_until(lambda: run.inferred() == 2 * FRAMES_EACH)
    if ends_late:
        run.trainer.publish(*weights(2, final=True))
        wait_until(lambda: run.refreshed() == FRAMES_EACH)
    else:
        run.post(NoReference(0))
    run.post(PerspectiveEnd(0, 0.0, FRAMES_EACH))
    if not ends_late:
        wait_until((run.folder / "images" / "perspective_0000.h5").exists)
        run.trainer.publish(*weights(2, final=True))
    run.post(ScanEnd(2 * FRAMES_EACH))
    run.wait_for_end()
    assert_shows(run, 0, MosaicKind.REFRESHED, version=1)
    assert_shows(run, 1, MosaicKind.REFRESHED, version=2)
    wait_until(lambda: run.unacknowledged == 0)
