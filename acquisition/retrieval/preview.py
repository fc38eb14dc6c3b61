"""Phase retrieval of a perspective that is still being scanned: an image to look at, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.retrieval.engine import Reconstruction
from ptychoflow.acquisition.retrieval.engines import make_engine
from ptychoflow.acquisition.retrieval.ground_truth import (
    GroundTruthJob,
    crop_to_patches,
    in_common_gauge,
    measurement_of,
    starting_probe,
)
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings


@dataclass(frozen=True)
class Preview:
    """What a perspective looks like so far."""

    perspective: int
    frames: int
    """That it was made of."""
    amplitude: npt.NDArray[np.float32]
    """(y, x)."""
    phase: npt.NDArray[np.float32]
    """(y, x), radians within ±π."""
    origin_px: tuple[float, float]
    """Position of pixel (0, 0)."""


class Previewer:
    """Makes previews, each from where the one before of the same perspective ended.

    Args:
        settings: of ground truth; a preview takes `preview_epochs` epochs.
    """

    def __init__(self, settings: RetrievalSettings) -> None:
        self._settings = settings.model_copy(update={"epochs": max(1, settings.preview_epochs)})
        self._before: tuple[int, Reconstruction] | None = None

    def make(self, job: GroundTruthJob, *, interrupted: Callable[[], bool]) -> Preview:
        """Return the preview of a perspective. Blocks for some epochs.

        Raises:
            Interrupted: `interrupted`, which is asked after every epoch, has become true.
            UserError: there is no telling a gauge, or no engine.
        """
        measurement, settings = measurement_of(job, starting_probe(job)), self._settings
        if self._before is not None and self._before[0] == job.perspective:
            before = self._before[1]
            measurement = replace(measurement, probe=before.probe, object_image=before.object_image)
            settings = settings.model_copy(update={"fixed_probe_epochs": 0})
        found = make_engine(settings).reconstruct(measurement, interrupted=interrupted)
        self._before = job.perspective, found
        shown = crop_to_patches(in_common_gauge(found, job, self._settings), job)
        return Preview(job.perspective, len(job.frames), np.abs(shown.values), np.angle(shown.values), shown.origin_px)
