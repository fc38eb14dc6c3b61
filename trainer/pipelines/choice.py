"""Chooses the pipeline by the announcement of a stream."""

from __future__ import annotations

from typing import Any

from streaming.errors import UserError
from streaming.messages import ImagesStart, ScanStart
from trainer.arrivals import Arrivals
from trainer.assembly import Assembly
from trainer.device import Rank
from trainer.pipelines.imagenet.settings import ImageTrainerSettings
from trainer.settings import StreamSettings, TrainerSettings
from trainer.start import Announced


def assemble(
    settings: StreamSettings, announced: Announced, *, arrivals: Arrivals, rank: Rank, seed: int
) -> Assembly[Any]:
    """Return the parts of the training on the announced stream.

    Raises:
        UserError: the settings are those of another pipeline, or do not fit the stream.
    """
    # imported here, because each brings the libraries of its networks
    match announced.scan:
        case ScanStart() as scan if isinstance(settings, TrainerSettings):
            from trainer.pipelines.ptychography.assembly import ScanAssembly  # noqa: PLC0415

            dtype = announced.frame_dtype
            return ScanAssembly(settings, scan, arrivals=arrivals, rank=rank, seed=seed, frame_dtype=dtype)
        case ImagesStart() as start if isinstance(settings, ImageTrainerSettings):
            from trainer.pipelines.imagenet.assembly import ImageAssembly  # noqa: PLC0415

            return ImageAssembly(settings, start, arrivals=arrivals, rank=rank, seed=seed)
    comes = "a scan" if isinstance(announced.scan, ScanStart) else "images"
    raise UserError(f"{comes} came, but this trainer is set up for another pipeline; give all parts the same [source]")
