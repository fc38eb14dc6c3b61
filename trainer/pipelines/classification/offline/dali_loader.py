"""Reads image files with NVIDIA DALI: decoded, scaled and cropped on the GPU, where the minibatches stay."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.dlpack import from_dlpack

from ptychoflow.acquisition.classification.decoding import decode, decode_all
from ptychoflow.acquisition.classification.image_folder import ImageFile
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.interface.pipeline import Minibatch
from ptychoflow.trainer.pipelines.classification.offline.loading import RanksCorruptFiles, Rows
from ptychoflow.trainer.pipelines.classification.settings import ImageSettings

log = logging.getLogger(__name__)

INPUT = "files"


class DaliLoader:
    """A `Loader` whose images lie on the current CUDA device; each minibatch is read when it is asked for.

    A minibatch with a file that DALI cannot decode is decoded by Pillow, which says which file it is.

    Args:
        files: all that may be asked for.
        settings: shape of the images, threads, and how many files may be corrupt.
        on_gpu: without, DALI decodes on the CPU, and images stay there; that is for comparing it with other loaders.

    Raises:
        UserError: DALI is not installed, or there is no GPU.
    """

    def __init__(self, files: Sequence[ImageFile], settings: ImageSettings, *, on_gpu: bool = True) -> None:
        require_dali(on_gpu=on_gpu)
        self._corrupt = RanksCorruptFiles(len(files), share=settings.corrupt_share)
        self._files, self._settings, self._on_gpu = files, settings, on_gpu
        # its own, so that waiting for a copy is not waiting for the training; one, as streams are handed out in turn
        self._copying = torch.cuda.Stream() if on_gpu else None  # type: ignore[no-untyped-call]
        self._pipeline: Any = None
        self._largest_batch = 0

    @property
    def corrupt(self) -> RanksCorruptFiles:
        """What could not be read."""
        return self._corrupt

    def load(self, batches: Sequence[Rows]) -> Iterator[Minibatch]:
        """Yield one minibatch per entry: `image` uint8 (n, channels, px, px) on the GPU and `label` int64 (n,).

        Raises:
            UserError: more files are corrupt than the settings allow.
        """
        for batch in batches:
            rows = [row for row in batch if row not in self._corrupt.reasons]
            if not rows:
                continue
            try:
                images = self._decode(rows)
            except (RuntimeError, OSError) as error:
                log.warning("DALI could not read a minibatch, Pillow reads it: %s", _first_line(error))
                self._pipeline = None  # DALI's is of no use after an error
                rows, images = self._decode_slowly(rows)
            if rows:
                yield {"image": images, "label": torch.tensor([self._files[row].label for row in rows])}

    def _decode(self, rows: Rows) -> torch.Tensor:
        if self._pipeline is None or len(rows) > self._largest_batch:
            self._largest_batch = max(self._largest_batch, len(rows))
            number = torch.cuda.current_device() if self._on_gpu else None
            self._pipeline = build_pipeline(self._settings, batch=self._largest_batch, device=number)
        self._pipeline.feed_input(INPUT, [_read(self._files[row]) for row in rows])
        (images,) = self._pipeline.run()
        return _own_copy(images.as_tensor(), copying=self._copying)

    def _decode_slowly(self, rows: Rows) -> tuple[Rows, torch.Tensor]:
        """Return the rows that can be read, and their images; note the others."""
        shape = {"channels": self._settings.channels, "px": self._settings.stored_px}
        found = decode_all(rows, lambda row: decode(self._files[row].path, **shape), **shape)
        self._corrupt.note(found.faults)
        images = torch.from_numpy(found.pixels)
        return found.rows, images.cuda() if self._on_gpu else images


def build_pipeline(settings: ImageSettings, *, batch: int, device: int | None) -> Any:
    """Return a DALI pipeline from encoded files, uint8 (bytes,) each, to uint8 (n, channels, px, px).

    Args:
        settings: shape of the images, threads.
        batch: files at once, at most.
        device: number of the GPU; None decodes on the CPU.
    """
    # imported here because it is optional
    from nvidia.dali import Pipeline, fn, types  # noqa: PLC0415

    px = settings.stored_px
    threads = max(1, settings.workers)
    # what is run is what was fed last: minibatches differ in size and may be given up
    one_by_one: dict[str, Any] = {"prefetch_queue_depth": 1, "exec_async": False, "exec_pipelined": False}
    pipeline = Pipeline(batch_size=batch, num_threads=threads, device_id=device, **one_by_one)
    with pipeline:
        encoded = fn.external_source(name=INPUT, dtype=types.UINT8, ndim=1)
        colours = types.RGB if settings.channels == 3 else types.GRAY
        images = fn.decoders.image(encoded, device="cpu" if device is None else "mixed", output_type=colours)
        # the middle square with an antialiased triangle, as Pillow makes it
        images = fn.resize(images, size=[px, px], mode="not_smaller", interp_type=types.INTERP_TRIANGULAR)
        pipeline.set_outputs(fn.crop_mirror_normalize(images, crop=[px, px], dtype=types.UINT8, output_layout="CHW"))
    pipeline.build()
    return pipeline


def require_dali(*, on_gpu: bool = True) -> None:
    """Raise `UserError` if DALI is not installed, or there is no GPU where it is to use one."""
    obstacle = _obstacle(on_gpu=on_gpu)
    if obstacle is not None:
        raise UserError(f"images.loader is 'dali', but {obstacle}; or use images.loader = 'torchvision'")


def _obstacle(*, on_gpu: bool) -> str | None:
    """Return why DALI cannot be used here, and what would help."""
    if on_gpu and not torch.cuda.is_available():
        return "PyTorch finds no CUDA device"
    if find_spec("nvidia") is None or find_spec("nvidia.dali") is None:
        return "NVIDIA DALI is not installed: pip install 'ptychoflow[dali]'"
    return None


def _own_copy(images: Any, *, copying: torch.cuda.Stream | None) -> torch.Tensor:
    """Return a copy of DALI's output, whose memory the next minibatch is written to."""
    if copying is None:
        return from_dlpack(images).clone()
    with torch.cuda.stream(copying):
        copied = from_dlpack(images).clone()
    copying.synchronize()
    copied.record_stream(torch.cuda.current_stream())
    return copied


def _read(file: ImageFile) -> npt.NDArray[np.uint8]:
    return np.frombuffer(file.path.read_bytes(), np.uint8)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
