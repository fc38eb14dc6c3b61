"""What a training loop is measured against: forward, backward and optimiser over batches in memory, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from ptychoflow.streaming.device import use_cuda
from ptychoflow.trainer.interface.batch import join
from ptychoflow.trainer.interface.pipeline import Minibatch, Output, Pipeline
from ptychoflow.trainer.models.arithmetic import autocast, resolve
from ptychoflow.trainer.settings import LearningSettings, StrategyName
from ptychoflow.trainer.training.optimizer import make_optimizer
from ptychoflow.workflow.benchmarks.paired_rounds import Took, timed

DISTINCT_BATCHES = 8

SettingsT = TypeVar("SettingsT", bound=LearningSettings)


class BareLoop:
    """A plain PyTorch loop, with the optimiser as PyTorch makes it by default.

    Args:
        network: trained by this loop alone.
        settings: optimiser, rate, precision.
        pipeline: says what the network sees and how far its outputs are off.
        minibatches: served in turn, each as large as one of the other loop with its representatives.
        device: where the network is trained.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: LearningSettings,
        pipeline: Pipeline,
        minibatches: Sequence[Minibatch],
        *,
        device: torch.device,
    ) -> None:
        self._network = network.to(device).to(memory_format=torch.channels_last).train()
        self._optimizer = make_optimizer(
            settings.optimizer, self._network.parameters(), rate=settings.learning_rate, fused=False
        )
        self._precision, self._device, self._pipeline = resolve(settings.precision, device), device, pipeline
        self._batches = [join(minibatch, None, pipeline=pipeline, device=device) for minibatch in minibatches]

    def run(self, steps: int) -> Took:
        """Return what `steps` steps took; samples are counted. Blocks."""
        return timed(lambda: self._make(steps), items=steps * len(self._batches[0]))

    def _make(self, steps: int) -> None:
        for step in range(steps):
            batch = self._batches[step % len(self._batches)]
            with autocast(self._precision, self._device):
                output: Output = self._network(batch.inputs)
            loss = self._pipeline.error(output, batch.target).sum() / len(batch)
            self._optimizer.zero_grad()
            torch.autograd.backward(loss)
            self._optimizer.step()
        loss.item()


def prepare_alone(settings: SettingsT) -> tuple[SettingsT, torch.device]:
    """Return the settings for one process without others, and its device; sets the number of threads."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = torch.device(
        "cuda" if use_cuda(settings.device, found=torch.cuda.device_count(), setting="trainer.device") else "cpu"
    )
    alone = settings.buffer.model_copy(update={"transport": "local"})
    return settings.model_copy(update={"buffer": alone}), device


def samples_per_step(settings: LearningSettings) -> int:
    """Return how many samples a step trains on, representatives included."""
    return settings.batch_size + representatives(settings)


def representatives(settings: LearningSettings) -> int:
    """Return how many representatives a step trains on."""
    return 0 if settings.strategy is StrategyName.INCREMENTAL else settings.buffer.representatives
