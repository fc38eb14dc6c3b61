"""Makes the strategy that the configuration names, with its buffer."""

from __future__ import annotations

import torch

from buffer import RehearsalBuffer
from streaming.errors import UserError
from trainer.pipelines.pipeline import Pipeline
from trainer.settings import BufferSettings, LearningSettings, StrategyName
from trainer.strategies.der import DarkExperienceReplay
from trainer.strategies.derpp import DarkExperienceReplayPlusPlus
from trainer.strategies.er import ExperienceReplay
from trainer.strategies.incremental import Incremental
from trainer.strategies.strategy import Rehearsal, Strategy


def make_strategy(settings: LearningSettings, pipeline: Pipeline, *, device: torch.device, seed: int) -> Strategy:
    """Return the strategy; with several ranks its buffer, which the caller closes, makes this collective.

    Raises:
        UserError: the buffer's sizes cannot work.
    """

    def buffer(strategy: type[Rehearsal]) -> RehearsalBuffer:
        return _open_buffer(settings.buffer, pipeline, strategy.stored(pipeline), device=device, seed=seed)

    match settings.strategy:
        case StrategyName.INCREMENTAL:
            return Incremental(pipeline, device=device)
        case StrategyName.ER:
            return ExperienceReplay(pipeline, buffer(ExperienceReplay), device=device)
        case StrategyName.DER:
            dark = buffer(DarkExperienceReplay)
            return DarkExperienceReplay(pipeline, dark, settings=settings.distillation, device=device)
        case StrategyName.DERPP:
            dark = buffer(DarkExperienceReplayPlusPlus)
            return DarkExperienceReplayPlusPlus(pipeline, dark, settings=settings.distillation, device=device)


def _open_buffer(
    settings: BufferSettings, pipeline: Pipeline, stored: tuple[str, ...], *, device: torch.device, seed: int
) -> RehearsalBuffer:
    try:
        return RehearsalBuffer(
            pipeline.schema(stored),
            capacity=settings.capacity,
            representatives=settings.representatives,
            candidates=settings.candidates,
            classes=pipeline.classes,
            policy=settings.policy,
            transport=settings.transport,
            seed=seed,
            device=device,
            timeout_s=settings.timeout_s,
        )
    except ValueError as error:
        raise UserError(f"trainer.buffer: {error}") from error
