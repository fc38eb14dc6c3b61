"""The small trainings that several sections compare."""

from __future__ import annotations

import numpy as np
import torch

from ptychoflow.trainer.interface.batch import Batch, join
from ptychoflow.trainer.interface.pipeline import Minibatch
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings, NetworkConfig
from ptychoflow.trainer.pipelines.ptychography.pipeline import Ptychography
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.settings import BufferSettings, StrategyName
from ptychoflow.trainer.training.learner import Learner
from ptychoflow.trainer.training.schedule import ScanSchedule
from ptychoflow.workflow.benchmarks.gpu.section import Setup


def frame_px(setup: Setup) -> int:
    """Return how wide frames are."""
    return 16 if setup.short else 64


def batch_size(setup: Setup) -> int:
    """Return how many samples of the stream a step has."""
    return 4 if setup.short else 16


def settings_of(setup: Setup, strategy: StrategyName, *, record_passes: bool = False) -> TrainerSettings:
    """Return settings for one rank."""
    size = batch_size(setup)
    buffer = BufferSettings(capacity=500, representatives=size + size // 2, candidates=size, transport="local")
    return TrainerSettings(strategy=strategy, batch_size=size, buffer=buffer, record_passes=record_passes)


def pipeline_of(setup: Setup) -> Ptychography:
    """Return the pipeline for frames and patches of `frame_px`."""
    shape = (frame_px(setup), frame_px(setup))
    return Ptychography(shape, shape)


def network_of(setup: Setup, *, batch_norm: bool = True, px: int | None = None, seed: int = 0) -> FrameNetwork:
    """Return a network with the same random weights for the same seed, on the CPU."""
    torch.manual_seed(seed)
    side = px or frame_px(setup)
    model = ModelSettings(width=2, levels=2, batch_norm=batch_norm) if setup.short else ModelSettings()
    model = model.model_copy(update={"batch_norm": batch_norm})
    return FrameNetwork(NetworkConfig(model=model, frame_shape_px=(side, side), target_shape_px=(side, side)))


def learner_of(
    setup: Setup,
    settings: TrainerSettings,
    *,
    device: torch.device,
    precision: Precision,
    batch_norm: bool = True,
) -> Learner[FrameNetwork]:
    """Return a learner of a network with the same random weights every time."""
    return Learner(
        network_of(setup, batch_norm=batch_norm),
        pipeline_of(setup),
        settings,
        schedule=ScanSchedule(settings.schedule, settings.learning_rate),
        device=device,
        precision=precision,
    )


def minibatch_of(setup: Setup, number: int) -> Minibatch:
    """Return samples on the host, others for every number; a frame's brightness tells its ground truth.

    What learns from frames that do not belong to their ground truth has a loss that shows it.
    """
    random = np.random.default_rng(number)
    shape = (batch_size(setup), frame_px(setup), frame_px(setup))
    brightness = random.uniform(0.2, 1.8, (shape[0], 1, 1))
    return {
        "diffraction": torch.from_numpy(random.poisson(20.0 * brightness, shape).astype(np.uint16)),
        "amplitude": torch.from_numpy(np.broadcast_to(0.5 + 0.25 * brightness, shape).astype(np.float16)),
        "phase": torch.from_numpy(np.broadcast_to(brightness - 1.0, shape).astype(np.float16)),
    }


def batch_of(setup: Setup, number: int, device: torch.device) -> Batch:
    """Return the same samples as a batch on a device."""
    return join(minibatch_of(setup, number), None, pipeline=pipeline_of(setup), device=device)
