"""The ground-truth worker: a real process that answers in order, dies loudly, and never outlives its parent."""

import errno
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import psutil
import pytest
from support import wait_until

from ptychoflow.acquisition.propagation import far_field_intensity
from ptychoflow.acquisition.retrieval import stored_frames, worker_process
from ptychoflow.acquisition.retrieval import worker as worker_module
from ptychoflow.acquisition.retrieval.ground_truth import GroundTruthJob, compute_ground_truth
from ptychoflow.acquisition.retrieval.preview import Previewer
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.retrieval.stored_frames import FrameFile
from ptychoflow.acquisition.retrieval.worker import GroundTruthWorker
from ptychoflow.acquisition.retrieval.worker_messages import TRUTH_ARRAYS, JobMessage, read_ground_truth
from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.streaming.device import VISIBLE_GPUS, Device
from ptychoflow.streaming.errors import UserError

RECORDED = RetrievalSettings(source="recorded")
ENDLESS = RetrievalSettings(source="ptychi", epochs=100_000)


def make_job(perspective=0, *, with_object=True, size_px=24):
    rng = np.random.default_rng(perspective)
    values = np.ones((80, 80), complex)
    values[20:50, 30:44] = 0.9 * np.exp(-1j * (0.5 + 0.1 * perspective))
    positions = rng.uniform([125, -5], [155, 25], (60, 2))
    y, x = np.mgrid[:size_px, :size_px] - size_px // 2
    probe = (100 * np.exp(-(y**2 + x**2) / 32 + 0.05j * y**2))[np.newaxis].astype(np.complex64)
    corners = np.round(positions - [100, -30]).astype(int) - size_px // 2
    patches = np.stack([values[top : top + size_px, left : left + size_px] for top, left in corners])
    return GroundTruthJob(
        perspective=perspective,
        frames=rng.poisson(far_field_intensity(probe, patches)).astype(np.uint16),
        positions_px=np.round(positions),
        probe=probe,
        mask=None,
        recorded=ObjectImage(values.astype(np.complex64), (100.0, -30.0)) if with_object else None,
        target_shape_px=(16, 16),
    )


def is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_same(first, second):
    for name in ("amplitude", "phase", "void", "reference_amplitude", "reference_phase"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.origin_px == second.origin_px


def test_results_are_those_of_this_process_and_come_in_order(tmp_path):
    jobs = [make_job(perspective) for perspective in (4, 2, 9)]
    with GroundTruthWorker(RECORDED, spool_dir=tmp_path) as worker:
        for job in jobs:
            worker.submit(job)
        assert worker.pending == [4, 2, 9]
        results = [worker.poll(60.0) for _ in jobs]
        assert worker.pending == []
        assert worker.poll(60.0) is None
    assert [result.perspective for result in results] == [4, 2, 9]
    for job, result in zip(jobs, results, strict=True):
        assert result.error is None
        assert_same(result.ground_truth, compute_ground_truth(job, RECORDED))
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_waits_can_be_withdrawn_and_leaves_nothing_behind(tmp_path):
    with GroundTruthWorker(RECORDED, spool_dir=tmp_path) as worker:
        for perspective in range(4):
            worker.submit(make_job(perspective))
        for absent in (0, 7):  # under way, unknown
            with pytest.raises(ValueError, match=f"no job of perspective {absent} waits"):
                worker.withdraw(absent)
        for perspective in (1, 3):
            worker.withdraw(perspective)
        assert worker.pending == [0, 2]
        assert len(list(next(tmp_path.iterdir()).iterdir())) == 2
        results = [worker.poll(60.0) for _ in range(2)]
        assert worker.pending == []
    assert [result.perspective for result in results] == [0, 2]
    assert all(result.error is None for result in results)


def test_the_same_frames_give_the_same_bits_and_a_failed_job_does_not_end_the_worker(tmp_path):
    settings = RetrievalSettings(epochs=6, batch_size=20, target_shape_px=(16, 16))
    job = make_job(1, with_object=False)
    broken = GroundTruthJob(**{**vars(job), "positions_px": job.positions_px[:-1], "perspective": 5})
    with GroundTruthWorker(settings, spool_dir=tmp_path) as worker:
        for one in (job, broken, job):
            worker.submit(one)
        first, failed, second = (worker.poll(120.0) for _ in range(3))
    assert first.ground_truth.seconds > 0
    assert_same(first.ground_truth, second.ground_truth)
    assert failed.perspective == 5
    assert failed.ground_truth is None
    assert "ValueError" in failed.error


def test_a_users_mistake_comes_back_as_its_line(tmp_path):
    with GroundTruthWorker(RECORDED, spool_dir=tmp_path) as worker:
        worker.submit(make_job(3, with_object=False))
        result = worker.poll(60.0)
    assert result.ground_truth is None
    assert result.error == "perspective 3 carries no recorded object: set retrieval.source to ptychi"


def test_frames_that_wait_lie_on_disk_and_outlive_the_worker(tmp_path):
    job = make_job(1)
    with GroundTruthWorker(RECORDED, spool_dir=tmp_path) as worker:
        file = FrameFile(worker.folder_of_job() / "frames", (24, 24))
        for start in range(0, 60, 7):
            file.append(job.frames[::-1][start : start + 7])
        frames = file.frames().reordered(np.arange(60)[::-1])
        assert isinstance(frames.mapped, np.memmap)
        worker.submit(replace(job, frames=frames))
        assert_same(worker.poll(60.0).ground_truth, compute_ground_truth(job, RECORDED))
    assert not list(tmp_path.iterdir())
    np.testing.assert_array_equal(frames[:], job.frames)
    np.testing.assert_array_equal(frames[np.array([3, 1])], job.frames[[3, 1]])


def test_frames_of_a_wider_dtype_are_kept_with_those_before(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_frames, "PART_BYTES", 3 * 6 * 4)  # three frames at once are copied
    counts = [np.full((5, 2, 3), 7, np.uint8), np.full((2, 2, 3), 300, np.uint16), np.full((1, 2, 3), 0.5, np.float32)]
    file = FrameFile(tmp_path / "frames", (2, 3))
    assert file.frames()[:].shape == (0, 2, 3)
    for some in (*counts, counts[0], counts[2][:0]):
        file.append(some)
    frames = file.frames()[:]
    assert frames.dtype == np.float32
    np.testing.assert_array_equal(frames, np.concatenate([*counts, counts[0]]))
    assert [one.name for one in tmp_path.iterdir()] == ["frames"]


def test_frames_that_the_disk_did_not_take_are_appended_again(tmp_path):
    file = FrameFile(tmp_path / "frames", (8, 8))
    some = np.arange(4 * 64, dtype=np.uint16).reshape(4, 8, 8)
    file.append(some)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6 * 128, before[1]))  # in the middle of the next ones
        with pytest.raises(OSError, match="File too large"):
            file.append(some)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(file.frames()) == 4
    file.append(some[::-1])
    np.testing.assert_array_equal(file.frames()[:], np.concatenate([some, some[::-1]]))


def test_a_library_that_is_missing_is_said_at_once(tmp_path):
    with pytest.raises(UserError, match=r"retrieval\.source is tike, which is not installed"):
        GroundTruthWorker(RetrievalSettings(source="tike"), spool_dir=tmp_path)


def kill_in_mid_job(worker):
    """Kill the worker while it is at a job."""
    pid = worker.pid
    os.kill(pid, signal.SIGSTOP)
    assert worker.poll() is None
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_killed_worker_is_started_again_and_tries_its_job_once_more(tmp_path):
    told = []
    with GroundTruthWorker(RECORDED, spool_dir=tmp_path, warn=told.append) as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        for perspective in (3, 1):
            worker.submit(make_job(perspective))
        killed = kill_in_mid_job(worker)
        assert worker.poll(60.0) is None
        assert worker.pending == [3, 1]
        results = [worker.poll(60.0), worker.poll(60.0)]
        assert worker.pid != killed
    assert [(one.perspective, one.error, one.worker_lost) for one in results] == [(3, None, False), (1, None, False)]
    assert_same(results[0].ground_truth, compute_ground_truth(make_job(3), RECORDED))
    assert told == ["the ground-truth worker is gone (it was ended by SIGKILL); perspective 3 is tried once more"]


def test_ground_truth_that_the_disk_does_not_give_back_is_told_of_and_left_for_a_resume(tmp_path):
    with GroundTruthWorker(RECORDED, spool_dir=tmp_path) as worker:
        for perspective in (0, 1):
            worker.submit(make_job(perspective))
        wait_until(lambda: any(tmp_path.rglob(f"{TRUTH_ARRAYS[-1]}.npy")), timeout_s=60.0)
        (first, *_) = sorted(tmp_path.rglob(f"{TRUTH_ARRAYS[0]}.npy"))
        first.write_bytes(first.read_bytes()[:-9])
        damaged, whole = worker.poll(60.0), worker.poll(60.0)
    assert (damaged.ground_truth, damaged.worker_lost) == (None, True)
    assert "is damaged" in damaged.error
    assert whole.ground_truth is not None


def test_ground_truth_that_was_computed_waits_while_the_disk_is_full(tmp_path, monkeypatch, caplog):
    truth = compute_ground_truth(make_job(), RetrievalSettings(source="simulated"))
    write, faults = worker_process.write_ground_truth, [errno.ENOSPC, errno.EDQUOT]

    def fails_at_first(*arguments):
        if faults:
            raise OSError(faults.pop(0), "no room")
        return write(*arguments)

    monkeypatch.setattr(worker_process, "write_ground_truth", fails_at_first)
    monkeypatch.setattr(worker_process, "FULL_RETRY_S", 0.01)
    found = read_ground_truth(worker_process.write_when_there_is_room(truth, 3, tmp_path), tmp_path)
    assert_same(found, truth)
    assert caplog.text.count("the ground truth of perspective 3 waits for room on the disk") == 1
    faults.append(errno.EACCES)
    with pytest.raises(PermissionError):
        worker_process.write_when_there_is_room(truth, 3, tmp_path)


def test_a_job_that_no_worker_survives_has_failed_and_the_next_ones_are_tried_as_often(tmp_path):
    with GroundTruthWorker(RECORDED, spool_dir=tmp_path) as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        for perspective in range(3):
            worker.submit(make_job(perspective))
        kill_in_mid_job(worker)
        assert worker.poll(60.0) is None
        kill_in_mid_job(worker)
        lost = worker.poll(60.0)
        kill_in_mid_job(worker)
        assert worker.poll(60.0) is None
        done = [worker.poll(60.0), worker.poll(60.0)]
        last_pid = worker.pid
    assert (lost.perspective, lost.ground_truth, lost.worker_lost) == (0, None, True)
    assert lost.error == "the ground-truth worker is gone, 2 times at this perspective: it was ended by SIGKILL"
    assert [(one.perspective, one.error) for one in done] == [(1, None), (2, None)]
    assert not is_running(last_pid)


def first_frames(job, count):
    return replace(job, frames=job.frames[:count], positions_px=job.positions_px[:count])


def test_previews_do_not_change_the_ground_truth(tmp_path):
    settings = RetrievalSettings(epochs=6, preview_epochs=2, batch_size=20, target_shape_px=(16, 16))
    job = make_job(1, with_object=False)
    with GroundTruthWorker(settings, spool_dir=tmp_path) as worker:
        previews = []
        for count in (20, 40, 60):
            worker.preview(first_frames(job, count))
            assert not worker.idle
            previews.append(worker.poll(120.0))
            assert worker.idle
        worker.submit(job)
        truth = worker.poll(120.0).ground_truth
    assert [(one.perspective, one.frames) for one in previews] == [(1, 20), (1, 40), (1, 60)]
    assert_same(truth, compute_ground_truth(job, settings))
    assert previews[-1].phase.shape == truth.reference_phase.shape
    assert previews[-1].origin_px == truth.origin_px
    assert list(tmp_path.iterdir()) == []


def test_a_preview_starts_where_the_one_before_ended():
    settings = RetrievalSettings(preview_epochs=1, batch_size=60, target_shape_px=(16, 16))  # slow
    job = make_job(1, with_object=False)
    truth = compute_ground_truth(make_job(1), RetrievalSettings(source="recorded", target_shape_px=(16, 16)))
    previewer = Previewer(settings)
    found = []
    for count in (30, 60, 60, 60):
        preview = previewer.make(first_frames(job, count), interrupted=lambda: False)
        top, left = (round(of - to) for of, to in zip(preview.origin_px, truth.origin_px, strict=True))
        height, width = preview.phase.shape
        known = truth.reference_phase[top : top + height, left : left + width]
        found.append(np.corrcoef(known.ravel(), preview.phase.ravel())[0, 1])
    assert found[1] < found[2] < found[3]
    another = Previewer(settings).make(replace(job, perspective=2), interrupted=lambda: False)
    fresh = Previewer(settings).make(job, interrupted=lambda: False)
    np.testing.assert_array_equal(another.phase, fresh.phase)
    assert not np.array_equal(fresh.phase, preview.phase)


def test_a_job_interrupts_a_preview(tmp_path):
    settings = RetrievalSettings(epochs=2, preview_epochs=100_000, batch_size=20, target_shape_px=(16, 16))
    job = make_job(1, with_object=False)
    with GroundTruthWorker(settings, spool_dir=tmp_path) as worker:
        worker.preview(job)
        with pytest.raises(ValueError, match="not idle"):
            worker.preview(job)
        worker.submit(job)
        assert worker.poll(120.0) is None  # the preview that was given up
        assert worker.poll(120.0).ground_truth is not None


def test_a_worker_that_is_killed_at_a_preview_still_has_all_attempts_for_its_job(tmp_path):
    told = []
    with GroundTruthWorker(RECORDED, spool_dir=tmp_path, warn=told.append) as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        worker.preview(make_job(3))
        worker.submit(make_job(3))
        kill_in_mid_job(worker)
        assert worker.poll(60.0) is None
        kill_in_mid_job(worker)
        assert worker.poll(60.0) is None
        assert worker.poll(60.0).error is None
    assert told == ["the ground-truth worker is gone (it was ended by SIGKILL); perspective 3 is tried once more"]


def test_a_preview_that_cannot_be_made_is_left_out(tmp_path):
    job = make_job(1, with_object=False)
    with GroundTruthWorker(RetrievalSettings(preview_epochs=1), spool_dir=tmp_path) as worker:
        worker.preview(replace(job, positions_px=job.positions_px[:-1]))
        assert worker.poll(120.0) is None
        assert worker.idle


def test_submitting_and_closing_do_not_wait_for_a_job(tmp_path):
    with GroundTruthWorker(ENDLESS, spool_dir=tmp_path) as worker:
        pid = worker.pid
        os.kill(pid, signal.SIGSTOP)  # so that whoever waits for it waits for ever
        worker.submit(make_job(0, with_object=False))
        assert worker.poll() is None
        os.kill(pid, signal.SIGCONT)
    assert not is_running(pid)
    assert list(tmp_path.iterdir()) == []


def test_the_worker_ends_when_its_parent_is_killed(tmp_path):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from ptychoflow.acquisition.retrieval.settings import RetrievalSettings\n"
        "from ptychoflow.acquisition.retrieval.worker import GroundTruthWorker\n"
        "worker = GroundTruthWorker(RetrievalSettings(source='recorded'), spool_dir=Path(sys.argv[1]))\n"
        "print(worker.pid, flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        worker_pid = int(parent.stdout.readline())
        assert is_running(worker_pid)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    wait_until(lambda: not is_running(worker_pid))
    assert list(tmp_path.iterdir()) == []


RETRIEVED = RetrievalSettings(source="ptychi", epochs=12, warm_start=True)


def test_a_job_that_starts_near_the_truth_ends_as_soon_as_it_explains_as_much(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_module, "STARTS_WITHIN_S", 60.0)
    first, second, third = (make_job(perspective) for perspective in (4, 2, 7))
    void = ObjectImage(np.ones((9, 9), np.complex64), (300.0, 300.0))
    with GroundTruthWorker(RETRIEVED, spool_dir=tmp_path) as worker:
        worker.submit(first)
        cold = worker.poll(60.0).ground_truth
        worker.offer_start(4, void)  # too late, but they come
        worker.submit(second)
        assert worker.poll(0.0) is None
        worker.offer_start(2, second.recorded)
        warm = worker.poll(60.0).ground_truth
        worker.submit(third)
        worker.offer_start(7, void)
        useless = worker.poll(60.0).ground_truth
    assert cold.epochs == useless.epochs == 12
    assert warm.epochs < 12
    assert warm.loss <= cold.loss < useless.loss
    found = compute_ground_truth(replace(second, recorded=None), RETRIEVED)
    truth = compute_ground_truth(second, RetrievalSettings(source="recorded"))
    lit = ~truth.void
    errors = [np.abs(one.phase[lit].astype(float) - truth.phase[lit]).mean() for one in (warm, found)]
    assert errors[0] < errors[1]


def test_a_job_without_anything_to_start_from_begins_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_module, "STARTS_WITHIN_S", 0.3)
    with GroundTruthWorker(RETRIEVED, spool_dir=tmp_path) as worker:
        for perspective in (0, 1):
            worker.submit(make_job(perspective))
        worker.offer_start(1, make_job(1).recorded)  # it is not at that one yet
        first, second = (worker.poll(60.0).ground_truth for _ in range(2))
        assert first.epochs == 12 > second.epochs
        worker.submit(make_job(2))
        wait_until(lambda: (result := worker.poll(0.1)) is not None and result.perspective == 2, timeout_s=60)


@pytest.mark.parametrize("algorithm", ["lsqml", "rpie"])
def test_algorithms_tell_a_loss_that_falls(algorithm):
    settings = RetrievalSettings(source="ptychi", algorithm=algorithm, batch_size=6)
    losses = [compute_ground_truth(make_job(), replace_epochs(settings, epochs)).loss for epochs in (1, 6)]
    assert losses[0] > losses[1] > 0


def replace_epochs(settings, epochs):
    return settings.model_copy(update={"epochs": epochs})


def test_a_worker_that_computes_on_processors_sees_no_gpu(tmp_path, monkeypatch):
    """The library that it uses asks every GPU for its name, which wakes it, or fails where another has it alone."""
    monkeypatch.delenv(VISIBLE_GPUS, raising=False)
    for device, expected in (("cpu", ""), ("auto", "0")):
        settings = RECORDED.model_copy(update={"device": Device(device)})
        with GroundTruthWorker(settings, spool_dir=tmp_path) as worker:
            assert psutil.Process(worker.pid).environ()[VISIBLE_GPUS] == expected


def test_a_worker_whose_gpu_is_lost_ends_so_that_another_is_started(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(worker_process, "read_job", lambda _: make_job())
    monkeypatch.setattr(worker_process, "compute_ground_truth", fail)
    message = JobMessage(3, "", "", (), "<u2", (16, 16), None)
    for initialized, synchronize in ((False, fail), (True, lambda: None)):
        monkeypatch.setattr("torch.cuda.is_initialized", lambda it=initialized: it)
        monkeypatch.setattr("torch.cuda.synchronize", synchronize)
        failed = worker_process._do(message, RECORDED, enough_loss=None)
        assert failed.reason == "RuntimeError: CUDA error: device-side assert triggered"
    monkeypatch.setattr("torch.cuda.synchronize", fail)
    with pytest.raises(SystemExit, match="cannot use its GPU any more: CUDA error"):
        worker_process._do(message, RECORDED, enough_loss=None)
