"""What a training loop is measured against: forward, loss, backward, optimiser, over batches in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from ptychoflow.buffer import Representatives
from ptychoflow.streaming.device import use_cuda
from ptychoflow.streaming.freed_memory import keep_freed_memory
from ptychoflow.trainer.interface.agreement import Agreed
from ptychoflow.trainer.interface.batch import Batch, join
from ptychoflow.trainer.interface.pipeline import Minibatch, Output, Pipeline
from ptychoflow.trainer.models.arithmetic import autocast, resolve
from ptychoflow.trainer.settings import LearningSettings, StrategyName
from ptychoflow.trainer.strategies.derpp_two_draws import TwoDrawDarkExperienceReplayPlusPlus
from ptychoflow.trainer.strategies.strategy import Rehearsal, Strategy
from ptychoflow.trainer.training.optimizer import make_optimizer
from ptychoflow.workflow.benchmarks.paired_rounds import Took, timed

DISTINCT_BATCHES = 8

SettingsT = TypeVar("SettingsT", bound=LearningSettings)


class BareLoop:
    """A plain PyTorch loop with the same loss, and with the optimiser as PyTorch makes it by default.

    Args:
        network: trained by this loop alone.
        settings: batch size, optimiser, rate, precision.
        pipeline: says what the network sees.
        strategy: of the other loop; says what the loss is.
        minibatches: served in turn, each as large as one of the other loop with its representatives, which come last.
        device: where the network is trained.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: LearningSettings,
        pipeline: Pipeline,
        strategy: Strategy,
        minibatches: Sequence[Minibatch],
        *,
        device: torch.device,
    ) -> None:
        self._network = network.to(device).to(memory_format=torch.channels_last).train()
        self._optimizer = make_optimizer(
            settings.optimizer, self._network.parameters(), rate=settings.learning_rate, fused=False
        )
        self._precision, self._device, self._strategy = resolve(settings.precision, device), device, strategy
        self._batches = [
            _batch(minibatch, settings.batch_size, strategy, pipeline=pipeline, device=device)
            for minibatch in minibatches
        ]

    def run(self, steps: int) -> Took:
        """Return what `steps` steps took; samples are counted. Blocks."""
        return timed(lambda: self._make(steps), items=steps * len(self._batches[0]))

    def _make(self, steps: int) -> None:
        for step in range(steps):
            batch = self._batches[step % len(self._batches)]
            with autocast(self._precision, self._device):
                output: Output = self._network(batch.inputs)
            loss = self._strategy.loss(batch, output, alone(batch)).sum()
            self._optimizer.zero_grad()
            torch.autograd.backward(loss)
            self._optimizer.step()
        loss.item()


def _batch(minibatch: Minibatch, stream: int, strategy: Strategy, *, pipeline: Pipeline, device: torch.device) -> Batch:
    """Return a minibatch as the strategy gathers one: behind `stream` samples, all are representatives."""
    new = {name: tensor[:stream] for name, tensor in minibatch.items()}
    if not isinstance(strategy, Rehearsal):
        return join(new, None, pipeline=pipeline, device=device)
    old = {name: tensor[stream:] for name, tensor in minibatch.items()}
    count = len(old[pipeline.network_input])
    kept = {
        name: old[name] if name in old else _activations(pipeline, name, count) for name in strategy.stored(pipeline)
    }
    numbers = torch.zeros(count, dtype=torch.int64)
    return join(new, Representatives(kept, labels=numbers, ids=numbers), pipeline=pipeline, device=device)


def _activations(pipeline: Pipeline, name: str, count: int) -> Tensor:
    field = pipeline.fields[name]
    return torch.rand(count, *field.shape).to(field.torch_dtype)


def alone(batch: Batch) -> Agreed:
    """Return what one rank agrees on with itself."""
    return Agreed(
        stream=batch.stream,
        samples=len(batch),
        section_ended=False,
        stream_ended=False,
        stop=False,
        publish=False,
        finish=0.0,
    )


def prepare_alone(settings: SettingsT) -> tuple[SettingsT, torch.device]:
    """Return the settings for one process without others, and its device; sets up the process as that of a rank."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    keep_freed_memory()
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
    match settings.strategy:
        case StrategyName.INCREMENTAL:
            return 0
        case StrategyName.DERPP_TWO_DRAWS:
            return TwoDrawDarkExperienceReplayPlusPlus.draws * settings.buffer.representatives
        case _:
            return settings.buffer.representatives
