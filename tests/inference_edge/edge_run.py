"""An edge in a thread with everything it talks to, for tests of the edge."""

from __future__ import annotations

import threading
import time

import h5py
import numpy as np
from edge_weights import network_of
from scipy import ndimage
from support import wait_until

from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.backends.runner import run_in_batches
from ptychoflow.inference_edge.backends.runner_factory import RunnerFactory
from ptychoflow.inference_edge.ptychography.service import serve_edge
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.inference_edge.stitching.mosaic import Mosaic, place_patches
from ptychoflow.streaming.device import Device
from ptychoflow.streaming.events import EdgeCounts, MosaicKind, PartState, PartStatus, PerspectiveScores
from ptychoflow.streaming.messages import FrameRole, Frames, GroundTruthSource, PerspectiveEnd, Reference, ScanStart
from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.settings import RunContext
from ptychoflow.streaming.telemetry import TelemetryHub
from ptychoflow.streaming.weights_channel import WeightsServer
from ptychoflow.trainer.models.precision import Precision

PIXEL_SIZE_M = (2e-8, 2e-8)
SCAN_START = ScanStart("test", None, (32, 32), (16, 16), PIXEL_SIZE_M, 9000.0, 1.0, (75e-6, 75e-6), wants_images=True)
FRAMES_EACH = 24
BATCH = 6
HELD_OUT_FROM = 15
SETTINGS = EdgeSettings(
    device=Device.CPU,
    precision=Precision.FLOAT32,
    backend=BackendName.EAGER,
    batch_max=12,
    min_coverage=1,
    image_period_s=0.05,
    score_period_s=0.05,
    report_period_s=0.05,
    refresh_share=1.0,
)


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


def reference_arrays(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    amplitude, phase = (ndimage.gaussian_filter(rng.standard_normal((60, 70)), 2).astype(np.float32) for _ in range(2))
    return {"amplitude": 1 + amplitude, "phase": phase}


def expected_image(perspective: int, version: int, chosen: slice = slice(None)):
    """What stitching the patches of `version` must give."""
    runner = RunnerFactory(SETTINGS).prepare(network_of(version))
    prediction = run_in_batches(runner, frames_of(perspective)[chosen], batch_max=SETTINGS.batch_max)
    mosaic = Mosaic()
    mosaic.stitch(place_patches(*prediction, positions_of(perspective)[chosen]))
    return mosaic.image()


class Run:
    """An edge in a thread, and everything it talks to."""

    def __init__(self, network, folder, *, trainer: WeightsServer | None = None) -> None:
        self.folder = folder
        self.events = []
        self.network = network
        self._hub = TelemetryHub(
            network, jsonl=folder / "t.jsonl", on_event=lambda telemetry, _: self.events.append(telemetry.event)
        )
        self.trainer = WeightsServer(network) if trainer is None else trainer
        self.publisher = self._new_publisher()
        self._post: list[tuple] = []
        self.unacknowledged = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._pump = threading.Thread(target=self._pump_until_over)
        self._pump.start()
        self.stop = threading.Event()
        self._edge: threading.Thread | None = None
        self.post(SCAN_START)

    def restart_acquisition(self) -> None:
        """Lose the publisher with all it has not sent, and announce the scan again."""
        with self._lock:
            self.publisher.close()
            self.publisher = self._new_publisher()
        self.post(SCAN_START)

    def restart_trainer(self) -> None:
        self.trainer.close()
        self.trainer = WeightsServer(self.network)

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

    def post_reference(self, perspective: int, *, seed: int = 7) -> None:
        message = Reference(perspective, float(perspective), (-16.0, -10.0), GroundTruthSource.SIMULATED, 0.0)
        self.post(message, reference_arrays(seed))

    def of(self, kind) -> list:
        return [event for event in list(self.events) if isinstance(event, kind)]

    def scores(self, perspective: int, kind: MosaicKind) -> PerspectiveScores | None:
        scores = [one for one in self.of(PerspectiveScores) if (one.perspective, one.kind) == (perspective, kind)]
        return scores[-1] if scores else None

    def inferred(self) -> int:
        return max((counts.inferred for counts in self.of(EdgeCounts)), default=0)

    def refreshed(self) -> int:
        return max((counts.refreshed for counts in self.of(EdgeCounts)), default=0)

    def wait_for_end(self, timeout_s: float = 60.0) -> None:
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
                for message, arrays in self._post:
                    self.publisher.post_to_edge(message, arrays)
                self._post = []
                self.publisher.pump(0.002)
                self.unacknowledged = self.publisher.unacknowledged

    def _new_publisher(self) -> Publisher:
        return Publisher(self.network, spool_dir=self.folder / "spool", memory_bytes=1 << 26, trainer=False)


def assert_shows(run: Run, perspective: int, kind: MosaicKind, *, version: int) -> None:
    amplitude, phase, origin_px = run.image(perspective, kind)
    expected = expected_image(perspective, version)
    assert origin_px == expected.origin_px
    np.testing.assert_allclose(amplitude, expected.amplitude, atol=1e-4)
    np.testing.assert_allclose(phase, expected.phase, atol=1e-4)
