"""Configuration of ground truth: where it comes from, and how phase retrieval computes it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from ptychoflow.streaming.device import Device
from ptychoflow.streaming.messages import GroundTruthSource
from ptychoflow.streaming.settings import Settings


class Algorithm(StrEnum):
    """Iterative algorithms that pty-chi offers and that converge here at these settings."""

    LSQML = "lsqml"
    """Least squares with maximum likelihood (Odstrčil et al., Optics Express 26, 3108, 2018)."""
    RPIE = "rpie"
    """Regularised ptychographic iterative engine (Maiden et al., Optica 4, 736, 2017).

    Finds slow phase changes in fewer epochs than LSQML. It adds up the updates of a batch, so it diverges when the
    frames of a batch overlap much: use batches of 8 to 20.
    """
    DM = "dm"
    """Difference map (Thibault et al., Ultramicroscopy 109, 338, 2009); uses all frames at once, and more epochs."""


class AutoVoid(StrEnum):
    """The threshold of void that is chosen for each perspective."""

    AUTO = "auto"


class RetrievalSettings(Settings):
    """Ground truth for the trainer and the reference images of the edge."""

    source: GroundTruthSource = GroundTruthSource.PTYCHI
    """Phase retrieval with pty-chi or tike, the object recorded in the file, or the simulated one."""
    algorithm: Algorithm = Algorithm.LSQML
    """pty-chi's algorithm; tike always runs its least-squares solver."""
    epochs: PositiveInt = 20
    """Passes over all frames of a perspective."""
    preview_epochs: NonNegativeInt = 3
    """Epochs of each preview: while a detector's series is still being taken, phase retrieval goes over what has come
    so far whenever it has nothing else to do, and starts from the preview before. 0 makes no previews. Nothing is
    learnt from them."""
    warm_start: bool = False
    """Start from what the edge has made of the perspective, and end as soon as the frames are explained as well as at
    the end of the last retrieval that started from nothing; `epochs` is then the most. Needs pty-chi's
    LSQML or RPIE, and an edge. Only the image of the first pass is taken, and only if it comes within seconds."""
    batch_size: PositiveInt = 50
    """Frames per update of object and probe."""
    refine_probe: bool = True
    """Update the probe together with the object."""
    fixed_probe_epochs: NonNegativeInt = 1
    """Epochs before probe refinement starts."""
    probe_modes: PositiveInt = 1
    """Incoherent probe modes at least; modes that the scan does not bring start as weak variants of its first."""
    device: Device = Device.AUTO
    """Where phase retrieval runs."""
    gpu: NonNegativeInt = 0
    """Which of the GPUs that are visible to the acquisition it uses; it does not touch the others."""
    threads: PositiveInt = 1
    """CPU threads of the worker process."""
    seed: NonNegativeInt = 0
    """The same seed and frames give the same reconstruction."""
    void_threshold: NonNegativeFloat | AutoVoid = 0.02
    """A frame is void when the mean squared phase (rad²) of its ground-truth patch is below this. `auto` takes a tenth
    of what the frames with the strongest phase of the perspective have, 0.02 at most: for weak phase objects."""
    target_shape_px: tuple[PositiveInt, PositiveInt] | None = None
    """Shape (y, x) of the central ground-truth patch of a frame; None takes the frame's shape."""
    minimum_illumination: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    """Pixels that got less light than this share of the median inside the scanned area are noise: the gauge does
    not look at them, and a retrieved or recorded object is replaced there by void (amplitude 1, phase 0)."""

    @model_validator(mode="after")
    def _can_start_warm(self) -> Self:
        able = self.source is GroundTruthSource.PTYCHI and self.algorithm is not Algorithm.DM
        if self.warm_start and not able:
            raise ValueError("warm_start needs source = 'ptychi' with the algorithm lsqml or rpie")
        return self

    def target_shape_for(self, frame_shape_px: tuple[int, int]) -> tuple[int, int]:
        """Return the shape (y, x) of the ground-truth patch of frames of `frame_shape_px`."""
        return self.target_shape_px or frame_shape_px
