"""Phase retrieval with pty-chi (https://github.com/AdvancedPhotonSource/pty-chi).

pty-chi places a patch by its geometric centre, pixel (N - 1) / 2, keeps zero frequency at pixel (0, 0) and uses a
transform that is not unitary. This file is the only place that knows it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from ptychi import api
from ptychi.api.task import PtychographyTask
from scipy import fft

from ptychoflow.acquisition.retrieval.engine import (
    Canvas,
    Interrupted,
    Measurement,
    Reconstruction,
    canvas_for,
    never,
    starting_object,
)
from ptychoflow.acquisition.retrieval.probe import add_modes, scale_to_frames
from ptychoflow.acquisition.retrieval.settings import Algorithm, RetrievalSettings
from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.streaming.device import Device, use_cuda

Options = api.LSQMLOptions | api.RPIEOptions | api.DMOptions
log = logging.getLogger(__name__)

FRAME_AXES = (-2, -1)


class PtychiEngine:
    """Runs one of pty-chi's algorithms.

    `reconstruct` seeds the global random generators of Python, numpy and torch and sets torch's default device, as
    pty-chi does: run it in a process of its own.
    """

    def __init__(self, settings: RetrievalSettings) -> None:
        self._settings = settings
        found = torch.cuda.device_count()
        on_gpu = use_cuda(settings.device, found=found, gpu=settings.gpu, setting="retrieval.device")
        self._device = Device.CUDA if on_gpu else Device.CPU

    def reconstruct(self, measurement: Measurement, *, interrupted: Callable[[], bool] = never) -> Reconstruction:
        """Return object and probe; the same measurement and settings give the same bits on CPU."""
        logging.getLogger("ptychi").setLevel(logging.WARNING)
        canvas = canvas_for(measurement.positions_px, _frame_shape(measurement))
        log.info("%s of %d frames on %s", self._settings.algorithm.value, len(measurement.frames), self._device.value)
        task = self._make_task(measurement, canvas)
        epochs, loss = 0, float("inf")
        while epochs < self._settings.epochs and not _is_enough(loss, measurement.enough_loss):
            if interrupted():
                raise Interrupted
            task.run(1)
            epochs, loss = epochs + 1, _loss_of(task)
        values = task.get_data("object").cpu().numpy()[0]
        probe = task.get_data("probe").cpu().numpy()[0]
        origin_y, origin_x = canvas.origin_px
        unitary = np.sqrt(np.prod(_frame_shape(measurement)))
        return Reconstruction(
            ObjectImage(values.astype(np.complex64), (float(origin_y), float(origin_x))),
            (probe * unitary).astype(np.complex64),
            epochs,
            None if self._settings.algorithm is Algorithm.DM else loss,  # whose error says little about the frames
        )

    def _make_task(self, measurement: Measurement, canvas: Canvas) -> PtychographyTask:
        frame_shape = _frame_shape(measurement)
        unitary = np.sqrt(np.prod(frame_shape))
        scaled = scale_to_frames(measurement.probe, measurement.frames, measurement.mask)
        probe = add_modes(scaled, self._settings.probe_modes) / unitary
        positions = measurement.positions_px - canvas.origin_px
        valid = np.ones(frame_shape, bool) if measurement.mask is None else ~measurement.mask
        counts = np.where(valid, measurement.frames, 0).astype(np.float32)
        return PtychographyTask(
            self._options(len(positions), frame_shape),
            diffraction_data=fft.ifftshift(counts, axes=FRAME_AXES),
            object_data=starting_object(measurement, canvas)[np.newaxis],
            probe_data=probe[np.newaxis].astype(np.complex64),
            probe_position_y_px=positions[:, 0],
            probe_position_x_px=positions[:, 1],
            valid_pixel_mask=fft.ifftshift(valid),
        )

    def _options(self, frames: int, frame_shape_px: tuple[int, int]) -> Options:
        options = _options_of(self._settings)
        options.data_options.fft_shift = False
        options.object_options.determine_position_origin_coords_by = api.ObjectPosOriginCoordsMethods.SPECIFIED
        options.object_options.position_origin_coords = [(size - 1) / 2 - size // 2 for size in frame_shape_px]
        options.probe_options.optimizable = self._settings.refine_probe
        options.probe_options.optimization_plan.start = self._settings.fixed_probe_epochs
        reconstructor = options.reconstructor_options
        reconstructor.num_epochs = self._settings.epochs
        reconstructor.batch_size = min(self._settings.batch_size, frames)
        reconstructor.default_device = api.Devices.GPU if self._device is Device.CUDA else api.Devices.CPU
        reconstructor.random_seed = self._settings.seed
        reconstructor.allow_nondeterministic_algorithms = self._device is not Device.CUDA
        return options


def _loss_of(task: PtychographyTask) -> float:
    """Return the loss of the last epoch, the mean over its batches."""
    assert task.reconstructor is not None  # noqa: S101
    return float(task.reconstructor.loss_tracker.table["loss"].iloc[-1])


def _is_enough(loss: float, enough: float | None) -> bool:
    return enough is not None and loss <= enough


def _options_of(settings: RetrievalSettings) -> Options:
    match settings.algorithm:
        case Algorithm.LSQML:
            lsqml = api.LSQMLOptions()
            lsqml.reconstructor_options.rescale_probe_intensity_in_first_epoch = False
            return lsqml
        case Algorithm.RPIE:
            return api.RPIEOptions()
        case Algorithm.DM:
            dm = api.DMOptions()
            dm.reconstructor_options.chunk_length = settings.batch_size
            return dm


def _frame_shape(measurement: Measurement) -> tuple[int, int]:
    height, width = measurement.frames.shape[1:]
    return height, width
