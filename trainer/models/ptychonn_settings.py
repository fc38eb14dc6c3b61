"""What fixes a frame network: the layout of its PtychoNN, its input and output shapes, how counts become its input."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, PositiveFloat

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.settings import Settings

ShapePx = tuple[Annotated[int, Field(ge=1, le=8192)], Annotated[int, Field(ge=1, le=8192)]]


class Heads(StrEnum):
    """Which image channels a network predicts."""

    BOTH = "both"
    PHASE = "phase"
    """Phase alone; the amplitude is taken to be 1 everywhere."""


class InputTransform(StrEnum):
    """How counts become the network's input, before the multiplication by `input_scale`."""

    SQRT = "sqrt"
    """Square root of the counts: the modulus of the diffracted wave."""
    COUNTS = "counts"


class ModelSettings(Settings):
    """Layout of a PtychoNN; the defaults suit frames of 64 to 128 px on a CPU."""

    width: int = Field(default=16, ge=1, le=512)
    """Channels after the first level of the encoder; each further level doubles them."""
    levels: int = Field(default=3, ge=1, le=7)
    """Levels of the encoder, each of two convolutions and a halving of the image."""
    decoder_floor: int = Field(default=1, ge=1, le=8)
    """A decoder stage is never narrower than this many times `width` (original PtychoNN: 2, edge model: 1)."""
    fold: int = Field(default=2, ge=1, le=8)
    """Fold blocks of `fold` × `fold` detector pixels into channels first (1: published PtychoNN). Nothing is lost, and
    the first level, the most expensive one, works on a smaller image: twice as fast at 64 px, four times at 128 px."""
    batch_norm: bool = True
    """Without it the network is prone to settle on the mean patch."""
    heads: Heads = Heads.BOTH
    input_transform: InputTransform = InputTransform.SQRT

    @property
    def shrink(self) -> int:
        """How many pixels of a frame, in y and in x, become one of the code."""
        return self.fold << self.levels


class NetworkConfig(Settings):
    """Everything needed to rebuild a network before its tensors are loaded."""

    model: ModelSettings
    frame_shape_px: ShapePx
    """(y, x) of a diffraction frame."""
    target_shape_px: ShapePx
    """(y, x) of the central patch that is predicted."""
    amplitude_scale: PositiveFloat = 2.0
    """Upper end of the amplitude head's range; reconstructed amplitudes exceed 1, a plain sigmoid cannot."""


def require_fit(model: ModelSettings, frame_shape_px: tuple[int, int], target_shape_px: tuple[int, int]) -> None:
    """Raise `UserError` if a network of this layout cannot map frames to patches of these shapes (y, x)."""
    sizes = zip(frame_shape_px, target_shape_px, strict=True)
    if any(frame % model.fold or frame < model.shrink or target > frame for frame, target in sizes):
        raise UserError(
            f"a network with {model.levels} levels and fold {model.fold} cannot map frames of "
            f"{frame_shape_px} px to patches of {target_shape_px} px: frames must be a multiple of fold, "
            f"at least {model.shrink} px wide and not smaller than the patch; change trainer.model or the crop"
        )
