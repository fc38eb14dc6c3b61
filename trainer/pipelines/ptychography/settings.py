"""Configuration of the training on a scan."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from ptychoflow.trainer.models.ptychonn_settings import ModelSettings, NetworkConfig
from ptychoflow.trainer.settings import StreamSettings


class TrainerSettings(StreamSettings):
    """The `[trainer]` section of a scan."""

    model: ModelSettings = Field(default_factory=ModelSettings)
    head_start_s: NonNegativeFloat = 600.0
    """Until the first ground truth comes, and for so long at most, learn from frames and their probe alone what
    explains them; see `acquisition.head_start_frames`. A network from `init_weights` does not."""
    worsening_perspectives: PositiveInt = 3
    """Warn when the validation loss has worsened after so many perspectives in a row: over those that had ended
    by then, it rose each time by more than 1 %."""
    amplitude_scale: PositiveFloat = 2.0
    """Upper end of the amplitudes that the network can predict; a vacuum has 1."""

    def network(self, frame_shape_px: tuple[int, int], target_shape_px: tuple[int, int]) -> NetworkConfig:
        """Return what fixes a network from frames to patches of these shapes (y, x)."""
        return NetworkConfig(
            model=self.model,
            frame_shape_px=frame_shape_px,
            target_shape_px=target_shape_px,
            amplitude_scale=self.amplitude_scale,
        )
