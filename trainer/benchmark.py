"""Samples per second of the training loop, beside a bare PyTorch loop of the same network and batch in the same run."""

from __future__ import annotations

import copy
import statistics
import threading
import time
from typing import Any

import numpy as np
import torch

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.events import AnyEvent
from ptychoflow.streaming.messages import FrameRole, Samples, ScanEnd, ScanStart
from ptychoflow.trainer.arrival_stream import ArrivalStream
from ptychoflow.trainer.arrivals import Arrivals
from ptychoflow.trainer.batch import Batch, join
from ptychoflow.trainer.constant import MeanPatch
from ptychoflow.trainer.evaluation import Evaluator
from ptychoflow.trainer.learner import Learner
from ptychoflow.trainer.loop import TrainingLoop
from ptychoflow.trainer.models.arithmetic import autocast, resolve
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.models.settings import NetworkConfig
from ptychoflow.trainer.pipelines.ptychography.outcome import ScanOutcome
from ptychoflow.trainer.pipelines.ptychography.pipeline import FIELDS, Ptychography
from ptychoflow.trainer.reporting import StepReport
from ptychoflow.trainer.schedule import ScanSchedule
from ptychoflow.trainer.settings import Pace, StrategyName, TrainerSettings
from ptychoflow.trainer.strategies.making import make_strategy

TARGET_RATIO = 0.95
DISTINCT_BATCHES = 8


def bench_train(
    *, frame_px: int = 64, steps: int = 30, rounds: int = 9, settings: TrainerSettings | None = None
) -> dict[str, Any]:
    """Measure this process's loop, fed from memory and with its buffer, and a bare loop in turn.

    Args:
        frame_px: frames and patches are this wide and high.
        steps: steps per round of either loop.
        rounds: rounds of each; medians are reported, the ratio is the median of the rounds' ratios.
        settings: strategy, batch size, buffer, model, precision; the defaults without.

    Returns:
        `results` with samples/s of both, `targets` with their ratio.
    """
    settings = settings or TrainerSettings()
    alone = settings.buffer.model_copy(update={"transport": "local"})
    settings = settings.model_copy(update={"pace": Pace.STREAM, "finish_s": 0.0, "buffer": alone})
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = NetworkConfig(
        model=settings.model, frame_shape_px=(frame_px, frame_px), target_shape_px=(frame_px, frame_px)
    )
    torch.manual_seed(0)
    network = FrameNetwork(config)
    bare = _BareLoop(copy.deepcopy(network), settings, device=device)
    with _OurLoop(network, settings, device=device) as ours:
        ours.run(2 + settings.buffer.representatives // settings.buffer.candidates)
        bare.run(2)
        measured = [(ours.run(steps), bare.run(steps)) for _ in range(rounds)]
    ratio = statistics.median(mine / other for mine, other in measured)
    result = {
        "strategy": settings.strategy.value,
        "frame_px": frame_px,
        "batch": settings.batch_size,
        "representatives": _representatives(settings),
        "width": settings.model.width,
        "precision": resolve(settings.precision, device).value,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "ours_samples_per_s": statistics.median(mine for mine, _ in measured),
        "bare_samples_per_s": statistics.median(other for _, other in measured),
        "ratio": ratio,
    }
    target = {"name": "train_ratio_to_bare", "value": ratio, "target": TARGET_RATIO, "direction": "min"}
    return {"results": [result], "targets": [target | {"met": ratio >= TARGET_RATIO}]}


class _Nowhere:
    """Takes telemetry and drops it."""

    def send(self, event: AnyEvent) -> None:
        """Drop the event."""


class _OurLoop:
    def __init__(self, network: FrameNetwork, settings: TrainerSettings, *, device: torch.device) -> None:
        precision, config = resolve(settings.precision, device), network.config
        self._settings, self._scan = settings, _scan_start(config)
        pipeline = _pipeline(config)
        schedule = ScanSchedule(settings.schedule, settings.learning_rate)
        self._learner = Learner(network, pipeline, settings, schedule=schedule, device=device, precision=precision)
        self._evaluator = Evaluator(precision=precision, device=device)
        self._mean_patch = MeanPatch(config.target_shape_px, device=device)
        self._strategy = make_strategy(settings, pipeline, device=device, seed=0)

    def __enter__(self) -> _OurLoop:
        return self

    def __exit__(self, *_: object) -> None:
        if self._strategy.buffer is not None:
            self._strategy.buffer.close()

    def run(self, steps: int) -> float:
        """Return samples per second over a stream of `steps` minibatches that waits in memory."""
        arrivals = Arrivals(queue_samples=2 * steps * self._settings.batch_size)
        arrivals.take(0, self._scan, {})
        for step in range(steps):
            arrivals.take(step + 1, Samples(perspective=0), _samples(self._scan, self._settings.batch_size, step))
        arrivals.take(steps + 1, ScanEnd(frames=0), {})
        report = StepReport(_Nowhere(), rank=0, counts=arrivals.counts, buffer=self._strategy.buffer)
        outcome = ScanOutcome(
            self._settings,
            arrivals=arrivals,
            learner=self._learner,
            evaluator=self._evaluator,
            mean_patch=self._mean_patch,
            publication=None,
            report=report,
        )
        loop = TrainingLoop(
            self._settings,
            stream=ArrivalStream(arrivals),
            strategy=self._strategy,
            learner=self._learner,
            outcome=outcome,
            report=report,
            stop=threading.Event(),
        )
        started_s = time.perf_counter()
        loop.run()
        return report.samples / (time.perf_counter() - started_s)


class _BareLoop:
    """Forward, backward and Adam over batches that are in memory; nothing else."""

    def __init__(self, network: FrameNetwork, settings: TrainerSettings, *, device: torch.device) -> None:
        self._network = network.to(device).to(memory_format=torch.channels_last).train()
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=settings.learning_rate)
        self._precision: Precision = resolve(settings.precision, device)
        self._device = device
        samples = settings.batch_size + _representatives(settings)
        self._pipeline = _pipeline(network.config)
        scan = _scan_start(network.config)
        arrays = [_samples(scan, samples, number) for number in range(DISTINCT_BATCHES)]
        self._batches = [self._batch(minibatch) for minibatch in arrays]

    def run(self, steps: int) -> float:
        """Return samples per second over `steps` steps."""
        started_s = time.perf_counter()
        samples = 0
        for step in range(steps):
            batch = self._batches[step % DISTINCT_BATCHES]
            with autocast(self._precision, self._device):
                output = self._network(batch.inputs)
            loss = self._pipeline.error(output, batch.target).sum() / len(batch)
            self._optimizer.zero_grad()
            torch.autograd.backward(loss)
            self._optimizer.step()
            samples += len(batch)
        loss.item()
        return samples / (time.perf_counter() - started_s)

    def _batch(self, arrays: Arrays) -> Batch:
        minibatch = {name: torch.from_numpy(arrays[name]) for name in FIELDS}
        return join(minibatch, None, pipeline=self._pipeline, device=self._device)


def _representatives(settings: TrainerSettings) -> int:
    return 0 if settings.strategy is StrategyName.INCREMENTAL else settings.buffer.representatives


def _pipeline(config: NetworkConfig) -> Ptychography:
    return Ptychography(config.frame_shape_px, config.target_shape_px)


def _scan_start(config: NetworkConfig) -> ScanStart:
    return ScanStart(
        run="bench",
        perspectives=1,
        frame_shape_px=config.frame_shape_px,
        target_shape_px=config.target_shape_px,
        object_pixel_size_m=(1e-8, 1e-8),
        energy_eV=8800.0,
        detector_distance_m=1.0,
        detector_pixel_size_m=(75e-6, 75e-6),
    )


def _samples(scan: ScanStart, count: int, number: int) -> Arrays:
    random = np.random.default_rng(number)
    return {
        "index": np.arange(count * number, count * (number + 1), dtype=np.int32),
        "role": np.full(count, FrameRole.TRAIN, np.uint8),
        "diffraction": random.poisson(20.0, (count, *scan.frame_shape_px)).astype(np.uint16),
        "amplitude": random.uniform(0.5, 1.0, (count, *scan.target_shape_px)).astype(np.float16),
        "phase": random.uniform(-1.0, 1.0, (count, *scan.target_shape_px)).astype(np.float16),
    }
