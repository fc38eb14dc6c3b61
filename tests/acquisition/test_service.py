"""The publishing service with real sockets and its real worker process: every frame accounted for, joined by id."""

from __future__ import annotations

import errno
import fcntl
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from acquisition_runs import SOURCE, TRUE_OBJECT, hub_into, receivers, run_acquisition
from support import Proxy, free_network, wait_until

from ptychoflow.acquisition.ptychography.service import JOBS, acquire
from ptychoflow.acquisition.publishing.journal import Journal
from ptychoflow.acquisition.publishing.loop import STREAM
from ptychoflow.acquisition.readers.layout import ENERGY, ENERGY_EV, FRAMES, OBJECT, PROBE, entry_name
from ptychoflow.acquisition.recorder import was_stopped
from ptychoflow.acquisition.retrieval.ground_truth import GroundTruthJob
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.retrieval.worker import GroundTruthResult, GroundTruthWorker
from ptychoflow.acquisition.settings import AcquisitionSettings
from ptychoflow.acquisition.simulate import simulate_to_file
from ptychoflow.acquisition.source_settings import HoldOut, ReplaySettings, RoleSettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import AcquisitionCounts, AnyEvent, Regime, RegimeChanged, WarningRaised
from ptychoflow.streaming.messages import FrameRole, GroundTruthSource
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.streaming.telemetry import TelemetryHub


def test_every_frame_reaches_the_edge_and_every_labelled_one_exactly_one_rank(
    network: NetworkSettings, tmp_path: Path
) -> None:
    outcome = run_acquisition(network, tmp_path, ranks=2)
    assert set(outcome.edge.frames) == {(perspective, index) for perspective in range(3) for index in range(60)}
    assert outcome.edge.repeated == 0
    assert outcome.edge.ends == [0, 1, 2]
    assert all(rank.ends == [0, 1, 2] for rank in outcome.ranks)
    assert len(outcome.samples) == sum(len(rank.roles) for rank in outcome.ranks)
    assert all(len(rank.roles) > 0 for rank in outcome.ranks)
    for rank in outcome.ranks:
        for frame_id, frame in rank.frames.items():
            np.testing.assert_array_equal(frame, outcome.edge.frames[frame_id])
            assert rank.roles[frame_id] == outcome.edge.roles[frame_id]
    counts = outcome.counts
    assert counts.acquired == counts.published == 180
    assert counts.samples == len(outcome.samples)
    assert counts.acquired == counts.samples + counts.void
    assert counts.held_out == counts.excluded == counts.unlabelled == counts.rejected == 0


def test_frames_are_those_of_the_source_and_patches_show_the_reference_around_their_position(
    network: NetworkSettings, tmp_path: Path
) -> None:
    outcome = run_acquisition(network, tmp_path)
    scan = open_scan(SOURCE)
    perspective = scan.perspective(1)
    frames = perspective.read(0, len(perspective))
    (rank,) = outcome.ranks
    np.testing.assert_array_equal(outcome.edge.probes[1], perspective.probe)
    reference, phase = outcome.edge.references[1]
    compared = 0
    for (which, index), patch in rank.phases.items():
        if which != 1:
            continue
        np.testing.assert_array_equal(rank.frames[1, index], frames[index])
        np.testing.assert_allclose(outcome.edge.positions_px[1, index], perspective.positions_px[index])
        corner = np.round(perspective.positions_px[index] - reference.origin_px).astype(int) - 16
        if (corner >= 0).all() and (corner + 32 <= phase.shape).all():
            shown = phase[corner[0] : corner[0] + 32, corner[1] : corner[1] + 32]
            shifted = phase[corner[0] : corner[0] + 32, corner[1] : corner[1] + 32][::-1]
            error = np.abs(shown - patch.astype(float)).mean()
            assert error < 0.5 * np.abs(shifted - patch.astype(float)).mean()
            compared += 1
    assert compared > 10


def test_the_last_perspective_is_held_out(network: NetworkSettings, tmp_path: Path) -> None:
    settings = AcquisitionSettings(roles=RoleSettings(hold_out=HoldOut.LAST_PERSPECTIVE))
    outcome = run_acquisition(network, tmp_path, settings=settings)
    assert {perspective for perspective, _ in outcome.samples} == {0, 1}
    assert all(outcome.edge.roles[2, index] == FrameRole.HELD_OUT for index in range(60))
    assert outcome.counts.held_out == 60
    assert outcome.counts.acquired == outcome.counts.samples + outcome.counts.void + 60
    assert 2 in outcome.edge.references


def test_a_broken_connection_loses_no_frame(network: NetworkSettings, tmp_path: Path) -> None:
    proxy = Proxy(network.frames_port, limit_bytes=150_000)
    outcome = run_acquisition(network, tmp_path, edge_port=proxy.port)
    proxy.close()
    assert proxy.connections >= 2
    assert len(outcome.edge.frames) == 180
    assert outcome.edge.repeated == 0
    assert outcome.counts.published == 180


def test_a_recording_replays_the_same_frames_and_roles(network: NetworkSettings, tmp_path: Path) -> None:
    recorded = run_acquisition(network, tmp_path / "a", settings=AcquisitionSettings(record=True))
    replay = ReplaySettings(path=tmp_path / "a" / "recording.h5")
    recorded_object = RetrievalSettings(source=GroundTruthSource.RECORDED)
    replayed = run_acquisition(network, tmp_path / "b", source=replay, retrieval=recorded_object)
    assert replayed.edge.roles == recorded.edge.roles
    for frame_id, frame in recorded.edge.frames.items():
        np.testing.assert_array_equal(replayed.edge.frames[frame_id], frame)
        np.testing.assert_allclose(
            replayed.edge.positions_px[frame_id], recorded.edge.positions_px[frame_id], atol=1e-9
        )


def test_frames_that_cannot_be_read_and_a_perspective_of_nothing_leave_the_others_as_they_are(
    network: NetworkSettings, tmp_path: Path
) -> None:
    """The first frames are damaged on the disk: they come as zeros of the type of the others, and are set aside."""
    path, damaged = tmp_path / "scan.h5", [0, 1, 2, 40]
    simulate_to_file(SOURCE, path)
    with h5py.File(path, "r+") as file:
        entry = file[entry_name(0)]
        counts = entry[FRAMES][...]
        del entry[FRAMES]
        dataset = entry.create_dataset(FRAMES, data=counts, chunks=(1, *counts.shape[1:]), compression="gzip")
        places = [dataset.id.get_chunk_info(index).byte_offset for index in damaged]
        file[entry_name(1)][FRAMES][...] = 0
        del file[entry_name(1)][PROBE]
    with path.open("r+b") as raw:
        for place in places:
            raw.seek(place)
            raw.write(b"\xff" * 20)
    settings = AcquisitionSettings(record=True, batch_frames=2)
    outcome = run_acquisition(network, tmp_path / "run", source=ReplaySettings(path=path), settings=settings)
    good = [index for index in range(60) if index not in damaged]
    assert set(outcome.edge.frames) == {(0, index) for index in good} | {(2, index) for index in range(60)}
    for index in good:
        np.testing.assert_array_equal(outcome.edge.frames[0, index], counts[index])
    assert outcome.counts.acquired == 180
    assert outcome.counts.rejected == len(damaged) + 60
    warnings = [event.text for event in outcome.events if isinstance(event, WarningRaised)]
    for index in damaged:
        assert any(f"frames {index} to {index + 1} cannot be read" in text for text in warnings)
    with h5py.File(tmp_path / "run" / "recording.h5") as file:
        recorded = file[entry_name(0)][FRAMES]
        assert recorded.dtype == counts.dtype
        np.testing.assert_array_equal(recorded[good], counts[good])
        assert not recorded[damaged].any()


@pytest.mark.parametrize(("factor", "told"), [(1.1, 1), (1.0 + 1e-5, 0)])
def test_a_perspective_with_another_object_pixel_is_said_once(
    network: NetworkSettings, tmp_path: Path, factor: float, told: int
) -> None:
    """The edge knows one pixel, the first one's: the lengths of all others would be wrong in silence."""
    path = tmp_path / "scan.h5"
    simulate_to_file(SOURCE, path)
    with h5py.File(path, "r+") as file:
        for index in (1, 2):
            for name in (ENERGY, ENERGY_EV):
                file[entry_name(index)][name][...] = factor * file[entry_name(index)][name][()]
    outcome = run_acquisition(network, tmp_path / "run", source=ReplaySettings(path=path))
    warnings = [event.text for event in outcome.events if isinstance(event, WarningRaised)]
    about_pixels = [text for text in warnings if "Object pixels are" in text]
    assert len(about_pixels) == told
    assert all(text.startswith("perspective 1: ") for text in about_pixels)


def test_failed_ground_truth_is_counted_and_said(network: NetworkSettings, tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    simulate_to_file(SOURCE, path)
    with h5py.File(path, "r+") as file:
        for index in range(3):
            del file[entry_name(index)][OBJECT]
    recorded_object = RetrievalSettings(source=GroundTruthSource.RECORDED)
    outcome = run_acquisition(network, tmp_path, source=ReplaySettings(path=path), retrieval=recorded_object)
    assert len(outcome.edge.frames) == 180
    assert outcome.counts.unlabelled == 180
    assert outcome.counts.samples == 0
    warnings = [event.text for event in outcome.events if isinstance(event, WarningRaised)]
    failed = [f"no ground truth for perspective {i}" for i in range(3)]
    assert [text.split(":")[0] for text in warnings] == [*failed, "none of the 180 frames can be learnt from"]
    assert warnings[-1].endswith(": 180 are without ground truth, because phase retrieval failed")
    assert "carries no recorded object" in warnings[0]


def test_stop_ends_a_slow_scan_in_order(network: NetworkSettings, tmp_path: Path) -> None:
    stop = threading.Event()
    settings = AcquisitionSettings(rate_hz=20.0, edge=True, trainer=True, record=True)
    events: list[AnyEvent] = []
    hub = TelemetryHub(
        network, jsonl=tmp_path / "telemetry.jsonl", on_event=lambda event, _: events.append(event.event)
    )
    run = RunContext("test", tmp_path, seed=1)
    options: dict[str, Any] = {"network": network, "run": run, "stop": stop}
    thread = threading.Thread(target=acquire, args=(SOURCE, settings, TRUE_OBJECT), kwargs=options)
    thread.start()
    wait_until(lambda: any(isinstance(event, AcquisitionCounts) and event.acquired > 0 for event in events))
    stop.set()
    thread.join(timeout=10)
    assert not thread.is_alive()
    hub.close()
    last = [event for event in events if isinstance(event, AcquisitionCounts)][-1]
    assert 0 < last.acquired < 180
    set_aside = last.void + last.held_out + last.excluded + last.unlabelled + last.rejected
    assert last.samples + set_aside == last.acquired
    assert was_stopped(run.folder.recording), "a resumed run would not record what comes"


def test_a_second_acquisition_in_the_same_folder_is_refused_and_takes_nothing_of_the_first(
    network: NetworkSettings, tmp_path: Path
) -> None:
    run, stop, events = RunContext("test", tmp_path, seed=1), threading.Event(), list[AnyEvent]()
    settings = AcquisitionSettings(spool_memory_bytes=1)
    options: dict[str, Any] = {"run": run, "stop": stop}
    with closing(hub_into(events, network, tmp_path)):
        first = threading.Thread(
            target=acquire, args=(SOURCE, settings, TRUE_OBJECT), kwargs={**options, "network": network}
        )
        first.start()
        try:
            wait_until(lambda: any(isinstance(one, AcquisitionCounts) and one.published == 180 for one in events))
            jobs = run.folder.spool / JOBS / "a job"
            jobs.mkdir()
            waiting = sorted((run.folder.spool / STREAM).rglob("*"))
            assert waiting, "there is no receiver, and memory holds nothing"
            with pytest.raises(UserError, match=f"another acquisition runs in {tmp_path}: stop it first"):
                acquire(SOURCE, settings, TRUE_OBJECT, network=free_network(), **options)
            assert sorted((run.folder.spool / STREAM).rglob("*")) == waiting
            assert jobs.exists()
            with receivers(network, 1) as (edge, rank):
                first.join(timeout=60)
                assert not first.is_alive()
        finally:
            stop.set()
            first.join(timeout=10)
    assert len(edge.frames) == 180
    assert len(rank.frames) == [one for one in events if isinstance(one, AcquisitionCounts)][-1].samples > 0


def test_where_nothing_can_be_locked_a_scan_is_acquired_and_the_log_says_so(
    network: NetworkSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert len(run_acquisition(network, tmp_path).edge.frames) == 180
    assert "nothing keeps a second acquisition out" in caplog.text


def test_a_full_disk_holds_the_scan_until_there_is_room(
    network: NetworkSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, refusals = GroundTruthWorker.submit, iter([True, True])

    def refuse_twice(worker: GroundTruthWorker, job: GroundTruthJob) -> None:
        if next(refusals, False):
            raise OSError(errno.ENOSPC, "No space left on device")
        submit(worker, job)

    monkeypatch.setattr(GroundTruthWorker, "submit", refuse_twice)
    outcome = run_acquisition(network, tmp_path)
    assert outcome.counts.samples + outcome.counts.void == 180
    warnings = [event.text for event in outcome.events if isinstance(event, WarningRaised)]
    assert warnings == ["acquisition waits: frames cannot be kept for phase retrieval (No space left on device)"]


def test_a_resumed_scan_comes_whole_again_with_the_ground_truth_found_before(
    network: NetworkSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_acquisition(network, tmp_path, settings=AcquisitionSettings(record=True))
    asked: list[int] = []
    monkeypatch.setattr(GroundTruthWorker, "submit", lambda _worker, job: asked.append(job.perspective))
    paced = AcquisitionSettings(rate_hz=1.0, record=True)
    resumed = run_acquisition(network, tmp_path, settings=paced)
    assert asked == []
    assert resumed.samples == first.samples
    for rank in (*first.ranks, *resumed.ranks):
        for frame_id, phase in rank.phases.items():
            others = [other for other in resumed.ranks if frame_id in other.phases]
            np.testing.assert_array_equal(others[0].phases[frame_id], phase)
    assert resumed.counts.samples == first.counts.samples
    assert resumed.counts.acquired == first.counts.acquired == 180
    assert not any(isinstance(event, RegimeChanged) for event in first.events)
    assert RegimeChanged(Regime.LEARNING, 3, "the run was resumed") in resumed.events


def test_a_perspective_that_was_spared_phase_retrieval_is_spared_it_when_the_run_is_resumed(tmp_path: Path) -> None:
    Journal(tmp_path, scan="a").mark_skipped(3)
    (tmp_path / "0004.part").mkdir()
    resumed = Journal(tmp_path, scan="a")
    assert resumed.is_skipped(3)
    assert resumed.result(3) is None
    assert not resumed.is_skipped(4)
    resumed.record_result(GroundTruthResult(4, None, "the engine gave up"))
    assert Journal(tmp_path, scan="a").result(4) == GroundTruthResult(4, None, "the engine gave up")


def test_another_scan_is_not_mixed_with_the_one_of_the_run(network: NetworkSettings, tmp_path: Path) -> None:
    run_acquisition(network, tmp_path)
    other = SOURCE.model_copy(update={"seed": 4})
    with pytest.raises(UserError, match="tells of another scan"):
        run_acquisition(network, tmp_path, source=other)
