"""`.npz` files of tike: intensities with zero frequency at pixel (0, 0), positions in object pixels, no geometry."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptychoflow.acquisition.readers.contents import FileContents, Positions
from ptychoflow.acquisition.readers.numpy_arrays import NpzFrames, arrays_in, is_npz, read_small
from ptychoflow.acquisition.readers.probes import to_modes
from ptychoflow.acquisition.readers.reader import FormatReader, ScanFiles
from ptychoflow.streaming.errors import UserError


class TikeReader(FormatReader):
    """Reads `data`, `scan` and `probe`."""

    format_name: ClassVar[str] = "tike npz"

    @staticmethod
    def recognises(files: ScanFiles) -> bool:
        """Whether the file holds tike's arrays."""
        return is_npz(files.path) and {"data", "scan"} <= set(arrays_in(files.path))

    def read(self, index: int) -> FileContents:
        """Return the scan. Raises `UserError` for what is missing or has the wrong shape or type."""
        path = self._files.path
        arrays = arrays_in(path)
        frames = NpzFrames(path, "data", arrays["data"])
        self._files.on_close(frames.close)
        scan = read_small(path, "scan", arrays["scan"])
        scan = scan.reshape(scan.shape[-2:]) if scan.ndim == 3 and len(scan) == 1 else scan
        if scan.ndim != 2 or scan.shape[1] != 2 or scan.dtype.kind not in "iuf":
            raise UserError(f"{path}: scan must be numbers (frames, 2), not {scan.dtype} of shape {scan.shape}")
        stored = read_small(path, "probe", arrays["probe"]) if "probe" in arrays else None
        probe, notes = (None, []) if stored is None else to_modes(stored, where=f"{path}: probe")
        return FileContents(
            where=str(path),
            frames=frames.stack().changed(lambda part: np.fft.fftshift(part, axes=(1, 2))),
            positions=Positions(scan.astype(np.float64), in_pixels=True),
            probe=probe,
            notes=notes,
        )
