"""Makes the strategy that the configuration names, with its buffer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from buffer import Field, RehearsalBuffer, Schema
from buffer.schema import DTypeName
from streaming.errors import UserError
from trainer.batch import ACTIVATIONS
from trainer.models.ptychonn import Patches
from trainer.settings import StrategyName, TrainerSettings
from trainer.strategies.der import DarkExperienceReplay
from trainer.strategies.derpp import DarkExperienceReplayPlusPlus
from trainer.strategies.er import ExperienceReplay
from trainer.strategies.incremental import Incremental
from trainer.strategies.strategy import Strategy


@dataclass(frozen=True)
class SampleLayout:
    """What a sample of the stream looks like."""

    frame_shape_px: tuple[int, int]
    frame_dtype: DTypeName
    target_shape_px: tuple[int, int]

    def schema(self, names: tuple[str, ...]) -> Schema:
        """Return the schema of a buffer that stores the fields `names`."""
        patch = Field(self.target_shape_px, "float16")
        fields = dict.fromkeys((*Patches._fields, *ACTIVATIONS), patch)
        fields["diffraction"] = Field(self.frame_shape_px, self.frame_dtype)
        return Schema(**{name: fields[name] for name in names})


def make_strategy(settings: TrainerSettings, layout: SampleLayout, *, device: torch.device, seed: int) -> Strategy:
    """Return the strategy; with several ranks its buffer, which the caller closes, makes this collective.

    Raises:
        UserError: the buffer's sizes cannot work.
    """

    def buffer(strategy: type[Strategy]) -> RehearsalBuffer:
        return _open_buffer(settings, layout.schema(strategy.stored), device=device, seed=seed)

    match settings.strategy:
        case StrategyName.INCREMENTAL:
            return Incremental(device=device)
        case StrategyName.ER:
            return ExperienceReplay(buffer(ExperienceReplay), device=device)
        case StrategyName.DER:
            return DarkExperienceReplay(buffer(DarkExperienceReplay), settings.distillation, device=device)
        case StrategyName.DERPP:
            dark = buffer(DarkExperienceReplayPlusPlus)
            return DarkExperienceReplayPlusPlus(dark, settings.distillation, device=device)


def _open_buffer(settings: TrainerSettings, schema: Schema, *, device: torch.device, seed: int) -> RehearsalBuffer:
    buffer = settings.buffer
    try:
        return RehearsalBuffer(
            schema,
            capacity=buffer.capacity,
            representatives=buffer.representatives,
            candidates=buffer.candidates,
            policy=buffer.policy,
            transport=buffer.transport,
            seed=seed,
            device=device,
            timeout_s=buffer.timeout_s,
        )
    except ValueError as error:
        raise UserError(f"trainer.buffer: {error}") from error
