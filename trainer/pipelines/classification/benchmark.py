"""Samples per second of the training loop on images, beside a bare PyTorch loop of the same network and batch."""

from __future__ import annotations

import copy
import statistics
import threading
import time
from typing import Any

import torch
from torch import nn

from ptychoflow.streaming.messages import ScanEnd
from ptychoflow.trainer.learner import Learner
from ptychoflow.trainer.loop import TrainingLoop
from ptychoflow.trainer.models.arithmetic import autocast, resolve
from ptychoflow.trainer.models.classifier import ImageClassifier
from ptychoflow.trainer.optimizer import make_optimizer
from ptychoflow.trainer.outcome import Outcome
from ptychoflow.trainer.pipelines.classification.pipeline import Classification
from ptychoflow.trainer.pipelines.classification.schedule import TaskSchedule
from ptychoflow.trainer.pipelines.classification.settings import ClassificationSettings, ImageSettings
from ptychoflow.trainer.pipelines.pipeline import Minibatch
from ptychoflow.trainer.settings import StrategyName
from ptychoflow.trainer.strategies.making import make_strategy
from ptychoflow.trainer.stream import Marker
from ptychoflow.trainer.time_report import TimeReport

TARGET_RATIO = 0.95
DISTINCT_BATCHES = 8


def bench_images(
    settings: ClassificationSettings, images: ImageSettings, *, classes: int = 1000, steps: int = 20, rounds: int = 7
) -> dict[str, Any]:
    """Measure this process's loop, fed from memory and with its buffer, and a bare loop in turn.

    Args:
        settings: strategy, network, batch size, buffer, precision.
        images: shape of the stored images and of what the network sees.
        classes: outputs of the network.
        steps: steps per round of either loop.
        rounds: rounds of each; medians are reported, the ratio is the median of the rounds' ratios.

    Returns:
        `results` with samples/s of both, hidden fraction and memory; `targets` with their ratio.
    """
    alone = settings.buffer.model_copy(update={"transport": "local"})
    settings = settings.model_copy(update={"buffer": alone})
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    network = ImageClassifier(images.classifier(settings.model, classes=classes))
    minibatches = [_minibatch(settings.batch_size, images, classes=classes) for _ in range(DISTINCT_BATCHES)]
    bare = _BareLoop(copy.deepcopy(network), settings, minibatches, device=device)
    with _OurLoop(network, settings, images, classes=classes, device=device) as ours:
        warm_up = 2 + settings.buffer.representatives // settings.buffer.candidates
        ours.run(minibatches, warm_up)
        bare.run(2)
        measured = [(ours.run(minibatches, steps), bare.run(steps)) for _ in range(rounds)]
        buffer = ours.report.buffer_figures()
    ratio = statistics.median(mine / other for mine, other in measured)
    result = {
        "strategy": settings.strategy.value,
        "model": settings.model.family.value if settings.model.family == "small" else settings.model.name,
        "image_px": images.image_px,
        "batch": settings.batch_size,
        "representatives": bare.representatives,
        "precision": resolve(settings.precision, device).value,
        "device": str(device),
        "ours_samples_per_s": statistics.median(mine for mine, _ in measured),
        "bare_samples_per_s": statistics.median(other for _, other in measured),
        "ratio": ratio,
        "hidden_fraction": buffer["hidden_fraction"] if buffer is not None else None,
        "device_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }
    target = {"name": "classification_ratio_to_bare", "value": ratio, "target": TARGET_RATIO, "direction": "min"}
    return {"results": [result], "targets": [target | {"met": ratio >= TARGET_RATIO}]}


class _Nothing(Outcome):
    """Evaluates nothing."""

    def end_section(self, marker: Marker) -> None:
        """Do nothing."""

    def end_stream(self) -> None:
        """Do nothing."""


class _MemoryStream:
    """Some steps' minibatches in turn; a `ptychoflow.trainer.stream.Stream`."""

    def __init__(self, minibatches: list[Minibatch], steps: int) -> None:
        self._minibatches, self._remaining = minibatches, steps

    def check(self) -> None:
        """Nothing can fail."""

    def next_minibatch(self, size: int, *, timeout_s: float) -> Minibatch | None:
        """Return the next minibatch, or None at the end."""
        if self._remaining == 0:
            return None
        self._remaining -= 1
        return self._minibatches[self._remaining % len(self._minibatches)]

    @property
    def marker(self) -> Marker | None:
        """The end, once all is served."""
        return ScanEnd(0) if self._remaining == 0 else None

    def pass_marker(self) -> None:
        """There are no sections."""

    def trained(self, samples: int) -> None:
        """Count nothing."""

    def reject(self, samples: int, *, reason: str) -> None:
        """Count nothing."""


class _OurLoop:
    def __init__(
        self,
        network: ImageClassifier,
        settings: ClassificationSettings,
        images: ImageSettings,
        *,
        classes: int,
        device: torch.device,
    ) -> None:
        pipeline = Classification(classes=classes, channels=images.channels, stored_px=images.stored_px)
        self._settings = settings
        schedule = TaskSchedule(settings.schedule, settings.learning_rate, minibatches=1)
        precision = resolve(settings.precision, device)
        self._learner = Learner(network, pipeline, settings, schedule=schedule, device=device, precision=precision)
        self._strategy = make_strategy(settings, pipeline, device=device, seed=0)
        self.report = TimeReport(self._strategy.buffer)

    def __enter__(self) -> _OurLoop:
        return self

    def __exit__(self, *_: object) -> None:
        if self._strategy.buffer is not None:
            self._strategy.buffer.close()

    def run(self, minibatches: list[Minibatch], steps: int) -> float:
        """Return samples per second over `steps` minibatches."""
        before, started_s = self.report.samples, time.perf_counter()
        TrainingLoop(
            self._settings,
            stream=_MemoryStream(minibatches, steps),
            strategy=self._strategy,
            learner=self._learner,
            outcome=_Nothing(),
            report=self.report,
            stop=threading.Event(),
        ).run()
        return (self.report.samples - before) / (time.perf_counter() - started_s)


class _BareLoop:
    """Forward, backward and optimiser over batches that are in memory; nothing else."""

    def __init__(
        self,
        network: ImageClassifier,
        settings: ClassificationSettings,
        minibatches: list[Minibatch],
        *,
        device: torch.device,
    ) -> None:
        drawn = settings.strategy is not StrategyName.INCREMENTAL
        self.representatives = settings.buffer.representatives if drawn else 0
        self._network = network.to(device).to(memory_format=torch.channels_last).train()
        self._optimizer = make_optimizer(settings.optimizer, self._network, rate=settings.learning_rate)
        self._precision, self._device = resolve(settings.precision, device), device
        self._batches = [self._with_more(minibatch, self.representatives) for minibatch in minibatches]

    def run(self, steps: int) -> float:
        """Return samples per second over `steps` steps."""
        samples, started_s = 0, time.perf_counter()
        for step in range(steps):
            images, label = self._batches[step % len(self._batches)]
            with autocast(self._precision, self._device):
                logits = self._network(images)[0]
            loss = nn.functional.cross_entropy(logits.float(), label)
            self._optimizer.zero_grad()
            torch.autograd.backward(loss)
            self._optimizer.step()
            samples += len(label)
        loss.item()
        return samples / (time.perf_counter() - started_s)

    def _with_more(self, minibatch: Minibatch, more: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.arange(len(minibatch["label"]) + more) % len(minibatch["label"])
        return minibatch["image"][rows].to(self._device), minibatch["label"][rows].to(self._device)


def _minibatch(count: int, images: ImageSettings, *, classes: int) -> Minibatch:
    shape = (count, images.channels, images.stored_px, images.stored_px)
    return {
        "image": torch.randint(0, 256, shape, dtype=torch.uint8),
        "label": torch.randint(0, classes, (count,)),
    }
