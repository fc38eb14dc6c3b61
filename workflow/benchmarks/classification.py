"""Samples per second of the training loop on images, beside a bare PyTorch loop of the same network and batch."""

from __future__ import annotations

import copy
import threading
from contextlib import closing
from typing import Any

import torch

from ptychoflow.trainer.interface.callback import Callback
from ptychoflow.trainer.interface.pipeline import Minibatch
from ptychoflow.trainer.interface.stream import SectionEnd, Stream, StreamEnd
from ptychoflow.trainer.models.arithmetic import resolve
from ptychoflow.trainer.models.classifier import ImageClassifier, untrained_classifier
from ptychoflow.trainer.pipelines.classification.offline.schedule import TaskSchedule
from ptychoflow.trainer.pipelines.classification.pipeline import Classification
from ptychoflow.trainer.pipelines.classification.settings import ClassificationSettings, ImageSettings
from ptychoflow.trainer.strategies.factory import make_strategy
from ptychoflow.trainer.training.learner import Learner
from ptychoflow.trainer.training.loop import TrainingLoop
from ptychoflow.trainer.training.time_report import TimeReport
from ptychoflow.workflow.benchmarks.bare_loop import (
    DISTINCT_BATCHES,
    BareLoop,
    prepare_alone,
    representatives,
    samples_per_step,
)
from ptychoflow.workflow.benchmarks.paired_rounds import Took, measure_pairs, timed

TARGET_RATIO = 0.95


def bench_images(
    settings: ClassificationSettings, images: ImageSettings, *, classes: int = 1000, steps: int = 20, rounds: int = 7
) -> dict[str, Any]:
    """Return `results` and `targets` of this process's loop, fed from memory and with its buffer, beside a bare loop.

    Args:
        settings: strategy, network, batch size, buffer, precision.
        images: shape of the stored images and of what the network sees.
        classes: outputs of the network.
        steps: steps per round of either loop.
        rounds: measurements of each, in turn.
    """
    settings, device = prepare_alone(settings)
    torch.manual_seed(0)
    network = untrained_classifier(images.classifier(settings.model, classes=classes))
    pipeline = Classification(classes=classes, channels=images.channels, stored_px=images.stored_px)
    minibatches, batches = (
        [_minibatch(count, images, classes=classes) for _ in range(DISTINCT_BATCHES)]
        for count in (settings.batch_size, samples_per_step(settings))
    )
    bare_network = copy.deepcopy(network)
    with closing(_OurLoop(network, settings, pipeline, minibatches, device=device)) as ours:
        bare = BareLoop(bare_network, settings, pipeline, ours.strategy, batches, device=device)
        ours.run(2 + settings.buffer.representatives // settings.buffer.candidates)
        bare.run(2)
        measured = measure_pairs(lambda: ours.run(steps), lambda: bare.run(steps), rounds=rounds)
        buffer = ours.report.buffer_figures()
    result = {
        "strategy": settings.strategy.value,
        "model": settings.model.family.value if settings.model.family == "small" else settings.model.name,
        "image_px": images.image_px,
        "batch": settings.batch_size,
        "representatives": representatives(settings),
        "precision": resolve(settings.precision, device).value,
        "device": str(device),
        **measured.figures("samples"),
        "hidden_fraction": buffer["hidden_fraction"] if buffer is not None else None,
        "device_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }
    return {"results": [result], "targets": measured.targets("classification", TARGET_RATIO)}


class _MemoryStream(Stream):
    """Some steps' minibatches in turn, all of them one section that has no end of its own."""

    def __init__(self, minibatches: list[Minibatch], steps: int) -> None:
        self._minibatches, self._remaining = minibatches, steps

    def next_minibatch(self, size: int, *, timeout_s: float) -> Minibatch | None:
        """Return the next minibatch, or None at the end."""
        if self._remaining == 0:
            return None
        self._remaining -= 1
        return self._minibatches[self._remaining % len(self._minibatches)]

    @property
    def end(self) -> SectionEnd | StreamEnd | None:
        """The end, once all is served."""
        return StreamEnd() if self._remaining == 0 else None

    def begin_next_section(self) -> None:
        """There are no others."""


class _OurLoop:
    def __init__(
        self,
        network: ImageClassifier,
        settings: ClassificationSettings,
        pipeline: Classification,
        minibatches: list[Minibatch],
        *,
        device: torch.device,
    ) -> None:
        self._settings, self._minibatches = settings, minibatches
        schedule = TaskSchedule(settings.schedule, settings.learning_rate, minibatches=1)
        precision = resolve(settings.precision, device)
        self._learner = Learner(network, pipeline, settings, schedule=schedule, device=device, precision=precision)
        self.strategy = make_strategy(settings, pipeline, device=device, seed=0)
        self.report = TimeReport(self.strategy.buffer)

    def close(self) -> None:
        self.strategy.close()

    def run(self, steps: int) -> Took:
        """Return what `steps` minibatches took; samples are counted. Blocks."""
        before = self.report.samples
        loop = TrainingLoop(
            self._settings,
            stream=_MemoryStream(self._minibatches, steps),
            strategy=self.strategy,
            learner=self._learner,
            callback=Callback(),
            report=self.report,
            stop=threading.Event(),
        )
        return timed(loop.run, items=1.0)._replace(items=self.report.samples - before)


def _minibatch(count: int, images: ImageSettings, *, classes: int) -> Minibatch:
    shape = (count, images.channels, images.stored_px, images.stored_px)
    return {
        "image": torch.randint(0, 256, shape, dtype=torch.uint8),
        "label": torch.randint(0, classes, (count,)),
    }
