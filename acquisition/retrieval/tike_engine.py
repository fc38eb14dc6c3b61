"""Phase retrieval with tike 0.27 on a GPU (https://github.com/AdvancedPhotonSource/tike), where it is installed.

tike takes positions as the corner of a patch in pixels of the object, at least one pixel from its border, and keeps
zero frequency at pixel (0, 0); its transform is unitary.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

from ptychoflow.acquisition.retrieval.engine import (
    Canvas,
    Interrupted,
    Measurement,
    Reconstruction,
    canvas_for,
    never,
    require_square,
    starting_object,
)
from ptychoflow.acquisition.retrieval.probe import add_modes, scale_to_frames
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.streaming.errors import UserError

FRAME_AXES = (-2, -1)


class TikeEngine:
    """Runs tike's least-squares solver. Its results vary by rounding from run to run.

    Raises:
        UserError: tike or CuPy is not installed.
    """

    def __init__(self, settings: RetrievalSettings) -> None:
        self._tike = _import_tike()
        self._settings = settings

    def reconstruct(self, measurement: Measurement, *, interrupted: Callable[[], bool] = never) -> Reconstruction:
        """Return object and probe. Blocks until all epochs are done; it can be interrupted only before.

        Raises:
            Interrupted: something else is wanted.
            UserError: the frames are not square.
        """
        height, width = measurement.frames.shape[1:]
        require_square((height, width))
        if interrupted():
            raise Interrupted
        canvas = canvas_for(measurement.positions_px, (height, width))
        valid = np.ones((height, width), bool) if measurement.mask is None else ~measurement.mask
        frames = np.where(valid, measurement.frames, 0)
        result = self._tike.reconstruct(
            data=fft.ifftshift(frames, axes=FRAME_AXES),
            parameters=self._parameters(measurement, canvas, valid),
            num_gpu=1,
        )
        origin_y, origin_x = canvas.origin_px
        return Reconstruction(
            ObjectImage(result.psi[0].astype(np.complex64), (float(origin_y), float(origin_x))),
            result.probe[0, 0].astype(np.complex64),
            self._settings.epochs,
        )

    def _parameters(self, measurement: Measurement, canvas: Canvas, valid: npt.NDArray[np.bool_]) -> Any:
        settings, tike = self._settings, self._tike
        corners = measurement.positions_px - canvas.origin_px - measurement.frames.shape[-1] // 2
        scaled = scale_to_frames(measurement.probe, measurement.frames, measurement.mask)
        probe = add_modes(scaled, settings.probe_modes)
        batches = math.ceil(len(corners) / settings.batch_size)
        return tike.PtychoParameters(
            psi=starting_object(measurement, canvas)[np.newaxis],
            probe=probe[np.newaxis, np.newaxis],
            scan=corners.astype(np.float32),
            algorithm_options=tike.LstsqOptions(num_iter=settings.epochs, num_batch=batches),
            object_options=tike.ObjectOptions(),
            probe_options=tike.ProbeOptions(update_start=settings.fixed_probe_epochs)
            if settings.refine_probe
            else None,
            exitwave_options=tike.ExitWaveOptions(measured_pixels=fft.ifftshift(valid)),
        )


def _import_tike() -> ModuleType:
    try:
        return importlib.import_module("tike.ptycho")
    except ImportError as error:
        raise UserError(
            f"retrieval.source is tike, but it cannot be imported ({error}): "
            "install tike and CuPy on a machine with a GPU, or set retrieval.source to ptychi"
        ) from error
