"""`.npz` files of PtychoNN: intensities, positions in metres (y, x) and the size of the object pixel."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptychoflow.acquisition.readers.contents import FileContents, Positions
from ptychoflow.acquisition.readers.geometry import FoundGeometry
from ptychoflow.acquisition.readers.numpy_arrays import NpzFrames, arrays_in, is_npz, read_small
from ptychoflow.acquisition.readers.quantities import one_number
from ptychoflow.acquisition.readers.reader import FormatReader, ScanFiles
from ptychoflow.streaming.errors import UserError


class PtychonnReader(FormatReader):
    """Reads `reciprocal`, `position` and `pixelsize`."""

    format_name: ClassVar[str] = "PtychoNN npz"

    @staticmethod
    def recognises(files: ScanFiles) -> bool:
        """Whether the file holds PtychoNN's arrays."""
        return is_npz(files.path) and {"reciprocal", "position"} <= set(arrays_in(files.path))

    def read(self, index: int) -> FileContents:
        """Return the scan. Raises `UserError` for what is missing or has the wrong shape or type."""
        path = self._files.path
        arrays = arrays_in(path)
        frames = NpzFrames(path, "reciprocal", arrays["reciprocal"])
        self._files.on_close(frames.close)
        positions = read_small(path, "position", arrays["position"])
        if positions.ndim != 2 or positions.shape[1] != 2 or positions.dtype.kind not in "iuf":
            raise UserError(
                f"{path}: position must be numbers (frames, 2), not {positions.dtype} of shape {positions.shape}"
            )
        geometry = FoundGeometry()
        if "pixelsize" in arrays:
            size = read_small(path, "pixelsize", arrays["pixelsize"]).astype(np.float64)
            pixel_m = one_number(size, what="object pixel size", where=str(path))
            geometry = FoundGeometry(object_pixel_size_m=(pixel_m, pixel_m))
        return FileContents(
            where=str(path),
            frames=frames.stack(),
            geometry=geometry,
            positions=Positions(positions.astype(np.float64)),
            notes=["The array 'reciprocal' is taken for intensities (not their square roots)"],
        )
