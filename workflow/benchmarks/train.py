"""Samples per second of the training loop, beside a bare PyTorch loop of the same network and batch in the same run."""

from __future__ import annotations

import copy
import threading
from contextlib import closing
from typing import Any

import numpy as np
import torch

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.events import AnyEvent
from ptychoflow.streaming.messages import FrameRole, Samples, ScanEnd, ScanStart
from ptychoflow.trainer.interface.pipeline import Minibatch
from ptychoflow.trainer.models.arithmetic import resolve
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.ptychonn_settings import NetworkConfig
from ptychoflow.trainer.online.ingest import SampleIngest
from ptychoflow.trainer.online.step_report import StepReport
from ptychoflow.trainer.pipelines.choice import format_of
from ptychoflow.trainer.pipelines.ptychography.callback import PtychographyCallback
from ptychoflow.trainer.pipelines.ptychography.evaluation import Evaluator
from ptychoflow.trainer.pipelines.ptychography.mean_patch import MeanPatch
from ptychoflow.trainer.pipelines.ptychography.pipeline import FIELDS, Ptychography
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.settings import Pace
from ptychoflow.trainer.strategies.factory import make_strategy
from ptychoflow.trainer.training.learner import Learner
from ptychoflow.trainer.training.loop import TrainingLoop
from ptychoflow.trainer.training.schedule import ScanSchedule
from ptychoflow.workflow.benchmarks.bare_loop import (
    DISTINCT_BATCHES,
    BareLoop,
    prepare_alone,
    representatives,
    samples_per_step,
)
from ptychoflow.workflow.benchmarks.paired_rounds import Took, measure_pairs, timed

TARGET_RATIO = 1.0
"""What ours does besides, it must save: in the optimiser, which the bare loop has as PyTorch makes it by default."""


def bench_train(
    *, frame_px: int = 64, steps: int = 15, rounds: int = 15, settings: TrainerSettings | None = None
) -> dict[str, Any]:
    """Return `results` and `targets` of this process's loop, fed from memory and with its buffer, beside a bare loop.

    Args:
        frame_px: frames and patches are this wide and high.
        steps: steps per round of either loop.
        rounds: measurements of each, in turn.
        settings: strategy, batch size, buffer, model, precision; the defaults without.
    """
    settings, device = prepare_alone(settings or TrainerSettings())
    settings = settings.model_copy(update={"pace": Pace.STREAM, "finish_s": 0.0})
    config = NetworkConfig(
        model=settings.model, frame_shape_px=(frame_px, frame_px), target_shape_px=(frame_px, frame_px)
    )
    torch.manual_seed(0)
    network = FrameNetwork(config)
    minibatches = [_minibatch(config, samples_per_step(settings), number) for number in range(DISTINCT_BATCHES)]
    bare_network = copy.deepcopy(network)
    with closing(_OurLoop(network, settings, device=device)) as ours:
        bare = BareLoop(bare_network, settings, _pipeline(config), ours.strategy, minibatches, device=device)
        ours.run(2 + settings.buffer.representatives // settings.buffer.candidates)
        bare.run(2)
        measured = measure_pairs(lambda: ours.run(steps), lambda: bare.run(steps), rounds=rounds)
    result = {
        "strategy": settings.strategy.value,
        "frame_px": frame_px,
        "batch": settings.batch_size,
        "representatives": representatives(settings),
        "width": settings.model.width,
        "precision": resolve(settings.precision, device).value,
        "device": str(device),
        "threads": torch.get_num_threads(),
    }
    return {"results": [result | measured.figures("samples")], "targets": measured.targets("train", TARGET_RATIO)}


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
        self.strategy = make_strategy(settings, pipeline, device=device, seed=0)

    def close(self) -> None:
        self.strategy.close()

    def run(self, steps: int) -> Took:
        """Return what a stream of `steps` minibatches that waits in memory took; samples are counted. Blocks."""
        ingest = SampleIngest(format_of, queue_samples=2 * steps * self._settings.batch_size)
        ingest.route_message(0, self._scan, {})
        for step in range(steps):
            ingest.route_message(
                step + 1, Samples(perspective=0), _samples(self._scan, self._settings.batch_size, step)
            )
        ingest.route_message(steps + 1, ScanEnd(frames=0), {})
        report = StepReport(_Nowhere(), rank=0, counts=ingest.counts, buffer=self.strategy.buffer)
        callback = PtychographyCallback(
            self._settings,
            ingest=ingest,
            learner=self._learner,
            evaluator=self._evaluator,
            mean_patch=self._mean_patch,
            publication=None,
            report=report,
        )
        loop = TrainingLoop(
            self._settings,
            stream=ingest.queue,
            strategy=self.strategy,
            learner=self._learner,
            callback=callback,
            report=report,
            stop=threading.Event(),
        )
        return timed(loop.run, items=1.0)._replace(items=report.samples)


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


def _minibatch(config: NetworkConfig, count: int, number: int) -> Minibatch:
    arrays = _samples(_scan_start(config), count, number)
    return {name: torch.from_numpy(arrays[name]) for name in FIELDS}
