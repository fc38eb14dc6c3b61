"""How many frames go by until a run that monitors sees that the specimen has changed: by ground truth, and without."""

from __future__ import annotations

import statistics
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptychoflow.acquisition.ptychography.service import acquire
from ptychoflow.acquisition.retrieval.ground_truth import GroundTruthJob, compute_ground_truth
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.settings import AcquisitionSettings, RegimeSettings
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import SimulationSettings, SpecimenKind, SpecimenPhase
from ptychoflow.inference_edge.ptychography.service import serve_edge
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.commands import CommandHub, CommandSender, Pause, Resume
from ptychoflow.streaming.events import AnyEvent, PerspectiveStarted, Regime, RegimeChanged, Telemetry
from ptychoflow.streaming.messages import GroundTruthSource, Weights
from ptychoflow.streaming.private_folder import private_folder
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.streaming.telemetry import TelemetryHub
from ptychoflow.streaming.weights_channel import WeightsServer
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings, NetworkConfig
from ptychoflow.trainer.models.tensor_file import digest
from ptychoflow.trainer.models.weights_file import Manifest, write_weights
from ptychoflow.workflow.benchmarks.results import BenchmarkFailed
from ptychoflow.workflow.target import make_target

FIRST = SpecimenPhase(kind=SpecimenKind.INTEGRATED_CIRCUIT, perspectives=8, angle_range_deg=(0.0, 0.0))
SECOND = SpecimenPhase(kind=SpecimenKind.CELLS, perspectives=5, angle_range_deg=(0.0, 0.0))
NETWORK = NetworkConfig(model=ModelSettings(width=4), frame_shape_px=(32, 32), target_shape_px=(16, 16))
REGIME = RegimeSettings(ssim=0.3, consecutive=2, one_in=4)
RETRIEVAL = RetrievalSettings(epochs=8, target_shape_px=NETWORK.target_shape_px)
NEVER = 1e6
"""No residual is so many times another."""
FRAMES_EACH = 100
"""In a perspective."""
STEPS = 400
TAUGHT_PERSPECTIVES = 2
RATE_HZ = 100.0
SEEDS = 3
FIRST_SEED = 10
"""Those below were looked at when the ratio and the number of frames were chosen."""
GAIN_TARGET = 3.0
TIMEOUT_S = 180.0


def bench_drift(*, seeds: int = SEEDS) -> dict[str, Any]:
    """Return `results` and `targets`; takes about a minute for each seed."""
    results = []
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        source = changing_scan(seed)
        weights = weights_that_know_the_first_specimen(source)
        for rule, ratio in (("ground_truth", NEVER), ("residual", REGIME.residual_ratio)):
            regime = REGIME.model_copy(update={"residual_ratio": ratio})
            changes = scan_under_watch(source, weights, regime=regime)
            results.append({"rule": rule, "seed": seed, "rate_hz": RATE_HZ, **_delay(changes)})
    medians = {
        rule: statistics.median(case["delay_frames"] for case in results if case["rule"] == rule)
        for rule in ("ground_truth", "residual")
    }
    gain = medians["ground_truth"] / max(medians["residual"], 1)
    return {"results": results, "targets": [make_target("drift_delay_gain", gain, GAIN_TARGET, "min")]}


def changing_scan(seed: int) -> SimulationSettings:
    """Return a scan during which another kind of specimen comes in."""
    return SimulationSettings(
        specimens=(FIRST, SECOND),
        frames_per_perspective=FRAMES_EACH,
        frame_shape_px=NETWORK.frame_shape_px,
        seed=5 + seed,
    )


def weights_that_know_the_first_specimen(source: SimulationSettings) -> bytes:
    """Return the weights file of a network that has learned the first perspectives of a scan. Blocks for seconds."""
    counts, target = _samples(source)
    torch.manual_seed(0)
    network = FrameNetwork(NETWORK)
    network.scale_input_to(network.input_power(counts))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(STEPS):
        rows = torch.randint(len(counts), (24,))
        output = network(counts[rows])
        errors = [(there - truth[rows]).abs().mean() for there, truth in zip(output, target, strict=True)]
        optimizer.zero_grad()
        torch.stack(errors).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    manifest = Manifest(
        version=1, step=STEPS, network=NETWORK, validation_loss=None, final=True, created_at=datetime.now(UTC), run="a"
    )
    return write_weights(network, manifest, constant=Patches(*(channel.mean(0) for channel in target)))


def scan_under_watch(source: SimulationSettings, weights: bytes, *, regime: RegimeSettings) -> list[RegimeChanged]:
    """Scan with an edge and without a trainer; return how the regime changed. Blocks until the scan is over.

    The last perspective of the first specimen waits until the run monitors, however slow the host is.

    Raises:
        BenchmarkFailed: the run does not monitor in time.
    """
    watch, stop = _Watch(), threading.Event()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        network = NetworkSettings(sockets_dir=stack.enter_context(private_folder()))
        run = RunContext("drift", folder, seed=1)
        hub = TelemetryHub(network, jsonl=folder / "telemetry.jsonl", on_event=watch.take)
        stack.enter_context(closing(hub))
        stack.enter_context(closing(CommandHub(network)))
        commands = stack.enter_context(closing(CommandSender(network)))
        trainer = stack.enter_context(closing(WeightsServer(network)))
        trainer.publish(Weights(1, digest(weights), step=STEPS, final=True), weights)
        acquisition = AcquisitionSettings(trainer=False, rate_hz=RATE_HZ, regime=regime)
        edge = EdgeSettings(score_period_s=0.2)
        parts = [
            threading.Thread(target=serve_edge, args=(edge,), kwargs={"network": network, "run": run, "stop": stop}),
            threading.Thread(
                target=acquire,
                args=(source, acquisition, RETRIEVAL),
                kwargs={"network": network, "run": run, "stop": stop},
            ),
        ]
        for part in parts:
            part.start()
        try:
            watch.wait_until(watch.last_of_first_has_begun, "the last perspective of the first specimen")
            commands.send(Pause())
            watch.wait_until(watch.monitors, "the run to monitor")
            commands.send(Resume())
            for part in parts:
                part.join(TIMEOUT_S)
        finally:
            stop.set()
            for part in parts:
                part.join()
    return watch.changes


class _Watch:
    """Notes what is told of a scan."""

    def __init__(self) -> None:
        self.changes: list[RegimeChanged] = []
        self._begun = -1
        self._told = threading.Condition()

    def take(self, telemetry: Telemetry, _arrays: Arrays) -> None:
        event: AnyEvent = telemetry.event
        with self._told:
            if isinstance(event, RegimeChanged):
                self.changes.append(event)
            elif isinstance(event, PerspectiveStarted):
                self._begun = max(self._begun, event.perspective)
            self._told.notify_all()

    def last_of_first_has_begun(self) -> bool:
        return self._begun >= FIRST.perspectives - 1

    def monitors(self) -> bool:
        return bool(self.changes) and self.changes[-1].regime is Regime.MONITORING

    def wait_until(self, condition: Callable[[], bool], awaited: str) -> None:
        with self._told:
            if not self._told.wait_for(condition, TIMEOUT_S):
                raise BenchmarkFailed(f"waited {TIMEOUT_S:.0f} s for {awaited}")


def _delay(changes: list[RegimeChanged]) -> dict[str, Any]:
    """Return how many frames of the second specimen had been acquired when learning came back, and false alarms."""
    first_frames = FIRST.perspectives * FRAMES_EACH
    back = [change for change in changes if change.regime is Regime.LEARNING]
    seen = [change for change in back if change.acquired > first_frames]
    total = first_frames + SECOND.perspectives * FRAMES_EACH
    return {
        "delay_frames": (seen[0].acquired if seen else total) - first_frames,
        "seen": bool(seen),
        "false_alarms": len(back) - len(seen),
        "reason": seen[0].reason if seen else "",
    }


def _samples(source: SimulationSettings) -> tuple[torch.Tensor, Patches]:
    scan = SimulatedScan(source)
    truth_is_known = RetrievalSettings(source=GroundTruthSource.SIMULATED)
    frames, amplitude, phase = [], [], []
    for index in range(TAUGHT_PERSPECTIVES):
        perspective = scan.perspective(index)
        read = perspective.read(0, len(perspective))
        positions, image = perspective.positions_px, perspective.ground_truth
        job = GroundTruthJob(index, read, positions, perspective.probe, None, image, NETWORK.target_shape_px)
        truth = compute_ground_truth(job, truth_is_known)
        frames.append(read.astype(np.float32))
        amplitude.append(truth.amplitude.astype(np.float32))
        phase.append(truth.phase.astype(np.float32))
    counts, *target = (torch.from_numpy(np.concatenate(parts)) for parts in (frames, amplitude, phase))
    return counts, Patches(*target)
