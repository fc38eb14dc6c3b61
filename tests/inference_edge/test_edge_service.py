"""The edge service with a real publisher, real weights and a real telemetry hub."""

from __future__ import annotations

import hashlib
import threading
import time
from datetime import UTC, datetime

import h5py
import numpy as np
import pytest
import torch
from scipy import ndimage
from support import wait_until

from inference_edge.backends.base import BackendName
from inference_edge.inference import Imager
from inference_edge.mosaic import Mosaic, place_patches
from inference_edge.service import serve_edge
from inference_edge.settings import DeviceChoice, EdgeSettings
from streaming.errors import UserError
from streaming.events import (
    EdgeCounts,
    HeldOutScores,
    MosaicImage,
    MosaicKind,
    PartState,
    PartStatus,
    PerspectiveScores,
    WarningRaised,
    WeightsApplied,
    WeightsRejected,
)
from streaming.messages import (
    FirstPassScore,
    FrameRole,
    Frames,
    GroundTruthSource,
    PerspectiveEnd,
    Reference,
    ScanEnd,
    ScanStart,
    Weights,
)
from streaming.publisher import Publisher
from streaming.settings import RunContext
from streaming.telemetry import TelemetryHub
from streaming.weights_channel import WeightsServer
from trainer.models.frame_network import FrameNetwork
from trainer.models.precision import Precision
from trainer.models.ptychonn import Patches
from trainer.models.settings import ModelSettings, NetworkConfig
from trainer.models.weights_file import Manifest, write_weights

CONFIG = NetworkConfig(model=ModelSettings(width=2), frame_shape_px=(32, 32), target_shape_px=(16, 16))
PIXEL_SIZE_M = (2e-8, 2e-8)
FRAMES_EACH = 24
BATCH = 6
HELD_OUT_FROM = 15
SETTINGS = EdgeSettings(
    device=DeviceChoice.CPU,
    precision=Precision.FLOAT32,
    backend=BackendName.EAGER,
    batch_max=12,
    min_coverage=1,
    image_period_s=0.05,
    score_period_s=0.05,
    report_period_s=0.05,
    refresh_share=1.0,
)


def network_of(version: int) -> FrameNetwork:
    torch.manual_seed(version)
    return FrameNetwork(CONFIG).eval()


def weights(version: int, *, final: bool = False) -> tuple[Weights, bytes]:
    manifest = Manifest(
        version=version,
        step=version,
        network=CONFIG,
        validation_loss=None,
        final=final,
        created_at=datetime.now(UTC),
        run="test",
    )
    constant = Patches(amplitude=torch.ones(16, 16), phase=torch.zeros(16, 16))
    data = write_weights(network_of(version), manifest, constant=constant)
    return Weights(version, hashlib.sha256(data).hexdigest(), step=version, final=final), data


def frames_of(perspective: int) -> np.ndarray:
    return np.random.default_rng(perspective).poisson(6, (FRAMES_EACH, 32, 32)).astype(np.uint16)


def positions_of(perspective: int) -> np.ndarray:
    rows, columns = np.divmod(np.arange(FRAMES_EACH), 6)
    return np.stack([rows * 5.3 - 7, columns * 5.1 + perspective], axis=1)


def batch_of(perspective: int, start: int) -> dict[str, np.ndarray]:
    chosen = slice(start, start + BATCH)
    index = np.arange(FRAMES_EACH, dtype=np.int32)
    role = np.where(index >= HELD_OUT_FROM, FrameRole.HELD_OUT, FrameRole.TRAIN).astype(np.uint8)
    return {
        "index": index[chosen],
        "role": role[chosen],
        "position_px": positions_of(perspective)[chosen],
        "diffraction": frames_of(perspective)[chosen],
    }


def reference_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    amplitude, phase = (ndimage.gaussian_filter(rng.standard_normal((60, 70)), 2).astype(np.float32) for _ in range(2))
    return {"amplitude": 1 + amplitude, "phase": phase}


def expected_image(perspective: int, version: int, chosen: slice = slice(None)):
    """What stitching the patches of `version` must give."""
    imager = Imager(SETTINGS)
    prediction = imager.predict(imager.prepare(network_of(version)), frames_of(perspective)[chosen])
    mosaic = Mosaic()
    mosaic.add(place_patches(*prediction, positions_of(perspective)[chosen]))
    return mosaic.image()


class Run:
    """An edge in a thread, and everything it talks to."""

    def __init__(self, network, folder) -> None:
        self.folder = folder
        self.events = []
        self.network = network
        self._hub = TelemetryHub(
            network, jsonl=folder / "t.jsonl", on_event=lambda telemetry, _: self.events.append(telemetry.event)
        )
        self.trainer = WeightsServer(network)
        self.publisher = Publisher(network, spool_dir=folder / "spool", memory_bytes=1 << 26, trainer=False)
        self._post: list[tuple] = []
        self.unacknowledged = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._pump = threading.Thread(target=self._pump_until_over)
        self._pump.start()
        self.stop = threading.Event()
        self._edge: threading.Thread | None = None
        self.post(ScanStart("test", None, (32, 32), (16, 16), PIXEL_SIZE_M, 9000.0, 1.0, (75e-6, 75e-6)))

    def start_edge(self, settings: EdgeSettings = SETTINGS) -> None:
        context = RunContext("test", self.folder, 0)
        arguments = {"network": self.network, "run": context, "stop": self.stop}
        self._edge = threading.Thread(target=serve_edge, args=(settings,), kwargs=arguments)
        self._edge.start()

    def post(self, message, arrays=None) -> None:
        with self._lock:
            self._post.append((message, arrays))
            self.unacknowledged += 1

    def post_frames(self, perspective: int, *starts: int) -> None:
        for start in starts or range(0, FRAMES_EACH, BATCH):
            self.post(Frames(perspective, float(perspective), time.time()), batch_of(perspective, start))

    def post_perspective(self, perspective: int) -> None:
        self.post_frames(perspective)
        self.post(PerspectiveEnd(perspective, float(perspective), FRAMES_EACH))

    def post_reference(self, perspective: int) -> None:
        message = Reference(perspective, float(perspective), (-16.0, -10.0), GroundTruthSource.SIMULATED, 0.0)
        self.post(message, reference_arrays())

    def of(self, kind) -> list:
        return [event for event in list(self.events) if isinstance(event, kind)]

    def scores(self, perspective: int, kind: MosaicKind) -> PerspectiveScores | None:
        scores = [one for one in self.of(PerspectiveScores) if (one.perspective, one.kind) == (perspective, kind)]
        return scores[-1] if scores else None

    def inferred(self) -> int:
        return max((counts.inferred for counts in self.of(EdgeCounts)), default=0)

    def refreshed(self) -> int:
        return max((counts.refreshed for counts in self.of(EdgeCounts)), default=0)

    def wait_for_end(self, timeout_s: float = 20.0) -> None:
        self._edge.join(timeout_s)
        assert not self._edge.is_alive()
        wait_until(lambda: any(one.state is PartState.DONE for one in self.of(PartStatus)))

    def close(self) -> None:
        self.stop.set()
        if self._edge is not None:
            self._edge.join()
        self._over.set()
        self._pump.join()
        self.publisher.close()
        self.trainer.close()
        self._hub.close()

    def image(self, perspective: int, kind: MosaicKind):
        with h5py.File(self.folder / "images" / f"perspective_{perspective:04d}.h5") as file:
            group = file[kind.value]
            return group["amplitude"][()], group["phase"][()], tuple(group.attrs["origin_px"])

    def _pump_until_over(self) -> None:
        while not self._over.is_set():
            with self._lock:
                waiting, self._post = self._post, []
            for message, arrays in waiting:
                self.publisher.post_to_edge(message, arrays)
            self.publisher.pump(0.005)
            with self._lock:
                self.unacknowledged = self.publisher.unacknowledged + len(self._post)


@pytest.fixture
def run(network, tmp_path):
    one = Run(network, tmp_path)
    yield one
    one.close()


def assert_shows(run: Run, perspective: int, kind: MosaicKind, *, version: int) -> None:
    amplitude, phase, origin_px = run.image(perspective, kind)
    expected = expected_image(perspective, version)
    assert origin_px == expected.origin_px
    np.testing.assert_allclose(amplitude, expected.amplitude, atol=1e-4)
    np.testing.assert_allclose(phase, expected.phase, atol=1e-4)


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
    held_out = {one.perspective: one for one in run.of(HeldOutScores)}
    assert held_out.keys() == {0, 1}
    assert (held_out[1].frames, held_out[1].model_version) == (FRAMES_EACH - HELD_OUT_FROM, 3)
    assert held_out[1].quality != run.scores(1, MosaicKind.REFRESHED).quality
    assert {one.kind for one in run.of(MosaicImage)} == set(MosaicKind)
    wait_until(lambda: run.unacknowledged == 0)


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
    assert run.of(EdgeCounts)[-1].inferred == FRAMES_EACH
    assert_shows(run, 0, MosaicKind.FIRST_PASS, version=1)
    assert_shows(run, 1, MosaicKind.REFRESHED, version=2)
    wait_until(lambda: run.unacknowledged == 0)
