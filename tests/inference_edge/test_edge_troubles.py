"""The edge service when things go wrong: handled, counted, told."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import msgspec
import numpy as np
import pytest
from edge_run import BATCH, FRAMES_EACH, SCAN_START, SETTINGS, Run, assert_shows, batch_of
from edge_weights import announce, weights, weights_file
from held_disk import hold_disk
from support import free_ports, wait_until

from ptychoflow.inference_edge.final_weights import FinalWeights
from ptychoflow.inference_edge.ptychography import archive
from ptychoflow.inference_edge.ptychography.service import serve_edge
from ptychoflow.inference_edge.settings import Overload
from ptychoflow.streaming.commands import CommandHub, CommandSender, FollowWeights, RollBackWeights
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import (
    EdgeCounts,
    MosaicKind,
    PartStatus,
    WarningRaised,
    WeightsApplied,
    WeightsRejected,
)
from ptychoflow.streaming.messages import (
    Frames,
    GroundTruthSource,
    NoReference,
    PerspectiveEnd,
    Reference,
    ScanEnd,
)
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.settings import RunContext


@pytest.fixture
def run(network, tmp_path):
    with closing(Run(network, tmp_path)) as one:
        yield one


def told(run: Run, words: str) -> bool:
    return any(words in one.text for one in run.of(WarningRaised))


def post_changed(run: Run, start: int, **changes) -> None:
    run.post(Frames(0, 0.0, time.time()), batch_of(0, start) | changes)


def test_frames_of_another_size_are_refused_and_the_others_imaged(run):
    run.start_edge()
    run.trainer.publish(*weights(1, final=True))
    run.post_frames(0, 0)
    post_changed(run, 6, diffraction=np.ones((BATCH, 48, 32), np.uint16))
    run.post_frames(0, 12, 18)
    run.post(ScanEnd(FRAMES_EACH))
    run.wait_for_end()
    counts = run.of(EdgeCounts)[-1]
    assert (counts.inferred, counts.refused, counts.waiting) == (FRAMES_EACH - BATCH, BATCH, 0)
    assert told(run, "(6, 48, 32)")
    wait_until(lambda: run.unacknowledged == 0)


def test_frames_at_impossible_positions_are_imaged_but_not_stitched(run):
    run.start_edge()
    run.trainer.publish(*weights(1, final=True))
    run.post_frames(0, 0)
    positions = batch_of(0, 6)["position_px"].copy()
    positions[2] = 1e8, -3e9
    post_changed(run, 6, position_px=positions)
    run.post(ScanEnd(12))
    run.wait_for_end()
    counts = run.of(EdgeCounts)[-1]
    assert (counts.inferred, counts.unstitched) == (12, 1)
    assert told(run, "far from all others")
    amplitude, _, _ = run.image(0, MosaicKind.FIRST_PASS)
    assert max(amplitude.shape) < 100


def post_announcement(run: Run, **changes) -> None:
    run.post(msgspec.structs.replace(SCAN_START, **changes))


def post_complex_reference(run: Run) -> None:
    image = np.ones((60, 70), np.complex64)
    run.post(Reference(0, 0.0, (-16.0, -10.0), GroundTruthSource.SIMULATED, 0.0), {"amplitude": image, "phase": image})


@pytest.mark.parametrize(
    ("post", "refused", "words"),
    [
        (lambda run: post_changed(run, 0, diffraction=np.ones((BATCH, 32, 32), np.complex64)), BATCH, "complex64"),
        (lambda run: post_changed(run, 0, position_px=np.full((BATCH, 2), -1e300)), BATCH, "a position is"),
        (lambda run: post_announcement(run, frame_shape_px=(-1, 64)), 0, "frames of (-1, 64) px"),
        (lambda run: post_announcement(run, frame_shape_px=(1 << 40, 64)), 0, "frames of (1099511627776, 64) px"),
        (lambda run: post_announcement(run, target_shape_px=(0, 16)), 0, "patches of (0, 16) px"),
        (post_complex_reference, 0, "reference: amplitude is complex64"),
    ],
)
def test_what_makes_no_sense_is_dropped_and_told_and_what_comes_after_it_imaged(
    run, post: Callable[[Run], None], refused, words
):
    run.start_edge()
    post(run)
    run.trainer.publish(*weights(1, final=True))
    run.post_perspective(0)
    run.post_reference(0)
    run.post(ScanEnd(FRAMES_EACH))
    run.wait_for_end()
    counts = run.of(EdgeCounts)[-1]
    assert (counts.inferred, counts.refused, counts.duplicates) == (FRAMES_EACH, refused, 0)
    assert told(run, words)
    assert run.scores(0, MosaicKind.FIRST_PASS).frames == FRAMES_EACH
    assert_shows(run, 0, MosaicKind.FIRST_PASS, version=1)
    wait_until(lambda: run.unacknowledged == 0)


def test_a_reference_of_values_that_no_image_has_gives_no_score(run):
    run.start_edge()
    run.trainer.publish(*weights(1, final=True))
    huge = np.linspace(0, 1e300, 60 * 70).reshape(60, 70)
    run.post_perspective(0)
    reference = Reference(0, 0.0, (-16.0, -10.0), GroundTruthSource.SIMULATED, 0.0)
    run.post(reference, {"amplitude": huge, "phase": huge})
    run.post_perspective(1)
    run.post_reference(1)
    run.post(ScanEnd(2 * FRAMES_EACH))
    run.wait_for_end()
    assert run.scores(0, MosaicKind.FIRST_PASS) is None
    assert run.scores(1, MosaicKind.FIRST_PASS).frames == FRAMES_EACH


def test_new_frames_of_a_perspective_whose_images_are_finished_are_refused_and_told(run):
    run.start_edge(SETTINGS.model_copy(update={"keep": 1}))
    run.trainer.publish(*weights(1, final=True))
    for perspective in (0, 1):
        run.post_perspective(perspective)
    wait_until(lambda: run.inferred() == 2 * FRAMES_EACH)
    late = np.arange(FRAMES_EACH - 2, FRAMES_EACH - 2 + BATCH, dtype=np.int32)
    post_changed(run, 0, index=late)
    run.post_perspective(2)
    run.post_reference(0)
    run.post(ScanEnd(3 * FRAMES_EACH))
    run.wait_for_end()
    counts = run.of(EdgeCounts)[-1]
    assert (counts.inferred, counts.refused, counts.duplicates) == (3 * FRAMES_EACH, BATCH - 2, 2)
    assert told(run, "perspective 0: 4 frames came after its images were finished")
    assert run.scores(0, MosaicKind.FIRST_PASS).frames == FRAMES_EACH
    for perspective in range(3):
        assert_shows(run, perspective, MosaicKind.FIRST_PASS, version=1)
    wait_until(lambda: run.unacknowledged == 0)


def test_frames_of_which_none_has_a_finite_image_are_not_imaged_again(run):
    run.start_edge()
    run.trainer.publish(*weights(1))
    wait_until(lambda: run.of(WeightsApplied) != [])
    post_changed(run, 0, diffraction=np.full((BATCH, 32, 32), np.nan))
    run.post_perspective(1)
    wait_until(lambda: run.inferred() == BATCH + FRAMES_EACH)
    run.trainer.publish(*weights(2, final=True))
    run.post(ScanEnd(BATCH + FRAMES_EACH))
    run.wait_for_end()
    counts = run.of(EdgeCounts)[-1]
    assert (counts.inferred, counts.unstitched, counts.refreshed) == (BATCH + FRAMES_EACH, BATCH, FRAMES_EACH)
    assert told(run, "their counts give no finite image")
    assert_shows(run, 1, MosaicKind.REFRESHED, version=2)


def test_a_second_reference_is_scored_instead_of_the_first(run):
    run.start_edge(SETTINGS.model_copy(update={"keep": 1}))
    run.trainer.publish(*weights(1))
    run.post_perspective(0)
    run.post_reference(0)
    wait_until(lambda: (scores := run.scores(0, MosaicKind.FIRST_PASS)) is not None and scores.frames == FRAMES_EACH)
    first = run.scores(0, MosaicKind.FIRST_PASS).quality
    run.post_reference(0, seed=8)
    wait_until(lambda: run.scores(0, MosaicKind.FIRST_PASS).quality != first)
    assert told(run, "another reference came for perspective 0")
    run.post_perspective(1)
    wait_until((run.folder / "images" / "perspective_0000_difference_phase.png").exists)
    run.post_reference(0, seed=9)
    wait_until(lambda: told(run, "came after its images were written"))


def test_a_scan_whose_references_never_come_is_imaged_all_the_same(run):
    run.start_edge()
    run.trainer.publish(*weights(1, final=True))
    run.post_perspective(0)
    run.post(ScanEnd(FRAMES_EACH))
    run.wait_for_end()
    assert_shows(run, 0, MosaicKind.FIRST_PASS, version=1)
    assert "perspectives without a reference: 1" in run.of(PartStatus)[-1].text


def test_weights_that_fail_later_are_dropped_for_those_before(run):
    """The dark frames that came first give finite images with weights whose products overflow."""
    run.start_edge()
    run.trainer.publish(*weights(1))
    wait_until(lambda: run.of(WeightsApplied) != [])
    post_changed(run, 0, diffraction=np.zeros((BATCH, 32, 32), np.uint16))
    wait_until(lambda: run.inferred() == BATCH)
    run.trainer.publish(*announce(2, weights_file(2, spoil=lambda network: network.input_scale.fill_(3.4e38))))
    wait_until(lambda: run.of(WeightsApplied)[-1].version == 2)
    run.post_perspective(1)
    wait_until(lambda: run.inferred() == BATCH + FRAMES_EACH)
    assert [one.version for one in run.of(WeightsRejected)] == [2]
    assert [one.version for one in run.of(WeightsApplied)] == [1, 2, 1]
    assert run.of(EdgeCounts)[-1].unstitched == 0
    run.stop.set()
    run.wait_for_end()
    assert_shows(run, 1, MosaicKind.FIRST_PASS, version=1)


def test_people_can_roll_weights_back(run):
    commands = CommandHub(run.network)
    sender = CommandSender(run.network)
    with closing(commands), closing(sender):
        run.start_edge()
        run.post_perspective(0)
        for version in (1, 2):
            run.trainer.publish(*weights(version))
            wait_until(lambda version=version: [one.version for one in run.of(WeightsApplied)][-1:] == [version])
        sender.send(RollBackWeights(1))
        wait_until(lambda: run.of(WeightsApplied)[-1].version == 1)
        run.trainer.publish(*weights(3, final=True))
        run.post_perspective(1)
        run.post(ScanEnd(2 * FRAMES_EACH))
        run.wait_for_end()
        sender.send(FollowWeights())
    for perspective in (0, 1):
        assert_shows(run, perspective, MosaicKind.REFRESHED, version=1)
    assert [one.version for one in run.of(WeightsApplied)] == [1, 2, 1]


@pytest.mark.parametrize("keep", [9, 1])
def test_frames_that_come_too_fast_are_thinned_out_and_all_imaged_in_the_end(run, keep):
    impatient = {"latency_max_ms": 1e-3, "overload": Overload.THIN, "image_every": 3, "keep": keep}
    run.start_edge(SETTINGS.model_copy(update=impatient))
    for perspective in range(3):
        run.post_perspective(perspective)
    run.trainer.publish(*weights(1, final=True))
    run.post(ScanEnd(3 * FRAMES_EACH))
    run.wait_for_end()
    counts = run.of(EdgeCounts)[-1]
    assert (counts.inferred, counts.waiting) == (3 * FRAMES_EACH, 0)
    assert 30 < counts.put_off <= 48
    assert told(run, "one frame in 3 is imaged now")
    for perspective in range(3):
        assert_shows(run, perspective, MosaicKind.FIRST_PASS, version=1)
    wait_until(lambda: run.unacknowledged == 0)


def test_acquisition_and_trainer_may_start_again(run):
    run.start_edge()
    run.trainer.publish(*weights(1))
    run.post_perspective(0)
    wait_until(lambda: run.inferred() == FRAMES_EACH)
    run.restart_trainer()
    run.restart_acquisition()
    run.post_frames(0, 12, 18)
    run.post(PerspectiveEnd(0, 0.0, FRAMES_EACH))
    run.post_perspective(1)
    wait_until(lambda: run.inferred() == 2 * FRAMES_EACH)
    run.trainer.publish(*weights(2, final=True))
    run.post(ScanEnd(2 * FRAMES_EACH))
    run.wait_for_end()
    assert run.of(EdgeCounts)[-1].duplicates == 12
    for perspective in (0, 1):
        assert_shows(run, perspective, MosaicKind.FIRST_PASS, version=1)
        assert_shows(run, perspective, MosaicKind.REFRESHED, version=2)
    wait_until(lambda: run.unacknowledged == 0)


def test_two_edges_follow_one_trainer(run, tmp_path):
    names = ("frames_port", "acknowledgements_port", "telemetry_port", "fanout_port", "commands_fanout_port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    (tmp_path / "second").mkdir()
    second = Run(run.network.model_copy(update=ports), tmp_path / "second", trainer=run.trainer)
    edges = [run, second]
    with closing(second):
        for edge in edges:
            edge.start_edge()
            edge.post_perspective(0)
            edge.post(ScanEnd(FRAMES_EACH))
        run.trainer.publish(*weights(1))
        for edge in edges:
            wait_until(lambda edge=edge: edge.inferred() == FRAMES_EACH)
        run.trainer.publish(*weights(2, final=True))
        for edge in edges:
            edge.wait_for_end()
            assert_shows(edge, 0, MosaicKind.REFRESHED, version=2)


def test_an_edge_that_is_started_again_keeps_the_images_that_were_final(network, tmp_path):
    one_kept = SETTINGS.model_copy(update={"keep": 1})
    with closing(Run(network, tmp_path)) as run:
        run.start_edge(one_kept)
        run.trainer.publish(*weights(1))
        run.post_perspective(0)
        run.post_reference(0)
        run.post_frames(1, 0, 6)
        wait_until((tmp_path / "images" / "perspective_0000_difference_phase.png").exists)
        wait_until(lambda: run.inferred() == FRAMES_EACH + 12)
    with closing(Run(network, tmp_path)) as run:
        run.start_edge(one_kept)
        run.trainer.publish(*weights(2, final=True))
        for perspective in (0, 1):
            run.post_perspective(perspective)
            run.post_reference(perspective)
        run.post(ScanEnd(2 * FRAMES_EACH))
        run.wait_for_end()
        assert run.inferred() == 2 * FRAMES_EACH
        assert_shows(run, 0, MosaicKind.FIRST_PASS, version=1)
        assert_shows(run, 1, MosaicKind.FIRST_PASS, version=2)
        assert not run.of(WarningRaised)


def test_an_edge_that_is_started_again_after_the_trainer_has_left_has_its_final_weights(network, tmp_path):
    with closing(Run(network, tmp_path)) as run:
        run.start_edge()
        run.trainer.publish(*weights(1, final=True))
        run.post_frames(0, 0, 6)
        wait_until(lambda: run.inferred() == 12)
    with closing(Run(network, tmp_path)) as run:
        run.trainer.close()
        run.start_edge()
        run.post_perspective(0)
        run.post(ScanEnd(FRAMES_EACH))
        run.wait_for_end()
        assert_shows(run, 0, MosaicKind.FIRST_PASS, version=1)
        wait_until(lambda: run.unacknowledged == 0)


def test_an_edge_whose_trainer_is_gone_with_the_final_weights_gives_up_and_keeps_its_images(run, tmp_path):
    run.trainer.publish(*weights(1))
    settings = SETTINGS.model_copy(update={"wait_for_trainer_s": 0.5})
    arguments = {"network": run.network, "run": RunContext("test", tmp_path, 0), "stop": run.stop}
    with ThreadPoolExecutor(1) as executor:
        edge = executor.submit(serve_edge, settings, **arguments)
        run.post_perspective(0)
        run.post(ScanEnd(FRAMES_EACH))
        wait_until(lambda: run.inferred() == FRAMES_EACH)
        assert not edge.done(), "the trainer is there"
        run.trainer.close()
        try:
            with pytest.raises(UserError, match="edge: the final weights have not come, and the trainer has been away"):
                edge.result(60)
        finally:
            run.stop.set()
    assert_shows(run, 0, MosaicKind.FIRST_PASS, version=1)
    run.restart_trainer()


def test_a_disk_that_does_not_keep_up_holds_frames_back_and_all_is_written_in_the_end(run, monkeypatch):
    """Images wait in memory up to a bound; then nothing more is received: the acquisition keeps the frames."""
    monkeypatch.setattr(archive, "WAITING_MAX", 2)
    perspectives, imaged_meanwhile = 8, 5  # two that wait, one whose frames are kept, two that the network has
    with hold_disk(monkeypatch) as disk:
        run.start_edge(SETTINGS.model_copy(update={"keep": 1, "queue_max": FRAMES_EACH}))
        run.trainer.publish(*weights(1))
        for perspective in range(perspectives):
            run.post_perspective(perspective)
            run.post(NoReference(perspective))
        wait_until(lambda: run.inferred() >= 2 * FRAMES_EACH)
        for version in (2, 3):  # it goes on with all else, and had the time to image the rest
            run.trainer.publish(*weights(version))
            wait_until(lambda version=version: run.of(WeightsApplied)[-1].version == version)
        assert run.inferred() <= imaged_meanwhile * FRAMES_EACH
        assert run.unacknowledged >= (perspectives - imaged_meanwhile - 1) * FRAMES_EACH // BATCH
        assert not list((run.folder / "images").glob("*.h5"))
        disk.set()
        run.trainer.publish(*weights(4, final=True))
        run.post(ScanEnd(perspectives * FRAMES_EACH))
        run.wait_for_end()
    assert run.of(EdgeCounts)[-1].inferred == perspectives * FRAMES_EACH
    assert len(list((run.folder / "images").glob("*.h5"))) == perspectives
    assert len(list((run.folder / "images").glob("*.png"))) == perspectives * 4
    wait_until(lambda: run.unacknowledged == 0)


def keep_published(folder, version: int, **stamp) -> None:
    """Write weights as the trainer does, before it serves them."""
    path = RunFolder(folder).weights_file(version)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(weights_file(version, final=True, **stamp))


@pytest.mark.parametrize("patience_s", [4.0, 1e-3], ids=["in time", "looked at when it is over already"])
def test_an_edge_that_missed_the_final_weights_takes_them_from_the_run_folder(run, tmp_path, patience_s):
    """Also where it stood still meanwhile, or its host did: it looks before it gives up."""
    run.trainer.publish(*weights(1))
    run.start_edge(SETTINGS.model_copy(update={"wait_for_trainer_s": patience_s}))
    run.post_perspective(0)
    wait_until(lambda: run.inferred() == FRAMES_EACH)
    keep_published(tmp_path, 2)
    run.trainer.close()
    run.post(ScanEnd(FRAMES_EACH))
    run.wait_for_end()
    assert_shows(run, 0, MosaicKind.REFRESHED, version=2)
    wait_until(lambda: run.unacknowledged == 0)


def test_an_edge_without_weights_takes_them_from_the_run_folder_though_more_frames_wait_than_it_may_hold(run, tmp_path):
    """It was started again when the trainer had left; the end of the scan lies behind frames that it cannot take."""
    keep_published(tmp_path, 2)
    run.trainer.close()
    run.start_edge(SETTINGS.model_copy(update={"wait_for_trainer_s": 1.0, "queue_max": BATCH}))
    run.post_perspective(0)
    run.post(ScanEnd(FRAMES_EACH))
    run.wait_for_end()
    assert_shows(run, 0, MosaicKind.FIRST_PASS, version=2)
    wait_until(lambda: run.unacknowledged == 0)


@pytest.mark.parametrize(("stopped", "first_pass", "refreshed"), [(False, 1, 2), (True, 3, 3)])
def test_an_edge_that_had_finished_leaves_its_images_alone_unless_the_trainer_was_only_stopped(
    network, tmp_path, stopped, first_pass, refreshed
):
    final, data = announce(2, weights_file(2, final=True, stopped=stopped), final=True)
    with closing(Run(network, tmp_path)) as run:
        run.start_edge()
        run.trainer.publish(*weights(1))
        run.post_perspective(0)
        run.post_reference(0)
        wait_until(lambda: run.scores(0, MosaicKind.FIRST_PASS) is not None)
        wait_until(lambda: run.inferred() == FRAMES_EACH)
        run.trainer.publish(msgspec.structs.replace(final, stopped=stopped), data)
        run.post(ScanEnd(FRAMES_EACH))
        run.wait_for_end()
        assert_shows(run, 0, MosaicKind.FIRST_PASS, version=1)
        assert_shows(run, 0, MosaicKind.REFRESHED, version=2)
    with closing(Run(network, tmp_path)) as run:
        run.start_edge()
        run.post_perspective(0)
        run.post_reference(0)
        run.post(ScanEnd(FRAMES_EACH))
        run.trainer.publish(*weights(3, final=True))
        run.wait_for_end()
        assert run.of(EdgeCounts)[-1].inferred == FRAMES_EACH
        assert bool(run.publisher.scores) == stopped
        assert_shows(run, 0, MosaicKind.FIRST_PASS, version=first_pass)
        assert_shows(run, 0, MosaicKind.REFRESHED, version=refreshed)
        wait_until(lambda: run.unacknowledged == 0)


def test_weights_with_which_training_was_stopped_are_not_taken_for_the_final_ones(tmp_path):
    final_weights = FinalWeights(RunFolder(tmp_path))
    assert final_weights.published(newer_than=-1) is None, "there are none"
    keep_published(tmp_path, 2, stopped=True)
    assert final_weights.published(newer_than=-1) is None
    keep_published(tmp_path, 3)
    announced, _ = final_weights.published(newer_than=2)
    assert (announced.version, announced.final) == (3, True)
    assert final_weights.published(newer_than=3) is None
    RunFolder(tmp_path).weights_file(4).write_bytes(b"no weights")
    assert final_weights.published(newer_than=3) is None
