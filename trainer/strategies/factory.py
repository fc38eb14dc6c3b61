"""Makes the strategy that the configuration names, with its buffer."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ptychoflow.buffer import RehearsalBuffer
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.interface.pipeline import Pipeline
from ptychoflow.trainer.settings import LearningSettings, StrategyName
from ptychoflow.trainer.strategies.buffer_check import require_reachable
from ptychoflow.trainer.strategies.der import DarkExperienceReplay
from ptychoflow.trainer.strategies.derpp import DarkExperienceReplayPlusPlus
from ptychoflow.trainer.strategies.derpp_two_draws import TwoDrawDarkExperienceReplayPlusPlus
from ptychoflow.trainer.strategies.er import ExperienceReplay
from ptychoflow.trainer.strategies.incremental import Incremental
from ptychoflow.trainer.strategies.strategy import Rehearsal, Strategy
from ptychoflow.trainer.strategies.xder import RevisedDarkExperienceReplay

REHEARSALS: Mapping[StrategyName, type[Rehearsal]] = {
    StrategyName.ER: ExperienceReplay,
    StrategyName.DER: DarkExperienceReplay,
    StrategyName.DERPP: DarkExperienceReplayPlusPlus,
    StrategyName.DERPP_TWO_DRAWS: TwoDrawDarkExperienceReplayPlusPlus,
    StrategyName.XDER: RevisedDarkExperienceReplay,
}
"""All strategies that have a buffer."""


def make_strategy(settings: LearningSettings, pipeline: Pipeline, *, device: torch.device, seed: int) -> Strategy:
    """Return the strategy; with several ranks its buffer, which the caller closes, makes this collective.

    Raises:
        UserError: the buffer's sizes cannot work.
    """
    if settings.strategy is StrategyName.INCREMENTAL:
        return Incremental(pipeline, device=device)
    strategy = REHEARSALS[settings.strategy]
    buffer = _open_buffer(settings, pipeline, strategy, device=device, seed=seed)
    begins_at_items = settings.buffer.rehearse_from_items
    if issubclass(strategy, DarkExperienceReplay):
        return strategy(
            pipeline, buffer, settings=settings.distillation, device=device, begins_at_items=begins_at_items
        )
    return strategy(pipeline, buffer, device=device, begins_at_items=begins_at_items)


def item_bytes(strategy: StrategyName, pipeline: Pipeline) -> int:
    """Return how many bytes an item takes in the buffer of a strategy that has one."""
    return pipeline.schema(REHEARSALS[strategy].stored(pipeline)).nbytes


def _open_buffer(
    learning: LearningSettings, pipeline: Pipeline, strategy: type[Rehearsal], *, device: torch.device, seed: int
) -> RehearsalBuffer:
    settings = learning.buffer
    try:
        buffer = RehearsalBuffer(
            pipeline.schema(strategy.stored(pipeline)),
            capacity=None if settings.capacity_bytes else settings.capacity,
            capacity_bytes=settings.capacity_bytes or None,
            representatives=strategy.draws * settings.representatives,
            candidates=settings.candidates,
            classes=pipeline.classes,
            policy=settings.policy,
            transport=settings.transport,
            seed=seed,
            device=device,
            timeout_s=settings.timeout_s,
        )
    except ValueError as error:
        raise UserError(f"{learning.SECTION}.buffer: {error}") from error
    try:
        require_reachable(learning, capacity=buffer.stats().capacity)
    except UserError:
        buffer.close()
        raise
    return buffer
